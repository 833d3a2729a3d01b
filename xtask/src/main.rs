//! What one does with this repository.

mod demo;

use std::process::ExitCode;

use clap::Parser;

/// Demonstrate ringfence.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Demo(args) => demo::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
