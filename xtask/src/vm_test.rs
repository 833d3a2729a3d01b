//! `cargo xtask vm-test`: the privileged tests on other kernels, in virtual machines.
//!
//! | module | holds |
//! |---|---|
//! | [`suite`] | which tests there are, and which stay out |
//! | [`kernel`] | Debian's kernels: found, fetched, unpacked |
//! | [`root`], [`cpio`] | the guest's files, in memory |
//! | [`guest`] | QEMU, and what the guest says |
//!
//! The guest's side is `ringfence_lab::guest`.

mod cpio;
mod guest;
mod kernel;
mod root;
mod suite;

use std::{panic::resume_unwind, thread, time::Duration};

use anyhow::{Result, bail, ensure};

use crate::{build, build::Object, setup};
use guest::Verdict;
use kernel::Kernel;
use root::Root;
use suite::Suite;

/// Run the end-to-end tests under other kernels, in virtual machines (KVM is not needed).
///
/// Kernels are Debian's, the newest of each series; they are kept below target/vm, as are the consoles of
/// the guests. Tests run one at a time.
#[derive(Debug, clap::Args)]
#[command(after_help = suite::left_out_as_text())]
pub(crate) struct Args {
    /// Only these test binaries, such as `attach`; before `--kernel`, or behind `--`.
    targets: Vec<String>,
    /// Series of kernels, such as 5.10.
    #[arg(long, num_args = 1.., required = true, value_parser = kernel::Series::parse)]
    kernel: Vec<kernel::Series>,
    /// Only the tests whose name contains one of these.
    #[arg(long, num_args = 1..)]
    filter: Vec<String>,
    /// Minutes after which a guest is given up.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// Guests that run at the same time: each spends part of its time waiting.
const AT_ONCE: usize = 1;

/// How much of the end-to-end tests a guest runs.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) targets: Vec<String>,
    pub(crate) filter: Vec<String>,
    pub(crate) timeout: Duration,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        targets,
        kernel,
        filter,
        timeout,
    } = args;
    ready()?;
    let mut kernels = Vec::new();
    for series in kernel {
        kernels.push(Kernel::fetch(*series)??);
    }
    let selection = Selection {
        targets: targets.clone(),
        filter: filter.clone(),
        timeout: Duration::from_secs(timeout * 60),
    };
    test_under(&kernels, &selection)
}

/// The part that a change must pass, under the oldest kernel and the newest. Where a kernel, or what boots
/// it, cannot be had because a mirror is down or has dropped it, that says nothing of the change: it is
/// left out, and said so.
pub(crate) fn check() -> Result<()> {
    if let Err(why) = ready() {
        eprintln!("vm-test: skipped: {why:#}");
        return Ok(());
    }
    let mut kernels = Vec::new();
    for series in [kernel::OLDEST, kernel::NEWEST] {
        match Kernel::fetch(series)? {
            Ok(kernel) => kernels.push(kernel),
            Err(why) => eprintln!("vm-test: skipped: {why}"),
        }
    }
    test_under(&kernels, &suite::of_every_change())
}

fn ready() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "virtual machines are set up for x86-64 alone"
    );
    setup::ensure_virtual_machines()
}

fn test_under(kernels: &[Kernel], selection: &Selection) -> Result<()> {
    if kernels.is_empty() {
        return Ok(());
    }
    setup::ensure()?;
    let object = build::object(Object::Release)?;
    let suite = Suite::build(&object, selection)?;
    let root = Root::furnish(&suite)?;

    let mut bad = Vec::new();
    for kernels in kernels.chunks(AT_ONCE) {
        for (kernel, verdict) in together(kernels, &root, &suite, selection.timeout)? {
            eprintln!("vm-test: {kernel}: {verdict}");
            if !verdict.is_good() {
                bad.push((kernel, verdict));
            }
        }
    }
    for left_out in suite::left_out() {
        eprintln!("vm-test: left out: {left_out}");
    }
    if bad.is_empty() {
        return Ok(());
    }
    for (kernel, Verdict { failed, ended, .. }) in &bad {
        for test in failed {
            eprintln!("vm-test: {kernel}: failed: {test}");
        }
        if let Err(why) = ended {
            eprintln!("vm-test: {kernel}: {why}");
        }
    }
    bail!("{} of {} kernels failed", bad.len(), kernels.len())
}

/// Runs a guest for each kernel at the same time.
fn together<'k>(
    kernels: &'k [Kernel],
    root: &Root,
    suite: &Suite,
    timeout: Duration,
) -> Result<Vec<(&'k Kernel, Verdict)>> {
    let archives = kernels.iter().map(|kernel| root.write(kernel));
    let archives = archives.collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let guests: Vec<_> = kernels
            .iter()
            .zip(&archives)
            .map(|(kernel, archive)| {
                let run = || guest::run(kernel, archive, suite, timeout);
                (kernel, scope.spawn(run))
            })
            .collect();
        let ended = guests.into_iter().map(|(kernel, guest)| {
            let verdict = guest.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok((kernel, verdict?))
        });
        ended.collect()
    })
}
