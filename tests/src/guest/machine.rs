//! What a service manager does for a machine, as far as the tests ask for it.

use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot, sethostname};

/// File systems by place, in this order. Version 2 of cgroups is alone, as on a machine of today. Not at /tmp, which is in
/// memory as all is: the programs of a checkout below it would be hidden.
const MOUNTS: [(&str, &str); 8] = [
    ("/sys/fs/cgroup", "cgroup2"),
    ("/sys/fs/bpf", "bpf"),
    ("/sys/kernel/security", "securityfs"),
    ("/sys/kernel/tracing", "tracefs"),
    ("/sys/kernel/debug", "debugfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/run", "tmpfs"),
];

/// What is needed to speak to the outside.
pub(super) fn mount_devices() -> Result<()> {
    for (place, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs")] {
        mount_at(place, kind)?;
    }
    Ok(())
}

/// Loads every module of the folder. One that the kernel finds it has already is no error.
pub(super) fn load_modules(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    for file in files {
        let image = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        match init_module(&image, c"") {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot load {}", file.display()));
            }
        }
    }
    Ok(())
}

/// The rest of the file systems, a name, and loopback.
pub(super) fn furnish() -> Result<()> {
    for (place, kind) in MOUNTS {
        mount_at(place, kind)?;
    }
    sethostname(b"lab-guest").context("cannot set the name of this machine")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    let up = up.context("cannot run ip (iproute2)")?;
    ensure!(up.success(), "loopback stays down: {up}");
    Ok(())
}

/// Ends the machine; returns only if that is refused.
pub(super) fn power_off() -> Result<()> {
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

fn mount_at(place: &str, kind: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
    let source = CString::new(kind).context("a name with a zero")?;
    mount(&source, place, &source, MountFlags::empty(), None::<&CStr>)
        .with_context(|| format!("cannot mount {kind} at {place}"))
}
