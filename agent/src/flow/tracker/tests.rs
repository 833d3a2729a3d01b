//! One test a rule. Time is in seconds of the boot clock, with 100 jiffies each.

use agent_common::{
    denial::Denied,
    event::DenialKey,
    flow::{Flow, FlowKey, tcp},
    process::Process,
    protocol::{TCP, UDP},
    verdict::Reason,
};

use super::*;
use crate::flow::clock::WallTime;

const SECOND: u64 = 1_000_000_000;
/// When the agent of the tests starts.
const STARTED: u64 = 100;

struct Bench {
    tracker: Tracker,
    outcome: Outcome,
}

fn key(protocol: u8) -> FlowKey<[u8; 4]> {
    FlowKey {
        endpoint: 1,
        protocol,
        zero: 0,
        local_port: 40_000,
        remote_port: 80,
        local: [10, 0, 0, 1],
        remote: [10, 0, 0, 2],
    }
}

fn event(kind: EventKind, protocol: u8, opened: u64, at: u64, packets: u64) -> Event {
    let key = key(protocol);
    Event {
        kind: kind as u8,
        reason: Reason::Rule as u8,
        direction: 1,
        protocol,
        family: 4,
        origin: 0,
        tcp_flags: [0; 2],
        endpoint: key.endpoint,
        local_port: key.local_port,
        remote_port: key.remote_port,
        rtt: 0,
        rule: 7,
        generation: 3,
        ifindex: 9,
        zero2: 0,
        time: at * SECOND,
        opened: opened * SECOND,
        local: agent_common::protocol::Address::mapped(key.local),
        remote: agent_common::protocol::Address::mapped(key.remote),
        packets: [packets, 0],
        bytes: [packets * 100, 0],
        process: Process::NOBODY,
    }
}

fn state(opened: u64, last_seen: u64, packets: u64) -> FlowState {
    FlowState {
        generation: 3,
        rule: 7,
        reason: Reason::Rule as u8,
        origin: 0,
        tcp_flags: [tcp::SYN | tcp::ACK; 2],
        closed: 0,
        rtt: 0,
        opened: opened * SECOND,
        last_seen: last_seen * 100,
        packets: [packets, 0],
        bytes: [packets * 100, 0],
    }
}

fn denial() -> DenialKey {
    DenialKey {
        endpoint: 1,
        port: 80,
        protocol: TCP,
        direction: 1,
        reason: Reason::DefaultDeny as u8,
        family: 4,
        rule: 0,
        remote: agent_common::protocol::Address::mapped([10, 0, 0, 2]),
    }
}

impl Bench {
    fn new() -> Self {
        Self::with_capacity(16)
    }

    fn with_capacity(flows: usize) -> Self {
        let capacity = TrackerCapacity { flows };
        let tracker = Tracker::new(BootTime(STARTED * SECOND), capacity);
        Self {
            tracker,
            outcome: Outcome::default(),
        }
    }

    fn event(&mut self, event: &Event) -> Vec<FlowReport> {
        let mut reports = Vec::new();
        self.tracker.event(event, Clock::default(), &mut reports);
        flows(&reports)
    }

    fn sweep(&mut self, at: u64, listing: &[(u8, FlowState)]) -> Vec<FlowReport> {
        let flows_v4 = listing
            .iter()
            .map(|(protocol, state)| (key(*protocol), *state))
            .collect();
        self.sweep_input(&SweepInput {
            flows_v4,
            ..input(at)
        });
        flows(&self.outcome.reports)
    }

    /// Of an entry that was made at `since`.
    fn sweep_denials(&mut self, at: u64, since: u64, packets: u64) -> Vec<u64> {
        let denied = Denied {
            packets,
            bytes: packets * 100,
            since: since * SECOND,
        };
        let denials = vec![(denial(), denied)];
        self.sweep_input(&SweepInput {
            denials,
            ..input(at)
        });
        let reports = &self.outcome.reports;
        reports
            .iter()
            .filter_map(|report| match report {
                Report::Denials(report) => Some(report.delta.packets),
                Report::Flow(_) | Report::Loss(_) | Report::Tampering(_) => None,
            })
            .collect()
    }

