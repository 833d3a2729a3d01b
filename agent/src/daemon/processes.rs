//! Where the cgroups of processes are, and what processes run, for records.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_common::process::Process;

use crate::{
    daemon::pods::began,
    datapath::{cgroup::Paths, helper::Helper},
    flow::process::Node,
};

/// How many processes are remembered.
const PROCESSES: usize = 4096;

/// How often the helper is asked in a second: what begins more processes than that has some without a file.
const QUESTIONS: u32 = 200;

/// What `/proc` counts the begin of a process in, in nanoseconds: Linux tells all of user space hundredths of a second.
const TICK: u64 = 10_000_000;

#[derive(Debug)]
pub(crate) struct ThisNode {
    paths: Paths,
    /// Also of those that could not be told. A process that runs another file calls itself otherwise.
    files: HashMap<Who, Option<Arc<str>>>,
    helper: Option<Helped>,
}

/// Nobody could say; the next record of the process may have it.
#[derive(Debug, PartialEq, Eq)]
struct NotNow;

/// Who may look at all processes, and how often it was asked of late.
#[derive(Debug)]
struct Helped {
    helper: Arc<Helper>,
    since: Instant,
    questions: u32,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Who {
    pid: u32,
    started: u64,
    comm: [u8; 16],
}

impl ThisNode {
    pub(crate) fn new(helper: Option<Arc<Helper>>) -> Self {
        Self {
            paths: Paths::new(),
            files: HashMap::new(),
            helper: helper.map(|helper| Helped {
                helper,
                since: Instant::now(),
                questions: 0,
            }),
        }
    }

    /// The file that a process runs, if it is this one still.
    fn running(&mut self, pid: u32, started: u64) -> Result<Option<Arc<str>>, NotNow> {
        let file = match (fs::read_link(format!("/proc/{pid}/exe")), &mut self.helper) {
            (Ok(file), _) => file,
            // It is there, and nobody's whom we may look at.
            (Err(error), Some(helper)) if error.kind() == io::ErrorKind::PermissionDenied => {
                helper.file_of(pid).ok_or(NotNow)?
            }
            (Err(_), _) => return Ok(None),
        };
        // Asked afterwards: its number may be another's by now.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let began = stat.and_then(|stat| began(&stat));
        let is_it = started != 0 && began == Some(started / TICK);
        Ok(is_it.then(|| file.to_string_lossy().into()))
    }
}

impl Node for ThisNode {
    fn path(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>> {
        self.paths.of(cgroup, pid)
    }

    fn exe(&mut self, process: &Process) -> Option<Arc<str>> {
        let Process {
            pid, started, comm, ..
        } = *process;
        let who = Who { pid, started, comm };
        if let Some(known) = self.files.get(&who) {
            return known.clone();
        }
        let file = self.running(pid, started).ok()?;
        if self.files.len() >= PROCESSES {
            self.files.clear();
        }
        self.files.insert(who, file.clone());
        file
    }
}

impl Helped {
    fn file_of(&mut self, pid: u32) -> Option<PathBuf> {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.questions) = (Instant::now(), 0);
        }
        if self.questions >= QUESTIONS {
            return None;
        }
        self.questions += 1;
        let file = self.helper.file_of(pid)?;
        Some(OsString::from_vec(file).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> (u32, u64) {
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        (pid, began(&stat).unwrap() * TICK + 1)
    }

    #[test]
    fn a_process_that_runs_is_asked_for_its_file() {
        let (pid, started) = ourselves();
        let file = std::env::current_exe().unwrap();
        let found = ThisNode::new(None).running(pid, started);
        assert_eq!(found.unwrap().as_deref(), file.to_str());
    }

    #[test]
    fn another_one_of_the_same_number_is_not_taken_for_it() {
        let (pid, started) = ourselves();
        let mut node = ThisNode::new(None);
        assert_eq!(node.running(pid, started + TICK), Ok(None));
        assert_eq!(node.running(pid, 0), Ok(None));
        assert_eq!(node.running(u32::MAX, started), Ok(None));
    }
}
