//! Whether the tables still hold what was put there.
//!
//! Words are compared all at once, in memory. What has to be asked of the kernel entry by entry is
//! walked in turns, as far as the time of one look goes: once over what ought to be there, which
//! finds what was changed or removed, and once over what is there, which finds what was added.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use agent_common::table::{OwnAddress, PolicyKey, PortKey, SocketKey};
use agent_policy::compiled::{PortEntry, PortTable};
use aya::{
    Pod,
    maps::{IterableMap, lpm_trie::Key as Prefix},
};
use ipnet::{Ipv4Net, Ipv6Net};

use super::{Sync, Who, own_address, unmapped};
use crate::datapath::{
    maps::{self, Ipcache},
    raw::Raw,
};

/// Entries between two looks at the clock.
const SLICE: usize = 64;

/// How a walk stands after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    GoesOn,
    /// It is over, and begins anew the next time.
    Last,
}

/// Walks take turns: first over what ought to be there, then over what is there.
const TURNS: [fn(&mut Sync, &mut Found) -> anyhow::Result<Slice>; 12] = [
    Sync::restore_identities,
    Sync::restore_policy,
    Sync::restore_ports,
    Sync::restore_addresses,
    Sync::remove_other_hosts_v4,
    Sync::remove_other_hosts_v6,
    Sync::remove_other_prefixes_v4,
    Sync::remove_other_prefixes_v6,
    Sync::remove_other_sockets,
    Sync::remove_other_policy,
    Sync::remove_other_ports,
    Sync::remove_other_addresses,
];

/// Where each walk has got to.
#[derive(Default)]
pub(super) struct Walk {
    turn: usize,
    identity: Option<Who>,
    policy: Option<PolicyKey>,
    /// A table, and how many of its entries.
    port: Option<(u32, usize)>,
    address: Option<(u16, IpAddr)>,
    held_host_v4: Option<[u8; 4]>,
    held_host_v6: Option<[u8; 16]>,
    held_v4: Option<Prefix<[u8; 4]>>,
    held_v6: Option<Prefix<[u8; 16]>>,
    held_socket: Option<Raw<SocketKey>>,
    held_policy: Option<Raw<PolicyKey>>,
    held_port: Option<Prefix<Raw<PortKey>>>,
    held_address: Option<Raw<OwnAddress>>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// Entries that were not as we had left them, by map.
#[derive(Debug, Default)]
struct Found(BTreeMap<&'static str, u64>);

impl Found {
    fn add(&mut self, map: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(map).or_default() += count;
        }
    }
}

impl Sync {
    /// Puts back what somebody else has written, and says in which maps and how many entries.
    ///
    /// Words all, and then the rest until `goes_on` says no to the time spent: the next call goes on from there.
    pub(crate) fn restore(
        &mut self,
        goes_on: impl Fn(Duration) -> bool,
    ) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        // Else what is still to be taken out would be taken for somebody else's.
        self.settle();
        let mut found = Found::default();
        found.add("WORDS", self.maps.words.restore());
        found.add("IDENTITIES", self.maps.identities.restore());
        found.add("ANSWERS", self.maps.answers.restore());
        let begin = Instant::now();
        let mut finished = 0;
        while finished < TURNS.len() {
            let turn = TURNS.get(self.walk.turn).copied();
            let slice = match turn {
                Some(turn) => turn(self, &mut found)?,
                None => Slice::Last,
            };
            if slice == Slice::Last {
                self.walk.turn = (self.walk.turn + 1) % TURNS.len();
                finished += 1;
            }
            // Asked after a slice: whoever is always in a hurry does not end the walk.
            if !goes_on(begin.elapsed()) {
                break;
            }
        }
        if !found.0.is_empty() {
            // Slots and entries may have been taken out of use: as after any removal.
            self.unsettled = true;
        }
        Ok(found.0)
    }

    fn restore_identities(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let from = self.walk.identity;
        let slice: Vec<_> = self.identity_slots.after(from).take(SLICE).collect();
        for (who, slot) in &slice {
            match who {
                Who::Prefix(prefix) if self.maps.ipcache.get(*prefix) != Some(*slot) => {
                    self.maps.ipcache.insert(*prefix, *slot)?;
                    found.add(Ipcache::map_of(prefix), 1);
                }
                Who::Socket(key) if !holds(&self.maps.sockets, &Raw(*key), &Raw(*slot)) => {
                    self.maps.sockets.insert(Raw(*key), Raw(*slot), 0)?;
                    found.add("SOCKETS", 1);
                }
                Who::Prefix(_) | Who::Socket(_) => {}
            }
        }
        Ok(advance(
            &mut self.walk.identity,
            slice.last().map(|(who, _)| *who),
        ))
    }

