//! `ringfence pods`: the pods of this node and where they are, as an agent finds them.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
};

use agent_policy::model::EndpointSpec;
use clap::Args;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::output::Format;
use crate::{
    daemon::pods::{self, Finder, Found, Placed, Told},
    exit::Answer,
    source::kubernetes::placement::{Beside, Placement},
};

/// Show the pods of this node, and where each would be held. Asks no agent; needs its rights.
#[derive(Debug, Args)]
pub(crate) struct PodsArgs {
    /// Go on with what changes.
    #[arg(long)]
    follow: bool,
    /// Look for cgroups of pods below this folder only.
    #[arg(long, value_name = "FOLDER")]
    below: Option<PathBuf>,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
}

/// A pod that has come, has changed or has gone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'f> {
    uid: &'f str,
    /// Absent if it has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    addresses: BTreeSet<IpAddr>,
    /// Further interfaces of it that are held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Further<'f>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'f [String],
}

#[derive(Debug, Serialize)]
struct Further<'f> {
    at: String,
    addresses: &'f BTreeSet<IpAddr>,
}

struct Printer {
    output: Format,
    failed: Option<io::Error>,
}

pub(crate) fn run(args: PodsArgs) -> anyhow::Result<Answer> {
    let PodsArgs {
        follow,
        below,
        output,
    } = args;
    let mut finder = Finder::new(below, None, None);
    let mut printer = Printer {
        output,
        failed: None,
    };
    if follow {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Nobody gives orders; that nobody ever will would end it.
        let (_orders, none) = mpsc::channel(1);
        let (looked, _) = oneshot::channel();
        runtime.block_on(pods::follow(finder, Box::new(printer), none, looked))?;
        return Ok(Answer::Yes);
    }
    finder.look_once(&mut printer);
    match printer.failed {
        Some(error) => Err(error.into()),
        None => Ok(Answer::Yes),
    }
}

impl Placed for Printer {
    fn place(&mut self, uid: &str, found: Option<&Found>) {
        let placement = found.map(|found| &found.placement);
        let line = Line {
            uid,
            at: placement.map(|Placement { endpoint, .. }| endpoint.to_string()),
            addresses: placement
                .map_or_else(BTreeSet::new, |placement| placement.addresses.clone()),
            beside: placement.map_or_else(Vec::new, |placement| {
                placement.beside.values().map(further).collect()
            }),
            notes: found.map_or(&[], |found| &found.notes),
        };
        if let Err(error) = line.write(self.output, &mut io::stdout().lock()) {
            self.failed = Some(error);
        }
    }

    fn unheld(&mut self, uid: &str, why: Option<&str>) {
        let Some(why) = why else {
            return;
        };
        let notes = [why.to_owned()];
        let line = Line {
            uid,
            at: None,
            addresses: BTreeSet::new(),
            beside: Vec::new(),
            notes: &notes,
        };
        if let Err(error) = line.write(self.output, &mut io::stdout().lock()) {
            self.failed = Some(error);
        }
    }

    fn told(&self, _uid: &str) -> Option<Told> {
        None
    }
}

fn further(beside: &Beside) -> Further<'_> {
    let Beside {
        interface,
        addresses,
    } = beside;
    Further {
        at: EndpointSpec::Interface(interface.clone()).to_string(),
        addresses,
    }
}

impl Line<'_> {
    fn write(&self, output: Format, out: &mut impl Write) -> io::Result<()> {
        let Self {
            uid,
            at,
            addresses,
            beside,
            notes,
        } = self;
        match (output, at) {
            (Format::Json, _) => {
                serde_json::to_writer(&mut *out, self)?;
                writeln!(out)?;
            }
            (Format::Human, None) if notes.is_empty() => writeln!(out, "{uid}  gone")?,
            (Format::Human, None) => writeln!(out, "{uid}  {}", notes.join("; "))?,
            (Format::Human, Some(at)) => {
                write!(out, "{uid}  {at}")?;
                for address in addresses {
                    write!(out, "  {address}")?;
                }
                writeln!(out)?;
                for Further { at, addresses } in beside {
                    write!(out, "  beside: {at}")?;
                    for address in *addresses {
                        write!(out, "  {address}")?;
                    }
                    writeln!(out)?;
                }
                for note in *notes {
                    writeln!(out, "  note: {note}")?;
                }
            }
        }
        out.flush()
    }
}
