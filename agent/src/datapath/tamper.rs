//! What others do to what the agent has in the kernel.
//!
//! Only root, or who has its capabilities, can do any of it: this is no defence against an attacker
//! who is there already. It tells of mistakes, of programs that take the node for theirs, and of the
//! attacker who goes about it loudly.

use serde::Serialize;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A program hangs where it was put no longer.
    Detached,
    /// Another program hangs there in the place of ours.
    Replaced,
    /// A link or a map would not outlive the agent: its name is gone.
    Unpinned,
    /// A table says something that we have not written.
    Written,
}

/// What was found at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tampering {
    pub(crate) kind: Kind,
    /// Such as `interface veth-api`, `map POLICY`.
    pub(crate) what: String,
    /// Of entries, where it is a table.
    pub(crate) count: u64,
    /// Whether all is as before.
    pub(crate) restored: bool,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Detached,
        Self::Replaced,
        Self::Unpinned,
        Self::Written,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Replaced => "replaced",
            Self::Unpinned => "unpinned",
            Self::Written => "written",
        }
    }
}
