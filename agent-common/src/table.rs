//! The compiled policy as the kernel holds it.
//!
//! Three look-ups lead from a packet to its answer:
//!
//! 1. *ipcache*: the longest prefix that covers the peer's address → an identity;
//! 2. *policy*: (policy set, direction, identity) → a port table, or else the set's own default;
//! 3. *ports*: (port table, protocol, port) → the decision. Port tables never change: other
//!    content is another table.
//!
//! Over the loopback interface the address says little: many endpoints share those of their node.
//! There a look-up in *sockets*, (endpoint of the other socket, identity) → identity, follows the
//! first.
//!
//! All but the last may change while packets are being judged. Their map entries only say *where* an
//! answer stands: in a slot of an array, one 64-bit [`Versioned`] word that is stored at once. A
//! plan first prepares slots that answer as before for every endpoint, then stores the [`Word`] of
//! each endpoint it touches. Only that store changes a verdict.

use crate::{
    abi::abi,
    verdict::{Action, RuleId},
};

/// The identity of an address that no prefix covers.
pub const WORLD: u32 = 0;

/// Set beside an identity whose address is one of this node's own.
///
/// The policy map knows the identity without it: rules treat the node's address like any other.
pub const THIS_NODE: u32 = 1 << 23;

/// Set in an identity whose address is one of a Service: what is sent there may be translated on the way,
/// and go elsewhere. A bit of the number itself, so that nobody has to take it away.
pub const TRANSLATED: u32 = 1 << 22;

/// A policy entry with this table has no answer of its own: the default of its set holds.
pub const NO_TABLE: u32 = 0;

/// Whose socket is at the other end can not be told.
pub const NO_SOCKET: u32 = 0;

/// The first number that no identity and no port table may have.
pub const ID_LIMIT: u32 = 1 << 24;

/// The state of an endpoint in one 64-bit word: policy set in the upper half, generation below.
///
/// A program loads it once, before all else, and judges by that load alone. Zero, the state of an
/// endpoint that has not been programmed, is a set without entries: everything is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

/// An answer of before and of after a plan, with the plan's generation, in one 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versioned(pub u64);

/// An interface and the endpoint that it leads to, in one 64-bit word.
///
/// Looked for in an array before the interfaces map: an array's entry costs no call. Where two interfaces
/// have the same slot, one of them is in the map alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead(pub u64);

abi! {
    /// Key of the policy map.
    pub struct PolicyKey: 12 {
        pub set: u32,
        /// [`Direction`] as a number.
        pub direction: u32,
        pub identity: u32,
    }

    /// Key of the sockets map: who is at an address, if it is the socket of an endpoint.
    pub struct SocketKey: 8 {
        /// The endpoint's number.
        pub socket: u32,
        /// The identity of the address, without [`THIS_NODE`].
        pub identity: u32,
    }

    /// What follows the prefix length in a key of the ports map, from the widest to the narrowest.
    pub struct PortKey: 8 {
        /// Big-endian, because a prefix reads from the first byte on.
        pub table: [u8; 4],
        pub protocol: u8,
        /// Big-endian.
        pub port: [u8; 2],
        pub zero: u8,
    }

    /// The final answer for a port of a table, and the one that follows by itself.
    pub struct Decision: 24 {
        pub rule: u32,
        /// [`Action`] as a number.
        pub action: u32,
        /// Nanoseconds of the boot clock, or [`Decision::FOREVER`]: from then on, the other holds.
        pub until: u64,
        pub after_rule: u32,
        pub after_action: u32,
    }

    /// Value of the interfaces map: which endpoint an interface leads to; and of the cgroups map.
    pub struct Endpoint: 4 {
        /// Index of the endpoint's word and counters. 0 is never an endpoint.
        pub id: u16,
        /// Bits of [`Endpoint`]'s constants.
        pub flags: u16,
    }

    /// Key of the addresses map: an address that an endpoint may send from.
    pub struct OwnAddress: 20 {
        pub endpoint: u32,
        /// IPv4 as `::ffff:a.b.c.d`.
        pub address: [u8; 16],
    }

    /// Value of the counters map, one for each endpoint and [`crate::verdict::Reason`].
    pub struct Counter: 16 {
        pub packets: u64,
        /// From the network header on.
        pub bytes: u64,
    }
}

