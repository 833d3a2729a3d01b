//! Information elements: what a template says of a value, and the value itself, from one place.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::flow::clock::WallTime;

/// One value of a record `R`.
pub(super) struct Element<R: 'static> {
    pub(super) registry: Registry,
    pub(super) number: u16,
    pub(super) name: &'static str,
    pub(super) semantics: Semantics,
    pub(super) get: Get<R>,
}

/// Who has given an element its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registry {
    Iana,
    /// A standard element, of the way back (RFC 5103).
    Reverse,
    Own,
}

/// As type information numbers them (RFC 5610, §3.6 and the registry that it makes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Semantics {
    Default,
    DeltaCounter,
    Identifier,
}

/// How a value is had, by its abstract data type. Numbers are big-endian and of full length.
pub(super) enum Get<R: 'static> {
    Bool(fn(&R) -> bool),
    U8(fn(&R, Context) -> u8),
    U16(fn(&R) -> u16),
    U32(fn(&R, Context) -> u32),
    U64(fn(&R) -> u64),
    V4(fn(&R) -> Ipv4Addr),
    V6(fn(&R) -> Ipv6Addr),
    /// Milliseconds since the epoch.
    Time(fn(&R) -> WallTime),
    /// Cut to [`Context::text`].
    Text(for<'r> fn(&'r R) -> Cow<'r, str>),
    /// What is cut by its maker, to so many bytes: [`Context::long_text`].
    LongText(fn(&R, usize) -> String),
}

/// What a record is encoded within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) domain: u32,
    pub(super) enterprise: u32,
    /// Bytes that a text has at most: one byte is enough to tell its length (RFC 7011, §7).
    pub(super) text: u8,
}

/// The enterprise that stands for the way back.
pub(crate) const REVERSE: u32 = 29_305;
/// Of a template's field: its enterprise follows.
const HAS_ENTERPRISE: u16 = 1 << 15;
/// Of a template's field: each value tells its own length.
const VARIABLE: u16 = u16::MAX;

// === impl Element ===

impl<R> Element<R> {
    pub(super) const fn iana(number: u16, name: &'static str, get: Get<R>) -> Self {
        Self {
            registry: Registry::Iana,
            number,
            name,
            semantics: Semantics::Default,
            get,
        }
    }

    pub(super) const fn reverse(number: u16, name: &'static str, get: Get<R>) -> Self {
        Self {
            registry: Registry::Reverse,
            ..Self::iana(number, name, get)
        }
    }

    pub(super) const fn own(number: u16, name: &'static str, get: Get<R>) -> Self {
        Self {
            registry: Registry::Own,
            ..Self::iana(number, name, get)
        }
    }

    /// Our own, which tells things apart.
    pub(super) const fn identifier(number: u16, name: &'static str, get: Get<R>) -> Self {
        Self {
            semantics: Semantics::Identifier,
            ..Self::own(number, name, get)
        }
    }

    /// Our own, which is summed up.
    pub(super) const fn count(number: u16, name: &'static str, get: Get<R>) -> Self {
        Self {
            semantics: Semantics::DeltaCounter,
            ..Self::own(number, name, get)
        }
    }

    /// Appends the field of a template.
    pub(super) fn specify(&self, context: Context, out: &mut Vec<u8>) {
        let enterprise = match self.registry {
            Registry::Iana => None,
            Registry::Reverse => Some(REVERSE),
            Registry::Own => Some(context.enterprise),
        };
        let number = match enterprise {
            Some(_) => self.number | HAS_ENTERPRISE,
            None => self.number,
        };
        out.extend(number.to_be_bytes());
        out.extend(self.get.length().to_be_bytes());
        out.extend(enterprise.into_iter().flat_map(u32::to_be_bytes));
    }

    pub(super) fn has_text(&self, record: &R) -> bool {
        match self.get {
            Get::Text(get) => !get(record).is_empty(),
            Get::LongText(get) => !get(record, usize::MAX).is_empty(),
            _ => false,
        }
    }

    /// Appends the value.
    pub(super) fn put(&self, record: &R, context: Context, out: &mut Vec<u8>) {
        match self.get {
            // RFC 7011, §6.1.5: true is 1, and false is 2.
            Get::Bool(get) => out.push(if get(record) { 1 } else { 2 }),
            Get::U8(get) => out.push(get(record, context)),
            Get::U16(get) => out.extend(get(record).to_be_bytes()),
            Get::U32(get) => out.extend(get(record, context).to_be_bytes()),
            Get::U64(get) => out.extend(get(record).to_be_bytes()),
            Get::V4(get) => out.extend(get(record).octets()),
            Get::V6(get) => out.extend(get(record).octets()),
            Get::Time(get) => out.extend(milliseconds(get(record)).to_be_bytes()),
            Get::Text(get) => text(&get(record), context.text.into(), out),
            Get::LongText(get) => {
                let most = context.long_text();
                text(&get(record, most), most, out);
            }
        }
    }
}

// === impl Semantics ===

impl Semantics {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Default => 0,
            Self::DeltaCounter => 3,
            Self::Identifier => 4,
        }
    }
}

// === impl Get ===

impl<R> Get<R> {
    fn length(&self) -> u16 {
        match self {
            Self::Bool(_) | Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) | Self::V4(_) => 4,
            Self::U64(_) | Self::Time(_) => 8,
            Self::V6(_) => 16,
            Self::Text(_) | Self::LongText(_) => VARIABLE,
        }
    }

    /// As type information numbers it (RFC 5610, §3.1).
    pub(super) fn data_type(&self) -> u8 {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 3,
            Self::U64(_) => 4,
            Self::Bool(_) => 11,
            Self::Text(_) | Self::LongText(_) => 13,
            Self::Time(_) => 15,
            Self::V4(_) => 18,
            Self::V6(_) => 19,
        }
    }
}

// === impl Context ===

impl Context {
    /// Bytes that a list of labels has at most.
    pub(super) fn long_text(self) -> usize {
        usize::from(self.text) * 4
    }
}

fn milliseconds(time: WallTime) -> u64 {
    u64::try_from(time.0 / 1_000_000).unwrap_or_default()
}

/// With its length before it (RFC 7011, §7), and cut so that it stays text.
fn text(text: &str, most: usize, out: &mut Vec<u8>) {
    let mut length = text.len().min(most);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    match u8::try_from(length) {
        Ok(length) if length < u8::MAX => out.push(length),
        _ => {
            out.push(u8::MAX);
            out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend(text.bytes().take(length));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(of: &str, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        text(of, most, &mut out);
        out
    }

    #[test]
    fn a_text_tells_its_length_and_stays_text_where_it_is_cut() {
        assert_eq!(shown("", 254), [0]);
        assert_eq!(shown("ab", 254), [2, b'a', b'b']);
        assert_eq!(shown("aé", 2), [1, b'a'], "no half of a letter");
        assert_eq!(shown("aé", 0), [0]);
        let long = shown(&"x".repeat(2000), 1016);
        assert_eq!((long.len(), &long[..3]), (1019, &[255, 3, 248][..]));
        assert_eq!(shown(&"x".repeat(255), 1016)[..3], [255, 0, 255]);
        assert_eq!(shown(&"x".repeat(254), 1016)[0], 254);
    }

    #[test]
    fn times_are_milliseconds_and_none_is_before_the_epoch() {
        assert_eq!(
            milliseconds(WallTime(1_700_000_000_123_999_999)),
            1_700_000_000_123
        );
        assert_eq!(milliseconds(WallTime(-1_000_000_000)), 0);
    }
}
