//! The outcome for a packet, and why.

/// Number of a rule; the agent knows its kind, namespace, name, file and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule decided.
    pub const NONE: Self = Self(0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Action {
    Deny = 0,
    Allow = 1,
    /// As [`Action::Deny`], and the sender is told.
    Reject = 2,
    /// Denied, because time has moved on beyond what the tables know.
    Stale = 3,
}

macro_rules! reasons {
    ($( $(#[$meta:meta])* $name:ident = $number:literal, $action:ident, $text:literal; )*) => {
        /// Why a packet passed or was dropped. Each has a counter for each endpoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $( $(#[$meta])* $name = $number, )* }

        impl Reason {
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// As it stands in records and metrics.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }

            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $( Self::$name => Action::$action, )* }
            }

            /// `None` for a number of another version.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }
        }
    };
}

reasons! {
    /// A policy rule permits it.
    Rule = 1, Allow, "rule";
    /// No policy selects the endpoint for this direction.
    NotIsolated = 2, Allow, "not-isolated";
    /// The endpoint talks to itself.
    OwnAddress = 3, Allow, "own-address";
    /// The endpoint's node reaches it, from its own stack.
    OwnNode = 4, Allow, "own-node";
    /// An ICMP error about a permitted flow.
    Related = 5, Allow, "related";
    /// Neighbour discovery and multicast listener messages of IPv6.
    NeighbourDiscovery = 6, Allow, "neighbour-discovery";
    Arp = 7, Allow, "arp";
    /// Permitted, but the flow table had no room: judged packet by packet.
    FlowTableFull = 8, Allow, "flow-table-full";
    /// Seen at an endpoint that it does not concern.
    NotSubject = 9, Allow, "not-subject";
    /// It would be dropped, and the endpoint is only observed yet. Of a flow: it was there when the
    /// endpoint was attached, and no packet of it has been judged since.
    Observed = 10, Allow, "observed";
    /// Neither IP nor ARP, of a kind that the settings name.
    AllowedFrame = 11, Allow, "allowed-frame";
    /// An endpoint asks for its configuration, or is told it.
    Dhcp = 12, Allow, "dhcp";
    /// An answer of our own to a denied packet, on its way to the sender; or the agent's question to an idle one.
    Rejection = 13, Allow, "rejection";

    /// The endpoint is isolated and no rule permits it.
    DefaultDeny = 16, Deny, "default-deny";
    /// The endpoint has not been programmed, or its tables lack an entry: closed, not open.
    NotProgrammed = 17, Deny, "not-programmed";
    /// From an address that is not the endpoint's.
    SpoofedSource = 18, Deny, "spoofed-source";
    /// An answer to a question that nobody asked, or an error about no live flow.
    NoState = 19, Deny, "no-state";
    /// A header that ends too early or contradicts itself.
    Malformed = 20, Deny, "malformed";
    /// A fragment that carries no ports.
    Fragment = 21, Deny, "fragment";
    /// More or other IPv6 extension headers than are walked.
    ExtensionHeader = 22, Deny, "extension-header";
    /// Neither IP nor ARP.
    NotIp = 23, Deny, "not-ip";
    /// A router advertisement or redirect from an endpoint.
    RogueRouter = 24, Deny, "rogue-router";
    /// A flow that policy no longer permits.
    Revoked = 25, Deny, "revoked";
    /// A policy rule denies it.
    DenyRule = 26, Deny, "deny-rule";
    /// A schedule goes on, and no agent has said how.
    StaleSchedule = 27, Deny, "stale-schedule";
    /// ARP or a neighbour message from an endpoint that speaks for somebody else, or of another link
    /// address than it was sent from.
    SpoofedNeighbour = 28, Deny, "spoofed-neighbour";
    /// No packet: a process asks for what would take its frames past every hook, and is refused.
    Bypass = 29, Deny, "bypass";
}

impl Reason {
    /// Counters of one endpoint; leaves room so that a new reason moves no counter.
    pub const SLOTS: u32 = 32;
}

/// The outcome for a packet. Made by [`crate::decide`] and [`crate::judge`] alone.
#[must_use = "a verdict that nobody obeys is a breach or an outage"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    reason: Reason,
    rule: RuleId,
    rejects: bool,
    timed: bool,
    parts: bool,
}

