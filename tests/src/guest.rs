//! A virtual machine that exists to run tests: what it is told, what it tells, and its first process.
//!
//! `cargo xtask vm-test` boots a kernel with a root in memory whose `/init` is the program `lab-guest`.
//! That reads a [`Plan`], runs each test in a process of its own, one at a time, and writes a
//! [`Report`] a line to the second serial port; the first one is the kernel's console.

mod machine;
mod run;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where the plan lies in the guest.
pub const PLAN: &str = "/plan.json";
/// Where kernel modules lie in the guest; they are loaded in the order of their names.
pub const MODULES: &str = "/modules";
/// The port that reports go out by.
const PORT: &str = "/dev/ttyS1";

/// What a guest is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub tests: Vec<Test>,
    /// The whole environment of each test.
    pub environment: Vec<(String, String)>,
    /// After so long a test is ended.
    pub patience: Duration,
}

/// One test of a binary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Test {
    /// The target's name, such as `attach`.
    pub target: String,
    pub name: String,
    pub binary: PathBuf,
}

/// What a guest says, one a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// The machine is up, and this is its kernel.
    Up { release: String },
    /// A test of the plan begins, by its place there.
    Begin { index: usize },
    /// It has ended.
    End { index: usize, ended: Ended },
    /// The plan is carried out.
    Done,
    /// It cannot be.
    Broken { why: String },
}

/// How a test ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    pub outcome: Outcome,
    pub took: Duration,
    /// The end of what it wrote; if it passed, only what it says it has skipped.
    pub output: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Passed,
    Failed,
    /// It was ended when its time was up.
    Hung,
}

/// The life of the first process: it ends with the machine.
pub fn live() -> Result<()> {
    machine::mount_devices()?;
    let mut port = Port::open()?;
    let done = carry_out(&mut port);
    if let Err(error) = done {
        let why = format!("{error:#}");
        port.say(&Report::Broken { why })?;
    }
    machine::power_off()
}

fn carry_out(port: &mut Port) -> Result<()> {
    machine::load_modules(Path::new(MODULES))?;
    machine::furnish()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("no release")?;
    let release = release.trim().to_owned();
    port.say(&Report::Up { release })?;
    let plan = fs::read(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    let plan: Plan = serde_json::from_slice(&plan).context("not a plan")?;
    for (index, test) in plan.tests.iter().enumerate() {
        port.say(&Report::Begin { index })?;
        let ended = run::test(test, &plan)?;
        port.say(&Report::End { index, ended })?;
    }
    port.say(&Report::Done)
}

struct Port(File);

impl Port {
    fn open() -> Result<Self> {
        let port = OpenOptions::new().write(true).open(PORT);
        port.map(Self)
            .with_context(|| format!("cannot open {PORT}"))
    }

    fn say(&mut self, report: &Report) -> Result<()> {
        let mut line = serde_json::to_vec(report).context("cannot write a report")?;
        line.push(b'\n');
        self.0.write_all(&line).context("cannot report")
    }
}
