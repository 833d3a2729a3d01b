//! The lab of the demo: the addresses and interfaces here are those of `policies/demo`.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::Result;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::probe::Outcome;
use ringfence_lab::serve::Service;

use super::script::{Attempt, Family, Role, SCRIPT};

/// Everything that is up while the demo runs. Fields are dropped in order: the lab last.
#[derive(Debug)]
pub(super) struct Stage {
    /// Held for its life: a service ends when it is dropped.
    services: Vec<Service>,
    peers: Vec<(Role, Peer)>,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::bridged()?;
        let mut peers = Vec::new();
        for (role, name, number) in [
            (Role::Gateway, "gateway", 2),
            (Role::Api, "api", 3),
            (Role::Database, "db", 4),
            (Role::Redis, "redis", 5),
            (Role::Collector, "otel", 6),
            (Role::Attacker, "attacker", 7),
        ] {
            peers.push((role, lab.peer(name, number)?));
        }
        peers.push((Role::Internet, lab.outside("internet")?));
        let mut stage = Self {
            services: Vec::new(),
            peers,
            lab,
        };
        stage.services = stage.listen()?;
        Ok(stage)
    }

    /// A listener for every destination of the script, so that a denied connection fails because
    /// it is denied and not because nobody is there.
    fn listen(&self) -> Result<Vec<Service>> {
        let mut wanted = Vec::new();
        let mut services = Vec::new();
        for Attempt {
            to, protocol, port, ..
        } in SCRIPT
        {
            if !wanted.contains(&(to, protocol, port)) {
                wanted.push((to, protocol, port));
                services.push(self.netns(*to).serve(*protocol, *port)?);
            }
        }
        Ok(services)
    }

    /// Tries everything at once: what is denied costs its time-out, but only once.
    pub(super) fn play(&self, script: &[Attempt]) -> Vec<Outcome> {
        thread::scope(|scope| {
            let tries: Vec<_> = script
                .iter()
                .map(|attempt| {
                    scope.spawn(|| {
                        let to = SocketAddr::new(self.address(*attempt), attempt.port);
                        self.netns(attempt.from).probe(attempt.protocol, to)
                    })
                })
                .collect();
            let joined = tries.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|seen| seen.expect("a probe does not panic"))
                .collect()
        })
    }

    /// The namespace that plays a role.
    pub(super) fn netns(&self, role: Role) -> &Netns {
        self.peer(role).map_or(self.lab.host(), |peer| peer)
    }

    /// Where an attempt goes to.
    pub(super) fn address(&self, attempt: Attempt) -> IpAddr {
        let addresses = self
            .peer(attempt.to)
            .map_or_else(|| self.lab.host_addresses(), Peer::addresses);
        let [v4, v6] = addresses;
        match attempt.family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    fn peer(&self, role: Role) -> Option<&Peer> {
        self.peers
            .iter()
            .find(|(played, _)| *played == role)
            .map(|(_, peer)| peer)
    }
}
