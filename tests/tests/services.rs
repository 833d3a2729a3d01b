//! Services, translated as kube-proxy does it: whatever way leads to a workload, it is judged by who really sends, and
//! whatever stands for others, by who is behind it.
//!
//! The rules are those that the modes `iptables` and `nftables` of kube-proxy come to, of both families; with `ipvs`, packets
//! pass the same interfaces with the same addresses. Real kube-proxy: `kubernetes_services.rs`.

#[path = "services/proxy.rs"]
mod proxy;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Peer, Wiring};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::eventually;
use serde_json::Value;

use self::proxy::{Source, lead};

/// Until a change of a file is in force, on a busy machine.
const FOLLOWED: Duration = Duration::from_secs(20);

const CLUSTER: [&str; 2] = ["10.96.0.1", "fd96::1"];
const SECOND: [&str; 2] = ["10.96.0.2", "fd96::2"];
const EXTERNAL: [&str; 2] = ["203.0.113.5", "2001:db8:5::5"];
const BALANCER: [&str; 2] = ["203.0.113.6", "2001:db8:6::6"];
const NODE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const NODE_PORT: u16 = 30080;

/// Node ports are those of nodes that are known.
const INVENTORY: &str = r"
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.77.0.1}, {type: InternalIP, address: 'fd77::1'}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: headless}
spec: {clusterIP: None, selector: {app: stranger}, ports: [{port: 80, targetPort: 8080}]}
";

/// Served by who has that label.
fn service(name: &str, at: [&str; 2], app: &str) -> String {
    let [v4, v6] = at;
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: {name}}}
spec:
  type: NodePort
  clusterIP: {v4}
  clusterIPs: [{v4}, '{v6}']
  selector: {app}
  ports:
    - {{name: t, port: 80, targetPort: {PORT}, protocol: TCP}}
    - {{name: u, port: 80, targetPort: {PORT}, protocol: UDP}}
"
    )
}

struct Translated {
    agent: Agent,
    scene: Scene,
}

impl Translated {
    fn new(policy: &str, services: &str) -> Result<Self> {
        let scene = Scene::wired(Wiring::Routed, policy)?;
        scene
            .lab
            .write("policies/services.yaml", &format!("{INVENTORY}{services}"))?;
        let agent = scene.enforced()?;
        Ok(Self { agent, scene })
    }

    fn follows(&self, holds: impl Fn() -> bool) -> Result<()> {
        let last = eventually(FOLLOWED, holds);
        ensure!(last, "{}", self.agent.log());
        Ok(())
    }
}

fn at(addresses: [&str; 2], port: u16) -> Result<Vec<SocketAddr>> {
    let parse = |text: &str| -> Result<SocketAddr> {
        let address: IpAddr = text.parse().context("not an address")?;
        Ok(SocketAddr::new(address, port))
    };
    addresses.into_iter().map(parse).collect()
}

fn reaches(from: &Netns, doors: &[SocketAddr]) -> Result<()> {
    for door in doors {
        for protocol in Protocol::ALL {
            from.reaches(protocol, *door)?;
        }
    }
    Ok(())
}

/// To each by one protocol, as it takes its time.
fn is_dropped(from: &Netns, doors: &[SocketAddr]) -> Result<()> {
    for (door, protocol) in doors.iter().zip(Protocol::ALL) {
        from.is_dropped_to(protocol, *door)?;
    }
    Ok(())
}

/// Every frontend, its port, and whether the proxy makes the node the source, as it does for what comes by a
/// node port, an external or a balancer's address where the traffic policy is `Cluster`.
fn ways() -> [([&'static str; 2], u16, Source); 7] {
    [
        (CLUSTER, 80, Source::Kept),
        (CLUSTER, 81, Source::Kept),
        (EXTERNAL, 80, Source::Node),
        (BALANCER, 80, Source::Node),
        (NODE, NODE_PORT, Source::Node),
        (EXTERNAL, 82, Source::Kept),
        (NODE, NODE_PORT + 1, Source::Kept),
    ]
}

#[test]
fn whatever_leads_to_a_workload_it_is_judged_by_who_sends_and_not_by_the_node_in_between()
-> Result<()> {
    let translated = Translated::new(FRIEND_ONLY, "")?;
    let Translated { scene, .. } = &translated;
    let outside = scene.lab.outside("outside")?;
    // What the node translates it has to have a way to.
    scene.lab.host().ip(
        "route add 10.96.0.0/16 dev uplink\nroute add 203.0.113.0/24 dev uplink\n\
         route add fd96::/16 dev uplink\nroute add 2001:db8:5::/48 dev uplink\n\
         route add 2001:db8:6::/48 dev uplink\n",
    )?;
    for (address, port, source) in ways() {
        lead(
            &scene.lab,
            &at(address, port)?,
            &scene.server.at(PORT),
            source,
        )?;
    }
    for (address, port, source) in ways() {
        let doors = at(address, port)?;
        is_dropped(&scene.stranger, &doors)?;
        is_dropped(&outside, &doors)?;
        match source {
            Source::Kept => reaches(&scene.friend, &doors)?,
            // A packet with the node's address that the node did not make is not its probe.
            Source::Node => is_dropped(&scene.friend, &doors)?,
        }
        // The node's own are.
        reaches(scene.lab.host(), &doors)?;
    }
    // The port that counts is the backend's.
    lead(
        &scene.lab,
        &at(CLUSTER, PORT)?,
        &scene.server.at(OTHER_PORT),
        Source::Kept,
    )?;
    is_dropped(&scene.friend, &at(CLUSTER, PORT)?)?;

    // Whoever is really meant can be let in: where the source is kept by its address, else by the node's.
    scene.policy(&blocks(&["198.51.100.2/32", "2001:db8:77::2/128"]))?;
    let kept = at(NODE, NODE_PORT + 1)?;
    translated.follows(|| reaches(&outside, &kept).is_ok())?;
    is_dropped(&outside, &at(NODE, NODE_PORT)?)?;
    scene.policy(&blocks(&["10.77.0.1/32", "fd77::1/128"]))?;
    let by_node = at(NODE, NODE_PORT)?;
    translated.follows(|| reaches(&outside, &by_node).is_ok())?;
    is_dropped(&outside, &kept)
}

/// Into the server may come who has these addresses.
fn blocks(blocks: &[&str]) -> String {
    let blocks = blocks
        .iter()
        .map(|block| format!("{{ipBlock: {{cidr: '{block}'}}}}"));
    let blocks = blocks.collect::<Vec<_>>().join(", ");
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: server}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress: [{{from: [{blocks}]}}]
"
    )
}