/// As policy says it: seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// To the endpoint.
    Ingress = 0,
    /// From the endpoint.
    Egress = 1,
}

impl Direction {
    #[must_use]
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// The bits of a generation that a [`Versioned`] has room for.
pub const GENERATION_KEPT: u32 = 0xffff;

impl Word {
    pub const UNSET: Self = Self(0);

    #[inline(always)]
    pub const fn new(set: u32, generation: u32) -> Self {
        Self((set as u64) << 32 | generation as u64)
    }

    #[inline(always)]
    pub const fn set(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is what is wanted"
    )]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl Lead {
    /// No interface has the number 0.
    pub const NONE: Self = Self(0);
    /// More than the interfaces of most nodes, whose numbers mostly follow each other.
    pub const SLOTS: u32 = 4096;

    /// Where in the array an interface may be.
    #[inline(always)]
    pub const fn slot(interface: u32) -> u32 {
        interface % Self::SLOTS
    }

    #[inline(always)]
    pub const fn new(interface: u32, endpoint: Endpoint) -> Self {
        let Endpoint { id, flags } = endpoint;
        Self((flags as u64) << 48 | (id as u64) << 32 | interface as u64)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn interface(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits each are meant")]
    pub const fn endpoint(self) -> Endpoint {
        Endpoint {
            id: (self.0 >> 32) as u16,
            flags: (self.0 >> 48) as u16,
        }
    }
}

impl Versioned {
    /// `before` and `after` must be below [`ID_LIMIT`]; higher bits are cut off.
    #[inline(always)]
    pub const fn new(before: u32, after: u32, generation: u32) -> Self {
        let mask = (ID_LIMIT - 1) as u64;
        Self(
            (before as u64 & mask) << 40
                | (after as u64 & mask) << 16
                | (generation & GENERATION_KEPT) as u64,
        )
    }

    /// The plan's generation, as much of it as is kept: [`GENERATION_KEPT`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 16 bits")]
    pub const fn generation(self) -> u32 {
        self.0 as u32 & GENERATION_KEPT
    }

    /// The same answer, whatever the generation.
    #[inline(always)]
    pub const fn settled(answer: u32) -> Self {
        Self::new(answer, answer, 0)
    }

    /// The answer for an endpoint in the state of `word`.
    ///
    /// One plan is in flight at a time, so that the generation is either the plan's or an earlier
    /// one, and its lower 16 bits tell which: a plan skips numbers whose lower bits a live word has.
    #[inline(always)]
    pub const fn at(self, word: Word) -> u32 {
        if word.generation() & GENERATION_KEPT == self.generation() {
            self.after()
        } else {
            self.before()
        }
    }

    #[inline(always)]
    pub const fn before(self) -> u32 {
        (self.0 >> 40) as u32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub const fn after(self) -> u32 {
        (self.0 >> 16) as u32 & (ID_LIMIT - 1)
    }
}

impl PortKey {
    /// Bits of a key that names the table alone: every port of every protocol.
    pub const TABLE_BITS: u32 = 32;
    /// Bits of a key that names the table and a protocol.
    pub const PROTOCOL_BITS: u32 = 40;
    /// Bits of a key that names one port.
    pub const PORT_BITS: u32 = 56;

    #[inline(always)]
    pub const fn new(table: u32, protocol: u8, port: u16) -> Self {
        Self {
            table: table.to_be_bytes(),
            protocol,
            port: port.to_be_bytes(),
            zero: 0,
        }
    }
}

impl Decision {
    /// No entry: what no rule permits is denied.
    pub const NO_MATCH: Self = Self::new(Action::Deny, RuleId::NONE);

    /// An `until` that never comes.
    pub const FOREVER: u64 = u64::MAX;

    pub const fn new(action: Action, rule: RuleId) -> Self {
        Self {
            rule: rule.0,
            action: action as u32,
            until: Self::FOREVER,
            after_rule: RuleId::NONE.0,
            after_action: Action::Deny as u32,
        }
    }

    /// The same until this moment, then another.
    #[must_use]
    pub const fn until(self, until: u64, action: Action, rule: RuleId) -> Self {
        Self {
            until,
            after_rule: rule.0,
            after_action: action as u32,
            ..self
        }
    }

    /// Whether the answer may change without anybody's doing.
    #[inline(always)]
    pub const fn is_timed(self) -> bool {
        self.until != Self::FOREVER
    }
}

impl Endpoint {
    /// Stands for an endpoint that is not known: everything is denied, and counted here.
    pub const NOBODY: Self = Self { id: 0, flags: 0 };

    /// Drop what the endpoint sends from an address that is not its own.
    pub const CHECK_SOURCE: u16 = 1;
    /// The endpoint owns its addresses: its node may always reach it, and it may reach itself.
    pub const OWNS_ADDRESSES: u16 = 2;
    /// Hooks see packets of others too: only what uses an address of the endpoint's own, and goes
    /// over a wire, is judged. All else passes.
    pub const ONLY_OWN: u16 = 4;
    /// The agent is still finding out which flows there are: what is denied passes, counted as such,
    /// and what is in the middle is not taken up. Of a cgroup's programs it is a constant; the flag in
    /// the map tells the next agent that this one came no further. It holds until the moment in
    /// `OBSERVED_UNTIL`, which the agent puts off while it lives.
    pub const OBSERVED: u16 = 8;
    /// It gets its addresses by DHCP, whatever policy says.
    pub const DHCP_CLIENT: u16 = 16;
    /// Of a frame that a process of a cgroup made itself: who is where on the link is its node's to say.
    pub const NO_LINK: u16 = 32;

    #[must_use]
    #[inline(always)]
    pub const fn observed(self) -> Self {
        self.with(Self::OBSERVED)
    }

    /// The same at this moment, where what is observed is so `until` another. What is nobody's is observed for as
    /// long as it is: nobody finds out anything about it meanwhile.
    #[must_use]
    #[inline(always)]
    pub const fn by(self, now: u64, until: u64) -> Self {
        if self.id != Self::NOBODY.id && now >= until {
            Self {
                id: self.id,
                flags: self.flags & !Self::OBSERVED,
            }
        } else {
            self
        }
    }

    #[must_use]
    #[inline(always)]
    pub const fn with(self, flags: u16) -> Self {
        Self {
            id: self.id,
            flags: self.flags | flags,
        }
    }

    #[inline(always)]
    pub const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versioned_answer_changes_with_the_word_alone() {
        let answer = Versioned::new(0xaa_bbcc, 0x11_2233, 7);
        assert_eq!(answer.at(Word::new(1, 6)), 0xaa_bbcc);
        assert_eq!(answer.at(Word::new(1, 7)), 0x11_2233);
        assert_eq!(Versioned::settled(5).at(Word::new(1, 0)), 5);
        assert_eq!(Versioned::settled(5).at(Word::new(1, 9)), 5);
    }

    #[test]
    fn an_observation_ends_by_itself_but_for_what_is_nobodys() {
        let endpoint = Endpoint {
            id: 7,
            flags: Endpoint::CHECK_SOURCE,
        };
        let observed = endpoint.observed();
        assert_eq!(observed.by(4, 5), observed);
        assert_eq!(observed.by(5, 5), endpoint);
        assert_eq!(observed.by(5, 0), endpoint);
        assert_eq!(endpoint.by(4, 5), endpoint);
        let nobody = Endpoint::NOBODY.observed();
        assert_eq!(nobody.by(5, 0), nobody);
    }

    #[test]
    fn a_word_keeps_set_and_generation_apart() {
        let word = Word::new(u32::MAX, 1);
        assert_eq!((word.set(), word.generation()), (u32::MAX, 1));
    }
}
