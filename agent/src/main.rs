//! ringfence: host microsegmentation by eBPF.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::run()
}
