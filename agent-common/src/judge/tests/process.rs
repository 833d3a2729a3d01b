//! When it is told whose socket a flow is of.

use super::*;
use crate::judge::live::PATIENCE;
use crate::process::Process;

const SERVER: Process = Process {
    pid: 7,
    ..Process::NOBODY
};
const DNS: (u8, u16) = (protocol::UDP, 53);
const OPEN: u8 = EventKind::Open as u8;
const ANSWER: u8 = EventKind::Answer as u8;

fn case() -> Case {
    let mut case = Case::new(&[HTTPS, DNS], &[HTTPS, DNS]);
    case.0.process = SERVER;
    case
}

/// Kind and process of what was reported.
fn told(case: &mut Case) -> Vec<(u8, u32)> {
    let events = case.0.events();
    events
        .iter()
        .map(|event| (event.kind, event.process.pid))
        .collect()
}

fn asks() -> PacketBuilder {
    back().udp(5000, 53)
}

fn answers() -> PacketBuilder {
    out().udp(53, 5000)
}

/// The generation of the one flow that there is.
fn generation(case: &Case) -> u32 {
    let flows = case.0.flows_v4();
    assert_eq!(flows.len(), 1);
    flows.values().next().unwrap().generation
}

#[test]
fn who_begins_is_told_with_the_opening_and_who_is_refused_with_the_denial() {
    let mut case = case();
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.sends(&out().udp(5000, 53)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4000, 444, SYN)), Reason::DefaultDeny);
    let deny = EventKind::Deny as u8;
    assert_eq!(told(&mut case), [(OPEN, 7), (OPEN, 7), (deny, 7)]);
    assert_eq!(case.gets(&back().tcp(443, 4000, SYN | ACK)), Reason::Rule);
    assert_eq!(case.gets(&back().udp(53, 5000)), Reason::Rule);
    assert_eq!(told(&mut case), [], "the answer's socket is another's");
}

#[test]
fn who_listens_is_told_with_the_first_answer_alone() {
    let mut case = case();
    assert_eq!(case.gets(&back().tcp(4000, 443, SYN)), Reason::Rule);
    told(&mut case);
    for _ in 0..2 {
        assert_eq!(case.sends(&out().tcp(443, 4000, SYN | ACK)), Reason::Rule);
    }
    assert_eq!(told(&mut case), [(ANSWER, 7)]);

    assert_eq!(case.gets(&asks()), Reason::Rule);
    told(&mut case);
    for _ in 0..2 {
        assert_eq!(case.sends(&answers()), Reason::Rule);
    }
    assert_eq!(told(&mut case), [(ANSWER, 7)]);
}

#[test]
fn an_answer_of_nobody_known_is_not_told() {
    let mut case = case();
    case.0.process = Process::NOBODY;
    assert_eq!(case.gets(&back().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(443, 4000, SYN | ACK)), Reason::Rule);
    assert_eq!(told(&mut case), [(OPEN, 0)]);
}

#[test]
fn the_last_packet_of_a_flow_may_be_another_flows_first() {
    let mut case = case();
    for flags in [SYN, RST, SYN] {
        assert_eq!(case.sends(&out().tcp(4000, 443, flags)), Reason::Rule);
    }
    let close = EventKind::Close as u8;
    assert_eq!(told(&mut case), [(OPEN, 7), (close, 0), (OPEN, 7)]);
}

#[test]
fn a_flow_waits_for_its_answer_without_saying_so() {
    let mut case = case();
    assert_eq!(case.gets(&asks()), Reason::Rule);
    assert_eq!(generation(&case), Flow::NEVER);
    let events = case.0.events();
    assert_eq!(events.first().map(|event| event.generation), Some(1));
    assert_eq!(case.sends(&answers()), Reason::Rule);
    assert_eq!(generation(&case), 1, "it costs what any flow costs");
}

#[test]
fn what_is_never_answered_is_not_waited_for_for_ever() {
    let mut case = case();
    for _ in 0..PATIENCE {
        assert_eq!(case.gets(&asks()), Reason::Rule);
        assert_eq!(generation(&case), Flow::NEVER);
    }
    assert_eq!(case.gets(&asks()), Reason::Rule);
    assert_eq!(generation(&case), 1);
    assert_eq!(told(&mut case), [(OPEN, 7)]);
    let flows = case.0.flows_v4();
    let packets: Vec<_> = flows.values().map(|flow| flow.packets).collect();
    assert_eq!(packets, [[PATIENCE + 1, 0]]);
}

#[test]
fn a_flow_that_waits_is_judged_by_the_policy_of_each_moment() {
    let mut case = case();
    assert_eq!(case.gets(&asks()), Reason::Rule);
    case.told(DNS, Decision::new(Action::Deny, RuleId(5)));
    assert_eq!(case.gets(&asks()), Reason::Revoked);
    assert_eq!(case.sends(&answers()), Reason::Revoked);
    case.told(DNS, Decision::new(Action::Allow, RuleId(6)));
    assert_eq!(case.sends(&answers()), Reason::Rule);
    assert_eq!(generation(&case), 3);
}

#[test]
fn in_a_cgroup_the_first_packet_has_a_socket_and_nothing_is_waited_for() {
    let case = case();
    let frame = asks().frame();
    let mut headers = Headers::<[u8; 4]>::EMPTY;
    let packet = crate::testing::Slice(&frame);
    crate::parse::parse(&packet, 14, &mut headers).unwrap();
    let mut sight = case
        .0
        .sight(ENDPOINT, Direction::Ingress, frame.len() - 14, false);
    sight.ifindex = 0;
    assert!(judge(&case.0, &packet, &headers, &sight).allows());
    assert_eq!(generation(&case), 1);
}
