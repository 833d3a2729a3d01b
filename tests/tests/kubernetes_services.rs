//! Services and `EndpointSlice`s of a real API server, translated by a real kube-proxy.
//!
//! No controller of the cluster runs: what it would write is written by hand, and so is what it would not.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::api_server::{Server, is_there};
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::Protocol;
use ringfence_lab::serve::Service;
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

const PORT: u16 = 8080;

/// Until what is written is in force, with the agent and with the proxy.
const PATIENCE: Duration = Duration::from_mins(2);

const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// May send to the friend and be reached from outside, and nothing else.
const POLICY: &str = r#"{
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "server", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "198.51.100.2/32"}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]
    }
}"#;

/// kube-proxy beside the API server, and what it calls.
struct Programs {
    proxy: PathBuf,
    /// Of the packages that it is of.
    usr: PathBuf,
}

impl Programs {
    /// Says so if there are none.
    fn find() -> Option<Self> {
        let binaries = PathBuf::from(env::var_os("RINGFENCE_KUBE_BIN")?);
        let programs = Self {
            proxy: binaries.join("kube-proxy"),
            usr: binaries.parent()?.to_path_buf(),
        };
        let there = programs.proxy.exists() && programs.usr.join("sbin/iptables").exists();
        if !there {
            println!(
                "SKIPPED: no kube-proxy, or no iptables beside it: cargo xtask kubernetes makes both."
            );
        }
        there.then_some(programs)
    }

    fn run(&self, host: &Netns, kubeconfig: &Path, log: &Path) -> Result<Proxy> {
        let log = File::create(log)?;
        let libraries = self.usr.join("lib/x86_64-linux-gnu");
        let mut command = Command::new(&self.proxy);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--hostname-override=n1", "--proxy-mode=iptables"])
            .args(["--cluster-cidr=10.77.0.0/24", "--oom-score-adj=0"])
            .args([
                "--conntrack-max-per-core=0",
                "--iptables-min-sync-period=100ms",
            ])
            .args(["--conntrack-tcp-timeout-established=0"])
            .args(["--conntrack-tcp-timeout-close-wait=0"])
            .env("PATH", self.usr.join("sbin"))
            .env("LD_LIBRARY_PATH", &libraries)
            .env("XTABLES_LIBDIR", libraries.join("xtables"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Proxy(host.spawn(&mut command)?))
    }
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait()).is_ok();
    }
}

/// A server that a file tells of and that the agent holds, two pods, and somebody outside.
struct Scene {
    _services: Vec<Service>,
    _proxy: Proxy,
    agent: Agent,
    api: Server,
    server: Peer,
    friend: Peer,
    stranger: Peer,
    outside: Peer,
    lab: Lab,
}

impl Scene {
    fn new(programs: &Programs) -> Result<Self> {
        let lab = Lab::routed()?;
        let server = lab.peer("server", 2)?;
        let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
        let outside = lab.outside("outside")?;
        // What the node translates it has to have a way to.
        lab.host().ip("route add 10.96.0.0/16 dev uplink")?;
        let mut services = Vec::new();
        for peer in [&server, &friend, &stranger] {
            services.push(peer.serve_tcp(PORT)?);
        }
        let api = Server::start(&lab)?;
        let inventory = manifest::interface(&server, "shop", &[("app", "server")]);
        let inventory = lab.write("inventory.yaml", &inventory)?;
        let agent = Agent::prepare(&lab, "agent", &[&inventory])?;
        let kubeconfig = api.kubeconfig("admin");
        let agent = agent.with(&["--kubeconfig", &kubeconfig.to_string_lossy()]);
        let log = lab.folder().join("proxy.log");
        let proxy = programs.run(lab.host(), &kubeconfig, &log)?;
        let scene = Self {
            _services: services,
            _proxy: proxy,
            agent,
            api,
            server,
            friend,
            stranger,
            outside,
            lab,
        };
        scene.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        )?;
        scene.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}))?;
        let addresses = ["10.77.0.1", "198.51.100.1"];
        let addresses = addresses.map(|it| json!({"type": "InternalIP", "address": it}));
        let status = json!({"status": {"addresses": addresses}}).to_string();
        Server::patch(scene.host(), "/api/v1/nodes/n1/status", &status)?;
        for peer in [&scene.friend, &scene.stranger] {
            scene.pod(peer)?;
        }
        scene.api.apply(scene.host(), POLICY)?;
        Ok(scene)
    }

    fn host(&self) -> &Netns {
        self.lab.host()
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.api.apply(self.host(), &object.to_string())
    }

    fn pod(&self, peer: &Peer) -> Result<()> {
        let role = peer.role();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": role, "namespace": "shop", "labels": {"app": role}},
            "spec": {"nodeName": "elsewhere", "containers": [{"name": "c", "image": "i"}]},
        }))?;
        let [address, _] = peer.addresses();
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let path = format!("/api/v1/namespaces/shop/pods/{role}/status");
        Server::patch(self.host(), &path, &status.to_string())
    }

    fn service(&self, name: &str, node_port: Option<u16>, mut spec: Value) -> Result<()> {
        let mut port = json!({"port": 80, "targetPort": PORT});
        if let Some(number) = node_port {
            port["nodePort"] = number.into();
        }
        spec["ports"] = json!([port]);
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        }))
    }

    /// One endpoint, on this node.
    fn slice(&self, name: &str, service: &str, keeper: &str, peer: &Peer) -> Result<()> {
        let [address, _] = peer.addresses();
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "shop", "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": keeper,
            }},
            "endpoints": [{
                "addresses": [address], "conditions": {"ready": true},
                "topology": {"kubernetes.io/hostname": "n1"},
            }],
            "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
        }))
    }

    /// Waits until that is so: of who connects, to which address and port, and whether it is to succeed.
    fn settles(&self, from: &Netns, to: &str, is_reached: bool) -> Result<()> {
        let to = to.parse().context("not an address")?;
        let settled = eventually(PATIENCE, || {
            from.reaches(Protocol::Tcp, to).is_ok() == is_reached
                && (is_reached || from.is_dropped_to(Protocol::Tcp, to).is_ok())
        });
        let log = std::fs::read_to_string(self.lab.folder().join("proxy.log"));
        ensure!(
            settled,
            "to {to}, expected {is_reached}, seen {}\n{}\n{}\n{}",
            from.probe(Protocol::Tcp, to),
            self.agent.status()?["kubernetes"],
            log.unwrap_or_default(),
            self.agent.log()
        );
        Ok(())
    }
}

