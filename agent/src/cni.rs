//! `ringfence cni`: the chained CNI plugin, which has a pod enforced for before its first container.
//!
//! It comes after the plugin that makes the interface, and makes none: it hands on what that one says, unchanged. A
//! runtime starts it by its name, without arguments, and says what it wants by the environment and on standard
//! input; the answer is JSON on standard output, an error too.
//!
//! Knows neither the datapath's programs nor a policy: it asks the agent.

mod answer;
pub(crate) mod install;
pub(crate) mod keep;
mod ordered;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    env,
    io::{self, Read as _, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::Value;

use self::{
    answer::{Code, Failure},
    request::{Asked, Command, OnUnavailable, Settings, VERSIONS},
};
use crate::{
    control::{
        Held, PodRequest,
        client::{self, ClientError},
    },
    datapath::{
        link::Links,
        sandbox::{Namespace, Sandbox},
    },
};

/// By which a runtime says what it wants.
pub(crate) const COMMAND: &str = "CNI_COMMAND";

/// What the plugin is called in a configuration, and its binary.
pub(crate) const NAME: &str = "ringfence";

/// No configuration of ours comes near it.
const LONGEST: u64 = 16 << 20;

/// Does what a runtime asks for.
pub(crate) fn run() -> ExitCode {
    let mut text = String::new();
    let read = io::stdin().take(LONGEST).read_to_string(&mut text);
    let done = match read {
        Ok(_) => run_with(|name| env::var(name).ok(), &text),
        Err(error) => Err(Failure::new(
            Code::Io,
            "cannot read the configuration",
            error.to_string(),
        )),
    };
    let (answer, code) = match done {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => (failure.value(request::version_of(&text)), ExitCode::FAILURE),
    };
    let written = serde_json::to_vec_pretty(&answer)
        .map_err(io::Error::from)
        .and_then(|text| io::stdout().write_all(&text));
    // Who does not read cannot be told.
    if written.is_err() {
        return ExitCode::FAILURE;
    }
    code
}

/// What is to be printed, if anything is.
fn run_with(
    variable: impl Fn(&str) -> Option<String>,
    text: &str,
) -> Result<Option<Value>, Failure> {
    let command = Command::read(variable(COMMAND).as_deref())?;
    match command {
        Command::Version => Ok(Some(serde_json::json!({
            "cniVersion": request::version_of(text),
            "supportedVersions": VERSIONS,
        }))),
        // What hangs at an interface goes with it, and the agent sees it go: nothing is asked of anybody, so
        // that a pod can always be taken down.
        Command::Del | Command::Gc => Ok(None),
        Command::Status => {
            let settings = Settings::read(text)?;
            match (settings.on_unavailable, client::status(&settings.socket)) {
                (OnUnavailable::Admit, _) | (OnUnavailable::Refuse, Ok(_)) => Ok(None),
                (OnUnavailable::Refuse, Err(error)) => Err(unavailable(&error, Code::NotAvailable)),
            }
        }
        Command::Add => {
            let settings = Settings::read(text)?;
            // Before anything is done, as nothing is given back without it.
            let result = settings.previous()?.clone();
            admit(&Asked::read(&variable)?, &settings)?;
            Ok(Some(result))
        }
        Command::Check => {
            let settings = Settings::read(text)?;
            settings.previous()?;
            admit(&Asked::read(&variable)?, &settings)?;
            Ok(None)
        }
    }
}

/// Returns once the kernel enforces for the pod, or if it may start without.
fn admit(asked: &Asked, settings: &Settings) -> Result<(), Failure> {
    let (interface, addresses) = sandbox(&asked.netns, &asked.interface)?;
    let request = PodRequest {
        namespace: asked.pod_namespace.clone(),
        name: asked.pod_name.clone(),
        uid: asked.pod_uid.clone(),
        interface,
        addresses,
        wait_ms: u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    match client::pod(&settings.socket, request) {
        Ok(Held { at: _ }) => Ok(()),
        Err(error) => match settings.on_unavailable {
            OnUnavailable::Refuse => Err(unavailable(&error, Code::TryAgainLater)),
            OnUnavailable::Admit => {
                // What the plugin says here, the runtime puts into its log.
                eprintln!(
                    "ringfence: pod {}/{} starts unconfined (onUnavailable: admit): {error}",
                    asked.pod_namespace, asked.pod_name
                );
                Ok(())
            }
        },
    }
}

fn unavailable(error: &ClientError, code: Code) -> Failure {
    Failure::new(
        code,
        "the pod may not start before ringfence enforces for it",
        format!(
            "{error}. See to the agent of this node (`ringfence status`), or let pods start without it by \
             `onUnavailable: admit`"
        ),
    )
}

/// The host side of an interface, if it has one, and the addresses that the sandbox has.
fn sandbox(
    netns: &Path,
    interface: &str,
) -> Result<(Option<String>, BTreeSet<std::net::IpAddr>), Failure> {
    let failed = |error: String| {
        let what = format!("cannot look into network namespace {}", netns.display());
        Failure::new(Code::Io, what, error)
    };
    let links = Links::list().map_err(|error| failed(error.to_string()))?;
    let namespace =
        Namespace::at(netns.to_path_buf()).map_err(|error| failed(error.to_string()))?;
    let sandbox = namespace
        .look(&links)
        .map_err(|error| failed(error.to_string()))?;
    let Sandbox::Other { ways, past, .. } = sandbox else {
        return Err(Failure::new(
            Code::Environment,
            "CNI_NETNS is the node's own network namespace",
            "the plugin is for pods with a network of their own",
        ));
    };
    if let Some(way) = ways.into_iter().find(|way| way.inner.name == interface) {
        return Ok((Some(way.name), way.inner.addresses));
    }
    match past.into_iter().find(|inner| inner.name == interface) {
        Some(inner) => Ok((None, inner.addresses)),
        None => Err(Failure::new(
            Code::Configuration,
            format!("there is no interface {interface} in the pod's network namespace"),
            "ringfence has to come after the plugin that makes it",
        )),
    }
}