    fn restore_policy(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let from = self.walk.policy;
        let slice: Vec<_> = self.policy_slots.after(from).take(SLICE).collect();
        for (key, slot) in &slice {
            if !holds(&self.maps.policy, &Raw(*key), &Raw(*slot)) {
                self.maps.policy.insert(Raw(*key), Raw(*slot), 0)?;
                found.add("POLICY", 1);
            }
        }
        Ok(advance(
            &mut self.walk.policy,
            slice.last().map(|(key, _)| *key),
        ))
    }

    /// A table is never longer than the ports there are, but one slice may be all of it.
    fn restore_ports(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let (first, done) = self.walk.port.unwrap_or_default();
        let tables = self.programmed.port_tables.range(first..);
        let slice: Vec<(u32, usize, PortEntry)> = tables
            .flat_map(|(number, PortTable(entries))| {
                let skipped = if *number == first { done } else { 0 };
                let left = entries.iter().enumerate().skip(skipped);
                left.map(|(at, entry)| (*number, at, *entry))
            })
            .take(SLICE)
            .collect();
        for (number, _, entry) in &slice {
            let key = Prefix::new(entry.bits, Raw(entry.key(*number)));
            if self.maps.ports.get(&key, 0).ok() != Some(Raw(entry.decision)) {
                self.maps.ports.insert(&key, Raw(entry.decision), 0)?;
                found.add("PORTS", 1);
            }
        }
        let last = slice.last().map(|(number, at, _)| (*number, at + 1));
        Ok(advance(&mut self.walk.port, last))
    }

    fn restore_addresses(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let from = self.walk.address.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.programmed.own.range((from, Bound::Unbounded));
        let slice: Vec<_> = own.take(SLICE).copied().collect();
        for (endpoint, address) in &slice {
            let key = own_address(*endpoint, *address);
            if !holds(&self.maps.addresses, &key, &Raw(1)) {
                self.maps.addresses.insert(key, Raw(1), 0)?;
                found.add("ADDRESSES", 1);
            }
        }
        Ok(advance(&mut self.walk.address, slice.last().copied()))
    }

    fn remove_other_hosts_v4(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let known = &self.identity_slots;
        let is_ours = |host: &[u8; 4]| known.get(&of_host(*host)).is_some();
        let held = &self.maps.ipcache.hosts_v4;
        let (others, slice) = others(held, &mut self.walk.held_host_v4, is_ours)?;
        for other in others {
            self.maps.ipcache.hosts_v4.remove(&other)?;
            found.add("HOSTS_V4", 1);
        }
        Ok(slice)
    }

    fn remove_other_hosts_v6(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let known = &self.identity_slots;
        let is_ours = |host: &[u8; 16]| known.get(&of_host(*host)).is_some();
        let held = &self.maps.ipcache.hosts_v6;
        let (others, slice) = others(held, &mut self.walk.held_host_v6, is_ours)?;
        for other in others {
            self.maps.ipcache.hosts_v6.remove(&other)?;
            found.add("HOSTS_V6", 1);
        }
        Ok(slice)
    }

    fn remove_other_prefixes_v4(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let known = &self.identity_slots;
        let is_ours = |key: &Prefix<[u8; 4]>| {
            let bits = u8::try_from(key.prefix_len()).ok();
            let net = bits.and_then(|bits| Ipv4Net::new(key.data().into(), bits).ok());
            let net = net.filter(|net| net.prefix_len() < net.max_prefix_len());
            net.is_some_and(|net| known.get(&Who::Prefix(net.trunc().into())).is_some())
        };
        let (others, slice) = others(&self.maps.ipcache.v4, &mut self.walk.held_v4, is_ours)?;
        for other in others {
            self.maps.ipcache.v4.remove(&other)?;
            found.add("IPCACHE_V4", 1);
        }
        Ok(slice)
    }

    fn remove_other_prefixes_v6(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let known = &self.identity_slots;
        let is_ours = |key: &Prefix<[u8; 16]>| {
            let bits = u8::try_from(key.prefix_len()).ok();
            let net = bits.and_then(|bits| Ipv6Net::new(key.data().into(), bits).ok());
            let net = net.filter(|net| net.prefix_len() < net.max_prefix_len());
            net.is_some_and(|net| known.get(&Who::Prefix(net.trunc().into())).is_some())
        };
        let (others, slice) = others(&self.maps.ipcache.v6, &mut self.walk.held_v6, is_ours)?;
        for other in others {
            self.maps.ipcache.v6.remove(&other)?;
            found.add("IPCACHE_V6", 1);
        }
        Ok(slice)
    }

    fn remove_other_sockets(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let known = &self.identity_slots;
        let is_ours = |Raw(key): &Raw<SocketKey>| known.get(&Who::Socket(*key)).is_some();
        let (others, slice) = others(&self.maps.sockets, &mut self.walk.held_socket, is_ours)?;
        for other in others {
            self.maps.sockets.remove(&other)?;
            found.add("SOCKETS", 1);
        }
        Ok(slice)
    }

