//! `ringfence detach` removes every trace. Alone in its file, and so in its process: it counts
//! what the kernel holds, and another agent starting beside it would be counted.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::kernel::Objects;
use ringfence_lab::lab::Lab;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;

/// The kernel frees objects some time after their last user is gone.
const FREED: Duration = Duration::from_secs(10);

fn disciplines(lab: &Lab) -> Result<String> {
    lab.host().ask("tc", &["qdisc", "show"])
}

#[test]
fn detach_leaves_nothing_behind() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let qdiscs_before = disciplines(&scene.lab)?;
    let before = Objects::now()?;
    let mut agent = scene.enforced()?;
    let ours = Objects::now()?.without(&before);
    ensure!(
        !ours.programs.is_empty() && !ours.maps.is_empty(),
        "nothing was loaded: {ours:?}"
    );
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))?;

    agent.terminate()?;
    ensure!(
        !Objects::now()?.still_in(&ours).programs.is_empty(),
        "SIGTERM detached"
    );
    agent.detach()?;

    scene
        .stranger
        .reaches(Protocol::Tcp, scene.server.v4(PORT))?;
    let mut left = Objects::default();
    let freed = eventually(FREED, || {
        left = Objects::now()
            .map(|now| now.still_in(&ours))
            .unwrap_or_default();
        left.is_empty()
    });
    ensure!(freed, "the kernel still holds {left:?}");
    let qdiscs = disciplines(&scene.lab)?;
    ensure!(
        qdiscs == qdiscs_before,
        "queueing disciplines are left:\n{qdiscs}"
    );
    let pins = fs::read_dir(agent.bpffs()).map_or(0, Iterator::count);
    ensure!(
        pins == 0,
        "{pins} pins are left in {}",
        agent.bpffs().display()
    );
    // A second one finds nothing to do, and that is no error.
    agent.detach()
}
