//! ringfence: host microsegmentation by eBPF.

mod flow;

fn main() {}
