//! Policy that changes, well or badly, while traffic runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_AND_STRANGER, FRIEND_ONLY, PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::{eventually, patient};

/// A change is in force within this time.
const IN_FORCE: Duration = Duration::from_secs(1);
/// Attempts of a prober in well more than that time.
const WHILE: u64 = 200;
/// How long `status` may take to tell of an error.
const TOLD: Duration = Duration::from_secs(5);

#[test]
fn a_new_permission_is_in_force_within_a_second() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        scene.policy(FRIEND_ONLY)?;
        scene.friend.reaches(protocol, scene.server.v4(PORT))?;
        let stream = scene.friend.stream(scene.server.v4(PORT))?;
        // The loop's second turn begins where the stranger is permitted still.
        let denied = || scene.stranger.probe(protocol, scene.server.v6(PORT));
        let closed = eventually(TOLD, || denied() != Outcome::Allowed);
        ensure!(closed, "the stranger is permitted to begin with");
        let prober = scene.stranger.prober(protocol, scene.server.v6(PORT));
        prober.makes(20)?;
        ensure!(
            prober.successes() == 0,
            "the stranger got through before the change"
        );
        let changed = Instant::now();
        scene.policy(FRIEND_AND_STRANGER)?;
        let opened = eventually(TOLD, || prober.successes() > 0);
        ensure!(opened, "the stranger does not get through");
        let (first, _) = prober
            .span_of_success()
            .context("the stranger never got through")?;
        let late = first.saturating_duration_since(changed);
        ensure!(late <= patient(IN_FORCE), "the permission took {late:?}");
        stream.advances()?;
        stream.finish().unbroken()?;
    }
    Ok(())
}

#[test]
fn a_withdrawn_permission_ends_within_a_second_and_spares_the_others() -> Result<()> {
    let scene = Scene::with(FRIEND_AND_STRANGER)?;
    let _agent = scene.enforced()?;
    let spared = scene.friend.stream(scene.server.v4(PORT))?;
    let cut = scene.stranger.stream(scene.server.v4(PORT))?;
    let probers =
        Protocol::ALL.map(|protocol| scene.stranger.prober(protocol, scene.server.v6(PORT)));
    for prober in &probers {
        prober.makes(20)?;
        ensure!(
            prober.successes() > 0,
            "the stranger did not get through before the change"
        );
    }
    let changed = Instant::now();
    scene.policy(FRIEND_ONLY)?;
    for prober in probers {
        prober.makes(WHILE)?;
        let (_, last) = prober.span_of_success().context("it got through before")?;
        let late = last.saturating_duration_since(changed);
        ensure!(
            late <= patient(IN_FORCE),
            "attempts got through for {late:?} after the change"
        );
    }
    spared.advances()?;
    spared.finish().unbroken()?;
    // Established connections are judged again.
    ensure!(
        cut.advances().is_err(),
        "a connection that is no longer permitted goes on"
    );
    Ok(())
}

/// Policy permits it still, to whoever has the address.
#[test]
fn what_was_begun_with_an_address_that_is_taken_away_is_cut() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let (friend, server) = (&scene.friend, &scene.server);
    let drops = |reason: &str| -> Result<u64> {
        Ok(agent.status()?["drops"][reason].as_u64().unwrap_or(0))
    };
    let inventory = scene.policies().join("inventory.yaml");
    let text = fs::read_to_string(&inventory).context("the scene has an inventory")?;
    for (own, to, other) in [
        (0, server.v4(PORT), server.v6(PORT)),
        (1, server.v6(PORT), server.v4(PORT)),
    ] {
        let own = friend.addresses()[own].to_string();
        let another = if own.contains(':') {
            "2001:db8::1"
        } else {
            "192.0.2.1"
        };
        let (cut, spared) = (friend.stream(to)?, friend.stream(other)?);
        let spoofed = drops("spoofed-source")?;
        let taken = text.replace(&format!("\"{own}\""), &format!("\"{another}\""));
        ensure!(taken != text, "no {own} in:\n{text}");
        scene.lab.write("policies/inventory.yaml", &taken)?;
        let is_cut = eventually(TOLD, || cut.advances().is_err());
        ensure!(is_cut, "what was begun as {own} goes on: {}", agent.log());
        friend.is_dropped_to(Protocol::Udp, to)?;
        ensure!(drops("spoofed-source")? > spoofed, "{:#}", agent.status()?);
        ensure!(drops("revoked")? > 0, "{:#}", agent.status()?);
        spared.advances()?;
        spared.finish().unbroken()?;

        scene.lab.write("policies/inventory.yaml", &text)?;
        let is_back = || friend.probe(Protocol::Udp, to) == Outcome::Allowed;
        ensure!(eventually(TOLD, is_back), "{own} is not permitted again");
    }
    Ok(())
}

