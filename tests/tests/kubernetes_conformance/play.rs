//! A case of the vectors on the cluster: its pods are made, each of its states is, and every connection is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::cluster::{Cluster, Pod};
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::Protocol;
use ringfence_lab::serve::Service;
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

use crate::rewrite::{self, Addresses};
use crate::table::{Cell, Diff};
use crate::vectors::{Case, State};

/// How long a state may take to be in force on a machine that does other things.
const SETTLED: Duration = Duration::from_secs(20);
/// What stands for every address outside of the cluster: the one that its neighbour answers from.
const OUTSIDE: &str = "172.20.0.1";
/// What is asked of the outside, by any vector.
const OUTSIDE_PORTS: [(Protocol, u16); 3] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 443),
    (Protocol::Udp, 53),
];
/// Namespaces that the cluster has anyway.
const KEPT: [&str; 3] = ["default", "kube-system", "kube-public"];

/// How a file says what it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By the pods whose policies decide.
    Tables,
    /// One connection after the other.
    Probes,
}

/// What was done, so that nothing is left out without anybody noticing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) cases: usize,
    pub(crate) checks: usize,
    pub(crate) left_out: usize,
}

pub(crate) struct Play<'c> {
    cluster: &'c Cluster,
    form: Form,
    outside: Netns,
    _services: Vec<Service>,
    /// The objects that are there now, as they were sent, by kind and name.
    there: BTreeMap<String, Value>,
    pods: BTreeMap<String, Pod>,
    failures: Vec<String>,
    tally: Tally,
}

