//! All the ways between two ends: a name stands for each of its addresses (§4.5).

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Asking, Connection, ConnectionError, End, Outcome, Perspective, Verdict,
    local::{self, LOOPBACK},
    port::{Family, Port},
};
use crate::{model::World, question::Evaluator};

/// One for each pair of addresses of the same family, IPv4 first and then in order; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways<T = Connection> {
    first: T,
    rest: Vec<T>,
}

/// A way, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub connection: Connection,
    pub outcome: Outcome,
}

// === impl Ways ===

impl<T> Ways<T> {
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.first].into_iter().chain(&self.rest)
    }

    pub fn count(&self) -> usize {
        self.rest.len().saturating_add(1)
    }
}

impl Ways {
    /// Pairs the addresses that the ends stand for.
    ///
    /// # Errors
    ///
    /// If an end has no address, the two have none of the same family, or a Service is the source.
    pub fn new(
        world: &World,
        from: &End,
        to: &End,
        port: Port,
        perspective: Perspective,
    ) -> Result<Self, ConnectionError> {
        if from.is_service() {
            let seen = from.to_string();
            return Err(ConnectionError::ServiceAsSource { seen });
        }
        let from = from.clone().resolved(world);
        let to = to.clone().resolved(world);
        let asking = Asking {
            world,
            perspective,
            from: &from,
            to: &to,
            port,
        };
        let mut ways = pairs(world, &from, &to, port)?
            .into_iter()
            .map(|(source, destination)| asking.connection(source, destination));
        let first = ways.next().ok_or_else(|| ConnectionError::NoCommonFamily {
            from: from.described(),
            to: to.described(),
            port: port.to_string(),
        })?;
        let rest = ways.collect();
        Ok(Self { first, rest })
    }

    pub(super) fn into_first(self) -> Connection {
        self.first
    }

    /// The verdict of all of them, if they have the same one.
    pub fn common_verdict(&self, evaluator: &impl Evaluator) -> Option<Verdict> {
        let Self { first, rest } = self;
        let verdict = first.verdict(evaluator);
        let mut rest = rest.iter();
        rest.all(|way| way.verdict(evaluator) == verdict)
            .then_some(verdict)
    }

    /// What becomes of each.
    pub fn judge(self, world: &World, evaluator: &impl Evaluator) -> Ways<Judged> {
        let judged = |connection: Connection| Judged {
            outcome: connection.judge(world, evaluator),
            connection,
        };
        let Self { first, rest } = self;
        Ways {
            first: judged(first),
            rest: rest.into_iter().map(judged).collect(),
        }
    }
}

impl Ways<Judged> {
    /// The one that tells the verdict of them all: the first that is denied, or the first of all if
    /// none is.
    pub fn telling(&self) -> &Judged {
        let denied = |way: &&Judged| way.outcome.verdict == Verdict::Deny;
        self.iter().find(denied).unwrap_or(&self.first)
    }
}

fn pairs(
    world: &World,
    from: &End,
    to: &End,
    port: Port,
) -> Result<Vec<(IpAddr, IpAddr)>, ConnectionError> {
    let is_name = |end: &End| !matches!(end, End::At(..));
    let loopback = is_name(from) && is_name(to) && local::share_a_node(world, from, to);
    let addresses = |end: &End, other: &End| {
        // Who is at an address of loopback meets those who are there, where they are.
        let is_here = matches!(other, End::Address(address) if address.is_loopback());
        if is_here && is_name(end) && local::is_on_loopback(world, end) {
            return Ok(LOOPBACK.into());
        }
        match end.addresses(world) {
            // They need none.
            Err(ConnectionError::NoAddress { .. }) if loopback => Ok(BTreeSet::new()),
            found => found,
        }
    };
    let (ours, theirs) = (addresses(from, to)?, addresses(to, from)?);
    let may_use = |address: &IpAddr| match port.family() {
        Some(Family::V4) => address.is_ipv4(),
        Some(Family::V6) => address.is_ipv6(),
        None => true,
    };
    let mut pairs = Vec::new();
    // In their order, IPv4 comes first.
    for source in ours.into_iter().filter(may_use) {
        let alike = theirs
            .iter()
            .filter(|address| address.is_ipv4() == source.is_ipv4());
        pairs.extend(alike.map(|destination| (source, *destination)));
    }
    if loopback {
        let usable = LOOPBACK.into_iter().filter(|address| may_use(address));
        pairs.extend(usable.map(|address| (address, address)));
        // IPv4 first, and loopback behind what leads there as well.
        pairs.sort_by_key(|(source, _)| source.is_ipv6());
    }
    Ok(pairs)
}
