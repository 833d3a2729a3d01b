//! An endpoint's first attach: observe, take up the flows that there are, then enforce.
//!
//! What begins while the endpoint is observed, the programs remember if policy permits it. What there was
//! before, the sockets tell: they are listed once nothing can begin unseen, so that no flow that policy
//! permits loses a packet. What policy denies passes until then, and is refused afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use agent_common::table::Endpoint;
use agent_policy::model::EndpointSpec;

use crate::datapath::{
    attach::{self, Target},
    cgroup::Cgroup,
    engine::{Engine, Unreached, lock},
    held::Held,
    helper::Helper,
    maps::FlowMaps,
    observation::Observation,
    seed::{self, Keeper, Look, Season, Sown},
    sockets::{Connected, Found, Sockets, State},
};

/// So many flows are taken up between two signs of life.
const AT_ONCE: usize = 4096;

/// An endpoint that had no programs before, and has them now.
pub(super) struct Arrival {
    scout: Scout,
    hold: Hold,
}

/// How an arrival is held so far.
pub(super) enum Hold {
    /// It had no flows that anything had to be found out about.
    Enforced,
    /// It drops nothing yet.
    Interface { index: u32 },
    /// Likewise.
    Cgroup(Cgroup),
}

/// What there is to learn of an endpoint's flows.
pub(super) struct Scout {
    home: Home,
    keeper: Keeper,
    /// How many flows there were before it was attached.
    flows: usize,
}

/// The network namespace that an endpoint's sockets are in.
#[derive(Debug)]
enum Home {
    /// This agent's.
    Ours,
    /// That of an endpoint, and who goes there.
    Of(EndpointSpec, Option<Arc<Helper>>),
}

/// An arrival that is enforced now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Flows that were taken up.
    pub(crate) flows: usize,
}

/// The sockets of the agent's network namespace, for all that ask.
struct Ours {
    found: Vec<Found>,
    connected: BTreeSet<Connected>,
}

impl Engine {
    /// Whether it has not been enforced there so far, by whom the target was `known` to be.
    pub(super) fn is_first(
        &self,
        endpoint: Endpoint,
        target: Target,
        known: Option<Endpoint>,
    ) -> bool {
        match known {
            // An agent that came no further than that has died.
            Some(holder) => holder.has(Endpoint::OBSERVED),
            // The programs of another ABI version have other tables.
            None => !attach::is_held(&self.dir, endpoint.id, target).unwrap_or(true),
        }
    }

    /// An endpoint is shown as observed from here on, by whom the target was `known` to be.
    ///
    /// Where an agent has died observing, and the time that it had is over, the programs enforce: what is closed
    /// stays so until its flows are taken up.
    pub(super) fn begin_observation(&self, endpoint: Endpoint, known: Option<Endpoint>) {
        let is_over = known.is_some_and(|known| {
            known.id != Endpoint::NOBODY.id
                && known.has(Endpoint::OBSERVED)
                && self.observation.is_over(known.id)
        });
        if is_over {
            self.observation.end(endpoint.id);
        } else {
            self.observation.begin(endpoint.id);
        }
    }

    /// What is to be learnt before an endpoint is attached; `None` if it was attached already, which is
    /// when its flows are known, or if nothing can be learnt.
    pub(super) fn scout(
        &mut self,
        endpoint: Endpoint,
        is_first: bool,
        look: impl FnOnce(&Self) -> anyhow::Result<Scout>,
    ) -> Option<Scout> {
        self.arrivals.remove(&endpoint.id);
        if !is_first {
            return None;
        }
        self.unseeded.remove(&endpoint.id);
        match look(self) {
            Ok(scout) => Some(scout),
            Err(error) => {
                self.not_taken_up(endpoint.id, &format!("{error:#}"));
                None
            }
        }
    }

    /// The flows of who is behind an interface.
    pub(super) fn scout_behind(
        &self,
        endpoint: Endpoint,
        spec: &EndpointSpec,
    ) -> anyhow::Result<Scout> {
        let home = Home::Of(spec.clone(), self.helper.clone());
        Scout::new(home, self.keeper(endpoint, None))
    }

    /// The flows of a cgroup in this network namespace.
    pub(super) fn scout_here(&self, endpoint: Endpoint, cgroup: &Cgroup) -> anyhow::Result<Scout> {
        let groups = (!cgroup.is_root()).then(|| cgroup.family());
        Scout::new(Home::Ours, self.keeper(endpoint, groups))
    }

    fn keeper(&self, endpoint: Endpoint, groups: Option<BTreeSet<u64>>) -> Keeper {
        let own = self.programmed().own.iter();
        Keeper {
            endpoint,
            own: own
                .filter(|(id, _)| *id == endpoint.id)
                .map(|(_, address)| *address)
                .collect(),
            groups,
        }
    }

    /// Takes up the flows of what was attached for the first time `since`, and enforces it.
    ///
    /// An endpoint that could not be enforced is tried again by the next call.
    pub(crate) fn settle(&mut self, since: u64) -> BTreeMap<u16, Result<Settled, Unreached>> {
        let arrivals = std::mem::take(&mut self.arrivals);
        let mut counts = BTreeMap::new();
        let observed = arrivals.values().filter(|arrival| arrival.is_observed());
        let observed: Vec<_> = observed.collect();
        self.take_up(&observed, since, Look::First, &mut counts);
        let mut enforced = Vec::new();
        let mut settled = BTreeMap::new();
        for (id, arrival) in arrivals {
            match self.enforce(&arrival) {
                Ok(()) => enforced.push(arrival),
                Err(error) => {
                    self.arrivals.insert(id, arrival);
                    settled.insert(id, Err(error));
                }
            }
        }
        let again: Vec<_> = enforced.iter().collect();
        self.take_up(&again, since, Look::Second, &mut counts);
        let telling = lock(&self.programs).telling();
        if let Some(Err(error)) = telling.map(|telling| telling.tell()) {
            // What it would have found the next listing of flows does.
            tracing::warn!(%error, "sockets may know flows that have just been taken up otherwise");
        }
        for arrival in enforced {
            let id = arrival.scout.keeper.endpoint.id;
            let flows = counts.get(&id).copied().unwrap_or_default();
            settled.insert(id, Ok(Settled { flows }));
        }
        settled
    }

