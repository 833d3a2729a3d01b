//! What a sink is not to be told: fields left out, or replaced by pseudonyms.
//!
//! A pseudonym is a keyed hash (HMAC, RFC 2104, with SHA-256): the same value has the same one, so that records can still be
//! joined and counted, and nobody without the key can find the value by trying.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use hmac::{Hmac, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::flow::{
    key::FlowId,
    record::{ProcessRef, Record, RuleRef, Tampering, WorkloadRef},
};

/// Prints as what gives the same settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Privacy {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) drop: BTreeSet<Dropped>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) hash: BTreeSet<Hashed>,
    /// Of pseudonyms; without one, each run of the agent has others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
}

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dropped {
    /// Addresses of both ends, and what they are called.
    Ip,
    /// Ports of both ends.
    Port,
    /// Who the ends are, and the endpoint.
    Workload,
    Labels,
    Process,
}

/// What can have a pseudonym.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hashed {
    Ip,
    /// Namespace and name of the ends, and the endpoint.
    Workload,
    /// Their values.
    Labels,
    /// What a process calls itself and which file it runs, its cgroup and container.
    Process,
    Node,
}

impl Dropped {
    pub(crate) fn leaves_out(self, field: Hashed) -> bool {
        match self {
            Self::Ip => field == Hashed::Ip,
            Self::Port => false,
            Self::Workload => field == Hashed::Workload || field == Hashed::Labels,
            Self::Labels => field == Hashed::Labels,
            Self::Process => field == Hashed::Process,
        }
    }
}

impl Hashed {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Workload => "workload",
            Self::Labels => "labels",
            Self::Process => "process",
            Self::Node => "node",
        }
    }
}

/// Of a workload that is one.
const NODE: &str = "Node";

/// Shorter keys are found by trying.
const SHORTEST_KEY: usize = 16;

/// Puts pseudonyms on, and takes fields off.
pub(super) struct Pseudonyms {
    privacy: Privacy,
    keyed: Hmac<Sha256>,
}

/// Values of different kinds have pseudonyms of their own, also where their bytes are the same.
#[derive(Clone, Copy)]
enum Of {
    Flow = 1,
    Ip,
    Text,
}

impl Privacy {
    pub(crate) fn is_none(&self) -> bool {
        self.drop.is_empty() && self.hash.is_empty()
    }
}

