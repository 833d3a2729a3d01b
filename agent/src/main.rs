//! ringfence: host microsegmentation by eBPF.

mod cli;
mod config;
mod control;
mod daemon;
mod exit;
mod flow;
mod log;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
