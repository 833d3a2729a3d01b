//! Subjects that say the same of everybody, whichever node judges them.
//!
//! The replicas of an application are spread over nodes, and each node has tables of its own. They
//! would be as many classes as replicas, and their pairs the square of that.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Judge, Judged, Peer, Place, Seen, Socket, places::JudgedMarks};

/// Numbers of what subjects say, for one state.
pub(super) struct Profiles(BTreeMap<JudgedMarks, usize>);

/// What tells two places of a state apart, for sorting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Marks {
    profile: Option<usize>,
    peer: usize,
    behind: Option<usize>,
    socket: Option<usize>,
}

/// The maps of egress and of ingress, for each peer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Profile {
    said: Vec<[u32; 2]>,
    /// Who says that, where it could not be asked about all: its like are by themselves.
    alone: Option<JudgedMarks>,
}

/// Everybody with the same numbers, of the peer and of the socket.
type Peers<'p> = BTreeMap<(usize, Option<usize>), Like<'p>>;

struct Like<'p> {
    peer: &'p Arc<Peer>,
    socket: Option<&'p Arc<Socket>>,
    addresses: Vec<IpAddr>,
}

// === impl Profiles ===

impl Profiles {
    pub(super) fn new<'p>(
        judge: &mut Judge<'_, '_>,
        state: usize,
        places: impl Iterator<Item = &'p Place> + Clone,
    ) -> Self {
        let mut peers: Peers<'_> = BTreeMap::new();
        for place in places.clone() {
            let (peer, socket) = (&place.peer, place.socket.as_ref());
            let numbers = (peer.number, socket.map(|socket| socket.number));
            let like = peers.entry(numbers).or_insert(Like {
                peer,
                socket,
                addresses: Vec::new(),
            });
            like.addresses.push(place.address);
        }
        let mut numbers: BTreeMap<Profile, usize> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for judged in places.filter_map(|place| place.judged.as_ref()) {
            all.entry(judged.marks()).or_insert_with(|| {
                let next = numbers.len();
                let profile = profile(judge, state, judged, &peers);
                *numbers.entry(profile).or_insert(next)
            });
        }
        Self(all)
    }

    pub(super) fn marks(&self, place: &Place) -> Marks {
        let Place {
            address: _,
            // Those of another scope are in another class.
            scope: _,
            judged,
            peer,
            socket,
            behind,
        } = place;
        let judged = judged.as_ref();
        Marks {
            profile: judged.and_then(|judged| self.0.get(&judged.marks()).copied()),
            peer: peer.number,
            behind: behind.as_ref().map(|behind| behind.number),
            socket: socket.as_ref().map(|socket| socket.number),
        }
    }
}

fn profile(judge: &mut Judge<'_, '_>, state: usize, judged: &Judged, peers: &Peers<'_>) -> Profile {
    let mut said = Vec::new();
    let mut alone = None;
    // What comes from its own node is another thing, too.
    let judged = Judged {
        home: None,
        ..judged.clone()
    };
    // On loopback, whoever has addresses of its own meets nobody.
    let may_meet = |address: &&IpAddr| !(judged.owns_its_addresses() && address.is_loopback());
    for like in peers.values() {
        let mut met = like.addresses.iter().filter(may_meet).peekable();
        if met.peek().is_none() {
            said.push([u32::MAX; 2]);
            continue;
        }
        // What it says of itself is another thing.
        match met.find(|one| !judged.own.contains(one)) {
            Some(address) => said.push(judge.about(state, &judged, like.seen_at(*address))),
            None => alone = Some(judged.marks()),
        }
    }
    Profile { said, alone }
}

impl Like<'_> {
    fn seen_at(&self, address: IpAddr) -> Seen<'_> {
        Seen {
            peer: self.peer,
            address,
            socket: self.socket.map(AsRef::as_ref),
        }
    }
}
