//! One endpoint that may reach TCP 443 in so many networks, and be reached from there.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::{
    table::{Decision, Endpoint, PolicyKey, PortKey, WORLD},
    verdict::{Action, RuleId},
};
use agent_policy::{
    compiled::{Compiled, PortEntry, PortTable, Subject},
    model::{ObjectName, SubjectName},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence::datapath::testbed::HOST_BITS;

pub(crate) const LOCAL_V4: [u8; 4] = [192, 168, 0, 1];
pub(crate) const LOCAL_V6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const PORT: u16 = 443;
pub(crate) const ENDPOINT: u16 = 1;
pub(crate) const FLAGS: u16 = Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE;

const SET: u32 = 1;
const PEERS: u32 = 7;
const PERMITTED: u32 = 1;
const NOTHING: u32 = 2;

pub(crate) fn subject() -> SubjectName {
    ObjectName::new("bench", "subject").into()
}

/// As many networks as pods.
pub(crate) fn compiled(entries: u32) -> Compiled {
    let mut compiled = Compiled::default();
    for number in 0..entries {
        let prefixes = [network(number, HOST_BITS), network(number, 0)];
        for prefix in prefixes.into_iter().flatten() {
            compiled.prefixes.insert(prefix, PEERS);
        }
    }
    let permitted = PortEntry {
        bits: PortKey::PORT_BITS,
        protocol: 6,
        port: PORT,
        decision: Decision::new(Action::Allow, RuleId(1)),
    };
    compiled.port_tables = BTreeMap::from([
        (PERMITTED, PortTable(vec![permitted])),
        (NOTHING, PortTable::default()),
    ]);
    for direction in [0, 1] {
        for (identity, table) in [(PEERS, PERMITTED), (WORLD, NOTHING)] {
            let key = PolicyKey {
                set: SET,
                direction,
                identity,
            };
            compiled.policy.insert(key, table);
        }
    }
    let subject_of = Subject {
        set: SET,
        audit: None,
        staged: None,
        flags: FLAGS,
        addresses: BTreeSet::from([LOCAL_V4.into(), LOCAL_V6.into()]),
        policies: Vec::new(),
    };
    compiled.subjects.insert(subject(), subject_of);
    compiled
}

/// The first address of the first network.
pub(crate) fn peer_v4() -> [u8; 4] {
    [10, 0, 0, 0]
}

pub(crate) fn peer_v6() -> [u8; 16] {
    [0xfd, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A network in each family, scattered as the rotating program scatters its peers; a pod has no bits below.
fn network(number: u32, below: u32) -> [IpNet; 2] {
    let scattered = (number.wrapping_mul(0x9e37_79b1) << below) & 0x00ff_ffff;
    let bits = (10 << 24) | scattered;
    let v4 = Ipv4Net::new_assert(bits.into(), u8::try_from(32 - below).unwrap_or(32));
    let mut address = peer_v6();
    address[4..8].copy_from_slice(&bits.to_be_bytes());
    let length = if below == 0 { 128 } else { 64 - below };
    let v6 = Ipv6Net::new_assert(address.into(), u8::try_from(length).unwrap_or(128));
    [v4.into(), v6.into()]
}