    fn sweep_input(&mut self, input: &SweepInput) {
        self.outcome = Outcome::default();
        self.tracker
            .sweep(input, Clock::default(), &mut self.outcome);
    }

    fn removed(&self) -> usize {
        self.outcome.removals.len()
    }

    fn losses(&self) -> Vec<(String, u64)> {
        let reports = &self.outcome.reports;
        reports
            .iter()
            .filter_map(|report| match report {
                Report::Loss(loss) => Some((loss.stage.to_string(), loss.count)),
                Report::Flow(_) | Report::Denials(_) | Report::Tampering(_) => None,
            })
            .collect()
    }
}

fn input(at: u64) -> SweepInput {
    SweepInput {
        listed_at: BootTime(at * SECOND),
        jiffies: at * 100,
        hz: 100,
        ..SweepInput::default()
    }
}

fn flows(reports: &[Report]) -> Vec<FlowReport> {
    reports
        .iter()
        .filter_map(|report| match report {
            Report::Flow(report) => Some(*report),
            Report::Denials(_) | Report::Loss(_) | Report::Tampering(_) => None,
        })
        .collect()
}

fn brief(reports: &[FlowReport]) -> Vec<(Kind, u64, Option<EndReason>)> {
    reports
        .iter()
        .map(|r| (r.kind, r.delta[0].packets, r.end_reason))
        .collect()
}

#[test]
fn an_open_is_a_start_and_a_close_is_an_end_with_what_is_new() {
    let mut bench = Bench::new();
    let start = bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    assert_eq!(brief(&start), [(Kind::Start, 1, None)]);
    let mut close = event(EventKind::Close, TCP, 101, 110, 9);
    close.tcp_flags = [tcp::FIN | tcp::ACK; 2];
    let end = bench.event(&close);
    assert_eq!(brief(&end), [(Kind::End, 8, Some(EndReason::Fin))]);
    assert_eq!(end[0].id, start[0].id);
    assert_eq!(end[0].start, start[0].start);
    assert_eq!(bench.event(&close), [], "an end is reported once");
}

#[test]
fn the_opening_of_an_event_may_be_a_moment_after_the_tables() {
    let mut bench = Bench::new();
    let mut open = event(EventKind::Open, TCP, 101, 101, 1);
    open.opened += 900;
    let start = bench.event(&open);
    assert_eq!(
        bench.sweep(161, &[(TCP, state(101, 160, 5))])[0].id,
        start[0].id
    );
    let end = bench.event(&event(EventKind::Close, TCP, 101, 162, 9));
    assert_eq!(brief(&end), [(Kind::End, 4, Some(EndReason::Forced))]);
    assert_eq!(end[0].id, start[0].id);
}

#[test]
fn the_reason_of_an_end_is_read_from_flags_and_reason() {
    for (flags, reason, expected) in [
        ([tcp::RST, tcp::FIN], Reason::Rule, EndReason::Rst),
        ([tcp::FIN, tcp::FIN], Reason::Rule, EndReason::Fin),
        ([tcp::ACK, tcp::ACK], Reason::Rule, EndReason::Forced),
        ([tcp::ACK, tcp::ACK], Reason::Revoked, EndReason::Revoked),
    ] {
        let mut bench = Bench::new();
        bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
        let mut close = event(EventKind::Close, TCP, 101, 110, 9);
        close.tcp_flags = flags;
        close.reason = reason as u8;
        let end = bench.event(&close);
        assert_eq!(end[0].end_reason, Some(expected));
        assert_eq!(
            end[0].reason,
            Reason::Rule as u8,
            "why it was permitted until then"
        );
    }
}

#[test]
fn a_flow_that_replaces_another_ends_it_though_its_close_was_lost() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    let reports = bench.event(&event(EventKind::Open, TCP, 120, 120, 1));
    assert_eq!(
        brief(&reports),
        [
            (Kind::End, 0, Some(EndReason::Forced)),
            (Kind::Start, 1, None)
        ]
    );
}