impl Verdict {
    const REJECTS: u32 = 40;
    const TIMED: u32 = 41;
    const PARTS: u32 = 42;

    #[inline(always)]
    pub(crate) const fn by_rule(rule: RuleId) -> Self {
        Self::new(Reason::Rule, rule)
    }

    #[inline(always)]
    pub(crate) const fn because(reason: Reason) -> Self {
        Self::new(reason, RuleId::NONE)
    }

    #[inline(always)]
    pub(crate) const fn new(reason: Reason, rule: RuleId) -> Self {
        Self {
            reason,
            rule,
            rejects: false,
            timed: false,
            parts: false,
        }
    }

    #[inline(always)]
    pub(crate) const fn rejecting(self, rejects: bool) -> Self {
        Self { rejects, ..self }
    }

    #[inline(always)]
    pub(crate) const fn timed(self, timed: bool) -> Self {
        Self { timed, ..self }
    }

    #[inline(always)]
    pub(crate) const fn parting(self, parts: bool) -> Self {
        Self { parts, ..self }
    }

    #[inline(always)]
    pub const fn allows(self) -> bool {
        matches!(self.reason.action(), Action::Allow)
    }

    #[inline(always)]
    pub const fn reason(self) -> Reason {
        self.reason
    }

    #[inline(always)]
    pub const fn rule(self) -> RuleId {
        self.rule
    }

    /// Denied, and the sender is to be told.
    #[inline(always)]
    pub const fn rejects(self) -> bool {
        self.rejects
    }

    /// Denied, and whom the packet was for is to be told instead: it is the first one of a connection
    /// that was cut, on its way to the far end.
    #[inline(always)]
    pub const fn parts(self) -> bool {
        self.parts
    }

    /// May change without anybody's doing: to be asked again with every packet.
    #[inline(always)]
    pub const fn is_timed(self) -> bool {
        self.timed
    }

    /// All of it as one number: the rule, the reason in the byte above, then a bit for each of the rest.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        let Self {
            reason,
            rule,
            rejects,
            timed,
            parts,
        } = self;
        rule.0 as u64
            | (reason as u64) << 32
            | (rejects as u64) << Self::REJECTS
            | (timed as u64) << Self::TIMED
            | (parts as u64) << Self::PARTS
    }

    /// The inverse of [`Self::to_bits`]; a number that no verdict has is a denial.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        let [_, _, _, _, number, ..] = bits.to_le_bytes();
        let reason = match Reason::from_number(number) {
            Some(reason) => reason,
            None => Reason::NotProgrammed,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the rule is the lower half"
        )]
        let rule = RuleId(bits as u32);
        Self {
            reason,
            rule,
            rejects: bits >> Self::REJECTS & 1 != 0,
            timed: bits >> Self::TIMED & 1 != 0,
            parts: bits >> Self::PARTS & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_slot_and_comes_back_from_its_number() {
        for &reason in Reason::ALL {
            assert!((reason as u32) < Reason::SLOTS);
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
        }
        assert_eq!(Reason::from_number(0), None);
    }

    #[test]
    fn a_verdict_is_the_same_after_being_a_number() {
        for &reason in Reason::ALL {
            for bits in 0..8_u8 {
                let [rejects, timed, parts] = [0, 1, 2].map(|bit| bits >> bit & 1 != 0);
                let verdict = Verdict::new(reason, RuleId(0xfedc_ba98))
                    .rejecting(rejects)
                    .timed(timed)
                    .parting(parts);
                assert_eq!(Verdict::from_bits(verdict.to_bits()), verdict);
            }
        }
        assert!(!Verdict::from_bits(u64::MAX).allows());
        assert!(!Verdict::from_bits(0).allows());
    }
}
