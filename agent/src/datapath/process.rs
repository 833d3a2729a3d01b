//! The programs that note whose sockets are whose, at the root of the cgroups: nowhere below it does
//! every process pass by that an endpoint's socket may be of.
//!
//! | entry of `links` | what |
//! |---|---|
//! | `process-creates`, `process-binds4`, … | pinned cgroup links |

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::datapath::{
    bpffs::BpfDir,
    cgroup::{Cgroup, Hierarchy},
    object::{ProcessPrograms, Sizes},
    pin::{self, Link},
    syscall::{self, AttachType, LinkTarget},
    tamper::{Kind, Tampering},
    task::{self, Offsets},
};

/// Each program and where it hangs. Its entry has the name of the program.
pub(crate) const HOOKS: [(&str, AttachType); 5] = [
    ("process_creates", AttachType::CgroupSockCreate),
    ("process_binds4", AttachType::CgroupPostBind4),
    ("process_binds6", AttachType::CgroupPostBind6),
    ("process_connects4", AttachType::CgroupConnect4),
    ("process_connects6", AttachType::CgroupConnect6),
];

/// What hangs at the root, and what is amiss with it. Dropping it detaches nothing.
#[derive(Default)]
pub(crate) struct Processes {
    stage: Stage,
    /// Why records do not say when a process began.
    no_begin: Option<String>,
    /// Why records name no process, or not each.
    unnoted: Option<String>,
    /// What somebody has done to it could not be put right.
    unrestored: bool,
}

#[derive(Default)]
enum Stage {
    #[default]
    Unloaded,
    /// Refused, for as long as this agent lives.
    Refused,
    Loaded(Vec<Program>),
    Hanging(Vec<Program>, Hanging),
}

struct Program {
    attach_type: AttachType,
    path: PathBuf,
    id: u32,
    fd: OwnedFd,
}

struct Hanging {
    cgroup: Cgroup,
    links: Vec<Link>,
}

impl Processes {
    /// What records do not say, and why.
    pub(crate) fn amiss(&self) -> Vec<String> {
        let amiss = self.unnoted.iter().chain(&self.no_begin);
        amiss.cloned().collect()
    }

    /// Whether sockets are noted, of what can be seen at least.
    pub(crate) fn are_noted(&self) -> bool {
        matches!(self.stage, Stage::Hanging(..)) && !self.unrestored
    }

    /// Attaches what is not attached; what others have done to it meanwhile is put right.
    pub(crate) fn look_after(&mut self, dir: &BpfDir, sizes: &Sizes) -> Option<Tampering> {
        let programs = match std::mem::take(&mut self.stage) {
            Stage::Refused => {
                self.stage = Stage::Refused;
                return None;
            }
            Stage::Unloaded => match load(dir, sizes) {
                Ok((programs, no_begin)) => {
                    self.no_begin = no_begin;
                    programs
                }
                Err(error) => {
                    self.name_nobody(&error);
                    self.stage = Stage::Refused;
                    return None;
                }
            },
            Stage::Loaded(programs) => programs,
            Stage::Hanging(programs, hanging) => {
                return self.look_at(programs, hanging);
            }
        };
        match hang(&programs) {
            Ok(hanging) => {
                self.unnoted = (!hanging.cgroup.is_root()).then(|| {
                    "only a part of the cgroup hierarchy can be seen from here: processes outside of \
                     it are not named in records"
                        .to_owned()
                });
                self.stage = Stage::Hanging(programs, hanging);
            }
            Err(error) => {
                self.name_nobody(&error);
                self.stage = Stage::Loaded(programs);
            }
        }
        None
    }

    fn name_nobody(&mut self, error: &anyhow::Error) {
        let message = format!("records name no process: {error:#}");
        if self.unnoted.as_ref() != Some(&message) {
            tracing::warn!("{message}");
            self.unnoted = Some(message);
        }
    }

