//! One named network namespace.
//!
//! Threads enter it by `setns`, and processes are spawned by such a thread and inherit it. That
//! leaves the mount namespace alone; `ip netns exec` would remount /sys and hide bpffs and cgroups.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 keeps named namespaces.
pub const FOLDER: &str = "/run/netns";

/// A namespace; one that was made here is deleted when this is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    file: Arc<File>,
}

impl Netns {
    /// Makes a namespace with loopback up and IPv6 without duplicate address detection, so that
    /// every address works at once.
    pub fn create(name: String) -> Result<Self> {
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        check(
            &format!("ip netns add {name}"),
            &made.context("cannot run ip (iproute2)")?,
        )
        .context("a lab needs root and network namespaces")?;
        let path = Path::new(FOLDER).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()));
        let file = file.inspect_err(|_| delete(&name))?;
        let netns = Self {
            name,
            path,
            file: Arc::new(file),
        };
        for (key, value) in [
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
        ] {
            netns.sysctl(key, value)?;
        }
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The namespace that a process lives in, such as that of a pod.
    pub fn of_process(name: String, process: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{process}/ns/net"));
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            name,
            path,
            file: Arc::new(file),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file to give to `nsenter --net=` or to `endpoint.netns`.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Runs `work` on a thread that lives in this namespace and waits for it.
    ///
    /// # Panics
    /// If `work` panics, with its message, or if the namespace cannot be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                enter(&self.file);
                work()
            });
            entered
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `work` on a thread that lives in this namespace, and goes on.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = Arc::clone(&self.file);
        thread::spawn(move || {
            enter(&file);
            work()
        })
    }

    /// Spawns a process in this namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let spawned = self.within(|| command.spawn());
        spawned.with_context(|| format!("cannot run {}", command.get_program().display()))
    }

    /// Runs a process in this namespace to its end.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let output = self.within(|| command.output());
        output.with_context(|| format!("cannot run {}", command.get_program().display()))
    }

    /// Runs lines of `ip` commands, all or an error that names the line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("ip has no stdin")?;
        stdin
            .write_all(lines.as_bytes())
            .context("cannot write to ip")?;
        drop(stdin);
        let output = child.wait_with_output().context("cannot wait for ip")?;
        check(&format!("ip -batch in {}:\n{lines}", self.name), &output)
    }

    /// The output of one `tc` or `ip` command line, for questions.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(Command::new(program).args(arguments))?;
        check(&format!("{program} {}", arguments.join(" ")), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a value below /proc/sys/net of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.within(|| fs::write(&path, value))
            .with_context(|| format!("cannot write {path}"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.path.starts_with(FOLDER) {
            delete(&self.name);
        }
    }
}

/// Takes a namespace's name away; the kernel frees it with its last user.
pub(crate) fn delete(name: &str) {
    let _gone = Command::new("ip")
        .args(["netns", "delete", name])
        .stderr(Stdio::null())
        .status();
}

/// Moves the calling thread to a namespace that has no name and ends with its last user.
///
/// # Panics
/// If the namespace cannot be made.
pub fn enter_anonymous() {
    // SAFETY: changes the namespace of this thread alone; no memory and no descriptor is involved.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn enter(file: &File) {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("entering a network namespace needs CAP_SYS_ADMIN");
}

/// An error with what the tool said, unless it succeeded.
fn check(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        write!(said, "{}", output.status).context("cannot format a status")?;
    }
    bail!("{what}: {said}")
}