#[test]
fn a_workload_reaches_itself_and_by_its_service_only_if_policy_permits_the_node() -> Result<()> {
    let services = service("own", CLUSTER, "{app: server}");
    let translated = Translated::new(FRIEND_ONLY, &services)?;
    let Translated { scene, .. } = &translated;
    lead(
        &scene.lab,
        &at(CLUSTER, 80)?,
        &scene.server.at(PORT),
        Source::Kept,
    )?;
    reaches(&scene.server, &scene.server.at(PORT))?;
    // It comes back through its own interface, with the node's address, as proxies have it.
    is_dropped(&scene.server, &at(CLUSTER, 80)?)?;
    scene.policy(&blocks(&["10.77.0.1/32", "fd77::1/128"]))?;
    let doors = at(CLUSTER, 80)?;
    translated.follows(|| reaches(&scene.server, &doors).is_ok())
}

#[test]
fn who_sends_to_a_service_is_judged_by_all_who_serve_it() -> Result<()> {
    let services = [
        service("friend", CLUSTER, "{app: friend}"),
        service("stranger", SECOND, "{app: stranger}"),
    ]
    .concat();
    let translated = Translated::new(TO_FRIEND_ONLY, &services)?;
    let Translated { scene, .. } = &translated;
    let leads =
        |door: [&str; 2], to: &Peer| lead(&scene.lab, &at(door, 80)?, &to.at(PORT), Source::Kept);
    leads(CLUSTER, &scene.friend)?;
    leads(SECOND, &scene.stranger)?;
    reaches(&scene.server, &at(CLUSTER, 80)?)?;
    is_dropped(&scene.server, &at(SECOND, 80)?)?;
    for (service, verdict) in [("friend", "allow"), ("stranger", "deny")] {
        translated.follows(|| are_named(&translated.agent, service, verdict).is_ok())?;
    }
    // Headless: there is nothing but the workloads' own addresses.
    is_dropped(&scene.server, &scene.stranger.at(PORT))?;
    reaches(&scene.server, &scene.friend.at(PORT))?;

    // Both serve, and by affinity it always gets the one that it may reach: which one, nobody here knows.
    let both = service("friend", CLUSTER, "{tier: any}");
    let both = [both, service("stranger", SECOND, "{app: stranger}")].concat();
    scene
        .lab
        .write("policies/inventory.yaml", &relabelled(scene))?;
    scene
        .lab
        .write("policies/services.yaml", &format!("{INVENTORY}{both}"))?;
    let doors = at(CLUSTER, 80)?;
    translated.follows(|| is_dropped(&scene.server, &doors).is_ok())?;
    let direct = scene.server.probe(Protocol::Tcp, scene.friend.v4(PORT));
    ensure!(direct == Outcome::Allowed, "{direct}");
    Ok(())
}

/// Records of the server have the Service that it asks for.
fn are_named(agent: &Agent, service: &str, verdict: &str) -> Result<()> {
    let name = format!("shop/{service}");
    let records = agent.flows_that(&["--service", &name])?;
    let is_of_server = |it: &Value| it["src"]["workload"]["name"] == "server";
    let of_server = records.iter().filter(|it| is_of_server(it));
    let mut verdicts = of_server.map(|it| it["verdict"].as_str());
    ensure!(verdicts.clone().count() > 0, "none of {name}");
    ensure!(verdicts.all(|it| it == Some(verdict)), "{records:?}");
    Ok(())
}

/// The inventory of the scene, with a label that friend and stranger have in common.
fn relabelled(scene: &Scene) -> String {
    let mut all = manifest::interface(&scene.server, "shop", &[("app", "server")]);
    for peer in [&scene.friend, &scene.stranger] {
        let labels = [("app", peer.role()), ("tier", "any")];
        all.push_str(&manifest::interface(peer, "shop", &labels));
    }
    all
}
