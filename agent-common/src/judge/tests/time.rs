//! Answers that change by themselves.

use super::*;

const NOON: u64 = 1_000;

#[test]
fn a_permission_that_ends_cuts_the_live_flow_without_anybody() {
    let mut case = Case::new(&[], &[]);
    let ends = Decision::new(Action::Allow, RuleId(4)).until(NOON, Action::Deny, RuleId(5));
    case.told(HTTPS, ends);
    case.0.now = NOON - 1;
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    // It is judged with every packet.
    let flows = case.0.flows_v4();
    assert!(flows.values().all(|flow| flow.generation == Flow::NEVER));
    case.0.now = NOON;
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4001, 443, SYN)), Reason::DenyRule);
    let events = case.0.events();
    let close = events
        .iter()
        .find(|event| event.kind == EventKind::Close as u8);
    // It ends as what it was permitted by; what is dropped from now on, as what denies it.
    assert_eq!(close.map(|event| event.rule), Some(4));
    let denied = events
        .iter()
        .filter(|event| event.kind == EventKind::Deny as u8);
    let denied: Vec<u32> = denied.map(|event| event.rule).collect();
    assert_eq!(denied, [5, 5, 5]);
}

#[test]
fn a_denial_that_ends_lets_the_cut_flow_go_on() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.now = NOON - 1;
    let ends = Decision::new(Action::Deny, RuleId(4)).until(NOON, Action::Allow, RuleId(9));
    case.told(HTTPS, ends);
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    case.0.now = NOON;
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    assert_eq!(case.kinds().last(), Some(&(EventKind::Open as u8)));
}

#[test]
fn a_schedule_that_nobody_goes_on_with_is_closed() {
    let mut case = Case::new(&[], &[]);
    let goes_on = Decision::new(Action::Allow, RuleId(4)).until(NOON, Action::Stale, RuleId::NONE);
    case.told(HTTPS, goes_on);
    case.0.now = NOON - 1;
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.now = NOON;
    assert_eq!(
        case.sends(&out().tcp(4001, 443, SYN)),
        Reason::StaleSchedule
    );
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
}

#[test]
fn a_verdict_that_is_timed_no_more_is_remembered_again() {
    let mut case = Case::new(&[], &[HTTPS]);
    case.told(
        HTTPS,
        Decision::new(Action::Allow, RuleId(4)).until(NOON, Action::Deny, RuleId::NONE),
    );
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.told(HTTPS, Decision::new(Action::Allow, RuleId(4)));
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    let generations: Vec<u32> = case
        .0
        .flows_v4()
        .values()
        .map(|flow| flow.generation)
        .collect();
    assert_eq!(generations, [3]);
}

#[test]
fn an_endpoint_that_is_no_more_is_closed_for_every_flow() {
    let mut case = Case::new(&[], &[HTTPS]);
    let ends = Decision::new(Action::Allow, RuleId(4)).until(NOON, Action::Deny, RuleId::NONE);
    case.told(HTTPS, ends);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.tables.told.clear();
    case.0.tables.egress.clear();
    case.0.words.clear();
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
}
