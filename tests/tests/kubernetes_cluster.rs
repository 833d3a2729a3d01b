//! The agent as a daemon set of a real cluster, and pods that a real kubelet runs.
//!
//! Run by `cargo xtask test --kubernetes`; without a cluster each of these says that it is skipped.

#[path = "kubernetes_cluster/scene.rs"]
mod scene;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::cluster::{Cluster, PLUGINS_HERE};
use ringfence_lab::kernel::Objects;
use ringfence_lab::probe::Protocol;
use ringfence_lab::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use scene::{PORT, SPOKEN, Scene, ingress};

/// The kernel frees objects some time after their last user is gone.
const FREED: Duration = Duration::from_secs(10);
/// Attempts of a prober: two seconds of them.
const MANY: u64 = 200;

#[test]
fn pods_are_isolated_and_follow_every_change_of_policy() -> Result<()> {
    let Some(cluster) = Cluster::of_this_run() else {
        return Ok(());
    };
    cluster.install_agent()?;
    // The policy is there before the pods are, and they get ready: what the kubelet asks of them passes.
    let scene = Scene::isolated(&cluster)?;
    scene.only_the_friend_gets_in()?;
    let told = eventually(Duration::from_mins(1), || {
        let path = "jsonpath={.items[*].status.enforcing}";
        let told = cluster.kubectl(&["get", "agentstatuses", "-o", path]);
        told.is_ok_and(|enforcing| enforcing == "true")
    });
    ensure!(told, "the agent does not tell the API what it enforces");

    scene.apply(&[ingress("only-friend", "stranger", &[PORT])])?;
    scene.settles(
        "the policy names the stranger",
        Scene::stranger_alone_gets_in,
    )?;
    scene.apply(&[ingress("only-friend", "friend", &[PORT + 1])])?;
    scene.settles("the policy names another port", Scene::nobody_gets_in)?;
    scene.delete(&[ingress("only-friend", "friend", &[])])?;
    scene.settles("there is no policy", Scene::everybody_gets_in)?;
    scene.apply(&[ingress("only-friend", "friend", &[PORT])])?;
    scene.settles("the policy is back", Scene::only_the_friend_gets_in)?;
    scene.kubelet_is_content()
}

#[test]
fn a_killed_agent_leaves_no_gap_and_comes_back() -> Result<()> {
    let Some(cluster) = Cluster::of_this_run() else {
        return Ok(());
    };
    cluster.install_agent()?;
    let scene = Scene::isolated(&cluster)?;
    scene.only_the_friend_gets_in()?;
    let traffic = scene.traffic()?;

    let agent = cluster.agent_status()?;
    let process = agent["pid"].as_i64().context("no pid")?;
    let process = Pid::from_raw(process.try_into()?).context("pid 0")?;
    kill_process(process, Signal::KILL)?;
    let back = eventually(Duration::from_mins(1), || {
        let now = cluster.agent_status();
        now.is_ok_and(|now| now["pid"] != agent["pid"] && now["enforcing"] == true)
    });
    ensure!(back, "no new agent enforces");
    // The whole pod, too.
    cluster.delete_agent_pod()?;
    cluster.agent_is_ready()?;
    traffic.was_not_disturbed()?;
    scene.only_the_friend_gets_in()
}

#[test]
fn a_rolling_update_under_traffic_opens_nothing_and_loses_nothing() -> Result<()> {
    let Some(cluster) = Cluster::of_this_run() else {
        return Ok(());
    };
    cluster.install_agent()?;
    let scene = Scene::isolated(&cluster)?;
    scene.only_the_friend_gets_in()?;
    let traffic = scene.traffic()?;
    traffic.goes_on(MANY)?;

    cluster.install_agent_of("two")?;
    // The old pod may take its time to go.
    let mut images = String::new();
    let replaced = eventually(Duration::from_mins(1), || {
        images = cluster.agent_images().unwrap_or_default();
        // The plugin's container has the same.
        let mut all = images.split_whitespace().peekable();
        all.peek().is_some() && all.all(|image| image == "localhost/ringfence:two")
    });
    ensure!(replaced, "{images}");
    traffic.goes_on(MANY)?;
    traffic.was_not_disturbed()?;
    scene.only_the_friend_gets_in()
}

#[test]
fn an_uninstalled_agent_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::of_this_run() else {
        return Ok(());
    };
    cluster.import_image()?;
    cluster.uninstall_agent()?;
    let before = Objects::now()?;
    cluster.install_agent()?;
    let scene = Scene::isolated(&cluster)?;
    scene.only_the_friend_gets_in()?;
    let ours = Objects::now()?.without(&before);
    ensure!(
        !ours.programs.is_empty() && !ours.maps.is_empty(),
        "{ours:?}"
    );

    cluster.uninstall_agent()?;
    scene.everybody_gets_in()?;
    let mut left = Objects::default();
    let freed = eventually(FREED, || {
        left = Objects::now()
            .map(|now| now.still_in(&ours))
            .unwrap_or_default();
        left.is_empty()
    });
    ensure!(freed, "the kernel still holds {left:?}");
    for folder in ["/sys/fs/bpf", "/var/lib", "/run", PLUGINS_HERE] {
        let there = cluster.on_node("ls").arg(folder).output()?;
        let there = String::from_utf8_lossy(&there.stdout).into_owned();
        ensure!(!there.contains("ringfence"), "left in {folder}: {there}");
    }
    let conf = cluster
        .on_node("cat")
        .arg("/etc/cni/net.d/10-pods.conflist")
        .output()?;
    ensure!(
        !String::from_utf8_lossy(&conf.stdout).contains("ringfence"),
        "{conf:?}"
    );
    let kinds = cluster.kubectl(&[
        "get",
        "crd,clusterrole,clusterrolebinding,namespace",
        "-o",
        "name",
    ])?;
    ensure!(!kinds.contains("ringfence"), "left in the API:\n{kinds}");
    scene
        .stranger
        .reaches(
            Protocol::Tcp,
            *scene.server.at(SPOKEN).first().context("no address")?,
        )
        .context("the echo service is open to all")
}
