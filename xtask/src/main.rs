//! What one does with this repository: set up, build, demonstrate, test, lint.
//!
//! Every command prints the command lines that it runs, so that nobody needs xtask to
//! reproduce it. A new command is a file with `struct Args` and `fn run(&Args)`, a variant of
//! [`Task`] and a line of [`main`].

mod apt;
mod bench;
mod build;
mod ci;
mod consumers;
mod demo;
mod fuzz;
mod image;
mod kubernetes;
mod lint;
mod setup;
mod shell;
mod soak;
mod test;
mod toolchain;
mod vm_test;

use std::process::ExitCode;

use clap::Parser;

/// Build, demonstrate, test and lint ringfence.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Test(test::Args),
    VmTest(vm_test::Args),
    Lint(lint::Args),
    Ci(ci::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Soak(soak::Args),
    Image(image::Args),
    Kubernetes(kubernetes::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Test(args) => test::run(&args),
        Task::VmTest(args) => vm_test::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Kubernetes(args) => kubernetes::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
