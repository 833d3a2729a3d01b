//! Processes as records name them.

use std::{collections::HashMap, fmt, sync::Arc};

use agent_common::{process::Process, table::Direction};

use super::{
    clock::{BootTime, Clock},
    record::{ProcessRef, Via},
};

/// What the node says of cgroups and processes.
pub(crate) trait Node: fmt::Debug + Send {
    /// The path of a cgroup below the root of its hierarchy; `pid` is of a process that was in it, and may
    /// have gone. `None` if it cannot be told any more.
    fn path(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>>;

    /// The file that it runs; `None` if it has gone, or may not be looked at.
    fn exe(&mut self, process: &Process) -> Option<Arc<str>>;
}

/// Where nobody knows.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct NoNode;

#[derive(Debug)]
pub(crate) struct Namer {
    /// Read once: a process is told from others by when it began, which must be the same in all its records.
    clock: Clock,
    node: Box<dyn Node>,
    /// Of the cgroups of late; most records are of few.
    containers: HashMap<Arc<str>, Option<Arc<str>>>,
}

/// How many cgroups are remembered: more than a node has pods.
const CONTAINERS: usize = 1024;

impl Namer {
    pub(crate) fn new(clock: Clock, node: Box<dyn Node>) -> Self {
        Self {
            clock,
            node,
            containers: HashMap::new(),
        }
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
        if !process.is_known() {
            return None;
        }
        let path = self.node.path(cgroup, pid);
        Some(ProcessRef {
            pid,
            start_time: (started > 0).then(|| self.clock.wall(BootTime(started))),
            comm: text(&comm),
            exe: self.node.exe(process),
            uid,
            cgroup_id: cgroup,
            container_id: path.as_ref().and_then(|path| self.container(path)),
            cgroup: path,
            via: match direction {
                // Who has accepted it, or read from it, the kernel does not tell.
                Direction::Ingress => Some(Via::Listener),
                Direction::Egress => None,
            },
        })
    }

    fn container(&mut self, path: &Arc<str>) -> Option<Arc<str>> {
        if let Some(known) = self.containers.get(path) {
            return known.clone();
        }
        if self.containers.len() >= CONTAINERS {
            self.containers.clear();
        }
        let id: Option<Arc<str>> = container(path).map(Arc::from);
        self.containers.insert(Arc::clone(path), id.clone());
        id
    }
}

/// The container whose cgroup this is, or is below: the systemd and cgroupfs forms of containerd, CRI-O, Docker and
/// Podman alike name it by 64 hexadecimal digits, at the end of a part of the path.
fn container(path: &str) -> Option<&str> {
    const DIGITS: usize = 64;
    let is_id = |text: &&str| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == DIGITS && text.bytes().all(is_digit)
    };
    path.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
        // Who watches a container from outside.
        Some(id)
            .filter(is_id)
            .filter(|_| !runtime.ends_with("conmon"))
    })
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
        Self::new(Clock::default(), Box::new(NoNode))
    }
}

#[cfg(test)]
impl Node for NoNode {
    fn path(&mut self, _: u64, _: u32) -> Option<Arc<str>> {
        None
    }

    fn exe(&mut self, _: &Process) -> Option<Arc<str>> {
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

    impl Node for OneGroup {
        fn path(&mut self, cgroup: u64, _: u32) -> Option<Arc<str>> {
            (cgroup == 77).then(|| "/system.slice/nginx.service".into())
        }

        fn exe(&mut self, process: &Process) -> Option<Arc<str>> {
            (process.started != 0).then(|| "/usr/sbin/nginx".into())
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
            exe: Some("/usr/sbin/nginx".into()),
            uid: 33,
            cgroup_id: 77,
            cgroup: Some("/system.slice/nginx.service".into()),
            container_id: None,
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
        assert_eq!(named.exe, None);
    }

    #[test]
    fn containers_are_told_by_the_paths_that_runtimes_make() {
        let id = "0123456789abcdef".repeat(4);
        let pod = "/kubepods.slice/kubepods-pod11_22.slice";
        for path in [
            format!("{pod}/cri-containerd-{id}.scope"),
            format!("{pod}/crio-{id}.scope"),
            format!("{pod}/crio-{id}.scope/container"),
            format!("/kubepods/burstable/pod11-22/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}/init.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods.slice/x.slice:cri-containerd:{id}"),
        ] {
            assert_eq!(container(&path), Some(&*id), "{path}");
        }
        for path in [
            "/system.slice/nginx.service".to_owned(),
            "/".to_owned(),
            String::new(),
            format!("{pod}/crio-conmon-{id}.scope"),
            format!("/docker/{}", id.to_uppercase()),
            format!("/docker/{id}0"),
            format!("/{}", &id[1..]),
        ] {
            assert_eq!(container(&path), None, "{path}");
        }
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
