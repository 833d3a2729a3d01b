//! One virtual machine, from its start to its verdict.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ringfence_lab::guest::{Ended, Outcome, Report};

use super::{kernel::Kernel, suite::Suite};
use crate::shell;

/// How a guest looks: two processors, as races need, and memory for the root, twice while it is
/// unpacked, and for the tables of the agents.
const PROCESSORS: &str = "2";
const MEMORY: &str = "3G";
/// Emulation alone: where a machine is itself virtual, KVM may be there and not work.
const ACCELERATOR: &str = "tcg,thread=multi";
/// `panic=-1`: a kernel that panics restarts at once, and QEMU ends then. `tsc=unstable`: how fast that
/// counter counts the kernel measures at its start, and if this machine is busy then, wrong: clocks of
/// guests ran twenty times too fast. The other has a known rate. `loglevel=7`: with the stacks of what is stuck,
/// which panics after two minutes: where this machine is busy, a processor that does nothing for less is none that is stuck.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic loglevel=7 mitigations=off \
                            watchdog_thresh=60 softlockup_panic=1 \
                            tsc=unstable clocksource=hpet clearcpuid=112,297,580 random.trust_cpu=on rdinit=/init";
/// Of a guest that says nothing for so long nothing more is to be heard: a test that hangs is ended by it before.
const SILENCE: Duration = Duration::from_mins(10);
/// Lines of a console that tell why a guest ended.
const LAST_LINES: usize = 60;

/// What came of a guest.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) passed: usize,
    /// By name.
    pub(crate) failed: Vec<String>,
    pub(crate) took: Duration,
    /// Whether it came to the end of its plan, or why not.
    pub(crate) ended: Result<(), String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            took,
            ended,
        } = self;
        let failed = failed.len();
        write!(f, "{passed} passed, {failed} failed, in {}", seconds(*took))?;
        match ended {
            Ok(()) => Ok(()),
            Err(why) => write!(f, "; {}", why.lines().next().unwrap_or_default()),
        }
    }
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty() && self.ended.is_ok()
    }
}

/// Boots `kernel` with `archive` as its root, and tells each test as it ends.
pub(crate) fn run(
    kernel: &Kernel,
    archive: &Path,
    suite: &Suite,
    timeout: Duration,
) -> Result<Verdict> {
    let console = kernel.folder().join("console.log");
    let mut qemu = shell::command("qemu-system-x86_64");
    qemu.args(["-accel", ACCELERATOR, "-cpu", "max"]);
    qemu.args(["-m", MEMORY, "-smp", PROCESSORS]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none"]);
    qemu.arg("-kernel").arg(kernel.image()?);
    qemu.arg("-initrd").arg(archive);
    qemu.args(["-append", COMMAND_LINE]);
    qemu.arg("-serial")
        .arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "stdio"]);
    let begun = Instant::now();
    let (mut machine, lines) = Machine::start(&mut qemu)?;

    let mut verdict = Verdict {
        passed: 0,
        failed: Vec::new(),
        took: Duration::ZERO,
        ended: Ok(()),
    };
    let name = |index: usize| {
        let test = suite.plan().tests.get(index);
        test.map_or_else(
            || index.to_string(),
            |test| format!("{} {}", test.target, test.name),
        )
    };
    let mut running = None;
    verdict.ended = loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let report = match lines.recv_timeout(left.min(SILENCE)) {
            Ok(report) => report,
            Err(gone) => {
                let during = running.map_or_else(
                    || "before its first test".to_owned(),
                    |index| format!("in {}", name(index)),
                );
                verdict.failed.extend(running.map(name));
                let how = match gone {
                    mpsc::RecvTimeoutError::Timeout => {
                        if left > SILENCE {
                            format!("given up after {} of silence", seconds(SILENCE))
                        } else {
                            format!("given up after {}", seconds(timeout))
                        }
                    }
                    mpsc::RecvTimeoutError::Disconnected => "ended by itself".to_owned(),
                };
                break Err(format!(
                    "the guest was {how}, {during}\n{}",
                    last_lines(&console)
                ));
            }
        };
        match report {
            Report::Up { release } => eprintln!(
                "vm-test: {release} is up after {}, {} tests",
                seconds(begun.elapsed()),
                suite.plan().tests.len()
            ),
            Report::Begin { index } => running = Some(index),
            Report::End { index, ended } => {
                running = None;
                tell(kernel, &name(index), &ended);
                match ended.outcome {
                    Outcome::Passed => verdict.passed += 1,
                    Outcome::Failed | Outcome::Hung => verdict.failed.push(name(index)),
                }
            }
            Report::Done => break Ok(()),
            Report::Broken { why } => break Err(why),
        }
    };
    machine.end();
    verdict.took = begun.elapsed();
    Ok(verdict)
}

fn tell(kernel: &Kernel, test: &str, ended: &Ended) {
    let Ended {
        outcome,
        took,
        output,
    } = ended;
    let word = match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Hung => "HANGS",
    };
    let mut shown = format!("vm-test: {kernel}: {word} {:>8} {test}", seconds(*took));
    if !output.is_empty() {
        shown.push('\n');
        shown.push_str(output.trim_end());
    }
    eprintln!("{shown}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn last_lines(console: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(console).and_then(|mut file| file.read_to_end(&mut bytes));
    if let Err(error) = read {
        return format!("and its console cannot be read: {error}");
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// A running QEMU; it ends with this value.
struct Machine(Child);

impl Machine {
    /// Starts it, and passes on what the guest reports until it is gone.
    fn start(qemu: &mut Command) -> Result<(Self, Receiver<Report>)> {
        let mut child = qemu
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let output = child.stdout.take();
        let machine = Self(child);
        let output = output.context("QEMU has no output")?;
        let (say, said) = mpsc::sync_channel(64);
        thread::spawn(move || listen(output, &say));
        Ok((machine, said))
    }

    fn end(&mut self) {
        let Self(child) = self;
        // What it has said is all there is to know; and it may have ended already.
        let _ended = child.kill().and_then(|()| child.wait()).is_ok();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lines that are no report come from the firmware.
fn listen(output: ChildStdout, say: &mpsc::SyncSender<Report>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        if let Ok(report) = serde_json::from_slice(&line)
            && say.send(report).is_err()
        {
            return;
        }
        line.clear();
    }
}