#[test]
fn a_closed_entry_is_not_reported_again_and_leaves_after_thirty_seconds() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    bench.event(&event(EventKind::Close, TCP, 101, 110, 9));
    let closed = FlowState {
        closed: 1,
        ..state(101, 110, 10)
    };
    assert_eq!(bench.sweep(115, &[(TCP, closed)]), []);
    assert_eq!(bench.removed(), 0);
    assert_eq!(bench.sweep(140, &[(TCP, closed)]), []);
    assert_eq!(bench.removed(), 1);
    // Older than the close: the listing was on its way.
    assert_eq!(bench.sweep(141, &[(TCP, state(101, 110, 4))]), []);
}

#[test]
fn a_closed_flow_that_goes_on_talking_does_not_do_so_unseen() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    bench.event(&event(EventKind::Close, TCP, 101, 110, 9));
    let closed = |last_seen, packets| FlowState {
        closed: 1,
        ..state(101, last_seen, packets)
    };
    assert_eq!(
        bench.sweep(115, &[(TCP, closed(114, 11))]),
        [],
        "a late acknowledgement"
    );
    let update = bench.sweep(170, &[(TCP, closed(169, 500))]);
    assert_eq!(brief(&update), [(Kind::Update, 491, None)]);
    assert_eq!(bench.removed(), 0);
}

#[test]
fn a_flow_that_talks_is_updated_every_minute() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    assert_eq!(bench.sweep(105, &[(TCP, state(101, 104, 5))]), []);
    let reports = bench.sweep(161, &[(TCP, state(101, 160, 8))]);
    assert_eq!(brief(&reports), [(Kind::Update, 7, None)]);
    assert_eq!(
        bench.sweep(230, &[(TCP, state(101, 160, 8))]),
        [],
        "nothing new"
    );
}

#[test]
fn each_protocol_has_its_idle_limit() {
    let half_open = FlowState {
        tcp_flags: [tcp::SYN, 0],
        ..state(101, 101, 1)
    };
    let closing = FlowState {
        tcp_flags: [tcp::ACK | tcp::FIN, tcp::ACK],
        ..state(101, 101, 1)
    };
    for (protocol, state, limit) in [
        (TCP, half_open, 30),
        (TCP, closing, 30),
        (TCP, state(101, 101, 1), 8100),
        (UDP, state(101, 101, 1), 60),
        (1, state(101, 101, 1), 10),
        (58, state(101, 101, 1), 10),
        (132, state(101, 101, 1), 60),
    ] {
        let mut bench = Bench::new();
        bench.event(&event(EventKind::Open, protocol, 101, 101, 1));
        assert_eq!(
            bench.sweep(100 + limit, &[(protocol, state)]),
            [],
            "{protocol} {limit}"
        );
        let end = bench.sweep(101 + limit, &[(protocol, state)]);
        assert_eq!(
            brief(&end),
            [(Kind::End, 0, Some(EndReason::Idle))],
            "{protocol} {limit}"
        );
        assert_eq!(
            end[0].end,
            Some(WallTime(101_000_000_000)),
            "when it was last heard"
        );
        assert_eq!(bench.removed(), 1);
    }
}

#[test]
fn an_idle_flow_that_speaks_before_it_is_removed_goes_on() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, UDP, 101, 101, 1));
    assert_eq!(bench.sweep(170, &[(UDP, state(101, 101, 1))]).len(), 1);
    assert_eq!(bench.sweep(175, &[(UDP, state(101, 101, 1))]), []);
    assert_eq!(bench.removed(), 1, "asked for again");
    assert_eq!(bench.sweep(180, &[(UDP, state(101, 179, 3))]), []);
    let end = bench.sweep(240, &[(UDP, state(101, 179, 3))]);
    assert_eq!(brief(&end), [(Kind::End, 2, Some(EndReason::Idle))]);
}

