//! The flows that there are when an endpoint is attached first, from the sockets that have them.
//!
//! A seed is no permission: it says who began a flow, so that its next packet, from whichever side, is
//! judged in the direction that policy speaks about.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::{
    abi::Abi,
    flow::{
        Flow, FlowKey, FlowState,
        tcp::{ACK, FIN, SYN},
    },
    protocol::{Address, UDP},
    table::Endpoint,
    verdict::Reason,
};
use aya::maps::{HashMap, MapData, MapError};

use crate::datapath::{
    held::Held,
    maps::FlowMaps,
    raw::Raw,
    sockets::{Connected, Found, State},
};

/// Whose flows are wanted.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) endpoint: Endpoint,
    /// The addresses that it may send from.
    pub(crate) own: BTreeSet<IpAddr>,
    /// The cgroups whose sockets are its own; `None` where every socket is.
    pub(crate) groups: Option<BTreeSet<u64>>,
}

/// A flow as its socket tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) ends: Connected,
    /// Bits of [`Flow`]'s constants.
    pub(crate) origin: u8,
    /// From the initiator and from the responder.
    pub(crate) tcp_flags: [u8; 2],
}

/// When flows are put into the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Season {
    /// Nanoseconds of the boot clock, before the first look: what the programs remember from then on they
    /// may have seen in the middle.
    pub(crate) since: u64,
    pub(crate) jiffies: u64,
    pub(crate) look: Look,
}

/// Sockets are listed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// While the endpoint is only observed.
    First,
    /// When it is enforced: what was denied and has begun in between was not remembered.
    Second,
}

/// What became of the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sown {
    /// Flows that nobody had remembered, or not so well.
    pub(crate) new: usize,
    /// Flows that found no room.
    pub(crate) lost: usize,
}

/// Who listens: by protocol and port, at which addresses, and in which cgroup.
type Listeners = BTreeMap<(u8, u16), Vec<(IpAddr, Option<u64>)>>;

// === impl Keeper ===

impl Keeper {
    /// The endpoint's flows among the sockets of its network namespace. `here` are the connected ones of
    /// this node's own stack.
    pub(crate) fn seeds(&self, found: &[Found], here: &BTreeSet<Connected>) -> Vec<Seed> {
        let listeners = listeners(found);
        found
            .iter()
            .filter(|socket| self.has(socket, &listeners))
            .filter(|socket| self.concerns(&socket.ends))
            .filter_map(|socket| seed(socket, &listeners, here))
            .collect()
    }

    fn has(&self, socket: &Found, listeners: &Listeners) -> bool {
        let Some(groups) = &self.groups else {
            return true;
        };
        match socket.cgroup {
            Some(group) => groups.contains(&group),
            // What nobody has accepted yet is its listener's.
            None if socket.state == State::Asked => listening(&socket.ends, listeners)
                .any(|group| group.is_some_and(|group| groups.contains(&group))),
            None => false,
        }
    }

    /// Whether the endpoint's hooks judge what is sent between these two.
    fn concerns(&self, ends: &Connected) -> bool {
        let ((local, _), (remote, _)) = (ends.local, ends.remote);
        let is_own = self.own.contains(&local);
        let stays = local == remote
            || local.is_loopback()
            || remote.is_loopback()
            || self.own.contains(&remote);
        if self.endpoint.has(Endpoint::CHECK_SOURCE) {
            // From another address it may not send, whatever it has begun.
            (is_own || is_local_scope(local)) && !stays
        } else if self.endpoint.has(Endpoint::ONLY_OWN) {
            is_own && !stays
        } else {
            true
        }
    }
}

fn listeners(found: &[Found]) -> Listeners {
    let mut listeners = Listeners::new();
    for socket in found {
        if socket.state == State::Listening {
            let (address, port) = socket.ends.local;
            let at = listeners.entry((socket.ends.protocol, port));
            at.or_default().push((address, socket.cgroup));
        }
    }
    listeners
}

/// The cgroups of those that take what is sent to the local end by anybody.
fn listening(ends: &Connected, listeners: &Listeners) -> impl Iterator<Item = Option<u64>> {
    let (address, port) = ends.local;
    let at = listeners.get(&(ends.protocol, port));
    at.into_iter()
        .flatten()
        .filter(move |(at, _)| at.is_unspecified() || *at == address)
        .map(|(_, group)| *group)
}

