//! Filters on a `clsact` queueing discipline: how programs hang on an interface before 6.6.
//!
//! A filter is no link: it stays until it is removed, without a name anywhere. It is known again by
//! its handle, which says that it is an agent's, and by a number in there of which one: an agent that
//! took another's filter for its own would end what that one enforces.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
            TcOption,
        },
    },
};

use crate::datapath::netlink::{Found, act, dump};

/// Ahead of all others: a filter before ours that accepts would end the chain, and enforcement.
const PRIORITY: u32 = 1;

/// "RF": what no other program would pick by chance.
const MAJOR: u16 = 0x5246;

/// What `tc filter show` prints.
const NAME: &str = "ringfence";

/// Seen from the host side: `Ingress` is what the endpoint sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

/// Tells the filters of several agents on one interface apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u16);

/// What an interface has where `clsact` would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Qdisc {
    None,
    Clsact,
    Other(String),
}

/// Our filter, and how many run before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: u32,
    pub(crate) number: Number,
    pub(crate) ahead: u32,
}

impl Number {
    /// Where there is no other agent.
    pub const FIRST: Self = Self(1);

    fn handle(self) -> TcHandle {
        let Self(minor) = self;
        TcHandle {
            major: MAJOR,
            minor,
        }
    }

    fn of(filter: &TcMessage) -> Option<Self> {
        let TcHandle { major, minor } = filter.header.handle;
        let is_ours = major == MAJOR && filter.header.info >> 16 == PRIORITY;
        is_ours.then_some(Self(minor))
    }
}

impl Side {
    fn parent(self) -> TcHandle {
        TcHandle {
            major: TcHandle::CLSACT.major,
            minor: match self {
                Self::Ingress => TcHandle::MIN_INGRESS,
                Self::Egress => TcHandle::MIN_EGRESS,
            },
        }
    }
}

pub(crate) fn qdisc(index: u32) -> io::Result<Qdisc> {
    let found = dump(RouteNetlinkMessage::GetQueueDiscipline(message(index)?))?;
    for object in found {
        if let Ok(RouteNetlinkMessage::NewQueueDiscipline(qdisc)) = object
            && u32::try_from(qdisc.header.index) == Ok(index)
            && qdisc.header.parent == TcHandle::CLSACT
        {
            let kind = kind(&qdisc).unwrap_or_default();
            return Ok(match kind {
                "clsact" => Qdisc::Clsact,
                other => Qdisc::Other(other.to_owned()),
            });
        }
    }
    Ok(Qdisc::None)
}

/// Minimum kernel: 4.5.
pub(crate) fn add_clsact(index: u32) -> io::Result<()> {
    let request = RouteNetlinkMessage::NewQueueDiscipline(clsact(index)?);
    act(request, NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes the queueing discipline; true if it was there.
pub fn remove_clsact(index: u32) -> io::Result<bool> {
    remove(RouteNetlinkMessage::DelQueueDiscipline(clsact(index)?))
}

/// A number that no filter of an agent has on either side.
pub(crate) fn free_number(index: u32) -> io::Result<Number> {
    let mut taken = BTreeSet::new();
    for side in [Side::Ingress, Side::Egress] {
        for object in filters(index, side)? {
            if let Ok(RouteNetlinkMessage::NewTrafficFilter(filter)) = object {
                taken.extend(Number::of(&filter));
            }
        }
    }
    let mut numbers = (Number::FIRST.0..=u16::MAX).map(Number);
    let free = numbers.find(|number| !taken.contains(number));
    free.ok_or_else(|| io::Error::other("every number is taken"))
}

/// Adds our filter.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is one of that number.
pub(crate) fn add_filter(
    index: u32,
    side: Side,
    number: Number,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    act(
        with_program(index, side, number, program)?,
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Puts `program` in the place of the one behind our filter: the kernel swaps the two in its list, so
/// that each packet meets the one or the other.
pub(crate) fn replace_filter(
    index: u32,
    side: Side,
    number: Number,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    act(
        with_program(index, side, number, program)?,
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn with_program(
    index: u32,
    side: Side,
    number: Number,
    program: BorrowedFd<'_>,
) -> io::Result<RouteNetlinkMessage> {
    let mut filter = our_filter(index, side, number)?;
    let descriptor = program.as_raw_fd().cast_unsigned();
    let options = [
        TcFilterBpfOption::ProgFd(descriptor),
        TcFilterBpfOption::ProgName(NAME.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    Ok(RouteNetlinkMessage::NewTrafficFilter(filter))
}

/// Removes our filter; true if it was there.
pub fn remove_filter(index: u32, side: Side, number: Number) -> io::Result<bool> {
    let mut filter = our_filter(index, side, number)?;
    filter.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    remove(RouteNetlinkMessage::DelTrafficFilter(filter))
}

/// True if there was something to remove. An interface may go at any moment, and takes all with it.
fn remove(request: RouteNetlinkMessage) -> io::Result<bool> {
    match act(request, 0) {
        Ok(()) => Ok(true),
        // ENOENT: no such object. EINVAL: no such queueing discipline. ENODEV: no such interface.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Our filter of that number.
pub(crate) fn filter(index: u32, side: Side, number: Number) -> io::Result<Option<Filter>> {
    find(index, side, |its, _| its == number)
}

/// Our filter, whatever its number, that runs this program.
pub(crate) fn filter_of(index: u32, side: Side, program: u32) -> io::Result<Option<Filter>> {
    find(index, side, |_, its| its == program)
}

fn find(index: u32, side: Side, is_it: impl Fn(Number, u32) -> bool) -> io::Result<Option<Filter>> {
    let mut ahead = 0;
    for object in filters(index, side)? {
        let Ok(RouteNetlinkMessage::NewTrafficFilter(filter)) = object else {
            ahead += 1;
            continue;
        };
        if let Some(number) = Number::of(&filter) {
            let program = program(&filter).unwrap_or_default();
            if is_it(number, program) {
                return Ok(Some(Filter {
                    program,
                    number,
                    ahead,
                }));
            }
        }
        // Each priority is announced by an entry without a handle.
        if filter.header.handle != TcHandle::UNSPEC {
            ahead += 1;
        }
    }
    Ok(None)
}

/// Whether anything hangs on either side, whoever put it there.
pub(crate) fn is_empty(index: u32) -> io::Result<bool> {
    Ok(filters(index, Side::Ingress)?.is_empty() && filters(index, Side::Egress)?.is_empty())
}

fn filters(index: u32, side: Side) -> io::Result<Vec<Found>> {
    let mut request = message(index)?;
    request.header.parent = side.parent();
    match dump(RouteNetlinkMessage::GetTrafficFilter(request)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
        other => other,
    }
}

fn program(filter: &TcMessage) -> Option<u32> {
    let options = filter
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

fn kind(message: &TcMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        })
}

fn message(index: u32) -> io::Result<TcMessage> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    Ok(TcMessage::with_index(index))
}

fn clsact(index: u32) -> io::Result<TcMessage> {
    let mut message = message(index)?;
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    Ok(message)
}

fn our_filter(index: u32, side: Side, number: Number) -> io::Result<TcMessage> {
    let mut message = message(index)?;
    message.header = TcHeader {
        handle: number.handle(),
        parent: side.parent(),
        info: PRIORITY << 16 | u32::from(every_protocol()),
        ..message.header
    };
    Ok(message)
}

/// `ETH_P_ALL`, in network byte order as the kernel wants it.
fn every_protocol() -> u16 {
    3u16.to_be()
}
