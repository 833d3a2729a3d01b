//! The process under test: `ringfence run` in a lab's host namespace, with every path its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::lab::{Lab, Netns, unmount_below};
use crate::wait::{eventually, eventually_some};

/// How long loading and attaching may take. A debug build on a busy machine needs seconds.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take to end when asked. Where a machine is very busy, the kernel needs more than ten
/// seconds to close what watches files (`fsnotify_destroy_group`), long after the agent is done.
const STOP_DEADLINE: Duration = Duration::from_mins(1);
/// The word in the line on stdout that says that policy is in force.
const ENFORCING: &str = "enforcing";

/// The binary to test: `RINGFENCE_BIN`, else the newer of the two builds beside this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RINGFENCE_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("cannot find this program's own path")?;
    let target = this
        .ancestors()
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .and_then(Path::parent)
        .context("this program lies in no target folder; set RINGFENCE_BIN")?;
    let builds = ["release", "debug"].map(|profile| target.join(profile).join("ringfence"));
    let newest = builds
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max();
    let (_, path) = newest.context("no ringfence binary: build it, or set RINGFENCE_BIN")?;
    Ok(path)
}

/// An agent's places and, while it runs, its process. On drop it is killed and detached.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    host: Arc<Netns>,
    folder: PathBuf,
    bpffs: PathBuf,
    policies: Vec<PathBuf>,
    options: Vec<String>,
    /// The group that it takes for the whole machine.
    group: Option<PathBuf>,
    /// A command that starts it, with its arguments.
    starter: Vec<String>,
    environment: Vec<(String, OsString)>,
    has_flow_file: bool,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    stdout: String,
    stderr: String,
}

