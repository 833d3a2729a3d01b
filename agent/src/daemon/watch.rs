//! Announcements of the kernel, turned into triggers for the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use agent_policy::model::EndpointSpec;
use anyhow::Context as _;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    datapath::{
        bpffs,
        cgroup::{self, CgroupName, Hierarchy},
        link::{self, Change, Link},
    },
    source::watch::{Places, Watch as FileWatch},
};

/// Why the controller should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Interfaces, addresses, filters, pins or cgroups have come or gone.
    Kernel,
    /// Files may have changed, and nothing else has.
    Files,
    /// The agent ends.
    Stop,
}

/// Wakes the controller. One look answers all announcements that came before it, so they are not
/// counted: a wake that is under way stands for those that follow.
#[derive(Clone, Debug)]
pub(crate) struct Triggers {
    wake: SyncSender<()>,
    /// See [`Triggered::is_woken`].
    waiting: Arc<AtomicBool>,
    /// Whether more than files may have changed.
    kernel: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    news: News,
}

/// The controller's side of [`Triggers`].
#[derive(Debug)]
pub(crate) struct Triggered {
    woken: Receiver<()>,
    /// Whether a wake is under way.
    waiting: Arc<AtomicBool>,
    kernel: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    news: News,
}

/// Interfaces that were announced, and that the controller has not heard of yet.
///
/// Beside the wake, because they are dealt with one by one, and before everything else: also in the
/// middle of a look.
#[derive(Clone, Debug, Default)]
pub(crate) struct News(Arc<Mutex<LinkNews>>);

/// By their numbers, the latest of each: so there are never more than there are interfaces.
#[derive(Debug, Default)]
pub(crate) struct LinkNews {
    pub(crate) appeared: BTreeMap<u32, Link>,
    pub(crate) vanished: BTreeSet<u32>,
}

impl News {
    /// What has been announced since this was asked last.
    pub(crate) fn take(&self) -> LinkNews {
        mem::take(&mut *self.lock())
    }

    /// Whether there is something to take.
    pub(crate) fn is_there(&self) -> bool {
        let LinkNews { appeared, vanished } = &*self.lock();
        !(appeared.is_empty() && vanished.is_empty())
    }

