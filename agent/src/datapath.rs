//! The kernel: the programs and their maps, where they hang, and what the kernel can do.
//!
//! The only module that names aya, the bpf system call, the bpf filesystem, cgroups and netlink.

pub mod attach;
pub mod bpffs;
pub mod cgroup;
pub(crate) mod engine;
pub mod features;
pub(crate) mod grace;
mod held;
pub(crate) mod helper;
pub mod link;
mod lsm;
pub(crate) mod maps;
pub(crate) mod memory;
mod mountinfo;
pub(crate) mod netlink;
mod netns;
pub mod object;
mod observation;
mod pin;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod prompt;
pub(crate) mod raw;
pub(crate) mod sandbox;
pub(crate) mod seed;
pub(crate) mod sets;
pub(crate) mod slots;
pub mod sockets;
pub(crate) mod sync;
mod syscall;
pub mod tamper;
mod task;
pub mod tc;
pub mod testbed;
pub(crate) mod told;
pub(crate) mod traffic;
pub(crate) mod withdrawn;
pub(crate) mod words;
