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
