//! An API that is slow, throttles, moves, takes no token any more, or is that of another cluster.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::api_server::front::{self, Front, Mood};
use ringfence_lab::api_server::proxy::Proxy;
use ringfence_lab::api_server::{is_there, kubeconfig_of};
use ringfence_lab::wait::always;

use super::{Scene, policy, watch};

#[test]
fn a_slow_api_is_followed_and_one_that_throttles_is_not_stormed() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let url = format!("http://127.0.0.1:{}", front::PORT);
    let mut scene = Scene::by(|_, lab| lab.write("front", &kubeconfig_of(&url, "")))?;
    let _proxy = Proxy::start(&scene.api, &scene.lab)?;
    let front = Front::start(&scene.lab, Mood::Slow(Duration::from_millis(300)))?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;

    front.be(Mood::Refusing);
    scene.api.apply(scene.host(), &policy("b", "stranger"))?;
    scene.shows("429", |kubernetes| {
        let error = watch(kubernetes, "NetworkPolicy")["error"].as_str();
        error.is_some_and(|error| error.contains("429"))
    })?;
    scene.settles(true, false)?;
    // Eleven watches that each ask a few times: none asks as fast as it can.
    let refused = front.refused();
    ensure!(refused < 200, "{refused} requests");
    front.be(Mood::Passing);
    scene.settles(true, true)
}

/// Files of a service account, as kubelet has them: whole, and replaced by a link to others.
fn account(folder: &Path, version: &str, token: &str) -> Result<()> {
    let files = folder.join(version);
    fs::create_dir_all(&files)?;
    fs::write(files.join("token"), token)?;
    let (new, data) = (folder.join("..new"), folder.join("..data"));
    symlink(version, &new)?;
    fs::rename(new, data)?;
    Ok(())
}

#[test]
fn a_token_that_has_expired_is_read_anew() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::by(|_, lab| {
        let folder = lab.folder().join("serviceaccount");
        fs::create_dir_all(&folder)?;
        symlink("..data/token", folder.join("token"))?;
        account(&folder, "..1", "account-token")?;
        let user = format!("tokenFile: '{}'", folder.join("token").display());
        lab.write("account", &kubeconfig_of("https://127.0.0.1:6443", &user))
    })?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;

    let folder = scene.lab.folder().join("serviceaccount");
    scene.api.kill()?;
    scene.api.renew("next-token")?;
    scene.api.resume(scene.lab.host(), 6443)?;
    scene.shows("401", |kubernetes| {
        let error = watch(kubernetes, "NetworkPolicy")["error"].as_str();
        error.is_some_and(|error| error.contains("401"))
    })?;
    scene.api.apply(scene.host(), &policy("b", "stranger"))?;
    account(&folder, "..2", "next-token")?;
    scene.settles(true, true)
}

#[test]
fn a_server_that_has_moved_is_found_where_the_kubeconfig_says() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let kubeconfig = |port: u16| {
        let url = format!("https://127.0.0.1:{port}");
        kubeconfig_of(&url, "token: admin-token")
    };
    let mut scene = Scene::by(|_, lab| lab.write("moving", &kubeconfig(6443)))?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.api.kill()?;
    scene.api.resume(scene.lab.host(), 7443)?;
    scene.api.apply(scene.host(), &policy("b", "stranger"))?;
    scene.lab.write("moving", &kubeconfig(7443))?;
    scene.settles(true, true)?;
    scene.shows("the server", |kubernetes| {
        let server = kubernetes["server"].as_str();
        server.is_some_and(|server| server.contains(":7443"))
    })
}

#[test]
fn what_was_kept_of_another_cluster_is_enforced_until_this_one_is_known_and_never_again()
-> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin")?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.agent.terminate()?;
    scene.agent.detach()?;
    scene.api.kill()?;

    // Of one that is away nobody knows that it is another.
    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.api.begin_anew(scene.lab.host(), 6443)?;
    scene.populate()?;
    scene.api.apply(scene.host(), &policy("b", "stranger"))?;
    scene.settles(false, true)?;
    scene.shows("complete", |kubernetes| {
        let policies = &watch(kubernetes, "NetworkPolicy")["objects"];
        kubernetes["complete"] == true && *policies == 1
    })?;
    ensure!(scene.agent.log().contains("another cluster"));

    scene.agent.terminate()?;
    scene.agent.detach()?;
    scene.api.kill()?;
    scene.agent.start()?;
    scene.settles(false, true)?;
    always(Duration::from_secs(1), || true);
    scene.settles(false, true)
}
