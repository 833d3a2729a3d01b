//! Every command of the README, run as it stands there, in order.
//!
//! The tour gets one shell in namespaces of its own: network, mounts (a fresh /run, /var/lib and
//! bpffs) and processes. Nothing of it can meet the machine, or outlive the test. Of output that
//! the README shows, each line has to appear; `…` stands for whatever varies.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfence_lab::agent::binary;

/// The binary as the README calls it.
const BINARY: &str = "target/debug/ringfence";
/// How long a command may take, and what it shows may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
/// Behind each command the shell says this, and the exit code.
const DONE: &str = "@@done";

const PRELUDE: &str = "\
exec 2>&1
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -t bpf bpf /sys/fs/bpf &&
ip link set lo up
echo @@done $?
";

#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of all blocks that are fenced as `console`.
fn steps() -> Result<Vec<Step>> {
    let text = std::fs::read_to_string(root().join("README.md")).context("cannot read README")?;
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let command = command.to_owned();
            let output = Vec::new();
            steps.push(Step {
                line: number,
                command,
                output,
            });
        } else if inside {
            let step = steps.last_mut().context("output before any command")?;
            step.output.push(line.to_owned());
        }
    }
    ensure!(steps.len() > 10, "{} commands found", steps.len());
    Ok(steps)
}

impl Step {
    /// The subcommand of `cargo xtask`, if it is one. These would run this test again.
    fn xtask(&self) -> Option<&str> {
        self.command
            .strip_prefix("cargo xtask ")?
            .split_whitespace()
            .next()
    }

    /// 0, but a question whose answer is no, or a difference, says so by its exit code too.
    fn exit_code(&self) -> i32 {
        let says = |start| {
            let first = self.output.first();
            first.is_some_and(|line| line.starts_with(start))
        };
        i32::from(["deny:", "+ ", "- "].into_iter().any(says))
    }

    /// What asks and changes nothing may be asked again, until what was begun has happened.
    fn can_be_repeated(&self) -> bool {
        let asks = |what: &str| self.command.contains(what);
        asks("ringfence status") || asks("ringfence flows") || asks("/dev/tcp/")
    }

    /// The first line shown that `seen` lacks.
    fn missing(&self, seen: &[String]) -> Option<&str> {
        let mut rest = seen.iter();
        self.output
            .iter()
            .filter(|shown| !matches!(shown.trim(), "" | "…"))
            .find(|shown| !rest.any(|line| appears(shown, line)))
            .map(String::as_str)
    }
}

/// Whether `line` is what is `shown`, but for white space and what `…` stands for.
fn appears(shown: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, line) = (words(shown), words(line));
    let mut rest = line.as_str();
    let parts: Vec<&str> = shown.split('…').map(str::trim).collect();
    for (index, part) in parts.iter().enumerate() {
        let Some(at) = rest.find(part) else {
            return false;
        };
        if index == 0 && at != 0 {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || parts.last().is_some_and(|part| part.is_empty())
}

/// A shell in namespaces of its own; all that it started ends with it.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start() -> Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "--norc"])
            .current_dir(root())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let input = child.stdin.take().context("the shell has no stdin")?;
        let output = child.stdout.take().context("the shell has no stdout")?;
        let (sender, lines) = mpsc::sync_channel(4096);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self {
            child,
            input,
            lines,
        };
        shell.say(PRELUDE)?;
        let mut seen = Vec::new();
        let code = shell.done(&mut seen)?;
        ensure!(code == 0, "the tour needs root and namespaces: {seen:?}");
        Ok(shell)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.input
            .write_all(text.as_bytes())
            .context("the shell takes no more")
    }

    /// The exit code of the command that was said last, with all lines until then.
    fn done(&mut self, seen: &mut Vec<String>) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.line(deadline) {
            if let Some(code) = line.strip_prefix(DONE) {
                return code.trim().parse().context("no exit code");
            }
            seen.push(line);
        }
        bail!("no end in {PATIENCE:?}: {seen:#?}")
    }

    fn line(&mut self, deadline: Instant) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    fn run(&mut self, step: &Step) -> Result<()> {
        let program = binary()?;
        let program = program.to_str().context("the binary's path is not UTF-8")?;
        let command = step.command.replace(BINARY, program);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The shell reads its commands from stdin, which no command may eat up.
            self.say(&format!("{{\n{command}\n}} </dev/null\necho {DONE} $?\n"))?;
            let mut seen = Vec::new();
            let code = self.done(&mut seen)?;
            if step.can_be_repeated() && Instant::now() < deadline {
                if code == step.exit_code() && step.missing(&seen).is_none() {
                    return Ok(());
                }
                continue;
            }
            // What was started in the background shows something in its own time.
            while step.missing(&seen).is_some() {
                let Some(line) = self.line(deadline) else {
                    break;
                };
                seen.push(line);
            }
            let text = seen.join("\n");
            let expected = step.exit_code();
            ensure!(
                code == expected,
                "exit code {code}, expected {expected}:\n{text}"
            );
            if let Some(missing) = step.missing(&seen) {
                bail!("the README shows this, and it did not appear:\n{missing}\nbut:\n{text}");
            }
            return Ok(());
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

#[test]
fn every_command_of_the_readme_does_what_the_readme_shows() -> Result<()> {
    let mut shell = Shell::start()?;
    for step in steps()?.iter().filter(|step| step.xtask().is_none()) {
        shell
            .run(step)
            .with_context(|| format!("README.md:{}: {}", step.line, step.command))?;
    }
    Ok(())
}

#[test]
fn every_xtask_of_the_readme_exists() -> Result<()> {
    for step in &steps()? {
        let Some(name) = step.xtask() else { continue };
        let output = Command::new(env!("CARGO"))
            .args(["xtask", name, "--help"])
            .current_dir(root())
            .output()
            .context("cannot run cargo")?;
        ensure!(
            output.status.success(),
            "README.md:{}: {}: {}",
            step.line,
            step.command,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[test]
fn what_varies_may_vary_and_nothing_else() {
    assert!(appears("a …  b", "a 12 b"));
    assert!(appears("… end", "the end"));
    assert!(appears("begin …", "begin and so on"));
    assert!(!appears("a … b", "a 12 c"));
    assert!(!appears("a b", "a b c"));
    assert!(!appears("b …", "a b c"));
}