fn seed(socket: &Found, listeners: &Listeners, here: &BTreeSet<Connected>) -> Option<Seed> {
    let ends = socket.ends;
    let mut local_flags = SYN | ACK;
    let mut remote_flags = SYN | ACK;
    let began_there = match socket.state {
        State::Listening | State::Other => return None,
        State::Asking => {
            (local_flags, remote_flags) = (SYN, 0);
            false
        }
        State::Asked => {
            remote_flags = SYN;
            true
        }
        State::Connected { sent_fin, got_fin } => {
            if sent_fin {
                local_flags |= FIN;
            }
            if got_fin {
                remote_flags |= FIN;
            }
            listening(&ends, listeners).next().is_some()
        }
    };
    if ends.protocol == UDP {
        (local_flags, remote_flags) = (0, 0);
    }
    let mut origin = 0;
    let mut tcp_flags = [local_flags, remote_flags];
    if began_there {
        origin |= Flow::INITIATED_BY_PEER;
        tcp_flags.reverse();
        let other_end = Connected {
            local: ends.remote,
            remote: ends.local,
            ..ends
        };
        if here.contains(&other_end) {
            origin |= Flow::MADE_HERE;
        }
    }
    Some(Seed {
        ends,
        origin,
        tcp_flags,
    })
}

fn is_local_scope(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().is_local_scope(),
        IpAddr::V6(address) => address.octets().is_local_scope(),
    }
}

// === impl Seed ===

impl Seed {
    fn state(&self, season: Season) -> FlowState {
        FlowState {
            generation: Flow::NEVER,
            rule: 0,
            reason: Reason::Observed as u8,
            origin: self.origin,
            tcp_flags: self.tcp_flags,
            closed: 0,
            rtt: 0,
            opened: season.since,
            last_seen: season.jiffies,
            packets: [0; 2],
            bytes: [0; 2],
        }
    }

    fn key<A>(&self, endpoint: u16, local: A, remote: A) -> FlowKey<A> {
        FlowKey {
            endpoint,
            protocol: self.ends.protocol,
            zero: 0,
            local_port: self.ends.local.1,
            remote_port: self.ends.remote.1,
            local,
            remote,
        }
    }
}

/// Puts an endpoint's flows into the tables, where they are not known better.
pub(crate) fn sow(
    flows: &mut FlowMaps,
    held: &Held,
    endpoint: u16,
    seeds: &[Seed],
    season: Season,
) -> Result<Sown, MapError> {
    let mut sown = Sown::default();
    for seed in seeds {
        let state = seed.state(season);
        let put = match (seed.ends.local.0, seed.ends.remote.0) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let key = seed.key(endpoint, local.octets(), remote.octets());
                put(&mut flows.v4, held, key, state, season)?
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let key = seed.key(endpoint, local.octets(), remote.octets());
                put(&mut flows.v6, held, key, state, season)?
            }
            // No socket has an end in each family.
            _ => continue,
        };
        match put {
            Put::New => sown.new += 1,
            Put::Known => {}
            Put::NoRoom => sown.lost += 1,
        }
    }
    Ok(sown)
}

enum Put {
    New,
    Known,
    NoRoom,
}

const BPF_NOEXIST: u64 = 1;
const BPF_EXIST: u64 = 2;

fn put<A: Address>(
    table: &mut HashMap<MapData, Raw<FlowKey<A>>, Raw<FlowState>>,
    held: &Held,
    key: FlowKey<A>,
    state: FlowState,
    season: Season,
) -> Result<Put, MapError>
where
    FlowKey<A>: Abi,
{
    let flags = match table.get(&Raw(key), 0) {
        Ok(Raw(old)) if is_worse(&old, &state, key.protocol, season) => BPF_EXIST,
        Ok(_) => return Ok(Put::Known),
        Err(_) if held.has_room::<A>(key.endpoint) => BPF_NOEXIST,
        Err(_) => return Ok(Put::NoRoom),
    };
    match table.insert(Raw(key), Raw(state), flags) {
        Ok(()) => {}
        Err(error) => {
            return match errno(&error) {
                // A packet was faster, and has been judged.
                // Or it was given back since, and nothing of it is there to be taken for anything else.
                Some(libc::EEXIST | libc::ENOENT) => Ok(Put::Known),
                Some(libc::E2BIG | libc::ENOMEM) => Ok(Put::NoRoom),
                _ => Err(error),
            };
        }
    }
    if flags == BPF_NOEXIST {
        held.take::<A>(key.endpoint);
    }
    Ok(Put::New)
}

