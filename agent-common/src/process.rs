//! Whose sockets are whose.

use crate::abi::abi;

abi! {
    /// Who made a socket, or bound or connected it since. It stands in the socket's own storage, and
    /// goes with the socket.
    pub struct Process: 40 {
        /// Of the process, not of its thread, as the machine's first namespace of processes counts;
        /// 0 is nobody.
        pub pid: u32,
        /// As the machine's first namespace of users counts.
        pub uid: u32,
        /// When the process began, in nanoseconds of the boot clock; 0 if it is not known.
        pub started: u64,
        /// The cgroup of version 2 that it was in.
        pub cgroup: u64,
        /// What its thread calls itself, up to a zero. Any bytes: it is the process that chooses them.
        pub comm: [u8; 16],
    }
}

impl Process {
    pub const NOBODY: Self = Self {
        pid: 0,
        uid: 0,
        started: 0,
        cgroup: 0,
        comm: [0; 16],
    };

    pub const fn is_known(&self) -> bool {
        self.pid != 0
    }
}