impl Agent {
    /// An agent that does not run yet. `name` keeps several in one lab apart.
    pub fn prepare(lab: &Lab, name: &str, policies: &[&Path]) -> Result<Self> {
        let folder = lab.folder().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            binary: binary()?,
            host: lab.host_handle(),
            folder,
            bpffs: lab.bpffs().join(name),
            policies: policies.iter().map(|path| path.to_path_buf()).collect(),
            options: Vec::new(),
            group: None,
            starter: Vec::new(),
            environment: Vec::new(),
            has_flow_file: true,
            running: None,
        })
    }

    /// An agent that enforces `policies`.
    pub fn enforcing(lab: &Lab, policies: &[&Path]) -> Result<Self> {
        let mut agent = Self::prepare(lab, "agent", policies)?;
        agent.start()?;
        Ok(agent)
    }

    /// More options for `run`.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Puts the pins somewhere that is no bpffs yet, so that the agent has to mount it.
    #[must_use]
    pub fn with_unmounted_bpffs(mut self) -> Self {
        self.bpffs = self.folder.join("own-bpf");
        self
    }

    /// Has it started by another command, such as one that takes rights away. Before kernel 5.11 its tables are locked memory:
    /// units of systemd and runtimes of containers give that, too.
    #[must_use]
    pub fn started_by(mut self, command: &[&str]) -> Self {
        // Who may not give it is under a kernel that does not ask for it.
        let memory = r#"ulimit -l unlimited 2>/dev/null; exec "$@""#;
        let words = ["sh", "-c", memory, "sh"];
        let words = words.iter().chain(command);
        self.starter = words.map(|&word| word.to_owned()).collect();
        self
    }

    /// Records go only where the settings say.
    #[must_use]
    pub fn without_flow_file(mut self) -> Self {
        self.has_flow_file = false;
        self
    }

    /// One more variable of its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Lets it see this group as the root of the hierarchy, so that what it does to the whole node
    /// it does to the group alone.
    #[must_use]
    pub fn within(mut self, group: &Cgroup) -> Self {
        self.group = Some(group.path().to_owned());
        self
    }

    /// Its folder of pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The file of flow records.
    pub fn flow_file(&self) -> PathBuf {
        self.folder.join("flows.jsonl")
    }

    /// The path of the control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The command line of `run`, to run it or to show it.
    pub fn run_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("run");
        for path in &self.policies {
            command.arg("-f").arg(path);
        }
        command.arg("--bpffs").arg(&self.bpffs);
        command.arg("--state-dir").arg(self.folder.join("state"));
        command.arg("--socket").arg(self.socket());
        if self.has_flow_file {
            command.arg("--flows").arg(self.flow_file());
        }
        command.args(&self.options);
        command
    }

    /// [`Self::run_command`], in a cgroup namespace if need be.
    fn start_command(&self) -> Result<Command> {
        const ENTER: &str = r#"echo $$ >"$0/cgroup.procs" && exec unshare -C -m sh -c 'mount -t cgroup2 none "$0" && exec "$@"' "$@""#;
        let mut run = self.run_command();
        if let Some((starter, arguments)) = self.starter.split_first() {
            let mut started = Command::new(starter);
            started.args(arguments).arg(run.get_program());
            started.args(run.get_args());
            run = started;
        }
        let Some(group) = &self.group else {
            return Ok(run);
        };
        let point = self.folder.join("cgroup");
        fs::create_dir_all(&point).with_context(|| format!("cannot make {}", point.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", ENTER]).arg(group).arg(point);
        command.arg(run.get_program()).args(run.get_args());
        Ok(command)
    }

    /// Starts it and waits until it says that it enforces.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.comes_to_enforce()
    }

    /// Starts it, and waits for nothing.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the agent runs already");
        let mut command = self.start_command()?;
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.host.spawn(&mut command)?;
        let log = Arc::new(Mutex::new(Log::default()));
        follow(child.stdout.take(), &log, |log| &mut log.stdout);
        follow(child.stderr.take(), &log, |log| &mut log.stderr);
        self.running = Some(Running { child, log });
        Ok(())
    }

    /// Waits until it says that it enforces.
    pub fn comes_to_enforce(&mut self) -> Result<()> {
        let running = self.running.as_mut().context("no agent to wait for")?;
        let mut ended = None;
        let settled = eventually(START_DEADLINE, || {
            ended = running.child.try_wait().ok().flatten();
            running.says_enforcing() || ended.is_some()
        });
        if settled && running.says_enforcing() {
            return Ok(());
        }
        let log = self.log();
        match ended {
            Some(status) => bail!("the agent ended before it enforced: {status}\n{log}"),
            None => bail!("the agent did not say {ENFORCING:?} in {START_DEADLINE:?}\n{log}"),
        }
    }

    /// Both outputs so far, for the message of a failure.
    pub fn log(&self) -> String {
        let Some(running) = &self.running else {
            return "(the agent does not run)".to_owned();
        };
        let log = running.log.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "--- agent stdout\n{}--- agent stderr\n{}---",
            log.stdout, log.stderr
        )
    }

    /// Whether its process is there and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// The number of its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// A signal that it need not end by.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.running.as_ref().context("no agent to signal")?;
        kill_process(Pid::from_child(&running.child), signal).context("cannot signal the agent")
    }

    /// kill -9: it gets no chance to do anything.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("no agent to kill")?;
        running.child.kill().context("cannot kill the agent")?;
        running.child.wait().context("cannot wait for the agent")?;
        Ok(())
    }

    /// SIGTERM, and wait for the end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("no agent to terminate")?;
        let pid = Pid::from_child(&running.child);
        kill_process(pid, Signal::TERM).context("cannot signal the agent")?;
        let ended = eventually_some(STOP_DEADLINE, || running.child.try_wait().ok().flatten());
        if let Some(status) = ended {
            self.running = None;
            return Ok(status);
        }
        let threads = threads(running.child.id());
        let log = self.log();
        self.kill()?;
        bail!("the agent ignored SIGTERM for {STOP_DEADLINE:?}\n{log}\nits threads:\n{threads}")
    }

    /// Runs the binary in the host namespace with the given arguments.
    pub fn call<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        self.host.output(
            Command::new(&self.binary)
                .args(arguments)
                .stdin(Stdio::null()),
        )
    }

    /// `ringfence detach`: removes every trace of this agent from the kernel.
    pub fn detach(&self) -> Result<()> {
        let output = self.host.output(&mut self.detach_command())?;
        succeeded("detach", &output)
    }

    /// Packets of a stream that the kernel may have lost when interfaces were attached: each clsact that is added costs what is
    /// being sent, whoever adds it.
    pub fn cost_of_attaching(&self) -> Result<u32> {
        let status = self.status()?;
        let endpoints = status["endpoints"].as_array().into_iter().flatten();
        let of_clsact = endpoints.filter(|endpoint| endpoint["hook"] == "clsact");
        Ok(u32::try_from(of_clsact.count())?)
    }

    /// `ringfence status -o json`.
    pub fn status(&self) -> Result<Value> {
        self.ask(&["status", "-o", "json"])
    }

    /// Whether `status` comes to satisfy `condition` in `deadline`.
    pub fn status_eventually(
        &self,
        deadline: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> bool {
        eventually(deadline, || {
            self.status().is_ok_and(|status| condition(&status))
        })
    }

    /// The last `number` flow records, oldest first.
    pub fn flows(&self, number: usize) -> Result<Vec<Value>> {
        self.flows_that(&["--last", &number.to_string()])
    }

    /// What these filters of `flows` let through.
    pub fn flows_that(&self, filters: &[&str]) -> Result<Vec<Value>> {
        let answer = self.ask_text(&[&["flows", "-o", "json"], filters].concat())?;
        let lines = serde_json::Deserializer::from_str(&answer).into_iter();
        let mut records = Vec::new();
        for value in lines {
            match value.context("flows printed no JSON")? {
                Value::Array(several) => records.extend(several),
                one => records.push(one),
            }
        }
        Ok(records)
    }

    /// The last `number` flow records for people.
    pub fn flow_table(&self, number: usize) -> Result<String> {
        self.ask_text(&["flows", "--last", &number.to_string(), "-o", "table"])
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.ask_text(arguments)?;
        serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer}"))
    }

    /// A question over the control socket.
    fn ask_text(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null());
        let output = self.host.output(&mut command)?;
        succeeded(&arguments.join(" "), &output).with_context(|| self.log())?;
        String::from_utf8(output.stdout).context("the agent answered with non-UTF-8")
    }

    fn detach_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("detach")
            .arg("--bpffs")
            .arg(&self.bpffs)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _killed = self.kill().is_ok();
        }
        // If this fails, the unmounting of the lab's bpffs drops the pins nevertheless.
        let _detached = self.detach().is_ok();
        unmount_below(&self.folder);
    }
}

impl Running {
    fn says_enforcing(&self) -> bool {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.stdout.lines().any(|line| line.contains(ENFORCING))
    }
}

/// What each thread of a process is doing, as far as the kernel tells.
fn threads(process: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return "(none)".to_owned();
    };
    let of = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    let tasks = tasks.filter_map(Result::ok).map(|task| {
        let task = task.path();
        let stat = of(&task, "stat");
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        let (name, stack) = (of(&task, "comm"), of(&task, "stack"));
        format!("{} {state:?}\n{stack}", name.trim())
    });
    tasks.collect()
}

/// Copies a pipe into the log until its end.
fn follow(
    pipe: Option<impl Read + Send + 'static>,
    log: &Arc<Mutex<Log>>,
    field: fn(&mut Log) -> &mut String,
) {
    let Some(pipe) = pipe else { return };
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            field(&mut log).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ringfence {what}: {}\n{said}",
        output.status
    );
    Ok(())
}