/// A connection to try, and what is to come of it.
struct Try<'a> {
    from: &'a str,
    to: &'a str,
    port: &'a str,
    expected: bool,
    /// Where it may be told from blocks of addresses: by the family of these alone.
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Both,
    V4,
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl<'c> Play<'c> {
    pub(crate) fn new(cluster: &'c Cluster, form: Form) -> Result<Self> {
        let outside = cluster.outside()?;
        let services = OUTSIDE_PORTS.map(|(protocol, port)| outside.serve(protocol, port));
        cluster.apply(&[definition()])?;
        Ok(Self {
            cluster,
            form,
            _services: services.into_iter().collect::<Result<_>>()?,
            outside,
            there: BTreeMap::new(),
            pods: BTreeMap::new(),
            failures: Vec::new(),
            tally: Tally::default(),
        })
    }

    pub(crate) fn case(&mut self, case: &Case<'_>) -> Result<()> {
        for (number, state) in case.states().enumerate() {
            let what = format!("{} step {number}: {}", case.id(), case.name());
            self.furnish(&state).with_context(|| what.clone())?;
            let tries = self.tries(&state);
            if let Some(wrong) = self.settle(&tries)? {
                eprintln!("{what}\n{wrong}");
                self.failures.push(format!("{what}\n{wrong}"));
            }
            self.tally.checks += tries.len();
        }
        self.tally.cases += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Tally> {
        let failures = std::mem::take(&mut self.failures);
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(std::mem::take(&mut self.tally))
    }

    /// Makes the cluster what the state says.
    fn furnish(&mut self, state: &State<'_>) -> Result<()> {
        let documents = state.documents();
        let kind = |document: &Value, kind: &str| document["kind"] == kind;
        let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
        for document in &documents {
            let object = match document["kind"].as_str() {
                Some("Namespace") => namespace(document),
                Some("Pod") if document["spec"]["hostNetwork"].is_null() => pod(document),
                _ => continue,
            };
            wanted.insert(key(&object), object);
        }
        self.turn_into(&wanted, |key| !key.starts_with("policy "))?;
        let namespaces: BTreeSet<_> = wanted
            .values()
            .filter(|object| kind(object, "Namespace"))
            .filter_map(|object| object["metadata"]["name"].as_str())
            .collect();
        let namespaces: Vec<_> = namespaces.into_iter().collect();
        let pods = wanted.keys().filter_map(|key| key.strip_prefix("Pod "));
        let missing = pods.filter(|name| !self.pods.contains_key(*name)).count();
        if missing > 0 {
            let found = self.cluster.pods(&namespaces)?;
            let by_name = found
                .into_iter()
                .map(|pod| (format!("{}/{}", pod.namespace, pod.name), pod));
            self.pods = by_name.collect();
        }

        let theirs = state.pods.iter().filter_map(|(name, pod)| {
            let ours = self.pods.get(name)?.addresses.clone();
            Some((pod["ip"].as_str()?.parse().ok()?, ours))
        });
        let addresses: Addresses = theirs.collect();
        let policies = documents.iter().filter(|document| {
            let inventory = ["Namespace", "Pod", "Node", "NameTable"];
            !inventory.iter().any(|name| kind(document, name))
        });
        let policies = policies.map(|document| {
            let policy = rewrite::policy(document, &addresses);
            (format!("policy {}", key(&policy)), policy)
        });
        let policies: BTreeMap<_, _> = policies.collect();
        ensure!(
            policies.len() == state.policies(),
            "two policies of one name"
        );
        self.turn_into(&policies, |key| key.starts_with("policy "))
    }

    /// Sends what differs, and takes away what is no longer wanted.
    fn turn_into(
        &mut self,
        wanted: &BTreeMap<String, Value>,
        concerns: fn(&str) -> bool,
    ) -> Result<()> {
        // Labels of pods change in place; what else a pod is, is so from its making.
        let made_anew = |key: &String, object: &Value| {
            let changed =
                |wanted: &Value| key.starts_with("Pod ") && wanted["spec"] != object["spec"];
            wanted.get(key).is_none_or(changed)
        };
        let gone = self
            .there
            .iter()
            .filter(|(key, object)| concerns(key) && made_anew(key, object));
        let gone: Vec<_> = gone
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        let is_kept = |object: &Value| {
            KEPT.iter()
                .any(|name| object["kind"] == "Namespace" && object["metadata"]["name"] == *name)
        };
        let objects: Vec<_> = gone
            .iter()
            .map(|(_, object)| object.clone())
            .filter(|object| !is_kept(object))
            .collect();
        if !objects.is_empty() {
            self.cluster.delete(&objects)?;
        }
        for (key, _) in gone {
            self.there.remove(&key);
            self.pods.remove(key.trim_start_matches("Pod "));
        }
        let new = wanted
            .iter()
            .filter(|(key, object)| self.there.get(*key) != Some(object));
        let mut new: Vec<_> = new.map(|(_, object)| object.clone()).collect();
        // A namespace comes before what is in it.
        new.sort_by_key(|object| object["kind"] != "Namespace");
        if !new.is_empty() {
            self.cluster.apply(&new)?;
        }
        self.there.extend(wanted.clone());
        Ok(())
    }

    /// What the state expects, as far as one node can show it.
    fn tries<'s>(&mut self, state: &'s State<'_>) -> Vec<Try<'s>> {
        let mut all = Vec::new();
        let blocks = state
            .documents()
            .iter()
            .any(|document| document.to_string().contains("ipBlock"));
        let is_v6 = |pod: &Value| pod["ip"].as_str().is_some_and(|ip| ip.contains(':'));
        let family = match (blocks, state.pods.values().any(is_v6)) {
            (false, _) => Family::Both,
            (true, false) => Family::V4,
            (true, true) => Family::V6,
        };
        if self.form == Form::Tables {
            let pods = || state.pods.keys();
            for (from, to) in pods().flat_map(|from| pods().map(move |to| (from, to))) {
                for port in state.ports.iter().filter(|_| from != to) {
                    let expected = state.table("egress").permits(from, port, to)
                        && state.table("ingress").permits(to, port, from);
                    all.push(Try {
                        from,
                        to,
                        port,
                        expected,
                        family,
                    });
                }
            }
        } else {
            all.extend(state.probes().map(|[from, to, port, verdict]| Try {
                from,
                to,
                port,
                expected: verdict == "allow",
                family,
            }));
        }
        let before = all.len();
        let is_ours = |end: &str| {
            !end.contains('/') && !end.starts_with("node:") || self.pods.contains_key(end)
        };
        all.retain(|one| !one.port.starts_with("SCTP/") && is_ours(one.from) && is_ours(one.to));
        self.tally.left_out += before - all.len();
        all
    }

    /// Tries everything until all is as expected; what differed last, else.
    fn settle(&self, tries: &[Try<'_>]) -> Result<Option<String>> {
        let mut by_source: BTreeMap<&str, Vec<&Try<'_>>> = BTreeMap::new();
        for one in tries {
            by_source.entry(one.from).or_default().push(one);
        }
        let mut rounds = Vec::new();
        for (from, tries) in by_source {
            let netns: &Netns = match self.pods.get(from) {
                Some(pod) => pod,
                None => &self.outside,
            };
            let mut targets = Vec::new();
            let mut hopes = Vec::new();
            for one in &tries {
                let at = self.at(one)?;
                hopes.extend(vec![one.expected; at.len()]);
                targets.push(at);
            }
            rounds.push((netns, tries, targets, hopes));
        }
        let mut wrong = None;
        eventually(SETTLED, || {
            let mut diff = Diff::default();
            thread::scope(|scope| {
                let running: Vec<_> = rounds
                    .iter()
                    .map(|(netns, _, targets, hopes)| {
                        scope.spawn(|| netns.round(&targets.concat(), hopes))
                    })
                    .collect();
                for ((_, tries, targets, _), round) in rounds.iter().zip(running) {
                    let mut seen = round.join().expect("a round ends").into_iter();
                    for (one, at) in tries.iter().zip(targets) {
                        let seen: Vec<_> = seen.by_ref().take(at.len()).collect();
                        // Both families, or neither.
                        let as_expected = seen.iter().all(|seen| *seen == one.expected);
                        diff.note(&Cell {
                            from: one.from,
                            to: one.to,
                            port: one.port,
                            expected: [one.expected; 2],
                            seen: [as_expected == one.expected; 2],
                        });
                    }
                }
            });
            wrong = diff.text();
            wrong.is_none()
        });
        Ok(wrong)
    }

    /// Where that leads to: by each family that both ends have.
    fn at(&self, one: &Try<'_>) -> Result<Vec<(Protocol, SocketAddr)>> {
        let (protocol, port) = one.port.split_once('/').context("PROTOCOL/PORT")?;
        let protocol = if protocol == "TCP" {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        let port: u16 = port.parse()?;
        let mut at = match self.pods.get(one.to) {
            Some(pod) => pod.at(port),
            None => vec![SocketAddr::new(OUTSIDE.parse()?, port)],
        };
        at.retain(|at| one.family.has(at));
        // The outside is tried by one family, as the vectors do.
        if !self.pods.contains_key(one.from) {
            at.retain(SocketAddr::is_ipv4);
        }
        Ok(at.into_iter().map(|at| (protocol, at)).collect())
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        let _gone = self.turn_into(&BTreeMap::new(), |_| true).is_ok();
    }
}

fn key(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").unwrap_or_default();
    let kind = text("/kind").unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// With the label that API servers give every namespace since 1.21.
fn namespace(document: &Value) -> Value {
    let mut object = document.clone();
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    object
}

/// With a server at each of its ports, and without the addresses that the vectors have.
fn pod(document: &Value) -> Value {
    let mut object = document.clone();
    if let Some(members) = object.as_object_mut() {
        members.remove("status");
    }
    let container = &document["spec"]["containers"][0];
    let ports = container["ports"].as_array().into_iter().flatten();
    let ports = ports.filter_map(|port| {
        let protocol = port["protocol"].as_str()?.to_ascii_lowercase();
        (protocol != "sctp").then(|| format!("{protocol}:{}", port["containerPort"]))
    });
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    let arguments = ["serve".to_owned(), name.to_owned()]
        .into_iter()
        .chain(ports);
    object["spec"] = json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "main",
            "image": "localhost/probe:1",
            "args": arguments.collect::<Vec<_>>(),
            "ports": container["ports"],
        }],
    });
    object
}

/// `ClusterNetworkPolicy` as far as an API server needs to know it: what is in one, the agent checks by itself.
fn definition() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api"},
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy", "shortNames": ["cnp"]},
            "versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}
