//! What a change of policy no longer permits: the kernel drops its packets, and here its sockets end.
//!
//! On a thread of its own: an endpoint may have a hundred thousand flows, and the next change of policy
//! must not wait for them. An end of a connection that no socket was found for is asked to speak, so that it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use agent_common::protocol::TCP;
use agent_policy::model::{EndpointSpec, SubjectName};
use anyhow::Context as _;

use crate::{
    daemon::{
        prompts::{Prompts, Turn},
        status::Shared,
    },
    datapath::{
        cgroup::{CgroupName, Hierarchy},
        helper::Helper,
        link::{self, Link, Stations},
        prompt::{Prompter, Way},
        sockets::{Connected, Owner, Sockets},
        withdrawn::Search,
    },
};

/// Asked for one by one, this many sockets take as long as a list of a busy node's.
const MANY: usize = 4096;

/// Ends sockets, one change of policy after the other. Dropped, it ends the one that it is at.
#[derive(Debug, Default)]
pub(crate) struct Revoker {
    pending: Arc<Pending>,
    /// Rings when there is something pending.
    bell: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What has changed since the thread last looked: one change, however many there were.
#[derive(Debug, Default)]
struct Pending(Mutex<Option<Change>>);

/// A change of policy that is in force.
#[derive(Debug)]
pub(crate) struct Change {
    /// Endpoints that it touches.
    pub(crate) touched: BTreeMap<u16, Touched>,
    /// The node's own addresses: what goes there takes its loopback interface.
    pub(crate) this_node: BTreeSet<IpAddr>,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) name: SubjectName,
    pub(crate) flags: u16,
    pub(crate) spec: EndpointSpec,
}

struct Work {
    search: Search,
    /// Who enters network namespaces for us.
    helper: Option<Arc<Helper>>,
    pending: Arc<Pending>,
    /// Who asks ends to speak; without one, none is asked.
    prompter: Option<Prompter>,
    prompts: Prompts,
    shared: Arc<Shared>,
}

/// What came of the sockets of an endpoint.
#[derive(Debug, Default)]
struct Tally {
    ended: usize,
    /// How many the kernel would not end, and why not the first of them.
    refused: usize,
    refusal: Option<io::Error>,
    /// TCP connections without a socket that was ended.
    left: Vec<Connected>,
}

// === impl Revoker ===

impl Revoker {
    /// Without a search, no socket is ever ended.
    pub(crate) fn start(
        search: anyhow::Result<Search>,
        prompter: anyhow::Result<Prompter>,
        helper: Option<Arc<Helper>>,
        shared: Arc<Shared>,
    ) -> Self {
        let prompter = prompter
            .inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::warn!(error, "ends of connections that are idle are not told");
            })
            .ok();
        let started = search.and_then(|search| {
            let pending = Arc::<Pending>::default();
            let (bell, rings) = sync_channel(1);
            let work = Work {
                search,
                helper,
                pending: Arc::clone(&pending),
                prompter,
                prompts: Prompts::default(),
                shared,
            };
            let thread = thread::Builder::new().name("revoker".to_owned());
            Ok(Self {
                pending,
                bell: Some(bell),
                thread: Some(thread.spawn(move || work.run(&rings))?),
            })
        });
        started.unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "connections that are no longer permitted are dropped, and hang until a time-out"
            );
            Self::default()
        })
    }

    /// Has the sockets ended whose flows are no longer permitted; does not wait for it.
    pub(crate) fn follow(&self, change: Change) {
        let Some(bell) = &self.bell else {
            return;
        };
        if change.touched.is_empty() {
            return;
        }
        self.pending.add(change);
        match bell.try_send(()) {
            // It has rung and is not heard yet.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                tracing::error!("nobody ends connections any more; they are dropped");
            }
        }
    }
}

impl Drop for Revoker {
    fn drop(&mut self) {
        drop(self.bell.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that ends connections panicked");
        }
    }
}

// === impl Pending ===

impl Pending {
    fn add(&self, change: Change) {
        let Self(pending) = self;
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = Some(match pending.take() {
            Some(earlier) => earlier.and(change),
            None => change,
        });
    }

