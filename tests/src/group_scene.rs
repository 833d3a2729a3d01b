//! The lab of a service that is known by its control group: it serves at the node's addresses, and
//! policy lets it talk with a friend, and not with a stranger.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::agent::Agent;
use crate::cgroup::{Cgroup, Confined};
use crate::lab::{Lab, Peer};
use crate::manifest;
use crate::probe::Protocol;
use crate::scene::{OTHER_PORT, PORT};
use crate::serve::Service;

/// A port that policy is about, and nobody serves at first.
pub const QUIET_PORT: u16 = 7070;

/// The service may reach [`PORT`] and [`QUIET_PORT`] of the friend, and the friend may reach those of it.
pub const WITH_FRIEND: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: host, name: service}
spec:
  podSelector: {matchLabels: {app: service}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}, {protocol: TCP, port: 7070}, {protocol: UDP, port: 7070}]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}, {protocol: TCP, port: 7070}, {protocol: UDP, port: 7070}]
";

/// A service of the host in a group, and two peers to talk with. All listen on [`PORT`] and
/// [`OTHER_PORT`]. Dropped in order.
#[derive(Debug)]
pub struct GroupScene {
    _services: Vec<Service>,
    _confined: Vec<Confined>,
    pub group: Cgroup,
    pub agent: Agent,
    pub friend: Peer,
    pub stranger: Peer,
    pub lab: Lab,
}

impl GroupScene {
    /// With an agent that enforces [`WITH_FRIEND`]. `helper` is the program `lab-peer`.
    pub fn new(helper: &Path) -> Result<Self> {
        Self::with(helper, WITH_FRIEND)
    }

    pub fn with(helper: &Path, policy: &str) -> Result<Self> {
        let lab = Lab::bridged()?;
        let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
        let group = Cgroup::create(&lab, "service", helper)?;
        let (mut services, mut confined) = (Vec::new(), Vec::new());
        for protocol in Protocol::ALL {
            for port in [PORT, OTHER_PORT] {
                services.push(friend.serve(protocol, port)?);
                services.push(stranger.serve(protocol, port)?);
                confined.push(group.serve(lab.host(), protocol, port)?);
            }
        }
        let inventory = [
            manifest::interface(&friend, "shop", &[("app", "friend")]),
            manifest::interface(&stranger, "shop", &[("app", "stranger")]),
            manifest::cgroup(group.name(), "host", "service", &[("app", "service")]),
        ];
        let inventory = lab.write("policies/inventory.yaml", &inventory.concat())?;
        let policy = lab.write("policies/policy.yaml", policy)?;
        let agent = Agent::enforcing(&lab, &[&inventory, &policy])?;
        Ok(Self {
            _services: services,
            _confined: confined,
            group,
            agent,
            friend,
            stranger,
            lab,
        })
    }

    /// The service's addresses: the node's.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.lab
            .host_addresses()
            .map(|address| (address, port).into())
    }

    /// Replaces the policy.
    pub fn policy(&self, text: &str) -> Result<()> {
        self.lab.write("policies/policy.yaml", text).map(drop)
    }

    /// Who serves, at whose addresses, and whether policy lets the service talk with them.
    pub fn peers(&self, port: u16) -> Vec<(SocketAddr, bool)> {
        let friend = self.friend.at(port).map(|to| (to, true));
        let stranger = self.stranger.at(port).map(|to| (to, false));
        [friend, stranger].concat()
    }
}
