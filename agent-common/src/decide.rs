//! The one function that turns tables into a verdict.
//!
//! In the kernel the tables are maps, in the policy core they are what the compiler made: `explain`,
//! `matrix` and the packet path give the same answer because they ask here.

use crate::{
    protocol::Address,
    table::{
        Decision, Direction, Endpoint, NO_SOCKET, NO_TABLE, PolicyKey, PortKey, SocketKey,
        THIS_NODE, Versioned, WORLD, Word,
    },
    verdict::{Action, Reason, RuleId, Verdict},
};

/// Where the answers stand.
pub trait Tables<A> {
    /// The identity of the longest prefix that covers `address`; settled [`WORLD`] if none does.
    fn identity(&self, address: &A) -> Versioned;

    /// The identity of a socket at an address; settled on that of the address if there is no entry.
    fn socket(&self, key: &SocketKey) -> Versioned {
        Versioned::settled(key.identity)
    }

    /// The port table for a key; settled [`NO_TABLE`] if there is no entry.
    fn port_table(&self, key: &PolicyKey) -> Versioned;

    /// The decision of the longest prefix that covers `key`; [`Decision::NO_MATCH`] if none does.
    fn decision(&self, key: &PortKey) -> Decision;

    /// Nanoseconds of the boot clock. Asked only where an answer depends on it.
    fn now(&self) -> u64;

    /// The verdict once it is known what the peer's address is. Where it is asked in many places, it can be
    /// a function that they share.
    #[inline(always)]
    fn settle(&self, case: &Case) -> Verdict {
        settle(self, case)
    }
}

/// A new flow, as policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<A> {
    pub endpoint: Endpoint,
    pub word: Word,
    /// [`Direction::Egress`] if the endpoint starts the flow.
    pub direction: Direction,
    /// The endpoint's own address in this flow.
    pub local: A,
    pub peer: A,
    /// The number of the endpoint whose socket is at the peer's end; [`NO_SOCKET`] unless both share
    /// the addresses of their node.
    pub socket: u32,
    pub protocol: u8,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    /// The first packet was made by this node's own stack, not forwarded by it.
    pub made_here: bool,
}

/// A [`Question`] whose addresses have been looked up: the same for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Flags of the endpoint.
    pub flags: u16,
    pub word: Word,
    /// As in [`Question`].
    pub direction: Direction,
    /// Of the peer's address, with [`THIS_NODE`] where it is this node's.
    pub identity: u32,
    /// As in [`Question`], and so are the others.
    pub socket: u32,
    pub protocol: u8,
    pub port: u16,
    pub made_here: bool,
}

impl Case {
    /// All of it in three numbers: a function that the kernel's verifier walks through by itself takes no
    /// more than numbers before Linux 5.13.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 3] {
        let Self {
            flags,
            word: Word(word),
            direction,
            identity,
            socket,
            protocol,
            port,
            made_here,
        } = self;
        let [f0, f1] = flags.to_le_bytes();
        let [p0, p1] = port.to_le_bytes();
        let rest = [
            f0,
            f1,
            p0,
            p1,
            protocol,
            direction as u8,
            made_here as u8,
            0,
        ];
        let peer = identity as u64 | (socket as u64) << 32;
        [word, peer, u64::from_le_bytes(rest)]
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "each half of a word")]
    pub const fn from_words([word, peer, rest]: [u64; 3]) -> Self {
        let [f0, f1, p0, p1, protocol, direction, made_here, _] = rest.to_le_bytes();
        Self {
            flags: u16::from_le_bytes([f0, f1]),
            word: Word(word),
            direction: if direction == Direction::Ingress as u8 {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            identity: peer as u32,
            socket: (peer >> 32) as u32,
            protocol,
            port: u16::from_le_bytes([p0, p1]),
            made_here: made_here != 0,
        }
    }

    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The verdict for a new flow.
///
/// Order of precedence: an endpoint that owns its addresses may reach itself; its node may reach
/// it, unless the policy set has an answer to that; then the answer for the peer's identity, which
/// follows from its address, and from its socket where that is known; then the default of the
/// policy set.
#[inline(always)]
pub fn decide<A: Address>(tables: &impl Tables<A>, question: &Question<A>) -> Verdict {
    let Question {
        endpoint,
        word,
        direction,
        local,
        peer,
        socket,
        protocol,
        port,
        made_here,
    } = *question;
    if endpoint.has(Endpoint::OWNS_ADDRESSES) && local == peer {
        return Verdict::because(Reason::OwnAddress);
    }
    tables.settle(&Case {
        flags: endpoint.flags,
        word,
        direction,
        identity: tables.identity(&peer).at(word),
        socket,
        protocol,
        port,
        made_here,
    })
}

/// See [`Tables::settle`].
#[inline(always)]
pub fn settle<A>(tables: &(impl Tables<A> + ?Sized), case: &Case) -> Verdict {
    let Case {
        flags: _,
        word,
        direction,
        identity: address,
        socket,
        protocol,
        port,
        made_here,
    } = *case;
    let identity = if socket == NO_SOCKET {
        address
    } else {
        let key = SocketKey {
            socket,
            identity: address & !THIS_NODE,
        };
        tables.socket(&key).at(word)
    };
    let is_own_node = case.has(Endpoint::OWNS_ADDRESSES)
        && made_here
        && address & THIS_NODE != 0
        && matches!(direction, Direction::Ingress);

    let mut key = PolicyKey {
        set: word.set(),
        direction: direction as u32,
        // Without the identity beside it: the node as such.
        identity: if is_own_node {
            THIS_NODE
        } else {
            identity & !THIS_NODE
        },
    };
    let mut table = tables.port_table(&key).at(word);
    if table == NO_TABLE && is_own_node {
        return Verdict::because(Reason::OwnNode);
    }
    if table == NO_TABLE {
        key.identity = WORLD;
        table = tables.port_table(&key).at(word);
    }
    if table == NO_TABLE {
        return Verdict::because(Reason::NotProgrammed);
    }

    let decision = tables.decision(&PortKey::new(table, protocol, port));
    let unruled = if is_own_node {
        Reason::OwnNode
    } else {
        Reason::NotIsolated
    };
    outcome(&decision, tables, unruled)
}

/// What a decision comes to now; `unruled` is why what no rule speaks about is permitted.
#[inline(always)]
fn outcome<A>(decision: &Decision, tables: &(impl Tables<A> + ?Sized), unruled: Reason) -> Verdict {
    let Decision {
        rule,
        action,
        until,
        after_rule,
        after_action,
    } = *decision;
    let timed = decision.is_timed();
    let (rule, action) = if timed && tables.now() >= until {
        (RuleId(after_rule), after_action)
    } else {
        (RuleId(rule), action)
    };
    let is_allowed = action == Action::Allow as u32;
    let reason = match (is_allowed, rule) {
        (true, RuleId::NONE) => unruled,
        (true, _) => Reason::Rule,
        (false, _) if action == Action::Stale as u32 => Reason::StaleSchedule,
        (false, RuleId::NONE) => Reason::DefaultDeny,
        (false, _) => Reason::DenyRule,
    };
    Verdict::new(reason, rule)
        .rejecting(action == Action::Reject as u32)
        .timed(timed)
}

#[cfg(test)]
mod tests;