    fn take(&self) -> Option<Change> {
        let Self(pending) = self;
        pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

// === impl Change ===

impl Change {
    /// This one and the next as one: what counts is what is permitted now.
    fn and(self, next: Self) -> Self {
        let mut touched = self.touched;
        touched.extend(next.touched);
        Self {
            touched,
            this_node: next.this_node,
            since: self.since,
        }
    }
}

// === impl Work ===

impl Work {
    fn run(mut self, rings: &Receiver<()>) {
        loop {
            let rung = match self.prompts.patience(Instant::now()) {
                Some(patience) => rings.recv_timeout(patience),
                None => rings.recv().map_err(RecvTimeoutError::from),
            };
            match rung {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => self.prompt(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(change) = self.pending.take() else {
                continue;
            };
            if let Err(error) = self.cut(&change) {
                tracing::warn!("cannot find connections to end, which are dropped: {error:#}");
            }
        }
    }

    /// Asks those ends whose turn it is.
    fn prompt(&mut self) {
        let Some(prompter) = &self.prompter else {
            return;
        };
        for turn in self.prompts.turn(Instant::now()) {
            let Turn {
                endpoint,
                end,
                form,
                way,
            } = turn;
            match prompter.ask(&end, form, &way) {
                Ok(()) => self.shared.prompted(endpoint),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::debug!(endpoint, ?end, error, "cannot ask an idle end");
                }
            }
        }
    }

    /// Has ends of an endpoint's connections asked to speak; how many.
    fn wake(&mut self, endpoint: u16, touched: &Touched, ends: &[Connected]) -> usize {
        if ends.is_empty() || self.prompter.is_none() {
            return 0;
        }
        let Touched { name, spec, .. } = touched;
        // Of a cgroup, there is nothing to send by.
        let Some(link) = link::resolve(spec) else {
            return 0;
        };
        let found = link.and_then(|link| Ok((link, Stations::list()?)));
        let (link, stations) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(endpoint = %name, %error, "idle ends are not asked");
                return 0;
            }
        };
        let woken = self.wake_behind(endpoint, &link, &stations, ends);
        if woken < ends.len() {
            tracing::warn!(
                endpoint = %name,
                connections = ends.len() - woken,
                "too many are idle, or nobody is known to have their addresses: they are told when they speak"
            );
        }
        woken
    }

    fn wake_behind(
        &mut self,
        endpoint: u16,
        link: &Link,
        stations: &Stations,
        ends: &[Connected],
    ) -> usize {
        let now = Instant::now();
        let mut ways: BTreeMap<IpAddr, Option<Way>> = BTreeMap::new();
        let mut woken = 0;
        for end in ends {
            let (address, _) = end.local;
            let way = ways
                .entry(address)
                .or_insert_with(|| Way::find(link, address, stations));
            if let Some(way) = way
                && self.prompts.add(endpoint, *end, way.clone(), now)
            {
                woken += 1;
            }
        }
        woken
    }

    fn cut(&mut self, change: &Change) -> anyhow::Result<()> {
        let flags = change.touched.iter();
        let flags = flags.map(|(id, touched)| (*id, touched.flags)).collect();
        let withdrawn = self.search.withdrawn(&flags)?;
        let mut withdrawn: Vec<_> = withdrawn
            .into_iter()
            .filter_map(|(id, sockets)| Some((id, change.touched.get(&id)?, sockets)))
            .collect();
        if withdrawn.is_empty() {
            return Ok(());
        }
        let found = change.since.elapsed();
        // One that has few flows must not wait for one that has many.
        withdrawn.sort_by_key(|(_, _, sockets)| sockets.len());
        let flows: usize = withdrawn.iter().map(|(_, _, sockets)| sockets.len()).sum();
        let hierarchy = Hierarchy::find().context("cannot find the sockets of cgroups");
        let (mut ended, mut asked) = (0, 0);
        let mut idle = Vec::new();
        for (id, touched, sockets) in withdrawn {
            let Touched { name, spec, .. } = touched;
            let helper = self.helper.as_deref();
            let all = of_tcp(&sockets);
            let left = match end(spec, sockets, helper, hierarchy.as_ref(), &change.this_node) {
                Ok(tally) => {
                    ended += tally.ended;
                    tally.complain(name);
                    tally.left
                }
                Err(error) => {
                    tracing::warn!(
                        endpoint = %name,
                        "cannot end connections, which are dropped: {error:#}"
                    );
                    all
                }
            };
            idle.push((id, touched, left));
        }
        // No socket waits for questions to the ends of others.
        for (id, touched, left) in idle {
            asked += self.wake(id, touched, &left);
        }
        tracing::info!(
            flows,
            sockets = ended,
            asked,
            found_after = ?found,
            ended_after = ?change.since.elapsed(),
            "connections are no longer permitted"
        );
        Ok(())
    }
}

/// Ends the sockets of one endpoint's flows.
fn end(
    spec: &EndpointSpec,
    mut sockets: Vec<Connected>,
    helper: Option<&Helper>,
    hierarchy: Result<&Hierarchy, &anyhow::Error>,
    this_node: &BTreeSet<IpAddr>,
) -> anyhow::Result<Tally> {
    let Some(group) = CgroupName::of(spec) else {
        return Ok(Tally::of(
            &Sockets::behind(spec, helper)?,
            sockets,
            Owner::Namespace,
        )?);
    };
    let hierarchy = hierarchy.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let groups = hierarchy.open(&group?)?.family();
    sockets.retain(|socket| is_told_by_address(socket, this_node));
    Ok(Tally::of(
        &Sockets::new()?,
        sockets,
        Owner::Groups(&groups),
    )?)
}

fn of_tcp(sockets: &[Connected]) -> Vec<Connected> {
    let sockets = sockets.iter().filter(|socket| socket.protocol == TCP);
    sockets.copied().collect()
}

/// Of a cgroup's connection within the node, the kernel alone knows whose the other socket is, and
/// policy may permit that one.
fn is_told_by_address(socket: &Connected, this_node: &BTreeSet<IpAddr>) -> bool {
    let (remote, _) = socket.remote;
    !remote.is_loopback() && !this_node.contains(&remote)
}

// === impl Tally ===

impl Tally {
    /// Of all of them: one that the kernel refuses to end keeps none of the others.
    fn of(there: &Sockets, mut sockets: Vec<Connected>, owner: Owner<'_>) -> io::Result<Self> {
        let mut tally = Self::default();
        if sockets.len() > MANY {
            let listed = there.list()?.into_iter().map(|found| found.ends);
            let listed: BTreeSet<_> = listed.collect();
            let (found, left) = sockets
                .into_iter()
                .partition(|socket| listed.contains(socket));
            sockets = found;
            tally.left = left;
        }
        // By protocol first: TCP.
        sockets.sort();
        for socket in sockets {
            match there.end(socket, owner) {
                Ok(true) => tally.ended += 1,
                // Its owner has closed it, it was never connected, or it is somewhere else.
                Ok(false) => tally.left.push(socket),
                Err(error) => {
                    tally.left.push(socket);
                    tally.refused += 1;
                    tally.refusal.get_or_insert(error);
                }
            }
        }
        tally.left.retain(|socket| socket.protocol == TCP);
        Ok(tally)
    }