    fn remove_other_policy(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let is_ours = |Raw(key): &Raw<PolicyKey>| self.policy_slots.get(key).is_some();
        let (others, slice) = others(&self.maps.policy, &mut self.walk.held_policy, is_ours)?;
        for other in others {
            self.maps.policy.remove(&other)?;
            found.add("POLICY", 1);
        }
        Ok(slice)
    }

    fn remove_other_ports(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let is_ours = |key: &Prefix<Raw<PortKey>>| {
            let Some((table, bits, protocol, port)) = port_of(key) else {
                return false;
            };
            let table = self.programmed.port_tables.get(&table);
            table.is_some_and(|PortTable(entries)| {
                let place = |entry: &PortEntry| (entry.bits, entry.protocol, entry.port);
                let wanted = (bits, protocol, port);
                entries.binary_search_by_key(&wanted, place).is_ok()
            })
        };
        let (others, slice) = others(&self.maps.ports, &mut self.walk.held_port, is_ours)?;
        for other in others {
            self.maps.ports.remove(&other)?;
            found.add("PORTS", 1);
        }
        Ok(slice)
    }

    fn remove_other_addresses(&mut self, found: &mut Found) -> anyhow::Result<Slice> {
        let is_ours = |Raw(OwnAddress { endpoint, address }): &Raw<OwnAddress>| {
            let endpoint = u16::try_from(*endpoint);
            endpoint.is_ok_and(|endpoint| {
                self.programmed
                    .own
                    .contains(&(endpoint, unmapped(*address)))
            })
        };
        let (others, slice) = others(&self.maps.addresses, &mut self.walk.held_address, is_ours)?;
        for other in others {
            self.maps.addresses.remove(&other)?;
            found.add("ADDRESSES", 1);
        }
        Ok(slice)
    }
}

fn of_host(address: impl Into<IpAddr>) -> Who {
    Who::Prefix(address.into().into())
}

/// The keys of a slice that are not ours.
fn others<K: Pod, V>(
    map: &impl IterableMap<K, V>,
    at: &mut Option<K>,
    is_ours: impl Fn(&K) -> bool,
) -> io::Result<(Vec<K>, Slice)> {
    let mut others = Vec::new();
    for _ in 0..SLICE {
        let next = maps::next_key(map, at.as_ref())?;
        *at = next;
        let Some(key) = next else {
            return Ok((others, Slice::Last));
        };
        if !is_ours(&key) {
            others.push(key);
        }
    }
    Ok((others, Slice::GoesOn))
}

fn advance<K>(at: &mut Option<K>, last: Option<K>) -> Slice {
    *at = last;
    if at.is_some() {
        Slice::GoesOn
    } else {
        Slice::Last
    }
}

fn holds<K: Pod, V: PartialEq>(map: &impl IterableMap<K, V>, key: &K, value: &V) -> bool {
    map.get(key).is_ok_and(|held| held == *value)
}

/// The entry that a key of the kernel's stands for: table, bits, protocol, port, without what its
/// bits leave out. `None` if it is of no table, as one that holds for all of them.
fn port_of(key: &Prefix<Raw<PortKey>>) -> Option<(u32, u32, u8, u16)> {
    let bits = key.prefix_len();
    let Raw(PortKey {
        table,
        protocol,
        port,
        zero: _,
    }) = key.data();
    let port = u16::from_be_bytes(port);
    let (protocol, port) = match bits {
        PortKey::TABLE_BITS => (0, 0),
        PortKey::PROTOCOL_BITS..=PortKey::PORT_BITS => {
            let open = PortKey::PORT_BITS - bits;
            (protocol, u16::MAX.checked_shl(open).unwrap_or(0) & port)
        }
        _ => return None,
    };
    Some((u32::from_be_bytes(table), bits, protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bits: u32, protocol: u8, port: u16) -> Prefix<Raw<PortKey>> {
        Prefix::new(bits, Raw(PortKey::new(7, protocol, port)))
    }

    #[test]
    fn what_the_bits_of_a_port_leave_out_does_not_count() {
        assert_eq!(port_of(&key(56, 6, 8080)), Some((7, 56, 6, 8080)));
        assert_eq!(port_of(&key(52, 6, 8095)), Some((7, 52, 6, 8080)));
        assert_eq!(port_of(&key(40, 6, 1)), Some((7, 40, 6, 0)));
        assert_eq!(port_of(&key(32, 6, 1)), Some((7, 32, 0, 0)));
    }

    #[test]
    fn a_key_for_all_tables_is_of_none() {
        assert_eq!(port_of(&key(0, 0, 0)), None);
        assert_eq!(port_of(&key(31, 0, 0)), None);
        assert_eq!(port_of(&key(64, 6, 1)), None);
    }
}