    fn tell(&self, changes: Vec<Change>) {
        let mut news = self.lock();
        for change in changes {
            match change {
                Change::Link(mut link) => {
                    // One with its number may be gone: that is heard of first. One that was new a moment ago
                    // still is.
                    let earlier = news.appeared.get(&link.index);
                    link.is_up &= earlier.is_none_or(|earlier| earlier.is_up);
                    news.appeared.insert(link.index, link);
                }
                Change::LinkGone(link) => {
                    news.appeared.remove(&link.index);
                    news.vanished.insert(link.index);
                }
                // A look at everything answers these.
                Change::Port | Change::Addresses | Change::Filters | Change::Lost => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, LinkNews> {
        // Each change is one insertion or removal: nothing is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn channel() -> (Triggers, Triggered) {
    let (wake, woken) = mpsc::sync_channel(1);
    let [waiting, kernel, stopping] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let news = News::default();
    let triggers = Triggers {
        wake,
        waiting: Arc::clone(&waiting),
        kernel: Arc::clone(&kernel),
        stopping: Arc::clone(&stopping),
        news: news.clone(),
    };
    let triggered = Triggered {
        woken,
        waiting,
        kernel,
        stopping,
        news,
    };
    (triggers, triggered)
}

impl Triggers {
    pub(crate) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.hint();
    }

    fn wake(&self) {
        self.kernel.store(true, SeqCst);
        self.hint();
    }

    /// Has the inputs looked at alone.
    pub(crate) fn hint(&self) {
        self.waiting.store(true, SeqCst);
        // Full: it will look. Disconnected: a controller that has ended needs no waking.
        self.wake.try_send(()).unwrap_or(());
    }
}

impl Triggered {
    /// Whether [`Triggered::wait`] would return at once.
    pub(crate) fn is_woken(&self) -> bool {
        self.waiting.load(SeqCst)
    }

    /// Where announced interfaces are heard of.
    pub(crate) fn news(&self) -> News {
        self.news.clone()
    }

    /// Waits for a trigger, but not longer than `patience`.
    pub(crate) fn wait(&self, patience: Duration) -> Option<Trigger> {
        let woken = self.woken.recv_timeout(patience);
        // What is announced from here on may be answered by this look or by the next.
        self.waiting.store(false, SeqCst);
        if self.stopping.load(SeqCst) || woken == Err(RecvTimeoutError::Disconnected) {
            return Some(Trigger::Stop);
        }
        // Asked after the wake was taken: what is announced from here on wakes once more.
        let kernel = self.kernel.swap(false, SeqCst);
        if kernel {
            return Some(Trigger::Kernel);
        }
        woken.ok().map(|()| Trigger::Files)
    }
}

/// The tasks that listen.
#[derive(Debug)]
pub(crate) struct Watching {
    cgroups: watch::Sender<Vec<EndpointSpec>>,
    places: watch::Sender<Places>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watching {
    pub(crate) fn start(triggers: &Triggers, pins: bpffs::Watch) -> anyhow::Result<Self> {
        let (cgroups, names) = watch::channel(Vec::new());
        let (places, paths) = watch::channel(Places::new());
        let links = link::Watch::new().context("cannot listen for interfaces")?;
        let mut tasks = vec![
            tokio::spawn(follow_links(links, triggers.clone())),
            tokio::spawn(follow_pins(pins, triggers.clone())),
            tokio::spawn(follow_files(paths, triggers.clone())),
        ];
        // Without the hierarchy there is no endpoint in it, and `status` says so of each.
        if let Ok(hierarchy) = Hierarchy::find() {
            let watch = cgroup::Watch::new(hierarchy);
            tasks.push(tokio::spawn(follow_cgroups(watch, names, triggers.clone())));
        }
        Ok(Self {
            cgroups,
            places,
            tasks,
        })
    }

    /// Where the controller says which cgroups it waits for.
    pub(crate) fn cgroups(&self) -> watch::Sender<Vec<EndpointSpec>> {
        self.cgroups.clone()
    }

    /// Where the controller says where its files are.
    pub(crate) fn places(&self) -> watch::Sender<Places> {
        self.places.clone()
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
            Ok(changes) => {
                triggers.news.tell(changes);
                triggers.wake();
            }
            Err(error) => {
                // The controller looks by itself now and then: slower, but it finds everything.
                tracing::error!(%error, "no announcements of interfaces any more");
                return;
            }
        }
    }
}

async fn follow_pins(mut pins: bpffs::Watch, triggers: Triggers) {
    loop {
        pins.changed().await;
        triggers.wake();
    }
}

async fn follow_files(mut places: watch::Receiver<Places>, triggers: Triggers) {
    let mut watch = FileWatch::new();
    loop {
        tokio::select! {
            changed = places.changed() => {
                if changed.is_err() {
                    return;
                }
                let places = places.borrow_and_update().clone();
                watch.set(places);
                // What changed before the watch is not hinted at.
                triggers.hint();
            }
            () = watch.changed() => triggers.hint(),
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
            _ = watch.changed() => triggers.wake(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_announcements_are_one_look() {
        let (triggers, triggered) = channel();
        for _ in 0..3 {
            triggers.wake();
        }
        assert_eq!(triggered.wait(Duration::MAX), Some(Trigger::Kernel));
        assert_eq!(triggered.wait(Duration::ZERO), None);
    }

    #[test]
    fn of_an_interface_the_latest_is_told_once() {
        let link = |name: &str| Link {
            index: 7,
            name: name.to_owned(),
            kind: None,
            leads_to: None,
            leads_to_netns: None,
            hardware: 1,
            mac: None,
            is_up: false,
        };
        let news = News::default();
        news.tell(vec![Change::Link(link("a")), Change::Link(link("b"))]);
        let told = news.take();
        assert_eq!(told.appeared, BTreeMap::from([(7, link("b"))]));
        assert!(told.vanished.is_empty() && news.take().appeared.is_empty());
        news.tell(vec![Change::Link(link("b")), Change::LinkGone(link("b"))]);
        let told = news.take();
        assert!(told.appeared.is_empty());
        assert_eq!(told.vanished, BTreeSet::from([7]));
    }

    #[test]
    fn a_hint_of_files_hides_no_announcement() {
        let (triggers, triggered) = channel();
        triggers.hint();
        assert_eq!(triggered.wait(Duration::MAX), Some(Trigger::Files));
        triggers.hint();
        triggers.wake();
        triggers.hint();
        assert_eq!(triggered.wait(Duration::MAX), Some(Trigger::Kernel));
        assert_eq!(triggered.wait(Duration::ZERO), None);
    }

    #[test]
    fn a_stop_is_not_lost_behind_announcements() {
        let (triggers, triggered) = channel();
        assert!(!triggered.is_woken());
        triggers.wake();
        assert!(triggered.is_woken());
        triggers.stop();
        assert_eq!(triggered.wait(Duration::MAX), Some(Trigger::Stop));
    }

    #[test]
    fn nobody_left_to_wake_it_is_a_stop() {
        let (triggers, triggered) = channel();
        drop(triggers);
        assert_eq!(triggered.wait(Duration::MAX), Some(Trigger::Stop));
    }
}