#[test]
fn a_flow_of_before_the_agent_counts_from_its_first_listing() {
    let mut bench = Bench::new();
    assert_eq!(bench.sweep(105, &[(TCP, state(50, 104, 1000))]), []);
    assert_eq!(bench.losses(), [("takeover".to_owned(), 1)]);
    let end = bench.event(&event(EventKind::Close, TCP, 50, 110, 1003));
    assert_eq!(brief(&end), [(Kind::End, 3, Some(EndReason::Forced))]);
}

#[test]
fn the_close_of_a_flow_of_before_the_agent_claims_no_traffic() {
    let mut bench = Bench::new();
    let end = bench.event(&event(EventKind::Close, TCP, 50, 101, 1003));
    assert_eq!(brief(&end), [(Kind::End, 0, Some(EndReason::Forced))]);
    bench.sweep(105, &[]);
    assert_eq!(bench.losses(), [("takeover".to_owned(), 1)]);
}

#[test]
fn a_flow_whose_opening_was_lost_counts_from_zero() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.sweep(105, &[(TCP, state(103, 104, 2))]),
        [],
        "it may be on its way"
    );
    assert_eq!(bench.sweep(110, &[(TCP, state(103, 104, 5))]), []);
    assert_eq!(bench.losses(), []);
    let end = bench.event(&event(EventKind::Close, TCP, 103, 112, 9));
    assert_eq!(brief(&end), [(Kind::End, 9, Some(EndReason::Forced))]);
}

#[test]
fn an_opening_that_comes_after_a_sweep_has_found_the_flow_is_still_a_start() {
    let mut bench = Bench::new();
    bench.sweep(110, &[(TCP, state(103, 104, 5))]);
    let start = bench.event(&event(EventKind::Open, TCP, 103, 103, 1));
    assert_eq!(brief(&start), [(Kind::Start, 5, None)]);
    let end = bench.event(&event(EventKind::Close, TCP, 103, 112, 9));
    assert_eq!(brief(&end), [(Kind::End, 4, Some(EndReason::Forced))]);
}

#[test]
fn a_close_that_was_lost_is_seen_by_two_listings() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    let tcp_flags = [tcp::RST, 0];
    let closed = FlowState {
        closed: 1,
        tcp_flags,
        ..state(101, 104, 5)
    };
    assert_eq!(bench.sweep(105, &[(TCP, closed)]), []);
    let end = bench.sweep(110, &[(TCP, closed)]);
    assert_eq!(brief(&end), [(Kind::End, 4, Some(EndReason::Rst))]);
    assert_eq!(
        bench.event(&event(EventKind::Close, TCP, 101, 104, 5)),
        [],
        "late"
    );
}

#[test]
fn a_flow_that_vanished_ends_with_its_last_counters() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    bench.sweep(105, &[(TCP, state(101, 104, 5))]);
    assert_eq!(bench.sweep(110, &[]), [], "a listing may skip an entry");
    let end = bench.sweep(115, &[]);
    assert_eq!(brief(&end), [(Kind::End, 4, Some(EndReason::Forced))]);
    assert_eq!(bench.tracker.len(), 0);
}

#[test]
fn a_listing_that_began_before_a_flow_says_nothing_about_it() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 106, 106, 1));
    for _ in 0..3 {
        assert_eq!(bench.sweep(105, &[]), []);
    }
    assert_eq!(bench.tracker.len(), 1);
}

#[test]
fn a_change_reports_what_the_old_rule_permitted() {
    let mut bench = Bench::new();
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    let mut change = event(EventKind::Change, TCP, 101, 105, 4);
    change.rule = 8;
    change.generation = 4;
    let update = bench.event(&change);
    assert_eq!(brief(&update), [(Kind::Update, 3, None)]);
    assert_eq!(update[0].rule, 7);
    // A listing of before the change does not bring the old rule back.
    bench.sweep(106, &[(TCP, state(101, 104, 4))]);
    let end = bench.event(&event(EventKind::Close, TCP, 101, 107, 6));
    assert_eq!((end[0].rule, end[0].delta[0].packets), (8, 2));
}