    fn look_at(&mut self, programs: Vec<Program>, hanging: Hanging) -> Option<Tampering> {
        let found = interference(&programs, &hanging).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell whether sockets are noted");
            None
        });
        let Some(kind) = found else {
            self.unrestored = false;
            self.stage = Stage::Hanging(programs, hanging);
            return None;
        };
        let what = format!("cgroup {}", hanging.cgroup.path().display());
        let again = pin_again(&programs, &hanging).map_err(anyhow::Error::from);
        let (restored, hanging) = match again.and_then(|()| hang(&programs)) {
            Ok(hanging) => (true, hanging),
            Err(error) => {
                tracing::error!("cannot note sockets again: {error:#}");
                (false, hanging)
            }
        };
        let is_known = self.unrestored && !restored;
        self.unrestored = !restored;
        self.stage = Stage::Hanging(programs, hanging);
        (!is_known).then_some(Tampering {
            kind,
            what,
            count: 1,
            restored,
        })
    }
}

/// The programs, and what they cannot tell.
fn load(dir: &BpfDir, sizes: &Sizes) -> anyhow::Result<(Vec<Program>, Option<String>)> {
    let mut amiss = None;
    let offsets = task::offsets().unwrap_or_else(|error| {
        amiss = Some(unknown_begin(&error));
        Offsets::default()
    });
    let loaded = ProcessPrograms::load(&dir.maps(), sizes, offsets);
    let loaded = match loaded {
        // A kernel that is locked down lets no program read its memory.
        Err(error) if offsets != Offsets::default() => {
            let error = format!("{error:#}");
            tracing::debug!(error, "programs that read when a process began are refused");
            amiss = Some(unknown_begin(&"the kernel lets no program read it"));
            ProcessPrograms::load(&dir.maps(), sizes, Offsets::default())
        }
        loaded => loaded,
    }?;
    let programs = HOOKS.iter().map(|(name, attach_type)| {
        let fd = loaded.fd(name)?.try_clone_to_owned()?;
        Ok(Program {
            attach_type: *attach_type,
            path: dir.links().join(name.replace('_', "-")),
            id: syscall::object_id(fd.as_fd())?,
            fd,
        })
    });
    Ok((programs.collect::<anyhow::Result<_>>()?, amiss))
}

fn unknown_begin(error: &dyn std::fmt::Display) -> String {
    format!("records do not say when a process began: {error}")
}

/// Attaches all of them, or takes over what an earlier agent has attached.
fn hang(programs: &[Program]) -> anyhow::Result<Hanging> {
    let cgroup = Hierarchy::find()?.open_root()?;
    let mut links = Vec::new();
    for program in programs {
        let target = LinkTarget::Cgroup(cgroup.id());
        let held = pin::hold(&program.path, target, program.fd.as_fd(), || {
            syscall::link_to_cgroup(program.fd.as_fd(), cgroup.as_fd(), program.attach_type)
        });
        let (_, link) = held.with_context(|| {
            let (name, at) = (program.path.display(), cgroup.path().display());
            format!("failed to attach {name} to {at}")
        })?;
        links.push(link);
    }
    Ok(Hanging { cgroup, links })
}

fn interference(programs: &[Program], hanging: &Hanging) -> io::Result<Option<Kind>> {
    let Hanging { cgroup, links } = hanging;
    let mut found = None;
    for (program, link) in programs.iter().zip(links) {
        let info = link.info()?;
        if info.target != LinkTarget::Cgroup(cgroup.id()) {
            return Ok(Some(Kind::Detached));
        }
        if info.program != program.id {
            found = Some(Kind::Replaced);
        } else if found.is_none() && !link.is_at(&program.path)? {
            found = Some(Kind::Unpinned);
        }
    }
    Ok(found)
}

/// Links that are still held get their names back: a second link of one program is refused.
fn pin_again(programs: &[Program], hanging: &Hanging) -> io::Result<()> {
    for (program, link) in programs.iter().zip(&hanging.links) {
        if !link.is_at(&program.path)? {
            link.name(&program.path)?;
        }
    }
    Ok(())
}

/// Takes off what any agent of this folder has attached.
pub(crate) fn detach(dir: &BpfDir) -> io::Result<()> {
    let entries = match fs::read_dir(dir.links()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if is_ours(&path) {
            pin::release(&path)?;
        }
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("process-"))
}