#[test]
fn slices_say_who_serves_and_all_who_serve_have_to_be_permitted() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let Some(programs) = Programs::find() else {
        return Ok(());
    };
    let mut scene = Scene::new(&programs)?;
    let chosen = json!({
        "clusterIP": "10.96.0.21", "selector": {"app": "friend"}, "sessionAffinity": "ClientIP",
    });
    scene.service("chosen", None, chosen)?;
    scene.slice("chosen-1", "chosen", CONTROLLER, &scene.friend)?;
    scene.service("by-hand", None, json!({"clusterIP": "10.96.0.22"}))?;
    scene.slice("by-hand-1", "by-hand", "me", &scene.stranger)?;
    // Before there is an agent, both lead somewhere.
    for door in ["10.96.0.21:80", "10.96.0.22:80"] {
        scene.settles(&scene.server, door, true)?;
    }
    scene.agent.start()?;
    let (chosen, by_hand) = ("10.96.0.21:80", "10.96.0.22:80");
    scene.settles(&scene.server, chosen, true)?;
    scene.settles(&scene.server, by_hand, false)?;
    // Somebody else serves it, whatever the slice says of who made it.
    scene.slice("by-hand-1", "by-hand", CONTROLLER, &scene.friend)?;
    scene.settles(&scene.server, by_hand, true)?;
    scene.slice("by-hand-2", "by-hand", CONTROLLER, &scene.stranger)?;
    scene.settles(&scene.server, by_hand, false)?;
    // A slice of one's own beside those of the controller; by affinity the friend would answer all the same.
    scene.slice("mine", "chosen", "me", &scene.stranger)?;
    scene.settles(&scene.server, chosen, false)?;
    let delete = ["delete", "-n", "shop", "endpointslice", "mine"];
    scene.api.kubectl(scene.host(), &delete, "")?;
    scene.settles(&scene.server, chosen, true)?;
    let status = scene.agent.status()?;
    let watches = status["kubernetes"]["watches"].as_array();
    let slices = watches.and_then(|all| all.iter().find(|it| it["kind"] == "EndpointSlice"));
    ensure!(
        slices.is_some_and(|it| it["state"] == "listed"),
        "{}",
        status["kubernetes"]
    );
    Ok(())
}

#[test]
fn a_node_port_is_judged_by_whom_the_proxy_lets_it_see() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let Some(programs) = Programs::find() else {
        return Ok(());
    };
    let mut scene = Scene::new(&programs)?;
    for (name, port, policy) in [("cluster", 30090, "Cluster"), ("local", 30091, "Local")] {
        let spec = json!({
            "type": "NodePort", "externalTrafficPolicy": policy,
            "selector": {"app": "server"},
        });
        scene.service(name, Some(port), spec)?;
        scene.slice(&format!("{name}-1"), name, CONTROLLER, &scene.server)?;
    }
    let doors = ["198.51.100.1:30090", "198.51.100.1:30091"];
    for door in doors {
        scene.settles(&scene.outside, door, true)?;
    }
    scene.agent.start()?;
    let [cluster, local] = doors;
    scene.settles(&scene.outside, local, true)?;
    // It has the node's address, and is not the node's own.
    scene.settles(&scene.outside, cluster, false)?;
    scene.settles(scene.host(), cluster, true)?;
    // Nobody else gets in by either.
    for door in doors {
        scene.settles(&scene.stranger, door, false)?;
    }
    Ok(())
}
