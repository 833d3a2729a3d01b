//! ringfence: host microsegmentation by eBPF.

mod control;
mod exit;
mod flow;

fn main() {}
