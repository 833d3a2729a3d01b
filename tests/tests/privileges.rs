//! Without the rights it needs, the agent says which; what it does not need, it gives up.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::{Agent, binary};
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;

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

/// What the agent has kept, as its status says.
fn kept(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.status()?;
    let kept = status["privileges"]["capabilities"].as_array();
    let kept = kept.with_context(|| format!("{status}"))?.iter();
    Ok(kept
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

/// Makes a folder somebody else's, who lets nobody in.
fn shut(folder: &Path) -> Result<()> {
    let nobody = NOBODY.parse().context("a user is a number")?;
    std::os::unix::fs::chown(folder, Some(nobody), Some(nobody))?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    Ok(())
}

#[test]
fn policies_of_somebody_else_are_followed_with_one_capability_more() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    shut(&scene.policies())?;
    let agent = scene.enforced()?;
    let expected = [
        "CAP_DAC_READ_SEARCH",
        "CAP_NET_ADMIN",
        "CAP_PERFMON",
        "CAP_BPF",
    ];
    ensure!(kept(&agent)? == expected, "{:?}", kept(&agent)?);
    scene.policy(&FRIEND_ONLY.replace("app: friend", "app: stranger"))?;
    let followed = eventually(Duration::from_secs(20), || {
        let server = scene.server.v4(PORT);
        scene.stranger.reaches(Protocol::Tcp, server).is_ok()
    });
    ensure!(followed, "{}", agent.log());
    Ok(())
}

#[test]
fn records_into_somebody_elses_folder_need_the_greater_one() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.agent()?;
    let file = agent.flow_file();
    shut(file.parent().context("a file has a folder")?)?;
    agent.start()?;
    let kept = kept(&agent)?;
    ensure!(kept.contains(&"CAP_DAC_OVERRIDE".to_owned()), "{kept:?}");
    // As somebody who rotates it does.
    fs::remove_file(&file)?;
    let written = eventually(Duration::from_secs(20), || {
        drop(scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT)));
        file.exists()
    });
    ensure!(written, "{}", agent.log());
    Ok(())
}

#[test]
fn what_the_agent_mounted_stays_until_detach_and_holds_nothing() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.agent()?.with_unmounted_bpffs();
    let mut agent = agent.with(&["--detach-on-exit"]);
    agent.start()?;
    agent.terminate()?;
    scene
        .stranger
        .reaches(Protocol::Tcp, scene.server.v4(PORT))?;
    let names = fs::read_dir(agent.bpffs())?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    // The kernel's own have a dot.
    names.retain(|name| !name.as_encoded_bytes().contains(&b'.'));
    ensure!(names == ["mounted-here"], "{names:?}");
    agent.detach()?;
    ensure!(!agent.bpffs().exists());
    Ok(())
}

/// As of a container that was given the old one, which stood for all.
#[test]
fn where_one_capability_stands_for_others_it_is_kept() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.agent()?.started_by(&[
        "setpriv",
        "--inh-caps=-all",
        "--bounding-set=-all,+sys_admin,+net_admin,+setpcap",
    ]);
    agent.start()?;
    let expected = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"];
    ensure!(kept(&agent)? == expected, "{:?}", kept(&agent)?);
    scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT))?;
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn a_namespace_by_a_process_is_refused_and_the_message_says_what_to_write() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut inhabitant = scene.stranger.spawn(Command::new("sleep").arg("600"))?;
    let workload = format!(
        r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {{namespace: shop, name: other}}
spec: {{addresses: [10.77.0.9], endpoint: {{netns: /proc/{}/ns/net}}}}
",
        inhabitant.id()
    );
    scene.lab.write("policies/other.yaml", &workload)?;
    let agent = scene.enforced();
    let status = agent.as_ref().map(Agent::status);
    inhabitant.kill()?;
    inhabitant.wait()?;
    let status = status.map_err(|error| anyhow::anyhow!("{error:#}"))??;
    let endpoints = status["endpoints"].as_array().context("endpoints")?;
    let mut endpoints = endpoints.iter();
    let other = endpoints.find(|endpoint| endpoint["name"] == "shop/other");
    let other = other.with_context(|| format!("{status}"))?;
    ensure!(other["state"] == "failed", "{other}");
    ensure!(
        other["message"].to_string().contains("ip netns attach"),
        "{other}"
    );
    Ok(())
}
