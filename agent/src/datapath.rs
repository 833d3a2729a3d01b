//! The kernel: where programs hang, what they hang on, and what the kernel can do.
//!
//! The only module that names the bpf system call, the bpf filesystem, cgroups and netlink. It knows
//! endpoints by number and never sees a policy.

pub mod attach;
pub mod bpffs;
pub mod cgroup;
pub mod features;
pub mod link;
mod mountinfo;
mod netlink;
mod pin;
mod syscall;
pub mod tc;
