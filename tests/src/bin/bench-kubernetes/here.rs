//! A pod of this node, as kubelet and a runtime would make it: from its creation until a client reaches it, and until
//! nobody else does.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::Netns;
use ringfence_lab::report::Report;

use crate::cluster::{ALWAYS, Cluster, NAMESPACE, NODE, at_once, v4};
use crate::objects;
use crate::probe::Heard;

/// Of addresses of the lab's network, the first of pods that come to this node.
const FIRST: u32 = 200;
const JOIN: &str = r#"echo $$ >"$0/cgroup.procs" && exec sleep infinity"#;
const CLIENT: u32 = 1;
const STRANGER: u32 = 2;

/// The process of a pod in its cgroup. Dropped in order.
pub(crate) struct Runs {
    child: Child,
    _container: Cgroup,
    _pod: Cgroup,
}

impl Runs {
    pub(crate) fn start(pods: &Cgroup, uid: &str, netns: &Netns) -> Result<Self> {
        let pod = pods.within(&format!("pod{uid}"))?;
        let container = pod.within("0123abcd")?;
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(container.path());
        let child = netns.spawn(command.stdin(Stdio::null()))?;
        Ok(Self {
            child,
            _container: container,
            _pod: pod,
        })
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

pub(crate) fn measure(cluster: &Cluster, times: u32, report: &mut Report) -> Result<()> {
    let (mut reached, mut from_process) = (Vec::new(), Vec::new());
    let (mut isolated, mut exposed) = (Vec::new(), Vec::new());
    for number in 0..times {
        let Arrival {
            created,
            began,
            opened,
            closed,
        } = arrive(cluster, number)?;
        reached.push(opened.saturating_duration_since(created));
        from_process.push(opened.saturating_duration_since(began));
        isolated.push(closed.saturating_duration_since(created));
        exposed.push(closed.saturating_duration_since(began));
    }
    let name = "pod_creation_reachability_latency_seconds";
    report.metric(&format!("{name}, of a pod here"), "", reached);
    report.times("  from its first process", "", from_process);
    report.times(
        "pod here created to isolated, without the plugin",
        "",
        isolated,
    );
    report.times("  from its first process", "", exposed);
    Ok(())
}

struct Arrival {
    /// The API was called.
    created: Instant,
    /// Its first process is in its cgroup.
    began: Instant,
    opened: Instant,
    /// Nothing of what strangers send arrives any more.
    closed: Instant,
}

fn arrive(cluster: &Cluster, number: u32) -> Result<Arrival> {
    let host = cluster.host();
    let last = u8::try_from(FIRST + number)?;
    let address = Ipv4Addr::new(10, 77, 0, last);
    let mac = format!("02:00:00:00:88:{last:02x}");
    let to = SocketAddr::new(address.into(), ALWAYS);
    let heard = Heard::new();
    let netns = Netns::create(format!("{}-here{number}", cluster.lab.prefix()))?;
    let mut runs = vec![heard.listen(&netns, ALWAYS)?];
    for (who, peer) in [(CLIENT, &cluster.client), (STRANGER, &cluster.stranger)] {
        // Nobody waits for an answer of who is not there yet.
        peer.ip(&format!(
            "neigh replace {address} lladdr {mac} dev eth0 nud permanent"
        ))?;
        runs.push(heard.send(peer, who, v4(peer)?, to));
    }
    let mut calls = cluster.proxy.connect()?;
    let name = format!("here-{number}");
    let pod = objects::pod(NAMESPACE, &name, NODE, &objects::measured("server"));
    let made = calls.must(
        "POST",
        &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
        &pod,
    )?;
    let uid = made.json()?;
    let uid = uid["metadata"]["uid"].as_str().context("no UID")?;
    for who in [CLIENT, STRANGER] {
        heard.expect(who, made.sent);
    }
    let (interface, inside) = (format!("here{number}"), netns.name());
    host.ip(&format!(
        "link add {interface} type veth peer name eth0 address {mac} netns {inside}\n\
         link set {interface} master br0 up"
    ))?;
    netns.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up"))?;
    let began = Instant::now();
    let process = Runs::start(&cluster.pods, uid, &netns)?;
    let path = objects::path(NAMESPACE, &name);
    calls.must(
        "PATCH",
        &(path.clone() + "/status"),
        &objects::running(address),
    )?;
    let opened = heard.opens(CLIENT)?;
    let closed = heard.closes(STRANGER)?;
    calls.must("DELETE", &path, &at_once())?;
    drop(runs);
    drop(process);
    drop(netns);
    // Gone before the next one comes.
    ringfence_lab::wait::eventually(Duration::from_secs(5), || {
        host.ask("ip", &["link", "show", &interface]).is_err()
    });
    Ok(Arrival {
        created: made.sent,
        began,
        opened,
        closed,
    })
}
