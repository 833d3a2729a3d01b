//! Asks an idle end of a connection to speak, so that what it says meets the hook of its interface.
//!
//! A segment that is not within the window is answered by an acknowledgement (RFC 9293, 3.10.7.4), which
//! has both numbers of the connection as they are at that end. See [ADR 29](../../docs/adr/0029-idle-ends.md).
//!
//! The agent may not open a packet socket. So the frame is what a program is run with, and the program sends it.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use aya::programs::{TestRun as _, TestRunOptions};
use rustix::rand::GetRandomFlags;

use crate::datapath::{
    engine::lock,
    link::{Link, Stations},
    object::Programs,
    sockets::Connected,
};

/// The program's name.
pub(crate) const NAME: &str = "prompt";

/// Sends such segments.
pub(crate) struct Prompter(Arc<Mutex<Programs>>);

/// How an end is asked. No form is answered by all that have agreed on time stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Linux answers. Others pass over a segment without a time stamp (RFC 7323, 3.2).
    Bare,
    /// They answer one with any; Linux 6.18 passes over one that seems to be old.
    Stamped,
}

/// Where an end of a connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    interface: u32,
    /// Of the interface on this side.
    from: [u8; 6],
    to: Vec<[u8; 6]>,
}

/// Bytes of the context up to the first word that a program may keep for itself, `cb` of `struct __sk_buff`, and
/// with it.
const CONTEXT: usize = 52;
const WORD: std::ops::Range<usize> = 48..CONTEXT;

const ETHER_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const HOPS: u8 = 64;
const ACK: u8 = 0x10;
/// Bytes of TCP without options, and of a time stamp with what precedes it.
const SEGMENT: u16 = 20;
const STAMP: u16 = 12;
const TIME_STAMP: [u8; 4] = [1, 1, 8, 10];
const CHECKSUM: std::ops::Range<usize> = 16..18;

/// Numbers that nobody knows: two of the connection, two of the time stamp.
type Numbers = [[u8; 4]; 4];

impl Way {
    /// `None` if nobody is known there.
    pub(crate) fn find(link: &Link, address: IpAddr, stations: &Stations) -> Option<Self> {
        let to = stations.behind(link, address);
        (!to.is_empty()).then_some(Self {
            interface: link.index,
            from: link.mac?,
            to,
        })
    }
}

impl Prompter {
    pub(crate) fn new(programs: Arc<Mutex<Programs>>) -> anyhow::Result<Self> {
        lock(&programs).loaded(NAME)?;
        Ok(Self(programs))
    }