impl Pseudonyms {
    /// # Errors
    ///
    /// The key cannot be read, or is too short.
    pub(super) fn new(privacy: Privacy) -> io::Result<Self> {
        let key = if let Some(path) = &privacy.key_file {
            read_key(path)?
        } else {
            let mut key = [0; 32];
            getrandom(&mut key, GetRandomFlags::empty())?;
            key.to_vec()
        };
        let keyed =
            Hmac::new_from_slice(&key).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { privacy, keyed })
    }

    pub(super) fn put_on(&self, record: &mut Record) {
        let drops = |field| self.privacy.drop.contains(&field);
        let hashes = |field| self.privacy.hash.contains(&field);
        if drops(Dropped::Ip) || hashes(Hashed::Ip) || drops(Dropped::Port) {
            // Both are hashes of them without a key.
            record.community_id = None;
            let hash = self.hash(Of::Flow, &record.flow_id.0.to_be_bytes());
            let hash = u128::from_be_bytes(hash) >> 64;
            record.flow_id = FlowId(u64::try_from(hash).unwrap_or_default());
        }
        for end in [&mut record.src, &mut record.dst] {
            if drops(Dropped::Ip) {
                end.ip = None;
            } else if hashes(Hashed::Ip) {
                end.ip = end.ip.map(|ip| self.of_ip(ip));
            }
            if drops(Dropped::Port) {
                end.port = None;
            }
            // Both lead to the address; and a Service is called as those behind it, in a name by DNS as well.
            for name in [&mut end.dns_name, &mut end.service] {
                if drops(Dropped::Ip) || drops(Dropped::Workload) {
                    *name = None;
                } else if hashes(Hashed::Ip) || hashes(Hashed::Workload) {
                    *name = name.take().map(|it| self.of_name(&it).into());
                }
            }
            let is_node = end.workload.as_ref().is_some_and(|it| it.kind == NODE);
            if drops(Dropped::Workload) || is_node && drops(Dropped::Ip) {
                end.workload = None;
            } else if let Some(workload) = &end.workload {
                end.workload = Some(self.of_workload(workload));
            }
        }
        if drops(Dropped::Workload) || hashes(Hashed::Workload) {
            self.hide_workload(record);
        } else if drops(Dropped::Ip) {
            record.endpoint = (record.endpoint.take()).filter(|name| !name.starts_with("node/"));
        } else if hashes(Hashed::Node) || hashes(Hashed::Ip) {
            // One that is a node's own.
            let endpoint = record.endpoint.take();
            record.endpoint = endpoint.map(|name| match name.strip_prefix("node/") {
                Some(node) => format!("node/{}", self.of_text(node)).into(),
                None => name,
            });
        }
        if drops(Dropped::Process) {
            record.process = None;
        } else if hashes(Hashed::Process)
            && let Some(process) = &mut record.process
        {
            self.put_on_process(process);
        }
        self.put_on_node(&mut record.node);
    }

    /// Where it shows beside the ends: policies are in its namespace and often have its name, and an interface or a cgroup is one pod's.
    fn hide_workload(&self, record: &mut Record) {
        let is_dropped = self.privacy.drop.contains(&Dropped::Workload);
        let endpoint = record.endpoint.take().filter(|_| !is_dropped);
        record.endpoint = endpoint.map(|name| self.of_name(&name).into());
        record.ifindex = None;
        // It may be the only one of so many.
        record.policy_revision = None;
        if let Some(process) = &mut record.process {
            // A path may lead through the folder of a pod.
            process.exe = self.of_any(process.exe.take().filter(|_| !is_dropped));
            for group in [&mut process.cgroup, &mut process.container_id] {
                *group = self.of_any(group.take().filter(|_| !is_dropped));
            }
        }
        let would_be = record.would_be.iter_mut().map(|would| &mut would.policy);
        for policy in would_be.chain([&mut record.policy]) {
            let rule = policy.take().filter(|_| !is_dropped);
            *policy = rule.map(|rule| self.of_rule(&rule).into());
        }
    }

    fn of_rule(&self, rule: &RuleRef) -> RuleRef {
        RuleRef {
            namespace: rule.namespace.as_deref().map(|it| self.of_text(it)),
            name: self.of_text(&rule.name),
            rule_name: None,
            reason: None,
            approved_by: None,
            owner: None,
            ..rule.clone()
        }
    }

    /// What names an interface or a cgroup names a pod.
    pub(super) fn put_on_tampering(&self, tampering: &mut Tampering) {
        let Privacy { drop, hash, .. } = &self.privacy;
        if (drop.contains(&Dropped::Workload) || hash.contains(&Hashed::Workload))
            && let Some((kind, name)) = tampering.what.split_once(' ')
            && kind != "map"
        {
            tampering.what = format!("{kind} {}", self.of_text(name));
        }
    }

    pub(super) fn put_on_node(&self, node: &mut Arc<str>) {
        if self.privacy.hash.contains(&Hashed::Node) {
            *node = self.of_text(node).into();
        }
    }

    fn put_on_process(&self, process: &mut ProcessRef) {
        process.comm = self.of_text(&process.comm);
        let is_hidden = self.privacy.hash.contains(&Hashed::Workload);
        if !is_hidden {
            process.exe = self.of_any(process.exe.take());
            for group in [&mut process.cgroup, &mut process.container_id] {
                *group = self.of_any(group.take());
            }
        }
    }

    fn of_workload(&self, workload: &Arc<WorkloadRef>) -> Arc<WorkloadRef> {
        let hashes = |field| self.privacy.hash.contains(&field);
        // Its name leads to its addresses, and one of its labels is its name.
        let hiding = [Hashed::Node, Hashed::Ip, Hashed::Workload];
        let is_hidden_node = workload.kind == NODE && hiding.into_iter().any(hashes);
        let names = is_hidden_node || hashes(Hashed::Workload);
        let values = is_hidden_node || hashes(Hashed::Labels);
        let drops_labels = self.privacy.drop.contains(&Dropped::Labels);
        if !names && !values && !drops_labels {
            return Arc::clone(workload);
        }
        let mut workload = WorkloadRef::clone(workload);
        if names {
            if !workload.namespace.is_empty() {
                workload.namespace = self.of_text(&workload.namespace);
            }
            workload.name = self.of_text(&workload.name);
            // Its name begins the pod's.
            workload.owner = self.of_any(workload.owner.take());
        }
        if drops_labels {
            workload.labels = Arc::default();
        } else if values {
            let labels = workload.labels.iter();
            let labels = labels.map(|(key, value)| (key.clone(), self.of_text(value)));
            workload.labels = Arc::new(labels.collect());
        }
        Arc::new(workload)
    }

    /// In a network of its own for each family, within those that nobody routes (RFC 4193).
    fn of_ip(&self, ip: IpAddr) -> IpAddr {
        let (family, mut hash) = match ip {
            IpAddr::V4(ip) => (4, self.hash(Of::Ip, &ip.octets())),
            IpAddr::V6(ip) => (6, self.hash(Of::Ip, &ip.octets())),
        };
        let [network, second, ..] = &mut hash;
        (*network, *second) = (0xfd, family);
        Ipv6Addr::from(hash).into()
    }

    /// Of `NAMESPACE/NAME`, each as it stands at the workload. No name by DNS has a `/`.
    fn of_name(&self, name: &str) -> String {
        match name.split_once('/') {
            Some((namespace, name)) => {
                format!("{}/{}", self.of_text(namespace), self.of_text(name))
            }
            None => self.of_text(name),
        }
    }

    fn of_any(&self, text: Option<Arc<str>>) -> Option<Arc<str>> {
        Some(self.of_text(&text?).into())
    }

    fn of_text(&self, text: &str) -> String {
        let hash = self.hash(Of::Text, text.as_bytes());
        let mut pseudonym = "h-".to_owned();
        for byte in hash.iter().take(8) {
            write!(pseudonym, "{byte:02x}").unwrap_or_default();
        }
        pseudonym
    }

    fn hash(&self, of: Of, value: &[u8]) -> [u8; 16] {
        let keyed = self.keyed.clone().chain_update([of as u8]);
        let keyed = keyed.chain_update(value).finalize();
        let mut hash = [0; 16];
        for (to, from) in hash.iter_mut().zip(keyed.into_bytes()) {
            *to = from;
        }
        hash
    }
}

impl std::fmt::Debug for Pseudonyms {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pseudonyms")
            .field("privacy", &self.privacy)
            .finish_non_exhaustive()
    }
}

fn read_key(path: &PathBuf) -> io::Result<Vec<u8>> {
    let told = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("key of pseudonyms {}: {what}", path.display()))
    };
    let mut key = fs::read(path).map_err(|error| told(&error))?;
    key.truncate(key.trim_ascii_end().len());
    if key.len() < SHORTEST_KEY {
        return Err(told(&format!("has fewer than {SHORTEST_KEY} bytes")));
    }
    Ok(key)
}
