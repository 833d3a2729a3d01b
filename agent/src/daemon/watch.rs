//! Announcements of the kernel, turned into triggers for the controller.

use std::sync::mpsc;

use agent_policy::model::EndpointSpec;
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinHandle};

use crate::datapath::{
    cgroup::{self, CgroupName, Hierarchy},
    link,
};

/// Why the controller should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Interfaces, addresses or cgroups have come or gone.
    Kernel,
    Stop,
}

/// Wakes the controller.
#[derive(Clone, Debug)]
pub(crate) struct Triggers(mpsc::Sender<Trigger>);

impl Triggers {
    pub(crate) fn stop(&self) {
        self.send(Trigger::Stop);
    }

    fn send(&self, trigger: Trigger) {
        // A controller that has ended needs no waking.
        self.0.send(trigger).unwrap_or(());
    }
}

pub(crate) fn channel() -> (Triggers, mpsc::Receiver<Trigger>) {
    let (sender, receiver) = mpsc::channel();
    (Triggers(sender), receiver)
}

/// The tasks that listen.
#[derive(Debug)]
pub(crate) struct Watching {
    cgroups: watch::Sender<Vec<EndpointSpec>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watching {
    pub(crate) fn start(triggers: &Triggers) -> anyhow::Result<Self> {
        let (cgroups, names) = watch::channel(Vec::new());
        let links = link::Watch::new().context("cannot listen for interfaces")?;
        let mut tasks = vec![tokio::spawn(follow_links(links, triggers.clone()))];
        // Without the hierarchy there is no endpoint in it, and `status` says so of each.
        if let Ok(hierarchy) = Hierarchy::find() {
            let watch = cgroup::Watch::new(hierarchy);
            tasks.push(tokio::spawn(follow_cgroups(watch, names, triggers.clone())));
        }
        Ok(Self { cgroups, tasks })
    }

    /// Where the controller says which cgroups it waits for.
    pub(crate) fn cgroups(&self) -> watch::Sender<Vec<EndpointSpec>> {
        self.cgroups.clone()
    }

    pub(crate) fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

async fn follow_links(mut links: link::Watch, triggers: Triggers) {
    loop {
        match links.changed().await {
            Ok(_) => triggers.send(Trigger::Kernel),
            Err(error) => {
                // The controller looks by itself now and then: slower, but it finds everything.
                tracing::error!(%error, "no announcements of interfaces any more");
                return;
            }
        }
    }
}

async fn follow_cgroups(
    mut watch: cgroup::Watch,
    mut names: watch::Receiver<Vec<EndpointSpec>>,
    triggers: Triggers,
) {
    loop {
        tokio::select! {
            changed = names.changed() => {
                if changed.is_err() {
                    return;
                }
                let specs = names.borrow_and_update().clone();
                watch.set(specs.iter().filter_map(|spec| CgroupName::of(spec)?.ok()));
            }
            _ = watch.changed() => triggers.send(Trigger::Kernel),
        }
    }
}