#[test]
fn who_came_first_is_learned_from_the_table() {
    let mut bench = Bench::new();
    let start = bench.event(&Event {
        direction: 0,
        ..event(EventKind::Open, TCP, 101, 101, 1)
    });
    assert_eq!(start[0].origin, Flow::INITIATED_BY_PEER);
    let mut close = event(EventKind::Close, TCP, 101, 104, 5);
    close.origin = Flow::INITIATED_BY_PEER | Flow::ADOPTED;
    assert_eq!(bench.event(&close)[0].origin, close.origin);
}

#[test]
fn memory_is_bounded_and_what_did_not_fit_is_counted() {
    let mut bench = Bench::with_capacity(1);
    bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    let start = bench.event(&event(EventKind::Open, UDP, 101, 101, 1));
    assert_eq!(
        brief(&start),
        [(Kind::Start, 1, None)],
        "the record is not lost"
    );
    bench.sweep(102, &[(TCP, state(101, 101, 1))]);
    assert_eq!(bench.losses(), [("tracker".to_owned(), 1)]);
    bench.sweep(170, &[(TCP, state(101, 101, 1)), (UDP, state(101, 101, 1))]);
    assert_eq!(
        bench.removed(),
        1,
        "the kernel's entry leaves when it is idle"
    );
    assert_eq!(bench.tracker.len(), 1);
}

#[test]
fn what_the_kernel_could_not_say_is_counted() {
    let mut bench = Bench::new();
    bench.event(&Event {
        kind: 99,
        ..event(EventKind::Open, TCP, 101, 101, 1)
    });
    let kernel = Lost {
        events: 5,
        flows: 1,
    };
    bench.sweep_input(&SweepInput {
        lost: kernel,
        ..input(105)
    });
    let loss = |stage: &str, count| (stage.to_owned(), count);
    assert_eq!(
        bench.losses(),
        [
            loss("ring-buffer", 5),
            loss("flow-table", 1),
            loss("tracker", 1)
        ]
    );
    bench.sweep_input(&SweepInput {
        lost: kernel,
        ..input(110)
    });
    assert_eq!(bench.losses(), []);
}

fn deny(at: u64) -> Event {
    let reason = Reason::DefaultDeny as u8;
    Event {
        reason,
        rule: 0,
        ..event(EventKind::Deny, TCP, at, at, 1)
    }
}

#[test]
fn a_denied_packet_is_reported_at_once_and_the_counted_ones_in_sums() {
    let mut bench = Bench::new();
    bench.sweep_input(&input(101));
    assert_eq!(brief(&bench.event(&deny(102))), [(Kind::Deny, 1, None)]);
    assert_eq!(bench.sweep_denials(106, 103, 5), [0; 0], "not yet");
    assert_eq!(bench.sweep_denials(111, 103, 8), [8]);
    assert_eq!(bench.sweep_denials(121, 103, 8), [0; 0], "nothing new");
    assert_eq!(bench.sweep_denials(131, 103, 9), [1]);
}

#[test]
fn denials_that_were_evicted_are_counted_anew() {
    let mut bench = Bench::new();
    bench.sweep_input(&input(101));
    assert_eq!(bench.sweep_denials(111, 102, 50), [50]);
    assert_eq!(bench.sweep_denials(121, 113, 60), [60]);
    assert_eq!(bench.sweep_denials(131, 123, 4), [4]);
}

#[test]
fn denials_since_the_agent_began_count_from_the_first_summary_on() {
    let mut bench = Bench::new();
    assert_eq!(bench.sweep_denials(STARTED + 5, STARTED + 1, 7), [7]);
    assert_eq!(bench.sweep_denials(STARTED + 15, STARTED + 1, 9), [2]);
}

#[test]
fn denials_of_before_the_agent_count_from_their_first_listing() {
    let mut bench = Bench::new();
    assert_eq!(bench.sweep_denials(101, 50, 50), [0; 0]);
    assert_eq!(bench.losses(), [("takeover".to_owned(), 1)]);
    assert_eq!(bench.sweep_denials(111, 50, 52), [2]);
}

