//! What a change of policy no longer permits: the kernel drops its packets, and here its sockets end.
//!
//! Only sockets of this node's own stack: those of workloads by cgroup or unit. What a pod's namespace
//! holds is dropped, and its owner waits for a time-out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::unix::fs::DirEntryExt as _,
    path::Path,
};

use agent_common::{
    flow::{Flow, FlowKey, FlowState},
    table::{self, Word},
};
use agent_policy::{
    compiled::{At, Compiled},
    model::{Direction, SubjectName, Time, World},
    question::{Origin, Question, View},
};

use crate::datapath::{
    cgroup::{CgroupName, Hierarchy},
    maps::FlowMaps,
    raw::Raw,
    sockets::{Connected, Sockets},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The tables that are in force now, and whose words they have changed.
pub(crate) struct Revision<'t> {
    pub(crate) tables: &'t Compiled,
    pub(crate) world: &'t World,
    pub(crate) endpoints: &'t BTreeMap<u16, SubjectName>,
    /// The node's own addresses: what goes there takes its loopback interface.
    pub(crate) this_node: &'t BTreeSet<IpAddr>,
    pub(crate) changed: &'t BTreeMap<u16, Word>,
    /// Of the boot clock.
    pub(crate) nanos: u64,
}

// === impl Revision ===

impl Revision<'_> {
    /// Ends the sockets of flows that are no longer permitted; how many there were.
    ///
    /// # Errors
    ///
    /// If the kernel does not let them be ended. The packets are dropped all the same.
    pub(crate) fn cut(&self, flows: &FlowMaps) -> anyhow::Result<usize> {
        let groups: BTreeMap<u16, BTreeSet<u64>> = self
            .changed
            .keys()
            .filter_map(|id| Some((*id, self.groups(*id)?)))
            .collect();
        if groups.is_empty() {
            return Ok(0);
        }
        let v4 = flows.v4.iter().filter_map(Result::ok);
        let v6 = flows.v6.iter().filter_map(Result::ok);
        let v4 = v4.filter_map(|(Raw(key), Raw(flow))| self.withdrawn(&groups, &key, &flow));
        let v6 = v6.filter_map(|(Raw(key), Raw(flow))| self.withdrawn(&groups, &key, &flow));
        let withdrawn: Vec<_> = v4.chain(v6).collect();
        if withdrawn.is_empty() {
            return Ok(0);
        }
        let sockets = Sockets::new()?;
        let mut ended = 0;
        for (connected, groups) in withdrawn {
            ended += usize::from(sockets.end(connected, groups)?);
        }
        Ok(ended)
    }

    /// The cgroups whose sockets are an endpoint's: its own and those below; `None` if it has none.
    fn groups(&self, endpoint: u16) -> Option<BTreeSet<u64>> {
        let name = self.endpoints.get(&endpoint)?.workload()?;
        let spec = self.world.workloads.get(name)?.endpoint.as_ref()?;
        let name = CgroupName::of(spec)?.ok()?;
        let group = Hierarchy::find().ok()?.open(&name).ok()?;
        let mut groups = BTreeSet::from([group.id()]);
        below(group.path(), &mut groups);
        Some(groups)
    }

    /// The socket of a flow that is no longer permitted.
    fn withdrawn<'g, A: Copy + Into<IpAddr>>(
        &self,
        groups: &'g BTreeMap<u16, BTreeSet<u64>>,
        key: &FlowKey<A>,
        flow: &FlowState,
    ) -> Option<(Connected, &'g BTreeSet<u64>)> {
        let groups = groups.get(&key.endpoint)?;
        // Who began one that was taken up in the middle is a guess.
        let is_known = flow.closed == 0 && flow.origin & Flow::ADOPTED == 0;
        if ![TCP, UDP].contains(&key.protocol) || !is_known {
            return None;
        }
        let (local, remote): (IpAddr, IpAddr) = (key.local.into(), key.remote.into());
        // Whose socket is at the other end, the kernel alone knows.
        if remote.is_loopback() || self.this_node.contains(&remote) {
            return None;
        }
        let name = self.endpoints.get(&key.endpoint)?;
        let subject = self.tables.subjects.get(name)?;
        let (direction, port) = match flow.direction() {
            table::Direction::Ingress => (Direction::Ingress, key.local_port),
            table::Direction::Egress => (Direction::Egress, key.remote_port),
        };
        let question = Question {
            subject: name.clone(),
            direction,
            peer: remote,
            socket: None,
            protocol: key.protocol,
            port,
            // What shares its node's addresses has no exception for it.
            origin: Origin::Forwarded,
            view: View::Live,
            at: Time::default(),
        };
        let verdict = At::new(self.tables, self.nanos).decide(subject, &question);
        let connected = Connected {
            protocol: key.protocol,
            local: (local, key.local_port),
            remote: (remote, key.remote_port),
        };
        (!verdict.allows()).then_some((connected, groups))
    }
}