/// Whether a program has remembered less of a flow than its socket tells: who began one that was seen in
/// the middle.
fn is_worse(old: &FlowState, seed: &FlowState, protocol: u8, season: Season) -> bool {
    // Of UDP, what begins and what goes on look alike. Once the endpoint is enforced, what was there has
    // its seed.
    let is_guess = old.origin & Flow::ADOPTED != 0
        || (protocol == UDP
            && season.look == Look::First
            && old.direction() as u8 != seed.direction() as u8);
    is_guess && old.opened >= season.since
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::TCP;

    use super::*;

    const OPEN: State = State::Connected {
        sent_fin: false,
        got_fin: false,
    };
    const POD: u16 = Endpoint::CHECK_SOURCE | Endpoint::OWNS_ADDRESSES;

    fn at(text: &str) -> (IpAddr, u16) {
        let (address, port) = text.rsplit_once(' ').unwrap();
        (address.parse().unwrap(), port.parse().unwrap())
    }

    fn ends(protocol: u8, local: &str, remote: &str) -> Connected {
        Connected {
            protocol,
            local: at(local),
            remote: at(remote),
        }
    }

    fn socket(protocol: u8, local: &str, remote: &str, state: State) -> Found {
        Found {
            ends: ends(protocol, local, remote),
            state,
            cgroup: None,
        }
    }

    fn keeper(flags: u16, own: &[&str]) -> Keeper {
        Keeper {
            endpoint: Endpoint { id: 1, flags },
            own: own.iter().map(|text| text.parse().unwrap()).collect(),
            groups: None,
        }
    }

    /// Local ports and origins.
    fn origins(keeper: &Keeper, found: &[Found], here: &[Connected]) -> Vec<(u16, u8)> {
        let seeds = keeper.seeds(found, &here.iter().copied().collect());
        let seeds = seeds.into_iter();
        seeds.map(|seed| (seed.ends.local.1, seed.origin)).collect()
    }

    #[test]
    fn who_listens_was_asked_and_who_does_not_has_asked() {
        let pod = keeper(POD, &["10.0.0.1"]);
        let found = [
            socket(TCP, ":: 443", ":: 0", State::Listening),
            socket(TCP, "10.0.0.9 80", "0.0.0.0 0", State::Listening),
            socket(UDP, "10.0.0.1 53", "0.0.0.0 0", State::Listening),
            socket(TCP, "10.0.0.1 443", "10.0.0.2 4000", OPEN),
            // At another address, and of another protocol.
            socket(TCP, "10.0.0.1 80", "10.0.0.2 4000", OPEN),
            socket(TCP, "10.0.0.1 53", "10.0.0.2 4000", OPEN),
            socket(UDP, "10.0.0.1 53", "10.0.0.2 4000", OPEN),
            // It asks from where it listens.
            socket(TCP, "10.0.0.1 443", "10.0.0.3 4000", State::Asking),
            socket(TCP, "10.0.0.1 444", "10.0.0.3 4000", State::Asked),
            socket(TCP, "10.0.0.1 445", "10.0.0.3 4000", State::Other),
        ];
        let peer = Flow::INITIATED_BY_PEER;
        let told = [
            (443, peer),
            (80, 0),
            (53, 0),
            (53, peer),
            (443, 0),
            (444, peer),
        ];
        assert_eq!(origins(&pod, &found, &[]), told);
    }

    #[test]
    fn what_this_node_began_is_told_from_what_it_forwards() {
        let pod = keeper(POD, &["10.0.0.1"]);
        let found = [
            socket(TCP, "10.0.0.1 443", "0.0.0.0 0", State::Listening),
            socket(TCP, "10.0.0.1 443", "10.0.0.254 4000", OPEN),
            socket(TCP, "10.0.0.1 443", "10.0.0.254 4001", OPEN),
        ];
        let here = [ends(TCP, "10.0.0.254 4000", "10.0.0.1 443")];
        let peer = Flow::INITIATED_BY_PEER;
        let told = [(443, peer | Flow::MADE_HERE), (443, peer)];
        assert_eq!(origins(&pod, &found, &here), told);
    }

    #[test]
    fn only_what_hooks_judge_and_may_be_sent_is_seeded() {
        let sockets = |pairs: &[(&str, &str)]| -> Vec<Found> {
            let pairs = pairs.iter().zip(1..);
            let socket = |((local, remote), number): (&(&str, &str), u16)| {
                let (local, remote) = (format!("{local} {number}"), format!("{remote} 9"));
                socket(TCP, &local, &remote, OPEN)
            };
            pairs.map(socket).collect()
        };
        let found = sockets(&[
            ("10.0.0.1", "10.0.0.2"),
            ("10.0.0.8", "10.0.0.2"),
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("fe80::1", "fe80::2"),
            ("169.254.1.1", "169.254.1.1"),
        ]);
        let ports = |flags| -> Vec<u16> {
            let seeded = origins(&keeper(flags, &["10.0.0.1"]), &found, &[]);
            seeded.into_iter().map(|(port, _)| port).collect()
        };
        assert_eq!(ports(POD), [1, 5]);
        assert_eq!(ports(Endpoint::ONLY_OWN), [1]);
        assert_eq!(ports(0), [1, 2, 3, 4, 5, 6], "sockets of a group");
    }

    #[test]
    fn a_group_has_its_sockets_and_what_its_listeners_have_not_accepted() {
        let of = |found: Found, cgroup| Found { cgroup, ..found };
        let found = [
            of(
                socket(TCP, "0.0.0.0 80", "0.0.0.0 0", State::Listening),
                Some(7),
            ),
            of(
                socket(TCP, "0.0.0.0 90", "0.0.0.0 0", State::Listening),
                Some(8),
            ),
            of(socket(TCP, "10.0.0.1 80", "10.0.0.2 1", OPEN), Some(7)),
            of(socket(TCP, "10.0.0.1 4000", "10.0.0.2 1", OPEN), Some(8)),
            of(socket(TCP, "10.0.0.1 4001", "10.0.0.2 1", OPEN), None),
            socket(TCP, "10.0.0.1 80", "10.0.0.2 2", State::Asked),
            socket(TCP, "10.0.0.1 90", "10.0.0.2 2", State::Asked),
        ];
        let group = Keeper {
            groups: Some(BTreeSet::from([7])),
            ..keeper(0, &[])
        };
        let peer = Flow::INITIATED_BY_PEER;
        assert_eq!(origins(&group, &found, &[]), [(80, peer), (80, peer)]);
    }

    #[test]
    fn flags_are_of_the_initiator_first() {
        let pod = keeper(POD, &["10.0.0.1"]);
        let sent = State::Connected {
            sent_fin: true,
            got_fin: false,
        };
        let found = [
            socket(TCP, "10.0.0.1 80", "0.0.0.0 0", State::Listening),
            socket(TCP, "10.0.0.1 80", "10.0.0.2 1", sent),
            socket(TCP, "10.0.0.1 81", "10.0.0.2 1", sent),
            socket(TCP, "10.0.0.1 82", "10.0.0.2 1", State::Asking),
            socket(UDP, "10.0.0.1 83", "10.0.0.2 1", OPEN),
        ];
        let seeds = pod.seeds(&found, &BTreeSet::new());
        let flags: Vec<_> = seeds.into_iter().map(|seed| seed.tcp_flags).collect();
        let (open, closed) = (SYN | ACK, SYN | ACK | FIN);
        assert_eq!(flags, [[open, closed], [closed, open], [SYN, 0], [0, 0]]);
    }

    #[test]
    fn only_a_guess_of_this_attach_gives_way() {
        let pod = keeper(POD, &["10.0.0.1"]);
        let found = [socket(UDP, "10.0.0.1 4000", "10.0.0.2 53", OPEN)];
        let season = |look| Season {
            since: 100,
            jiffies: 1,
            look,
        };
        let seed = pod.seeds(&found, &BTreeSet::new())[0].state(season(Look::First));
        let old = |origin, opened| FlowState {
            origin,
            opened,
            ..seed
        };
        let gives_way =
            |old: FlowState, protocol, look| is_worse(&old, &seed, protocol, season(look));
        let peer = Flow::INITIATED_BY_PEER;
        assert!(gives_way(old(peer, 100), UDP, Look::First));
        assert!(!gives_way(old(peer, 100), UDP, Look::Second));
        assert!(!gives_way(old(0, 100), UDP, Look::First), "the same");
        assert!(!gives_way(old(peer, 100), TCP, Look::First), "by its SYN");
        let adopted = peer | Flow::ADOPTED;
        for look in [Look::First, Look::Second] {
            assert!(gives_way(old(adopted, 101), TCP, look));
            assert!(!gives_way(old(adopted, 99), TCP, look), "of before");
        }
    }
}
