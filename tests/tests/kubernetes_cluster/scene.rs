//! A server behind a policy and a Service, one who may reach it, and one who may not.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::cluster::{Cluster, Pod};
use ringfence_lab::lab::unique;
use ringfence_lab::probe::Protocol;
use ringfence_lab::prober::Prober;
use ringfence_lab::serve::Service;
use ringfence_lab::stream::Stream;
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

/// What the server listens to, over TCP and UDP.
pub(crate) const PORT: u16 = 80;
/// Where it echoes what a stream says.
pub(crate) const SPOKEN: u16 = 9000;
/// How long a change of policy may take on a machine that builds something else.
const SETTLED: Duration = Duration::from_secs(20);

pub(crate) struct Scene<'c> {
    cluster: &'c Cluster,
    namespace: String,
    pub(crate) server: Pod,
    pub(crate) friend: Pod,
    pub(crate) stranger: Pod,
    /// The server's ports by its own addresses, and by its Services'.
    doors: Vec<(Protocol, SocketAddr)>,
    _echo: Service,
}

/// Traffic that must go on, and traffic that must not begin.
pub(crate) struct Traffic {
    permitted: Vec<Stream>,
    denied: Vec<Prober>,
}

/// A policy: into the server may come who has that role, to these ports, and whoever talks to the echo service.
pub(crate) fn ingress(name: &str, from: &str, ports: &[u16]) -> Value {
    let spoken = [SPOKEN];
    let ports = ports.iter().chain(&spoken).flat_map(|port| {
        ["TCP", "UDP"].map(|protocol| json!({"protocol": protocol, "port": port}))
    });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"role": "server"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"role": from}}}],
                "ports": ports.collect::<Vec<_>>(),
            }],
        },
    })
}

fn pod(role: &str, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = "main".into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": role, "labels": {"role": role}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

impl<'c> Scene<'c> {
    /// The policy first, then the pods; only the friend gets in.
    pub(crate) fn isolated(cluster: &'c Cluster) -> Result<Self> {
        let namespace = unique();
        cluster.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        ])?;
        let idle = json!({"image": "localhost/pause:1"});
        let served = json!({
            "image": "localhost/probe:1",
            "args": ["serve", "server", "tcp:80", "udp:80", "http:8080"],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
            "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        });
        let service = |name: &str, family: &str| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {
                    "ipFamilies": [family],
                    "selector": {"role": "server"},
                    "ports": [{"name": "t", "port": 8000, "targetPort": PORT}, {"name": "u", "port": 8000, "targetPort": PORT, "protocol": "UDP"}],
                },
            })
        };
        apply(
            cluster,
            &namespace,
            &[
                ingress("only-friend", "friend", &[PORT]),
                pod("server", &served),
                pod("friend", &idle),
                pod("stranger", &idle),
                service("v4", "IPv4"),
                service("v6", "IPv6"),
            ],
        )?;
        let listener = cluster.pod(&namespace, "server")?;
        let mut addresses = listener.at(PORT);
        for service in ["v4", "v6"] {
            let said = cluster.get(&["-n", &namespace, "service", service])?;
            let address = said["spec"]["clusterIP"].as_str().context("no clusterIP")?;
            addresses.push(SocketAddr::new(address.parse()?, 8000));
        }
        let doors = addresses
            .into_iter()
            .flat_map(|address| Protocol::ALL.map(|protocol| (protocol, address)));
        let doors: Vec<_> = doors.collect();
        ensure!(doors.len() == 8, "not of both families: {doors:?}");
        let echo = listener.serve_tcp(SPOKEN)?;
        let scene = Self {
            friend: cluster.pod(&namespace, "friend")?,
            stranger: cluster.pod(&namespace, "stranger")?,
            server: listener,
            doors,
            cluster,
            namespace,
            _echo: echo,
        };
        scene.settles("the scene is set", Self::only_the_friend_gets_in)?;
        Ok(scene)
    }

    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        apply(self.cluster, &self.namespace, objects)
    }

    pub(crate) fn delete(&self, objects: &[Value]) -> Result<()> {
        let objects = placed(&self.namespace, objects);
        self.cluster.delete(&objects)
    }

    /// Waits until `holds`, and says what was seen last if it never does.
    pub(crate) fn settles(&self, when: &str, holds: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let mut last = Ok(());
        eventually(SETTLED, || {
            last = holds(self);
            last.is_ok()
        });
        last.with_context(|| {
            let said = self.cluster.agent_log().unwrap_or_default();
            format!("{when}\n{said}")
        })
    }

    pub(crate) fn only_the_friend_gets_in(&self) -> Result<()> {
        self.gets_in(&self.friend, true)?;
        self.gets_in(&self.stranger, false)
    }

    pub(crate) fn stranger_alone_gets_in(&self) -> Result<()> {
        self.gets_in(&self.stranger, true)?;
        self.gets_in(&self.friend, false)
    }

    pub(crate) fn nobody_gets_in(&self) -> Result<()> {
        self.gets_in(&self.stranger, false)?;
        self.gets_in(&self.friend, false)
    }

    pub(crate) fn everybody_gets_in(&self) -> Result<()> {
        self.gets_in(&self.stranger, true)?;
        self.gets_in(&self.friend, true)
    }

    /// By every door, or by none.
    fn gets_in(&self, who: &Pod, expected: bool) -> Result<()> {
        let seen = who.round(&self.doors, &vec![expected; self.doors.len()]);
        let wrong: Vec<_> = self
            .doors
            .iter()
            .zip(seen)
            .filter(|(_, seen)| *seen != expected)
            .map(|((protocol, address), _)| format!("{protocol} {address}"))
            .collect();
        let name = &who.name;
        ensure!(
            wrong.is_empty(),
            "{name} gets in is {}: {wrong:?}",
            !expected
        );
        Ok(())
    }

    /// No container was started anew, and the server is ready: probes pass.
    pub(crate) fn kubelet_is_content(&self) -> Result<()> {
        let pod = self
            .cluster
            .get(&["-n", &self.namespace, "pod", "server"])?;
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(
            container["ready"] == true && container["restartCount"] == 0,
            "{container}"
        );
        Ok(())
    }

    pub(crate) fn traffic(&self) -> Result<Traffic> {
        let spoken = self.server.at(SPOKEN);
        let permitted = spoken.iter().map(|address| self.friend.stream(*address));
        let denied = self.server.at(PORT).into_iter().flat_map(|address| {
            Protocol::ALL.map(|protocol| self.stranger.prober(protocol, address))
        });
        Ok(Traffic {
            denied: denied.collect(),
            permitted: permitted.collect::<Result<_>>()?,
        })
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let name = &self.namespace;
        let _asked = self
            .cluster
            .kubectl(&["delete", "namespace", name, "--wait=false"])
            .is_ok();
    }
}

impl Traffic {
    pub(crate) fn goes_on(&self, attempts: u64) -> Result<()> {
        self.permitted.iter().try_for_each(Stream::advances)?;
        self.denied
            .iter()
            .try_for_each(|prober| prober.makes(attempts))
    }

    pub(crate) fn was_not_disturbed(self) -> Result<()> {
        self.goes_on(1)?;
        for stream in self.permitted {
            stream.finish().unbroken()?;
        }
        self.denied.into_iter().try_for_each(Prober::finish_denied)
    }
}

fn apply(cluster: &Cluster, namespace: &str, objects: &[Value]) -> Result<()> {
    cluster.apply(&placed(namespace, objects))
}

fn placed(namespace: &str, objects: &[Value]) -> Vec<Value> {
    let place = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["namespace"] = namespace.into();
        object
    };
    objects.iter().map(place).collect()
}
