//! The lab that most tests of policy share: a server that policy selects, a friend that policy
//! lets in, and a stranger. All are workloads of namespace `shop`, held at their interfaces.

use std::path::PathBuf;

use anyhow::Result;

use crate::agent::Agent;
use crate::lab::{Lab, Peer, Wiring};
use crate::manifest;
use crate::probe::Protocol;
use crate::serve::Service;

/// The port that policies of a scene are about.
pub const PORT: u16 = 8080;
/// A port that everybody serves and no policy of a scene allows.
pub const OTHER_PORT: u16 = 9090;

/// The server takes TCP and UDP on [`PORT`] from the friend.
pub const FRIEND_ONLY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// The same for friend and stranger.
pub const FRIEND_AND_STRANGER: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: friend}}
        - podSelector: {matchLabels: {app: stranger}}
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// The server may reach TCP and UDP on [`PORT`] of the friend; its ingress is nobody's business.
pub const TO_FRIEND_ONLY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// The lab with everybody listening on both ports, TCP and UDP.
#[derive(Debug)]
pub struct Scene {
    services: Vec<Service>,
    pub server: Peer,
    pub friend: Peer,
    pub stranger: Peer,
    pub lab: Lab,
}

impl Scene {
    /// On a bridge, with `policy` beside the inventory.
    pub fn with(policy: &str) -> Result<Self> {
        Self::wired(Wiring::Bridged, policy)
    }

    pub fn wired(wiring: Wiring, policy: &str) -> Result<Self> {
        let lab = Lab::new(wiring)?;
        let server = lab.peer("server", 2)?;
        let friend = lab.peer("friend", 3)?;
        let stranger = lab.peer("stranger", 4)?;
        let mut scene = Self {
            services: Vec::new(),
            server,
            friend,
            stranger,
            lab,
        };
        for peer in [&scene.server, &scene.friend, &scene.stranger] {
            for protocol in Protocol::ALL {
                for port in [PORT, OTHER_PORT] {
                    scene.services.push(peer.serve(protocol, port)?);
                }
            }
        }
        let peers = [&scene.server, &scene.friend, &scene.stranger];
        let inventory = peers
            .map(|peer| manifest::interface(peer, "shop", &[("app", peer.role())]))
            .concat();
        scene.lab.write("policies/inventory.yaml", &inventory)?;
        scene.policy(policy)?;
        Ok(scene)
    }

    /// The folder that the agent watches.
    pub fn policies(&self) -> PathBuf {
        self.lab.folder().join("policies")
    }

    /// Replaces the policy.
    pub fn policy(&self, text: &str) -> Result<()> {
        self.lab.write("policies/policy.yaml", text).map(|_| ())
    }

    /// An agent that does not run yet, for the scene's folder.
    pub fn agent(&self) -> Result<Agent> {
        Agent::prepare(&self.lab, "agent", &[&self.policies()])
    }

    /// An agent that enforces the scene's policy.
    pub fn enforced(&self) -> Result<Agent> {
        let mut agent = self.agent()?;
        agent.start()?;
        Ok(agent)
    }
}