    fn complain(&self, name: &SubjectName) {
        let Self {
            refused, refusal, ..
        } = self;
        if let Some(error) = refusal {
            tracing::warn!(
                endpoint = %name,
                connections = refused,
                "the kernel does not end connections, which are dropped: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(remote: &str) -> Connected {
        Connected {
            protocol: 6,
            local: ("10.0.0.1".parse().unwrap(), 4000),
            remote: (remote.parse().unwrap(), 443),
        }
    }

    #[test]
    fn a_cgroups_connection_within_the_node_is_not_told_by_its_address() {
        let this_node = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let this_node = BTreeSet::from(this_node);
        for remote in ["127.0.0.1", "::1", "10.0.0.1", "fd00::1"] {
            assert!(!is_told_by_address(&to(remote), &this_node), "{remote}");
        }
        assert!(is_told_by_address(&to("198.51.100.1"), &this_node));
    }

    #[test]
    fn of_two_changes_the_later_one_says_where_an_endpoint_is() {
        let change = |id, interface: &str| Change {
            touched: BTreeMap::from([(
                id,
                Touched {
                    name: SubjectName::Node("n".to_owned()),
                    flags: 0,
                    spec: EndpointSpec::Interface(interface.to_owned()),
                },
            )]),
            this_node: BTreeSet::new(),
            since: Instant::now(),
        };
        let (first, second) = (change(1, "a"), change(1, "b"));
        let since = first.since;
        let pending = Pending::default();
        for change in [first, second, change(2, "c")] {
            pending.add(change);
        }
        let both = pending.take().unwrap();
        assert!(pending.take().is_none());
        assert_eq!(both.since, since);
        let specs: Vec<_> = both.touched.values().map(|touched| &touched.spec).collect();
        let [b, c] = ["b", "c"].map(|name| EndpointSpec::Interface(name.to_owned()));
        assert_eq!(specs, [&b, &c]);
    }
}