/// Another name is another endpoint for the agent: the old one ends, and the new one begins.
#[test]
fn a_workload_that_is_renamed_is_never_open() -> Result<()> {
    const SERVER: &str = "\"name\": \"server\"";
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let inventory = scene.policies().join("inventory.yaml");
    let text = fs::read_to_string(&inventory).context("the scene has an inventory")?;
    ensure!(text.contains(SERVER), "no server in:\n{text}");
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    for round in 0..10 {
        let renamed = text.replace(SERVER, &format!("\"name\": \"server-{round}\""));
        scene.lab.write("policies/inventory.yaml", &renamed)?;
        let name = format!("shop/server-{round}");
        let known = agent.status_eventually(TOLD, |status| status.to_string().contains(&name));
        ensure!(known, "{name} is not known: {:?}", agent.status());
        prober.makes(5)?;
    }
    prober.finish_denied().with_context(|| agent.log())?;
    scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT))
}

/// Without its numbers an agent takes every endpoint for a new one.
#[test]
fn an_agent_that_has_lost_its_numbers_opens_nothing() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(20)?;
    agent.kill()?;
    let numbers = scene.lab.folder().join("agent/state/endpoints.json");
    ensure!(numbers.is_file(), "no {}", numbers.display());
    fs::write(&numbers, "{").context("cannot break the numbers")?;
    agent.start()?;
    prober.makes(20)?;
    prober.finish_denied().with_context(|| agent.log())?;
    scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT))
}

/// The stranger is never let in and the friend's stream never suffers while `accident` happens;
/// then `status` tells of `name`.
fn changes_nothing(
    name: &str,
    accident: impl FnOnce(&Scene) -> Result<()>,
) -> Result<(Scene, Agent)> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let stream = scene.friend.stream(scene.server.v4(PORT))?;
    let prober = scene.stranger.prober(Protocol::Tcp, scene.server.v4(PORT));
    prober.makes(20)?;
    accident(&scene)?;
    let told = agent.status_eventually(TOLD, |status| status.to_string().contains(name));
    ensure!(
        told,
        "status does not tell of {name}: {:?}\n{}",
        agent.status(),
        agent.log()
    );
    prober.makes(WHILE)?;
    prober.finish_denied().with_context(|| agent.log())?;
    stream.advances()?;
    stream.finish().unbroken()?;
    scene.friend.reaches(Protocol::Udp, scene.server.v6(PORT))?;
    Ok((scene, agent))
}

#[test]
fn a_file_that_does_not_parse_changes_nothing_and_shows() -> Result<()> {
    let (scene, _agent) = changes_nothing("policy.yaml", |scene| {
        scene.policy("kind: NetworkPolicy\nspec: [")
    })?;
    // Mended, it is in force again.
    scene.policy(FRIEND_AND_STRANGER)?;
    let open = eventually(TOLD, || {
        scene
            .stranger
            .reaches(Protocol::Udp, scene.server.v4(PORT))
            .is_ok()
    });
    ensure!(open, "the mended file is not in force");
    Ok(())
}

#[test]
fn an_unknown_field_changes_nothing_and_shows() -> Result<()> {
    changes_nothing("ingres", |scene| {
        scene.policy(&FRIEND_ONLY.replace("ingress:", "ingres:"))
    })
    .map(|_| ())
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing_and_shows() -> Result<()> {
    // A link to itself: even root cannot read that.
    changes_nothing("loop.yaml", |scene| {
        let path = scene.policies().join("loop.yaml");
        symlink(&path, &path).context("cannot make a link")
    })
    .map(|_| ())
}

#[test]
fn a_watched_folder_that_is_removed_changes_nothing_and_shows() -> Result<()> {
    let (scene, _agent) = changes_nothing("policies", |scene| {
        // Away in one step: a policy that vanishes before its inventory would be a change.
        let elsewhere = scene.lab.folder().join("elsewhere");
        fs::rename(scene.policies(), elsewhere).context("cannot move the folder")
    })?;
    fs::rename(scene.lab.folder().join("elsewhere"), scene.policies())?;
    scene.policy(FRIEND_AND_STRANGER)?;
    let open = eventually(TOLD, || {
        scene
            .stranger
            .reaches(Protocol::Tcp, scene.server.v4(PORT))
            .is_ok()
    });
    ensure!(open, "the folder came back and is not watched");
    Ok(())
}
