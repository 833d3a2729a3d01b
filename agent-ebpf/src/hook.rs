//! One file for each kind of hook.

mod bypass;
mod cgroup;
mod connect;
#[cfg(feature = "bench")]
mod flood;
mod host;
mod process;
mod prompt;
#[cfg(feature = "bench")]
mod rotate;
mod tc;
mod told;
mod withdrawn;
