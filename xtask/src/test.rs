//! `cargo xtask test`: everything, from a bare machine to real packets.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::{
    build, build::Object, consumers, image, kubernetes, kubernetes::Cluster, setup, shell,
};

/// Set up, build, and run all tests; those on the real datapath need root.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only what needs no root: all crates but the end-to-end package.
    #[arg(long)]
    unit: bool,
    /// Only what needs a cluster of Kubernetes, which is brought up for that time.
    #[arg(long, conflicts_with = "unit")]
    kubernetes: bool,
    /// All vectors of cyclonus between pods, and not a sample of them.
    #[arg(long, requires = "kubernetes")]
    all_vectors: bool,
    /// Only the tests whose name contains this.
    filter: Option<String>,
}

/// The kernel side builds for its own target only.
pub(crate) const HOST: [&str; 3] = ["--workspace", "--exclude", "agent-ebpf"];
/// The same, without the end-to-end tests.
const UNPRIVILEGED: [&str; 5] = [
    "--workspace",
    "--exclude",
    "agent-ebpf",
    "--exclude",
    "tests",
];
/// Where `cargo build` leaves the agent that the end-to-end tests drive.
const BINARY: &str = "target/debug/ringfence";

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        unit,
        kubernetes,
        all_vectors,
        filter,
    } = args;
    if !unit && !rustix::process::geteuid().is_root() {
        bail!(
            "the end-to-end tests load programs into the kernel and need root: run this as root, \
             or `cargo xtask test --unit` for the others"
        );
    }
    setup::ensure()?;
    // The tests judge the object that ships, inside a binary that is quick to build.
    let object = build::object(Object::Release)?;
    let readers = if *unit || *kubernetes {
        None
    } else {
        consumers::ready()?
    };
    let cargo = |arguments: &[&str]| {
        let mut cargo = shell::command("cargo");
        cargo.env("RINGFENCE_BPF_OBJECT", &object);
        cargo.env("RINGFENCE_BIN", shell::root().join(BINARY));
        cargo.envs(readers.iter().map(|folder| ("RINGFENCE_CONSUMERS", folder)));
        cargo.args(arguments);
        cargo
    };
    shell::run(cargo(&["build", "--package", "agent"]).args(build::FEATURES))?;

    let filter = filter.as_deref();
    if *kubernetes {
        let mut cargo = cargo(&[]);
        if *all_vectors {
            cargo.env("RINGFENCE_CYCLONUS", "all");
        }
        return in_a_cluster(&mut cargo, filter);
    }
    if has_nextest() {
        // nextest runs no documentation tests; its summary of all others comes last.
        shell::run(
            cargo(&["test", "--quiet", "--doc"])
                .args(LIBRARIES)
                .args(filter),
        )?;
        if !unit {
            eprintln!(
                "test: what needs a cluster skips itself: `cargo xtask test --kubernetes` runs it"
            );
        }
        let packages: &[&str] = if *unit { &UNPRIVILEGED } else { &HOST };
        let mut nextest = cargo(&["nextest", "run"]);
        nextest.args(packages).args(build::FEATURES);
        return shell::run(nextest.args(filter));
    }
    eprintln!("cargo-nextest is not installed: `cargo test` runs the tests");
    let mut unprivileged = cargo(&["test"]);
    unprivileged.args(UNPRIVILEGED).args(build::FEATURES);
    shell::run(unprivileged.args(filter))?;
    if !unit {
        // One at a time, as .config/nextest.toml has it.
        let mut privileged = cargo(&["test", "--package", "tests"]);
        privileged.args(build::FEATURES);
        shell::run(privileged.args(filter).args(["--", "--test-threads=1"]))?;
    }
    Ok(())
}

/// All that a change must pass in a cluster. Where none can be had because a mirror is down or has dropped its parts,
/// that says nothing of the change: it is left out, and said so.
pub(crate) fn check_in_a_cluster() -> Result<()> {
    if let Err(why) = kubernetes::prepare()? {
        eprintln!("test --kubernetes: skipped: {why}");
        return Ok(());
    }
    run(&Args {
        kubernetes: true,
        ..Args::default()
    })
}

/// The test binaries whose names begin with `kubernetes`. `cargo` has the environment of all tests.
fn in_a_cluster(cargo: &mut Command, filter: Option<&str>) -> Result<()> {
    ensure!(
        has_nextest(),
        "cargo-nextest chooses and orders these tests; it is not installed"
    );
    let image = image::create(None, &IMAGES.map(str::to_owned))?;
    let cluster = Cluster::up()?;
    cargo
        .env("RINGFENCE_IMAGE", image)
        .env("RINGFENCE_KUBE_BIN", kubernetes::programs()?)
        .env("RINGFENCE_KUBE_ON", kubernetes::entrance());
    cargo
        .args(["nextest", "run"])
        .args(HOST)
        .args(build::FEATURES);
    cargo.args(["-E", "package(tests) & binary(/^kubernetes/)"]);
    let passed = shell::run(cargo.args(filter));
    cluster.down()?;
    passed
}

/// What a rolling update goes from and to.
const IMAGES: [&str; 2] = ["localhost/ringfence:one", "localhost/ringfence:two"];

/// The libraries whose documentation may hold tests.
const LIBRARIES: [&str; 4] = ["--package", "agent-common", "--package", "agent-policy"];

fn has_nextest() -> bool {
    shell::output(shell::command("cargo").args(["nextest", "--version"])).is_ok()
}
