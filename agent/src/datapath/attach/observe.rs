//! Whether what was attached still hangs where it was put.

use std::path::Path;

use serde::Serialize;

use crate::datapath::{
    attach::{
        AttachError, Attached, EndpointId, Target, TcHook,
        entry::{cgroup_pins, interface, is_marked, number, shown, tcx_pins},
        failed,
    },
    bpffs::BpfDir,
    pin,
    syscall::{self, AttachType, LinkTarget},
    tamper::Kind,
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

/// Whether a program hangs there already, of an agent of whichever version.
pub fn is_held(dir: &BpfDir, endpoint: EndpointId, target: Target) -> Result<bool, AttachError> {
    let found = observe(dir, endpoint, target)?;
    Ok(found.iter().any(|observed| *observed != Observed::Gone))
}

fn observe(
    dir: &BpfDir,
    endpoint: EndpointId,
    target: Target,
) -> Result<[Observed; 2], AttachError> {
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
        } => observe_filters(dir, index, None),
        Target::Cgroup { id } => {
            let [incoming, outgoing, ..] = cgroup_pins(dir, endpoint);
            Ok([
                observe_cgroup(&outgoing, id)?,
                observe_cgroup(&incoming, id)?,
            ])
        }
    }
}

impl Attached {
    /// What has been done to it, of a target that is there still; the worst of its programs.
    pub fn interference(&self, dir: &BpfDir) -> Result<Option<Kind>, AttachError> {
        let seen = match self.target {
            Target::Interface {
                index,
                hook: TcHook::Clsact,
            } => observe_filters(dir, index, self.pair())?.to_vec(),
            Target::Interface {
                index,
                hook: TcHook::Tcx,
            } => self.observe_links(LinkTarget::Interface(index))?,
            Target::Cgroup { id } => self.observe_links(LinkTarget::Cgroup(id))?,
        };
        if seen.contains(&Observed::Gone) {
            return Ok(Some(Kind::Detached));
        }
        let is_ours = |(seen, ours): (&Observed, &u32)| matches!(seen, Observed::Attached { program, .. } if program == ours);
        if !seen.iter().zip(&self.programs).all(is_ours) {
            return Ok(Some(Kind::Replaced));
        }
        Ok((!self.is_pinned(dir)?).then_some(Kind::Unpinned))
    }

    /// How many programs of others run before it, each of which could end the chain: what that one takes for
    /// itself, nobody judges. Of a cgroup none, where all have to agree.
    pub(crate) fn ahead(&self, dir: &BpfDir) -> Result<u32, AttachError> {
        let Target::Interface { index, hook } = self.target else {
            return Ok(0);
        };
        let mut ahead = 0;
        if hook == TcHook::Clsact {
            for seen in observe_filters(dir, index, self.pair())? {
                if let Observed::Attached { ahead: filters, .. } = seen {
                    ahead = ahead.max(filters);
                }
            }
        }
        let chains = [AttachType::TcxIngress, AttachType::TcxEgress];
        for (chain, program) in chains.into_iter().zip(&self.programs) {
            let before = match syscall::programs_of_interface(index, chain) {
                // Links run before filters.
                Ok(chain) if hook == TcHook::Clsact => chain.len(),
                Ok(chain) => chain.iter().take_while(|its| *its != program).count(),
                // The kernel has no such chains, or the interface has gone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => {
                    0
                }
                Err(error) => return Err(failed("read the chain of", interface(index))(error)),
            };
            ahead = ahead.max(u32::try_from(before).unwrap_or(u32::MAX));
        }
        Ok(ahead)
    }

    /// Gives links their names back.
    pub(crate) fn pin_again(&self) -> Result<(), AttachError> {
        for (path, link) in &self.links {
            if !link.is_at(path).map_err(failed("read", shown(path)))? {
                link.name(path).map_err(failed("pin", shown(path)))?;
            }
        }
        Ok(())
    }

    /// What judges packets, both ways.
    fn pair(&self) -> Option<[u32; 2]> {
        match self.programs.as_slice() {
            [sends, receives, ..] => Some([*sends, *receives]),
            _ => None,
        }
    }

    /// By the links that we hold: they tell also of one that has lost its name.
    fn observe_links(&self, target: LinkTarget) -> Result<Vec<Observed>, AttachError> {
        let mut seen = vec![Observed::Gone; self.links.len()];
        for (seen, (path, link)) in seen.iter_mut().zip(&self.links) {
            let info = link.info().map_err(failed("read", shown(path)))?;
            if info.target == target {
                *seen = Observed::Attached {
                    program: info.program,
                    ahead: 0,
                };
            }
        }
        Ok(seen)
    }

    fn is_pinned(&self, dir: &BpfDir) -> Result<bool, AttachError> {
        if let Target::Interface {
            index,
            hook: TcHook::Clsact,
        } = self.target
        {
            return is_marked(dir, self.endpoint, index);
        }
        for (path, link) in &self.links {
            if !link.is_at(path).map_err(failed("read", shown(path)))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the kernel says about the two programs now: what the endpoint sends, what it is sent.
    pub fn verify(&self, dir: &BpfDir) -> Result<[Observed; 2], AttachError> {
        match (self.target, self.links.as_slice()) {
            (
                Target::Interface {
                    index,
                    hook: TcHook::Clsact,
                },
                _,
            ) => observe_filters(dir, index, self.pair()),
            // By the names that they have, which tell of an interface of nobody's too.
            (Target::Interface { index, .. }, [(from, _), (to, _)]) => Ok([
                observe_tcx(from, index, AttachType::TcxIngress)?,
                observe_tcx(to, index, AttachType::TcxEgress)?,
            ]),
            (target, _) => observe(dir, self.endpoint, target),
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

/// By the number that the folder has, or else, if somebody has removed that, by the programs.
fn observe_filters(
    dir: &BpfDir,
    index: u32,
    programs: Option<[u32; 2]>,
) -> Result<[Observed; 2], AttachError> {
    let known = number(dir, index)?;
    let at = |side, program: Option<u32>| {
        let found = match (known, program) {
            (Some(number), _) => tc::filter(index, side, number),
            (None, Some(program)) => tc::filter_of(index, side, program),
            (None, None) => Ok(None),
        };
        let found = found.map_err(failed("read the filters of", interface(index)))?;
        Ok(found.map_or(Observed::Gone, |filter| Observed::Attached {
            program: filter.program,
            ahead: filter.ahead,
        }))
    };
    let [sends, receives] = programs.map_or([None; 2], |programs| programs.map(Some));
    Ok([at(Side::Ingress, sends)?, at(Side::Egress, receives)?])
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
