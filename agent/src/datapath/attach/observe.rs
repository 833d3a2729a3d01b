//! Whether what was attached still hangs where it was put.

use std::path::Path;

use serde::Serialize;

use crate::datapath::{
    attach::{
        AttachError, Attached, Target, TcHook,
        entry::{cgroup_pins, interface, shown, tcx_pins},
        failed,
    },
    bpffs::BpfDir,
    pin,
    syscall::{self, AttachType, LinkTarget},
    tc::{self, Side},
};

/// What is found where a program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Observed {
    /// `ahead`: how many programs of others run before it, each of which could end the chain.
    Attached {
        program: u32,
        ahead: u32,
    },
    Gone,
}

impl Attached {
    /// What the kernel says about the two programs now: what the endpoint sends, what it is sent.
    pub fn verify(&self, dir: &BpfDir) -> Result<[Observed; 2], AttachError> {
        let Self {
            endpoint, target, ..
        } = *self;
        match target {
            Target::Interface {
                index,
                hook: TcHook::Tcx,
            } => {
                let [from, to] = tcx_pins(dir, endpoint);
                Ok([
                    observe_tcx(&from, index, AttachType::TcxIngress)?,
                    observe_tcx(&to, index, AttachType::TcxEgress)?,
                ])
            }
            Target::Interface {
                index,
                hook: TcHook::Clsact,
            } => Ok([
                observe_filter(index, Side::Ingress)?,
                observe_filter(index, Side::Egress)?,
            ]),
            Target::Cgroup { id } => {
                let [incoming, outgoing] = cgroup_pins(dir, endpoint);
                Ok([
                    observe_cgroup(&outgoing, id)?,
                    observe_cgroup(&incoming, id)?,
                ])
            }
        }
    }

    /// Whether both programs still hang where they were put.
    pub fn stands(&self, dir: &BpfDir) -> Result<bool, AttachError> {
        Ok(!self.verify(dir)?.contains(&Observed::Gone))
    }
}

fn observe_tcx(pin: &Path, index: u32, attach_type: AttachType) -> Result<Observed, AttachError> {
    let info = pin::info(pin).map_err(failed("read", shown(pin)))?;
    let Some(info) = info.filter(|info| info.target == LinkTarget::Interface(index)) else {
        return Ok(Observed::Gone);
    };
    let chain = match syscall::programs_of_interface(index, attach_type) {
        Ok(chain) => chain,
        // It vanished since the link was asked.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        Err(error) => return Err(failed("read the chain of", interface(index))(error)),
    };
    let ahead = chain.iter().position(|program| *program == info.program);
    Ok(ahead.map_or(Observed::Gone, |ahead| Observed::Attached {
        program: info.program,
        ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
    }))
}

fn observe_filter(index: u32, side: Side) -> Result<Observed, AttachError> {
    let filter =
        tc::filter(index, side).map_err(failed("read the filters of", interface(index)))?;
    Ok(filter.map_or(Observed::Gone, |filter| Observed::Attached {
        program: filter.program,
        ahead: filter.ahead,
    }))
}

/// Programs of a cgroup all have to agree, so that none is ahead of another.
fn observe_cgroup(pin: &Path, id: u64) -> Result<Observed, AttachError> {
    let info = pin::info(pin).map_err(failed("read", shown(pin)))?;
    let info = info.filter(|info| info.target == LinkTarget::Cgroup(id));
    Ok(info.map_or(Observed::Gone, |info| Observed::Attached {
        program: info.program,
        ahead: 0,
    }))
}
