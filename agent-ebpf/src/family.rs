//! From a packet of one family to its verdict.
//!
//! Each hook has two functions of its own for each family: one for the packets that nearly all are, one for
//! all others. Others can see them, so that Linux verifies each by itself and once, whatever the hook knew
//! before and the other has found; what is left on the stack of one is no burden to the next.

use agent_common::{
    dns::is_spoken,
    fragment,
    judge::{Sight, judge, judge_plain, unparsed},
    parse::{Class, Extent, Family, Headers},
    table::{Direction, Endpoint, Word},
    verdict::{Reason, Verdict},
};
use aya_ebpf::bindings::__sk_buff;

use crate::{
    datapath::{FamilyMaps, Maps, indistinct},
    names::Tells,
    packet::Buffer,
    sockets::Sockets,
    verifier::forgotten,
};

/// Where packets are seen.
pub(crate) trait Hook {
    type Sockets: Sockets;
    const DIRECTION: Direction;
    /// Where their network header begins: behind an Ethernet header at an interface, at once in a cgroup.
    const OFFSET: usize;

    fn sockets(context: *mut __sk_buff) -> Self::Sockets;
}

/// A [`Hook`] with its functions.
pub(crate) trait Judges: Hook {
    fn v4(context: *mut __sk_buff, seen: Seen) -> Outcome;

    fn v6(context: *mut __sk_buff, seen: Seen) -> Outcome;
}

/// What a hook knows of a packet before it has looked at it.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) endpoint: Endpoint,
    pub(crate) word: Word,
    pub(crate) made_here: bool,
}

/// What is to become of a packet, as one number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(u32);

impl Outcome {
    /// Whoever was asked leaves it to the next.
    const OPEN: Self = Self(0);
    const SETTLED: u32 = 1 << 8;
    const ALLOWS: u32 = 1 << 9;
    const REJECTS: u32 = 1 << 10;
    const PARTS: u32 = 1 << 11;

    #[inline(always)]
    pub(crate) fn of(verdict: Verdict) -> Self {
        let flag = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
        Self(
            Self::SETTLED
                | verdict.reason() as u32
                | flag(Self::ALLOWS, verdict.allows())
                | flag(Self::REJECTS, verdict.rejects())
                | flag(Self::PARTS, verdict.parts()),
        )
    }

    #[inline(always)]
    pub(crate) fn allows(self) -> bool {
        self.has(Self::ALLOWS)
    }

    /// See [`Verdict::rejects`].
    #[inline(always)]
    pub(crate) fn rejects(self) -> bool {
        self.has(Self::REJECTS)
    }

    /// See [`Verdict::parts`].
    #[inline(always)]
    pub(crate) fn parts(self) -> bool {
        self.has(Self::PARTS)
    }