    /// Asks the local end of a connection, in the name of the far end.
    ///
    /// # Errors
    ///
    /// If none of the frames could be sent: the interface is gone or down.
    pub(crate) fn ask(&self, end: &Connected, form: Form, way: &Way) -> anyhow::Result<()> {
        let Self(programs) = self;
        let mut context = [0; CONTEXT];
        if let Some(word) = context.get_mut(WORD) {
            word.copy_from_slice(&way.interface.to_ne_bytes());
        }
        let numbers = numbers()?;
        let mut programs = lock(programs);
        let program = programs.loaded(NAME)?;
        let mut failed = None;
        let mut is_sent = false;
        for station in &way.to {
            let Some(frame) = frame(end, form, [way.from, *station], numbers) else {
                anyhow::bail!("the ends of a connection are of one family");
            };
            let ran = program.test_run(TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })?;
            match ran.return_value.cast_signed() {
                0 => is_sent = true,
                error => failed = Some(io::Error::from_raw_os_error(-error)),
            }
        }
        match failed {
            Some(error) if !is_sent => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn numbers() -> io::Result<Numbers> {
    let mut numbers = Numbers::default();
    for number in &mut numbers {
        rustix::rand::getrandom(number, GetRandomFlags::empty())?;
    }
    Ok(numbers)
}

/// From the far end of the connection to the local one.
fn frame(
    end: &Connected,
    form: Form,
    [from, to]: [[u8; 6]; 2],
    numbers: Numbers,
) -> Option<Vec<u8>> {
    let ((local, local_port), (remote, remote_port)) = (end.local, end.remote);
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    let (length, words) = match form {
        Form::Bare => (SEGMENT, 5),
        Form::Stamped => (SEGMENT + STAMP, 8),
    };
    // What the checksum covers beside the segment (RFC 9293, 3.1).
    let mut covered = Vec::new();
    match (remote, local) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => {
            frame.extend(ETHER_IPV4);
            let [high, low] = (20 + length).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, TCP, 0, 0];
            header.extend(remote.octets());
            header.extend(local.octets());
            let sum = checksum(&header);
            header.get_mut(10..12)?.copy_from_slice(&sum);
            frame.extend(header);
            covered.extend(remote.octets());
            covered.extend(local.octets());
        }
        (IpAddr::V6(remote), IpAddr::V6(local)) => {
            frame.extend(ETHER_IPV6);
            let [high, low] = length.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, high, low, TCP, HOPS]);
            frame.extend(remote.octets());
            frame.extend(local.octets());
            covered.extend(remote.octets());
            covered.extend(local.octets());
        }
        _ => return None,
    }
    let [sequence, acknowledgement, stamp, echo] = numbers;
    let mut segment = Vec::new();
    segment.extend(remote_port.to_be_bytes());
    segment.extend(local_port.to_be_bytes());
    segment.extend(sequence);
    segment.extend(acknowledgement);
    // The widest window: should it be believed, nobody is to wait for it.
    segment.extend([words << 4, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    if form == Form::Stamped {
        segment.extend(TIME_STAMP);
        segment.extend(stamp);
        segment.extend(echo);
    }
    covered.extend([0, TCP]);
    covered.extend(length.to_be_bytes());
    covered.extend(&segment);
    let sum = checksum(&covered);
    segment.get_mut(CHECKSUM)?.copy_from_slice(&sum);
    frame.extend(segment);
    Some(frame)
}

/// Of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (words, _) = bytes.as_chunks();
    let mut sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while let Some(carried) = sum.checked_shr(16).filter(|carried| *carried > 0) {
        sum = (sum & 0xffff) + carried;
    }
    let [_, _, high, low] = sum.to_be_bytes();
    [!high, !low]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const TO: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const NUMBERS: Numbers = [[1; 4], [2; 4], [3; 4], [4; 4]];

    fn end(local: &str, remote: &str) -> Connected {
        Connected {
            protocol: TCP,
            local: (local.parse().unwrap(), 443),
            remote: (remote.parse().unwrap(), 50_000),
        }
    }

    #[test]
    fn a_frame_is_from_the_far_end_and_its_sums_are_right() {
        for (form, length) in [(Form::Bare, 20), (Form::Stamped, 32)] {
            let frame = frame(&end("10.0.0.1", "10.0.0.2"), form, [FROM, TO], NUMBERS).unwrap();
            assert_eq!(frame.len(), 14 + 20 + usize::from(length));
            assert_eq!(frame[..12], [TO, FROM].concat());
            // A sum over itself is nothing.
            assert_eq!(checksum(&frame[14..34]), [0, 0]);
            assert_eq!(frame[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
            let pseudo = [&frame[26..34], &[0, TCP, 0, length], &frame[34..]].concat();
            assert_eq!(checksum(&pseudo), [0, 0]);
            assert_eq!(frame[34..38], [0xc3, 0x50, 0x01, 0xbb]);
            assert_eq!(frame[46..48], [length << 2, ACK]);
        }
    }

    #[test]
    fn a_frame_of_the_other_family_is_likewise() {
        for (form, length) in [(Form::Bare, 20), (Form::Stamped, 32)] {
            let frame = frame(&end("fd00::1", "fd00::2"), form, [FROM, TO], NUMBERS).unwrap();
            assert_eq!(frame.len(), 14 + 40 + usize::from(length));
            let pseudo = [&frame[22..54], &[0, TCP, 0, length], &frame[54..]].concat();
            assert_eq!(checksum(&pseudo), [0, 0]);
        }
        let mixed = end("fd00::1", "10.0.0.2");
        assert!(frame(&mixed, Form::Bare, [FROM, TO], NUMBERS).is_none());
    }
}
