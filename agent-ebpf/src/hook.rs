//! One file for each kind of hook.

mod cgroup;
#[cfg(feature = "bench")]
mod rotate;
mod tc;
mod withdrawn;