/// The ids of all groups below one: the numbers of their folders.
fn below(folder: &Path, groups: &mut BTreeSet<u64>) {
    // A group that has gone has no sockets.
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.insert(entry.ino());
            below(&entry.path(), groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_policy::{
        compile::{Scope, compile},
        compiled::Clock,
        load::{InputFile, load},
        model::ObjectName,
    };

    use super::*;

    const HOST: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: host, name: web}, \
   spec: {endpoint: {systemdUnit: web.service}}}
- {apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: web}, \
   spec: {tier: Admin, priority: 1, subject: {units: [web.service]}, \
   egress: [{action: Allow, to: [{cidr: {block: 192.0.2.0/24}}]}, {action: Deny}]}}
";

    #[test]
    fn only_what_is_surely_no_longer_permitted_ends() {
        let file = InputFile {
            name: "host.yaml".into(),
            bytes: HOST.as_bytes().to_vec(),
        };
        let world = load([file]).world;
        let name: SubjectName = ObjectName::new("host", "web").into();
        let this_node = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let this_node = BTreeSet::from(this_node);
        let scope = Scope {
            subjects: [name.clone()].into(),
            this_node: this_node.clone(),
        };
        let tables = compile(&world, &scope, &BTreeMap::new(), Clock::default());
        let revision = Revision {
            tables: &tables,
            world: &world,
            endpoints: &[(1, name)].into(),
            this_node: &this_node,
            changed: &BTreeMap::new(),
            nanos: 0,
        };
        let groups = BTreeMap::from([(1, BTreeSet::from([7]))]);
        let ends = |protocol, remote: &str, origin| {
            let remote: std::net::Ipv4Addr = remote.parse().unwrap();
            let key = FlowKey {
                endpoint: 1,
                protocol,
                zero: 0,
                local_port: 4000,
                remote_port: 443,
                local: [10, 0, 0, 1],
                remote: remote.octets(),
            };
            let flow = FlowState {
                generation: 1,
                rule: 0,
                reason: 0,
                origin,
                tcp_flags: [0; 2],
                closed: 0,
                opened: 0,
                last_seen: 0,
                packets: [1; 2],
                bytes: [40; 2],
            };
            revision.withdrawn(&groups, &key, &flow).is_some()
        };
        assert!(ends(TCP, "198.51.100.1", 0));
        assert!(ends(UDP, "198.51.100.1", 0));
        assert!(!ends(TCP, "192.0.2.1", 0), "it is permitted");
        assert!(!ends(132, "198.51.100.1", 0), "that is no such socket");
        assert!(!ends(TCP, "198.51.100.1", Flow::ADOPTED));
        // There, the kernel knows whose socket is at the other end, and it may be permitted.
        for remote in ["127.0.0.1", "10.0.0.1", "10.0.0.2"] {
            assert!(!ends(TCP, remote, 0), "{remote}");
        }
        // What came from there is another question, and nothing denies it.
        assert!(!ends(TCP, "198.51.100.1", Flow::INITIATED_BY_PEER));
    }
}
