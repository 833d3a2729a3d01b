//! Nanoseconds per packet, without a network: `cargo xtask bench`.
//!
//! The kernel runs a program on one packet many times (`BPF_PROG_TEST_RUN`); the time of the whole
//! call is divided by the repetitions. Where packets must differ, a program in front changes
//! addresses and ports and tail-calls the one under test; what the same costs in front of an empty
//! program is subtracted, and the empty program's own cost added again. Each round measures every
//! case and the empty program once, so that a drift of the machine meets both: ratios are taken
//! within a round, and their median is what counts.

mod cases;
mod policy;
mod report;

use std::path::PathBuf;

use ringfence::datapath::{object::Sizes, testbed::Testbed};

use crate::{cases::Bench, report::Report};

/// Address entries, each a network of 16 addresses somewhere in a large one.
const ENTRIES: [u32; 4] = [1, 100, 10_000, 100_000];

fn main() -> anyhow::Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { 7 };
    let entries = if quick { &ENTRIES[..2] } else { &ENTRIES };

    let mut report = Report::new(Testbed::costs(&folder("costs"))?);
    let mut bench = Bench::new(Testbed::new(&folder("tables"), Sizes::default())?)?;
    for &entries in entries {
        bench.program(entries)?;
        for _ in 0..rounds {
            report.round(entries, bench.round()?);
        }
    }
    report.print();
    report.write(&target().join("bench.json"))
}

fn folder(name: &str) -> PathBuf {
    format!("/sys/fs/bpf/ringfence-bench-{}-{name}", std::process::id()).into()
}

fn target() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    manifest.join("../target")
}