#[test]
fn a_flow_of_before_the_attach_is_nothing_until_it_speaks() {
    let mut bench = Bench::new();
    let silent = FlowState {
        generation: Flow::NEVER,
        rule: 0,
        reason: Reason::Observed as u8,
        ..state(101, 101, 0)
    };
    for at in [106, 200] {
        assert_eq!(brief(&bench.sweep(at, &[(TCP, silent)])), []);
        assert_eq!(bench.removed(), 0);
    }
    let spoken = bench.event(&event(EventKind::Open, TCP, 101, 201, 0));
    assert_eq!(brief(&spoken), [(Kind::Start, 0, None)]);
    // A listing of before the event contradicts nothing.
    assert_eq!(brief(&bench.sweep(202, &[(TCP, silent)])), []);
    assert_eq!(
        brief(&bench.sweep(300, &[(TCP, state(101, 300, 5))])),
        [(Kind::Update, 5, None)]
    );
    // One that never speaks goes as silently.
    let mut bench = Bench::new();
    assert_eq!(brief(&bench.sweep(180, &[(UDP, silent)])), []);
    assert_eq!((bench.removed(), bench.losses()), (1, Vec::new()));
}

const SERVER: Process = Process {
    pid: 812,
    uid: 33,
    started: 5,
    cgroup: 77,
    comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
};

/// Whose socket each report says that it is.
fn named(reports: &[FlowReport]) -> Vec<(Kind, u32)> {
    let flows = reports.iter();
    flows.map(|flow| (flow.kind, flow.process.pid)).collect()
}

fn of_server(kind: EventKind, at: u64, packets: u64) -> Event {
    Event {
        process: SERVER,
        ..event(kind, TCP, 101, at, packets)
    }
}

#[test]
fn a_process_that_opened_a_flow_is_in_all_its_records() {
    let mut bench = Bench::new();
    let start = bench.event(&of_server(EventKind::Open, 101, 1));
    assert_eq!(named(&start), [(Kind::Start, 812)]);
    let end = bench.event(&event(EventKind::Close, TCP, 101, 103, 5));
    assert_eq!(
        named(&end),
        [(Kind::End, 812)],
        "its last packet names nobody"
    );
}

#[test]
fn who_answered_is_in_the_records_from_then_on() {
    let mut bench = Bench::new();
    let start = bench.event(&event(EventKind::Open, TCP, 101, 101, 1));
    assert_eq!(named(&start), [(Kind::Start, 0)]);
    let answer = bench.event(&of_server(EventKind::Answer, 102, 1));
    assert_eq!(named(&answer), [], "no record of its own");
    let end = bench.event(&event(EventKind::Close, TCP, 101, 103, 5));
    assert_eq!(named(&end), [(Kind::End, 812)]);
}

#[test]
fn an_answer_names_neither_a_flow_that_is_not_known_nor_another_one() {
    let mut bench = Bench::new();
    assert_eq!(
        named(&bench.event(&of_server(EventKind::Answer, 102, 1))),
        []
    );
    bench.event(&event(EventKind::Open, TCP, 110, 110, 1));
    bench.event(&of_server(EventKind::Answer, 111, 1));
    let end = bench.event(&event(EventKind::Close, TCP, 110, 112, 5));
    assert_eq!(named(&end), [(Kind::End, 0)]);
    assert_eq!(bench.losses(), []);
}

#[test]
fn a_flow_that_was_cut_and_goes_on_keeps_its_process() {
    let mut bench = Bench::new();
    bench.event(&of_server(EventKind::Open, 101, 1));
    let cut = Event {
        reason: Reason::Revoked as u8,
        ..event(EventKind::Close, TCP, 101, 103, 5)
    };
    assert_eq!(named(&bench.event(&cut)), [(Kind::End, 812)]);
    let again = bench.event(&event(EventKind::Open, TCP, 101, 105, 6));
    assert_eq!(named(&again), [(Kind::Start, 812)]);
    let other = bench.event(&event(EventKind::Open, TCP, 120, 120, 1));
    assert_eq!(named(&other), [(Kind::End, 812), (Kind::Start, 0)]);
}