    /// The number of a [`Reason`].
    #[cfg(feature = "trace")]
    pub(crate) fn reason(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    #[inline(always)]
    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

impl Seen {
    /// As numbers, for a function takes no more: the endpoint with its flags, and the rest.
    #[inline(always)]
    fn to_numbers(self) -> (u32, u64, u32) {
        let Self {
            endpoint: Endpoint { id, flags },
            word: Word(word),
            made_here,
        } = self;
        let endpoint = u32::from(id) | u32::from(flags) << 16;
        (endpoint, word, u32::from(made_here))
    }

    #[inline(always)]
    fn from_numbers(endpoint: u32, word: u64, made_here: u32) -> Self {
        let [i0, i1, f0, f1] = endpoint.to_le_bytes();
        Self {
            endpoint: Endpoint {
                id: u16::from_le_bytes([i0, i1]),
                flags: u16::from_le_bytes([f0, f1]),
            },
            word: Word(word),
            made_here: made_here != 0,
        }
    }

    #[inline(always)]
    pub(crate) fn sight<H: Hook>(self, context: *mut __sk_buff) -> Sight {
        let Self {
            endpoint,
            word,
            made_here,
        } = self;
        // SAFETY: the kernel passes a valid context to the program.
        let (length, ifindex) = unsafe { ((*context).len, (*context).ifindex) };
        #[expect(clippy::cast_possible_truncation, reason = "0 or 14 bytes")]
        let offset = H::OFFSET as u32;
        Sight {
            endpoint,
            word,
            direction: H::DIRECTION,
            length: length.saturating_sub(offset),
            made_here,
            ifindex: if H::OFFSET == 0 { 0 } else { ifindex },
        }
    }
}

/// Makes the functions of hooks: for IPv4 and for IPv6 those that are asked one after the other.
macro_rules! judges {
    ($($hook:ty: [$($v4:ident = $judge_v4:ident),+], [$($v6:ident = $judge_v6:ident),+];)*) => {$(
        impl $crate::family::Judges for $hook {
            #[inline(always)]
            fn v4(context: *mut __sk_buff, seen: $crate::family::Seen) -> $crate::family::Outcome {
                $crate::family::ask(context, seen, [$($v4),+])
            }

            #[inline(always)]
            fn v6(context: *mut __sk_buff, seen: $crate::family::Seen) -> $crate::family::Outcome {
                $crate::family::ask(context, seen, [$($v6),+])
            }
        }

        $($crate::family::judges!(@ $v4, $judge_v4::<[u8; 4], $hook>);)+
        $($crate::family::judges!(@ $v6, $judge_v6::<[u8; 16], $hook>);)+
    )*};
    (@ $name:ident, $judge:ident::<$family:ty, $hook:ty>) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(
            context: *mut __sk_buff,
            endpoint: u32,
            word: u64,
            made_here: u32,
        ) -> u32 {
            $crate::family::$judge::<$family, $hook>(context, endpoint, word, made_here)
        }
    };
}
pub(crate) use judges;

type Function = extern "C" fn(*mut __sk_buff, u32, u64, u32) -> u32;

/// Asks each until one settles it, as the last one does.
#[inline(always)]
pub(crate) fn ask<const FUNCTIONS: usize>(
    context: *mut __sk_buff,
    seen: Seen,
    functions: [Function; FUNCTIONS],
) -> Outcome {
    let (endpoint, word, made_here) = seen.to_numbers();
    for function in functions {
        let outcome = Outcome(function(context, endpoint, word, made_here));
        if outcome != Outcome::OPEN {
            return outcome;
        }
    }
    Outcome::OPEN
}

/// Judges a packet of the form that [`Family::plain`] knows.
#[inline(always)]
pub(crate) fn plain<A: FamilyMaps + Tells, H: Hook>(
    context: *mut __sk_buff,
    endpoint: u32,
    word: u64,
    made_here: u32,
) -> u32 {
    let packet = &Buffer::new(context);
    let mut headers = Headers::<A>::EMPTY;
    if !A::plain(packet, H::OFFSET, &mut headers) {
        return Outcome::OPEN.0;
    }
    let sight = Seen::from_numbers(endpoint, word, made_here).sight::<H>(context);
    forget(&mut headers, &sight);
    let verdict = judge_plain(&Maps(H::sockets(context)), &headers, &sight);
    if is_spoken(&headers, H::DIRECTION) && verdict.allows() {
        A::tell(context, sight.endpoint.id, H::DIRECTION, H::OFFSET);
    }
    Outcome::of(verdict).0
}

/// Judges any other packet.
#[inline(always)]
pub(crate) fn whole<A: FamilyMaps + Family, H: Hook>(
    context: *mut __sk_buff,
    endpoint: u32,
    word: u64,
    made_here: u32,
) -> u32 {
    let sight = Seen::from_numbers(endpoint, word, made_here).sight::<H>(context);
    let maps = Maps(H::sockets(context));
    let packet = &Buffer::new(context);
    let offset = H::OFFSET;
    let mut headers = Headers::<A>::EMPTY;
    if let Err(reason) = A::whole(packet, offset, &mut headers, Extent::Whole) {
        let is_piece = H::Sockets::PIECES && matches!(reason, Reason::Fragment);
        if !is_piece || !fragment::follow(&maps, packet, offset, &mut headers, &sight) {
            return Outcome::of(unparsed(&maps, &headers, &sight, reason)).0;
        }
    }
    forget(&mut headers, &sight);
    let begins_pieces = H::Sockets::PIECES && indistinct(headers.begins_pieces());
    let verdict = judge(&maps, packet, &headers, &sight);
    if begins_pieces && verdict.allows() {
        fragment::remember::<A, _>(&maps, packet, offset, &sight);
    }
    Outcome::of(verdict).0
}

/// Has all ways through the parser come together, so that the verifier goes on once.
#[inline(always)]
fn forget<A>(headers: &mut Headers<A>, sight: &Sight) {
    let Headers {
        protocol,
        tcp_flags,
        class,
        ..
    } = *headers;
    let facts = u32::from_le_bytes([protocol, tcp_flags, class as u8, 0]);
    #[expect(clippy::cast_possible_truncation, reason = "32 bits went in")]
    let facts = forgotten(u64::from(facts), u64::from(sight.length)) as u32;
    let [protocol, tcp_flags, class, _] = facts.to_le_bytes();
    headers.protocol = protocol;
    headers.tcp_flags = tcp_flags;
    // SAFETY: the number of a `Class`, as before.
    headers.class = unsafe { core::mem::transmute::<u8, Class>(class) };
}
