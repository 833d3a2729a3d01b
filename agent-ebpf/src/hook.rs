//! One file for each kind of hook.

mod cgroup;
mod tc;
