//! The files of vectors: cases, and the state of the cluster at each of their steps.

use serde_json::{Map, Value, json};

use crate::table::Table;

pub(crate) struct File(Value);

pub(crate) struct Case<'a> {
    cluster: &'a Value,
    case: &'a Value,
}

/// A cluster at one step, with all that the step inherits filled in.
pub(crate) struct State<'a> {
    cluster: &'a Value,
    step: &'a Value,
    policies: &'a Value,
    namespaces: Map<String, Value>,
    pub(crate) pods: Map<String, Value>,
    pub(crate) ports: Vec<String>,
}

impl File {
    pub(crate) fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("the vectors are JSON"))
    }

    pub(crate) fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        list(&self.0["cases"]).iter().map(|case| {
            let cluster = &self.0["clusters"][string(&case["cluster"])];
            Case { cluster, case }
        })
    }
}

impl<'a> Case<'a> {
    pub(crate) fn id(&self) -> &'a str {
        string(&self.case["id"])
    }

    pub(crate) fn name(&self) -> &'a str {
        string(&self.case["name"])
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = State<'a>> {
        let cluster = self.cluster;
        let mut policies = &Value::Null;
        list(&self.case["steps"]).iter().map(move |step| {
            if let Some(changed) = step.get("policies") {
                policies = changed;
            }
            let with_changes = |key: &str| {
                let mut all = object(&cluster[key]).clone();
                all.extend(
                    step.get(key)
                        .map(|changed| object(changed).clone())
                        .unwrap_or_default(),
                );
                all
            };
            let ports = match step.get("ports") {
                Some(ports) => list(ports)
                    .iter()
                    .map(|port| string(port).to_owned())
                    .collect(),
                None => object(&cluster["default_ports"]).keys().cloned().collect(),
            };
            State {
                cluster,
                step,
                policies,
                namespaces: with_changes("namespaces"),
                pods: with_changes("pods"),
                ports,
            }
        })
    }
}

impl<'a> State<'a> {
    pub(crate) fn table(&self, direction: &str) -> Table<'a> {
        Table(&self.step[direction])
    }

    pub(crate) fn policies(&self) -> usize {
        list(self.policies).len()
    }

    /// From, to, port and verdict.
    pub(crate) fn probes(&self) -> impl Iterator<Item = [&'a str; 4]> {
        list(&self.step["probes"])
            .iter()
            .map(|probe| [0, 1, 2, 3].map(|item| string(&probe[item])))
    }

    /// The state as API objects, as a file of policies would hold them.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let namespaces = self.namespaces.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
        let pods = self.pods.iter().map(|(name, pod)| self.pod(name, pod));
        let nodes = self.cluster.get("nodes").map(object).into_iter().flatten();
        let nodes = nodes.map(|(name, node)| {
            let address = |ip: &Value| json!({"type": "InternalIP", "address": ip});
            let addresses: Vec<_> = list(&node["ips"]).iter().map(address).collect();
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": node["labels"]},
                "status": {"addresses": addresses},
            })
        });
        let names = self.cluster.get("dns").map(|names| {
            json!({
                "apiVersion": "ringfence.io/v1alpha1",
                "kind": "NameTable",
                "metadata": {"name": "dns"},
                "spec": {"names": names},
            })
        });
        namespaces
            .chain(pods)
            .chain(nodes)
            .chain(names)
            .chain(list(self.policies).iter().cloned())
            .collect()
    }

    fn pod(&self, name: &str, pod: &Value) -> Value {
        let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
        let ports = object(pod.get("ports").unwrap_or(&self.cluster["default_ports"]));
        let ports: Vec<_> = ports
            .iter()
            .map(|(port, name)| {
                let (protocol, number) = port.split_once('/').expect("PROTOCOL/PORT");
                let number: u16 = number.parse().expect("a port");
                let mut port = json!({"containerPort": number, "protocol": protocol});
                if !name.is_null() {
                    port["name"] = name.clone();
                }
                port
            })
            .collect();
        let mut spec = json!({"containers": [{"name": "main", "image": "none", "ports": ports}]});
        for (theirs, ours) in [("node", "nodeName"), ("hostNetwork", "hostNetwork")] {
            if let Some(value) = pod.get(theirs) {
                spec[ours] = value.clone();
            }
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": pod["labels"]},
            "spec": spec,
            "status": {"phase": "Running", "podIP": pod["ip"], "podIPs": [{"ip": pod["ip"]}]},
        })
    }
}

fn list(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

fn object(value: &Value) -> &Map<String, Value> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
}

fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no string: {value}"))
}
