//! What an agent keeps of its capabilities once it is prepared, and who does what needs more.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
    thread::CapabilitySet,
};

use crate::{
    config::{Config, HubbleTls},
    control::status::PrivilegeStatus,
    daemon::inputs::Inputs,
    datapath::{
        helper::Helper,
        privileges::{self, ForFiles, Kept},
    },
    source::kubernetes::Source,
};

/// Gives up what nothing needs from here on, having started a helper for what the agent is not to do itself.
///
/// To be called before there are threads.
///
/// # Errors
///
/// If the kernel lets nothing be given up: an agent that keeps what it should not have is not started.
pub(super) fn give_up(
    config: &Config,
    inputs: &Inputs,
    kubernetes: Option<&Source>,
) -> anyhow::Result<(PrivilegeStatus, Option<Arc<Helper>>)> {
    let held = privileges::held().context("cannot ask for capabilities")?;
    let mut messages = Vec::new();
    let mut kept = privileges::of_agent(held);
    if kept.contains(CapabilitySet::SYS_ADMIN) {
        messages.push("CAP_SYS_ADMIN is kept, as it stands for CAP_BPF or CAP_PERFMON".to_owned());
    }
    let mut needed = needed(config, inputs);
    let of_api = kubernetes.map(Source::files).unwrap_or_default();
    needed.extend(of_api.into_iter().map(|path| (path, Access::READ_OK)));
    let for_files = privileges::for_files(held, || denied(&needed));
    if let Some(ForFiles { capability, path }) = for_files.context("cannot change capabilities")? {
        kept |= capability;
        let name = privileges::names(capability).concat();
        messages.push(format!("{name} is kept for the sake of {}", path.display()));
    }
    let helper = helper(held, &mut messages);
    privileges::restrict(Kept {
        effective: kept,
        permitted: kept,
        handed_on: CapabilitySet::empty(),
    })
    .context("cannot give up capabilities")?;
    let status = PrivilegeStatus {
        capabilities: privileges::names(kept),
        helper: None,
        messages,
    };
    Ok((status, helper))
}

fn helper(held: CapabilitySet, messages: &mut Vec<String>) -> Option<Arc<Helper>> {
    const LACK: &str = "live connections behind interfaces are neither taken up nor ended";
    if !held.contains(CapabilitySet::SYS_ADMIN) {
        messages.push(format!("CAP_SYS_ADMIN is missing: {LACK}"));
        return None;
    }
    if !held.contains(CapabilitySet::SYS_PTRACE) {
        messages.push(
            "CAP_SYS_PTRACE is missing: network namespaces are found by their mounts alone"
                .to_owned(),
        );
    }
    match Helper::start() {
        Ok(helper) => Some(Arc::new(helper)),
        Err(error) => {
            tracing::error!(%error, "cannot start the helper: {LACK}");
            messages.push(format!("the helper could not be started: {LACK}"));
            None
        }
    }
}

/// What is reached by its path again and again, and how.
fn needed(config: &Config, inputs: &Inputs) -> Vec<(PathBuf, Access)> {
    let changed = Access::WRITE_OK | Access::EXEC_OK;
    let mut needed: Vec<_> = inputs
        .seen()
        .map(|(path, is_folder)| {
            let listed = Access::READ_OK | Access::EXEC_OK;
            let how = if is_folder { listed } else { Access::READ_OK };
            (path.to_owned(), how)
        })
        .collect();
    needed.push((config.state_dir.clone(), changed));
    needed.push((config.bpffs.clone(), changed));
    needed.push((folder(&config.socket), changed));
    if let Some(hubble) = &config.hubble {
        let socket = hubble.socket.iter();
        needed.extend(socket.map(|path| (folder(path), changed)));
        let files = hubble.tls.iter().flat_map(HubbleTls::files);
        needed.extend(files.map(|path| (path.clone(), Access::READ_OK)));
    }
    for sink in config.all_sinks() {
        let (files, keys) = sink.paths();
        for path in files {
            // It may be moved, and is then made anew.
            needed.push((folder(&path), changed | Access::READ_OK));
            needed.push((path, Access::WRITE_OK | Access::READ_OK));
        }
        needed.extend(keys.into_iter().map(|path| (path, Access::READ_OK)));
    }
    needed
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Those whose owner, or mode, is in the way.
fn denied(needed: &[(PathBuf, Access)]) -> Vec<PathBuf> {
    let denied = needed.iter().filter(|(path, how)| {
        let access = accessat(CWD, path, *how, AtFlags::EACCESS);
        access == Err(Errno::ACCESS)
    });
    denied.map(|(path, _)| path.clone()).collect()
}
