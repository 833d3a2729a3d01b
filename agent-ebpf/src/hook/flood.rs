//! Flows that begin and end at once, for the benchmark of records: more of them than a network on one machine carries.

use agent_common::{
    event::{Event, EventKind, Loss},
    process::Process,
    table::Direction,
    verdict::Reason,
};
use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    helpers::bpf_ktime_get_boot_ns,
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};

use crate::{datapath::lose, maps::EVENTS};

/// The endpoint that they are of, and how many there have been.
#[map]
static FLOOD: Array<u64> = Array::with_max_entries(2, 0);

const TCP: u8 = 6;
/// Ports of the far end, before its next address.
const PORTS: u64 = 50_000;

#[classifier]
pub(crate) fn flood(_: TcContext) -> i32 {
    if let (Some(endpoint), Some(number)) = (FLOOD.get(0), FLOOD.get_ptr_mut(1)) {
        // SAFETY: one program runs at a time.
        let number = unsafe {
            *number += 1;
            *number
        };
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        tell(EventKind::Open, *endpoint, number, now);
        tell(EventKind::Close, *endpoint, number, now);
    }
    TC_ACT_SHOT
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower bits are what is wanted"
)]
fn tell(kind: EventKind, endpoint: u64, number: u64, opened: u64) {
    let Some(mut room) = EVENTS.reserve::<Event>(0) else {
        return lose(Loss::Event);
    };
    let mut remote = [0; 16];
    [remote[10], remote[11], remote[12]] = [0xff, 0xff, 10];
    let peer = number / PORTS;
    [remote[13], remote[14], remote[15]] = [(peer >> 16) as u8, (peer >> 8) as u8, peer as u8];
    let mut local = [0; 16];
    [local[10], local[11], local[12], local[15]] = [0xff, 0xff, 10, 1];
    let is_over = matches!(kind, EventKind::Close);
    let flags = if is_over { 0x1b } else { 0x02 };
    let packets = if is_over { 5 } else { 1 };
    room.write(Event {
        kind: kind as u8,
        reason: Reason::Rule as u8,
        direction: Direction::Ingress as u8,
        protocol: TCP,
        family: 4,
        origin: 0,
        tcp_flags: [flags; 2],
        endpoint: endpoint as u16,
        local_port: 8080,
        remote_port: (number % PORTS) as u16 + 10_000,
        rtt: 0,
        rule: 1,
        generation: 1,
        ifindex: 1,
        zero2: 0,
        time: opened + u64::from(is_over),
        opened,
        local,
        remote,
        packets: [packets; 2],
        bytes: [packets * 120; 2],
        process: Process::NOBODY,
    });
    room.submit(0);
}