    /// Why live flows of an endpoint were not taken up when it was attached.
    pub(crate) fn unseeded(&self, endpoint: u16) -> Option<&str> {
        self.unseeded.get(&endpoint).map(String::as_str)
    }

    fn take_up(
        &mut self,
        arrivals: &[&Arrival],
        since: u64,
        look: Look,
        counts: &mut BTreeMap<u16, usize>,
    ) {
        if arrivals.is_empty() {
            return;
        }
        let common = lock(&self.programs)
            .jiffies(&self.flows)
            .and_then(|jiffies| Ok((jiffies, Ours::list()?)));
        for Arrival { scout, .. } in arrivals {
            // The others wait for it.
            let goes_on = || renew(&self.observation, arrivals.iter().copied());
            goes_on();
            let id = scout.keeper.endpoint.id;
            let sown = match &common {
                Ok((jiffies, ours)) => {
                    let season = Season {
                        since,
                        jiffies: *jiffies,
                        look,
                    };
                    scout.sow(&mut self.flows, &self.held, ours, season, goes_on)
                }
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            match sown {
                Ok(Sown { new, lost }) => {
                    *counts.entry(id).or_default() += new;
                    if lost > 0 {
                        self.not_taken_up(id, &format!("{lost} found no room in the flow table"));
                    }
                }
                Err(error) => self.not_taken_up(id, &format!("{error:#}")),
            }
        }
    }

    fn enforce(&mut self, arrival: &Arrival) -> Result<(), Unreached> {
        let endpoint = arrival.scout.keeper.endpoint;
        // Before the rest: it holds whether or not that can be done.
        self.observation.end(endpoint.id);
        match &arrival.hold {
            Hold::Enforced => Ok(()),
            Hold::Interface { index } => self
                .interfaces
                .insert(*index, endpoint)
                .map_err(|error| Unreached::failed(&error)),
            Hold::Cgroup(cgroup) => {
                // Before the programs: an agent that finds the flag would observe what is enforced.
                self.cgroups
                    .insert(cgroup.id(), endpoint)
                    .map_err(|error| Unreached::failed(&error))?;
                self.confine(endpoint.id, cgroup)
            }
        }
    }

    fn not_taken_up(&mut self, endpoint: u16, why: &str) {
        let message = format!("live connections were not taken up: {why}");
        tracing::warn!(endpoint, "{message}");
        self.unseeded.insert(endpoint, message);
    }
}

impl Arrival {
    pub(super) fn new(scout: Scout, hold: Hold) -> Self {
        Self { scout, hold }
    }

    fn is_observed(&self) -> bool {
        !matches!(self.hold, Hold::Enforced)
    }
}

impl Scout {
    fn new(home: Home, keeper: Keeper) -> anyhow::Result<Self> {
        let found = home.list()?;
        let is_told = keeper.groups.is_none()
            || found.iter().all(|socket| socket.state == State::Other)
            || found.iter().any(|socket| socket.cgroup.is_some());
        anyhow::ensure!(
            is_told || found.is_empty(),
            "the kernel does not tell whose a socket is (Linux 5.9)"
        );
        let flows = keeper.seeds(&found, &BTreeSet::new()).len();
        Ok(Self {
            home,
            keeper,
            flows,
        })
    }

    pub(super) fn has_flows(&self) -> bool {
        self.flows > 0
    }

    fn sow(
        &self,
        flows: &mut FlowMaps,
        held: &Held,
        ours: &Ours,
        season: Season,
        goes_on: impl Fn(),
    ) -> anyhow::Result<Sown> {
        let seeds = match &self.home {
            Home::Ours => self.keeper.seeds(&ours.found, &BTreeSet::new()),
            Home::Of(..) => self.keeper.seeds(&self.home.list()?, &ours.connected),
        };
        let id = self.keeper.endpoint.id;
        let mut all = Sown::default();
        for seeds in seeds.chunks(AT_ONCE) {
            goes_on();
            let Sown { new, lost } = seed::sow(flows, held, id, seeds, season)?;
            all.new += new;
            all.lost += lost;
        }
        Ok(all)
    }
}

/// Puts off the end of what is still observed: this agent lives.
pub(super) fn renew<'a>(observation: &Observation, arrivals: impl Iterator<Item = &'a Arrival>) {
    for endpoint in observed(arrivals) {
        observation.renew(endpoint);
    }
}

pub(super) fn observed<'a>(arrivals: impl Iterator<Item = &'a Arrival>) -> Vec<u16> {
    let observed = arrivals.filter(|arrival| arrival.is_observed());
    observed
        .map(|arrival| arrival.scout.keeper.endpoint.id)
        .collect()
}

impl Home {
    /// By a netlink socket that is not kept: it would keep the namespace alive, and the interface.
    fn list(&self) -> anyhow::Result<Vec<Found>> {
        let sockets = match self {
            Self::Ours => Sockets::new()?,
            Self::Of(spec, helper) => Sockets::behind(spec, helper.as_deref())?,
        };
        Ok(sockets.list()?)
    }
}

impl Ours {
    fn list() -> io::Result<Self> {
        let found = Sockets::new()?.list()?;
        let connected = found.iter().map(|socket| socket.ends).collect();
        Ok(Self { found, connected })
    }
}
