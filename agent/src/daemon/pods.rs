//! The pods of this node: their cgroups, found by the names that kubelet gives them; a process in each; its network
//! namespace; and which interface of the node leads there.
//!
//! Nothing is asked of the CNI or of the container runtime. What changes is announced: cgroups by inotify,
//! interfaces of the node and of namespaces without an address by netlink. What nobody announces is found by a look
//! now and then.

mod finder;
mod gate;
mod hints;
mod judge;
mod known;
mod layout;
mod memory;
mod place;
mod tree;

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::select_all;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::sleep,
};

use self::{finder::Depth, hints::Hints};
pub(crate) use self::{
    finder::{Announced, Finder, Found, Placed, Told},
    gate::Gate,
    memory::Memory,
    place::Placer,
    tree::began,
};
use crate::datapath::{
    link::{self, Change},
    netlink::Listening,
    sandbox::Namespace,
};

/// Between two looks for what has not been announced.
const BACKSTOP: Duration = Duration::from_secs(2);

/// Between two looks into every namespace.
const THOROUGH: Duration = Duration::from_secs(30);

/// However much happens, no look begins sooner after the one before.
const REST: Duration = Duration::from_millis(5);

/// A pod that is about to be there, and who waits until it has been placed.
pub(crate) type Order = (Announced, oneshot::Sender<Result<Option<u32>, String>>);

/// Looks until nobody can give orders any more. Says when it has looked once.
pub(crate) async fn follow(
    mut finder: Finder,
    mut placed: Box<dyn Placed>,
    mut orders: mpsc::Receiver<Order>,
    looked_once: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let wake = Arc::new(Notify::new());
    let mut links = link::Watch::new().context("cannot listen for interfaces")?;
    let mut hints = Hints::new(Arc::clone(&wake));
    let mut thorough = Instant::now();
    let mut depth = Depth::Everything;
    let mut waiting_for = Vec::new();
    let mut looked_once = Some(looked_once);
    loop {
        let (looked, unseen, news);
        (finder, placed, hints, looked, unseen) = tokio::task::spawn_blocking(move || {
            answer(&mut finder, &mut *placed, waiting_for);
            let looked = finder.look(depth, &mut *placed);
            // What happened in a folder before it was watched is seen by one look more.
            let unseen = hints.set(&finder.watched());
            (finder, placed, hints, looked, unseen)
        })
        .await?;
        // Programs of pods that are not found would be taken off.
        if looked.is_whole
            && let Some(waiting) = looked_once.take()
        {
            waiting.send(()).unwrap_or(());
        }
        let is_owed = depth == Depth::Everything && !looked.is_whole;
        if depth == Depth::Everything {
            thorough = Instant::now();
        }
        let waiting = waiting(finder.take_waiting());
        let again = if unseen { Some(REST) } else { looked.again };
        news = wait(
            &wake,
            &mut links,
            waiting,
            again.unwrap_or(BACKSTOP),
            &mut orders,
        )
        .await;
        let first = match news {
            News::Order(order) => Some(order),
            News::Look => {
                // So that what happens at once is one look.
                sleep(REST).await;
                None
            }
            News::Ended => return Ok(()),
        };
        // As many as have come meanwhile, as a node that starts has all its pods announced at once.
        let others = iter::from_fn(|| orders.try_recv().ok());
        waiting_for = first.into_iter().chain(others).collect();
        depth = if hints.has_missed() || is_owed || thorough.elapsed() >= THOROUGH {
            Depth::Everything
        } else {
            Depth::Changes
        };
    }
}

/// Places those that are announced, by one scan of cgroups and interfaces for all.
fn answer(finder: &mut Finder, placed: &mut dyn Placed, orders: Vec<Order>) {
    let (announced, waiting): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
    if announced.is_empty() {
        return;
    }
    let answers = finder.announce(announced, placed);
    for (waiting, answer) in waiting.into_iter().zip(answers) {
        // Who asked may have gone.
        drop(oneshot::Sender::send(waiting, answer));
    }
}

enum News {
    Look,
    Order(Order),
    Ended,
}

async fn wait(
    wake: &Notify,
    links: &mut link::Watch,
    mut waiting: Vec<Listening>,
    longest: Duration,
    orders: &mut mpsc::Receiver<Order>,
) -> News {
    let addresses = async {
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        let changed = waiting
            .iter_mut()
            .map(|namespace| Box::pin(namespace.changed()));
        // Which it is, a look finds out.
        let ((), _, _) = select_all(changed).await;
    };
    let interfaces = async {
        loop {
            match links.changed().await {
                Ok(changes) if changes.iter().all(|change| *change == Change::Filters) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "no announcements of interfaces to look for pods by");
                    return std::future::pending().await;
                }
            }
        }
    };
    tokio::select! {
        order = orders.recv() => order.map_or(News::Ended, News::Order),
        () = wake.notified() => News::Look,
        () = addresses => News::Look,
        () = interfaces => News::Look,
        () = sleep(longest) => News::Look,
    }
}

/// Those that the kernel cannot tell of are looked at now and then.
fn waiting(namespaces: Vec<Namespace>) -> Vec<Listening> {
    let listening = namespaces.into_iter().filter_map(|namespace| {
        namespace
            .into_listening()
            .inspect_err(|error| tracing::debug!(%error, "a namespace is not listened to"))
            .ok()
    });
    listening.collect()
}
