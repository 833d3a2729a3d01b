//! Processes as records name them.

use std::{fmt, sync::Arc};

use agent_common::{process::Process, table::Direction};

use super::{
    clock::{BootTime, Clock},
    record::{ProcessRef, Via},
};

/// Where cgroups are.
pub(crate) trait CgroupPaths: fmt::Debug + Send {
    /// The path of a cgroup below the root of its hierarchy; `pid` is of a process that was in it, and may
    /// have gone. `None` if it cannot be told any more.
    fn path(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>>;
}

/// Where nobody knows.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct NoPaths;

#[derive(Debug)]
pub(crate) struct Namer {
    /// Read once: a process is told from others by when it began, which must be the same in all its records.
    clock: Clock,
    paths: Box<dyn CgroupPaths>,
}

impl Namer {
    pub(crate) fn new(clock: Clock, paths: Box<dyn CgroupPaths>) -> Self {
        Self { clock, paths }
    }

    /// `None` if it is not known. `direction` is the one in which its flow began.
    pub(crate) fn name(&mut self, process: &Process, direction: Direction) -> Option<ProcessRef> {
        let Process {
            pid,
            uid,
            started,
            cgroup,
            comm,
        } = *process;
        process.is_known().then(|| ProcessRef {
            pid,
            start_time: (started > 0).then(|| self.clock.wall(BootTime(started))),
            comm: text(&comm),
            uid,
            cgroup_id: cgroup,
            cgroup: self.paths.path(cgroup, pid),
            via: match direction {
                // Who has accepted it, or read from it, the kernel does not tell.
                Direction::Ingress => Some(Via::Listener),
                Direction::Egress => None,
            },
        })
    }
}

/// What a process calls itself, up to a zero. It may be any bytes.
fn text(comm: &[u8]) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
impl Namer {
    /// Of boot time, without paths.
    pub(crate) fn without_paths() -> Self {
        Self::new(Clock::default(), Box::new(NoPaths))
    }
}

#[cfg(test)]
impl CgroupPaths for NoPaths {
    fn path(&mut self, _: u64, _: u32) -> Option<Arc<str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::clock::WallTime;

    /// Knows one group.
    #[derive(Debug)]
    struct OneGroup;

    impl CgroupPaths for OneGroup {
        fn path(&mut self, cgroup: u64, _: u32) -> Option<Arc<str>> {
            (cgroup == 77).then(|| "/system.slice/nginx.service".into())
        }
    }

    fn process() -> Process {
        Process {
            pid: 812,
            uid: 33,
            started: 5_000,
            cgroup: 77,
            comm: *b"nginx\0old-name\0\0",
        }
    }

    fn named(process: Process, direction: Direction) -> Option<ProcessRef> {
        Namer::new(Clock::default(), Box::new(OneGroup)).name(&process, direction)
    }

    #[test]
    fn a_process_is_named_and_how_it_is_known() {
        let expected = ProcessRef {
            pid: 812,
            start_time: Some(WallTime(5_000)),
            comm: "nginx".to_owned(),
            uid: 33,
            cgroup_id: 77,
            cgroup: Some("/system.slice/nginx.service".into()),
            via: None,
        };
        assert_eq!(named(process(), Direction::Egress), Some(expected.clone()));
        let listener = ProcessRef {
            via: Some(Via::Listener),
            ..expected
        };
        assert_eq!(named(process(), Direction::Ingress), Some(listener));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(named(Process::NOBODY, Direction::Egress), None);
        let unknown = Process {
            started: 0,
            cgroup: 78,
            ..process()
        };
        let named = named(unknown, Direction::Egress).unwrap();
        assert_eq!((named.start_time, named.cgroup), (None, None));
    }

    #[test]
    fn any_bytes_of_a_name_become_text_that_breaks_no_line() {
        let hostile = Process {
            comm: *b"\x1b[2J\xff\n\"},{\r\xc3\xa9xyz",
            ..process()
        };
        let named = named(hostile, Direction::Egress).unwrap();
        assert_eq!(named.comm, "\u{1b}[2J\u{fffd}\n\"},{\r\u{e9}xyz");
        let json = serde_json::to_string(&named).unwrap();
        assert!(json.contains(r#""comm":"\u001b[2J"#), "{json}");
        assert!(!json.chars().any(char::is_control), "{json}");
        assert_eq!(serde_json::from_str::<ProcessRef>(&json).unwrap(), named);
    }

    #[test]
    fn a_name_may_take_all_the_room() {
        assert_eq!(text(b"sixteen-bytes-xy"), "sixteen-bytes-xy");
        assert_eq!(text(&[0; 16]), "");
    }
}
