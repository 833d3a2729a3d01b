//! One file for each kind of hook.

mod cgroup;
mod connect;
mod host;
#[cfg(feature = "bench")]
mod rotate;
mod tc;
mod withdrawn;
