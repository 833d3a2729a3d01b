//! Without the rights it needs, the agent says which.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::binary;

const NOBODY: &str = "65534";

#[test]
fn without_root_the_agent_names_what_is_missing() -> Result<()> {
    // Where nobody can read and run it; build folders often lie in somebody's home.
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o777))
        .tempdir()
        .context("cannot make a folder")?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
    let program = folder.path().join("ringfence");
    fs::copy(binary()?, &program).context("cannot copy the binary")?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let at = |name: &str| folder.path().join(name);
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&program)
        .args(["run", "--flows", "-", "-f"])
        .arg(&policies)
        .arg("--bpffs")
        .arg(at("bpf"))
        .arg("--state-dir")
        .arg(at("state"))
        .arg("--socket")
        .arg(at("socket"))
        .stdin(Stdio::null())
        .output()
        .context("cannot run setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code().is_some_and(|code| code != 0),
        "{}: {said}",
        output.status
    );
    ensure!(
        said.contains("CAP_BPF") || said.contains("root"),
        "it does not say what is missing: {said}"
    );
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}
