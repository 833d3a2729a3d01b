//! The API with everything in it, the agent, and who is measured with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::api_server::{Server, proxy::Proxy};
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::report::Report;
use serde_json::{Value, json};

use crate::here::Runs;
use crate::objects;
use crate::requests::{self, Counted};

/// The node of the agent.
pub(crate) const NODE: &str = "node-0";
/// Where the pods are that are measured.
pub(crate) const NAMESPACE: &str = "bench";
/// Clients reach a server here at any time.
pub(crate) const ALWAYS: u16 = 7002;
/// Connections that objects are made by.
const CONNECTIONS: u32 = 8;
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces";
const COMPLETE: Duration = Duration::from_mins(2);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) pods: u32,
    pub(crate) policies: u32,
    pub(crate) nodes: u32,
    pub(crate) namespaces: u32,
}

/// Dropped in order.
pub(crate) struct Cluster {
    pub(crate) agent: Agent,
    _server: Runs,
    pub(crate) proxy: Proxy,
    pub(crate) api: Server,
    /// What its server asks of itself.
    pub(crate) own: Counted,
    pub(crate) size: Size,
    /// A pod of this node.
    pub(crate) server: Peer,
    /// One of elsewhere, whom policies let in.
    pub(crate) client: Peer,
    /// Somebody else.
    pub(crate) stranger: Peer,
    /// Below it are the pods of this node.
    pub(crate) pods: Cgroup,
    _kubepods: Cgroup,
    _node: Cgroup,
    pub(crate) lab: Lab,
}

impl Cluster {
    /// All that there is; the agent does not run yet.
    pub(crate) fn fill(size: Size, report: &mut Report) -> Result<Self> {
        let lab = Lab::bridged()?;
        let server = lab.peer("server", 2)?;
        let (client, stranger) = (lab.peer("client", 3)?, lab.peer("stranger", 4)?);
        let node = Cgroup::create(&lab, "node", "false")?;
        let kubepods = node.within("kubepods")?;
        let pods = kubepods.within("burstable")?;
        let api = Server::start(&lab)?;
        let proxy = Proxy::start(&api, &lab)?;
        let own = requests::own(&proxy)?;
        let begun = Instant::now();
        fill(&proxy, size)?;
        let mut calls = proxy.connect()?;
        calls.must("POST", "/api/v1/namespaces", &objects::namespace(NAMESPACE))?;
        for (peer, node) in [(&server, NODE), (&client, "node-1"), (&stranger, "node-2")] {
            let pod = objects::pod(
                NAMESPACE,
                peer.role(),
                node,
                &objects::measured(peer.role()),
            );
            create(&mut calls, &pod, v4(peer)?)?;
        }
        calls.must("POST", &policies(), &objects::base(ALWAYS))?;
        let objects = f64::from(size.pods + size.policies);
        let figures = vec![
            ("seconds", begun.elapsed().as_secs_f64()),
            ("objects", objects),
        ];
        report.figure("filling the API", "", "", figures);
        let uid = calls.must("GET", &objects::path(NAMESPACE, "server"), &Value::Null)?;
        let uid = uid.json()?;
        let uid = uid["metadata"]["uid"].as_str().context("no UID")?;
        let runs = Runs::start(&pods, uid, &server)?;
        let kubeconfig = api.kubeconfig("admin");
        let agent = Agent::prepare(&lab, "agent", &[])?.within(&node);
        let agent = agent.with(&[
            "--node",
            NODE,
            "--kubeconfig",
            &kubeconfig.to_string_lossy(),
        ]);
        Ok(Self {
            agent,
            _server: runs,
            proxy,
            api,
            own,
            size,
            server,
            client,
            stranger,
            pods,
            _kubepods: kubepods,
            _node: node,
            lab,
        })
    }

    pub(crate) fn host(&self) -> &Netns {
        self.lab.host()
    }

    /// Starts the agent, and waits until it holds the server as policy says.
    pub(crate) fn enforce(&mut self) -> Result<()> {
        self.agent.launch()?;
        let is_complete = self.agent.status_eventually(COMPLETE, |status| {
            let mut endpoints = status["endpoints"].as_array().into_iter().flatten();
            let is_server = |endpoint: &Value| {
                endpoint["name"] == "bench/server" && endpoint["state"] == "attached"
            };
            status["kubernetes"]["complete"] == true && endpoints.any(is_server)
        });
        ensure!(
            is_complete,
            "{:#}\n{}",
            self.agent.status()?,
            self.agent.log()
        );
        Ok(())
    }
}

/// The path of policies of the pods that are measured.
pub(crate) fn policies() -> String {
    format!("{POLICIES}/{NAMESPACE}/networkpolicies")
}

pub(crate) fn v4(peer: &Peer) -> Result<Ipv4Addr> {
    let [address, _] = peer.addresses();
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => anyhow::bail!("IPv4 comes first"),
    }
}

/// Makes a pod that runs already. When the first call was sent.
pub(crate) fn create(
    calls: &mut ringfence_lab::api_server::proxy::Connection,
    pod: &Value,
    address: Ipv4Addr,
) -> Result<Instant> {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let all = format!("/api/v1/namespaces/{namespace}/pods");
    let made = calls.must("POST", &all, pod)?;
    let path = objects::path(namespace, name) + "/status";
    calls.must("PATCH", &path, &objects::running(address))?;
    Ok(made.sent)
}

/// An address for each of many pods.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number)
}

fn fill(proxy: &Proxy, size: Size) -> Result<()> {
    let mut calls = proxy.connect()?;
    for number in 0..size.nodes {
        let node = objects::node(&format!("node-{number}"));
        calls.must("POST", "/api/v1/nodes", &node)?;
    }
    for number in 0..size.namespaces {
        let namespace = objects::namespace(&format!("ns-{number}"));
        calls.must("POST", "/api/v1/namespaces", &namespace)?;
    }
    let next = AtomicU32::new(0);
    let make = || -> Result<()> {
        let mut calls = proxy.connect()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number < size.policies {
                let (namespace, policy) = objects::policy(number, size);
                let path = format!("{POLICIES}/{namespace}/networkpolicies");
                calls.must("POST", &path, &policy)?;
            }
            if number >= size.pods {
                return Ok(());
            }
            let (_, pod) = objects::filler(number, size);
            create(&mut calls, &pod, address(number))?;
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(make)).collect();
        let joined = all.into_iter().map(|one| one.join().expect("no panic"));
        joined.collect::<Result<Vec<()>>>().map(drop)
    })
}

/// The metadata of something to be deleted at once.
pub(crate) fn at_once() -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})
}
