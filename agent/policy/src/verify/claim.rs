//! One claim about one pair of members: what contradicts it, if something does.

use std::{collections::HashMap, net::IpAddr};

use super::{Counterexample, Reach};
use crate::{
    classes::{Judge, Member, Pair, PortSet, Who},
    connection::{End, Port},
};

/// A claim about connections of one family.
pub(super) struct Claim {
    reach: Reach,
    pub(super) ports: PortSet,
    /// Pairs that have been looked at: the first port that contradicts, if one does.
    known: HashMap<Pair, Option<Port>>,
}

// === impl Claim ===

impl Claim {
    pub(super) fn new(reach: Reach, ports: PortSet) -> Self {
        let known = HashMap::new();
        Self {
            reach,
            ports,
            known,
        }
    }

    /// A connection that shows that it is false; for all that have the answers of these two.
    pub(super) fn contradiction(
        &mut self,
        judge: &mut Judge<'_, '_>,
        from: &Member,
        to: &Member,
    ) -> Option<Counterexample> {
        let [source, destination] = [from, to].map(|member| member.places.first());
        let (source, destination) = (source?.as_ref()?, destination?.as_ref()?);
        let pair = judge.pair(0, source, destination)?;
        let known = self.known.get(&pair).copied();
        let port = known.unwrap_or_else(|| self.port(judge, pair));
        self.known.insert(pair, port);
        let port = port?;
        let (egress, ingress) = *judge.ports(pair).at(port);
        Some(Counterexample {
            from: from.who.end(source.address),
            from_address: source.address,
            to: to.who.end(destination.address),
            to_address: destination.address,
            port,
            egress: judge.side(egress)?.clone(),
            ingress: judge.side(ingress)?.clone(),
        })
    }

    fn port(&self, judge: &Judge<'_, '_>, pair: Pair) -> Option<Port> {
        let answers = judge.ports(pair);
        let meant = answers.zip(self.ports.as_map(), |answers, is_meant| {
            (*answers, *is_meant)
        });
        meant.find(|((egress, ingress), is_meant)| {
            let passes = judge.permits(*egress) && judge.permits(*ingress);
            *is_meant && passes == (self.reach == Reach::Never)
        })
    }
}

// === impl Who ===

impl Who {
    fn end(&self, address: IpAddr) -> End {
        match self {
            Self::Workload { name, .. } => End::Workload(name.clone()),
            Self::Node(name) => End::Node(name.clone()),
            Self::Service(name) => End::Service(name.clone()),
            Self::Outside(_) | Self::Process(_) => End::Address(address),
        }
    }
}
