use std::sync::Mutex;

use agent_common::{flow::FlowKey, process::Process, table::Direction};

use super::*;
use crate::flow::{
    clock::{BootTime, WallTime},
    key::{FlowId, Key},
    report::Count,
};

/// Answers by number of the set; 0 is being replaced.
#[derive(Debug, Default)]
struct ByNumber(Mutex<Vec<u32>>);

const OPEN: u32 = 1;
const CLOSED: u32 = 2;
const REPLACED: u32 = 3;

impl PolicySets for ByNumber {
    fn ask(&self, flow: &FlowReport, endpoint: Endpoint, set: u32) -> Option<(Reason, RuleId)> {
        assert_eq!((endpoint.id, endpoint.flags), (flow.key.endpoint(), 1));
        self.0.lock().unwrap().push(set);
        match set {
            OPEN => Some((Reason::Rule, RuleId(7))),
            CLOSED => Some((Reason::DefaultDeny, RuleId::NONE)),
            _ => None,
        }
    }
}

fn flow(kind: Kind, reason: Reason) -> FlowReport {
    let key = Key::V4(FlowKey {
        endpoint: 4,
        protocol: 6,
        zero: 0,
        local_port: 80,
        remote_port: 4000,
        local: [10, 0, 0, 1],
        remote: [10, 0, 0, 2],
    });
    FlowReport {
        kind,
        id: FlowId::new(&key, 1),
        key,
        direction: Direction::Ingress,
        origin: 0,
        opened: BootTime(0),
        at: BootTime(0),
        start: WallTime(0),
        end: None,
        delta: [Count::default(); 2],
        tcp_flags: [0; 2],
        rtt: 0,
        end_reason: None,
        reason: reason as u8,
        rule: 0,
        generation: 1,
        process: Process::NOBODY,
        ifindex: 0,
    }
}

fn said(audit: Option<u32>, staged: Option<u32>, flow: &FlowReport) -> Vec<(View, bool)> {
    let views = Views {
        flags: 1,
        audit,
        staged,
    };
    let opinions = views.of(flow, &ByNumber::default());
    let said = opinions.iter();
    said.map(|opinion| (opinion.view, opinion.allows)).collect()
}

#[test]
fn a_view_is_heard_where_it_says_something_else() {
    let permitted = flow(Kind::Start, Reason::NotIsolated);
    assert_eq!(said(Some(OPEN), Some(OPEN), &permitted), []);
    assert_eq!(
        said(Some(CLOSED), Some(CLOSED), &permitted),
        [(View::Audit, false), (View::Staged, false)]
    );
    assert_eq!(said(Some(REPLACED), None, &permitted), []);
    // A connection may be older than the policy.
    let goes_on = flow(Kind::Update, Reason::Rule);
    assert_eq!(said(Some(CLOSED), None, &goes_on), [(View::Audit, false)]);

    let denied = flow(Kind::Deny, Reason::DefaultDeny);
    assert_eq!(said(Some(CLOSED), Some(CLOSED), &denied), []);
    // What is in audit denies beyond what is enforced, and permits nothing.
    assert_eq!(
        said(Some(OPEN), Some(OPEN), &denied),
        [(View::Staged, true)]
    );
}

#[test]
fn a_view_is_asked_about_policy_alone_and_not_in_the_end() {
    for flow in [
        flow(Kind::End, Reason::Rule),
        flow(Kind::Deny, Reason::SpoofedSource),
        flow(Kind::Deny, Reason::Fragment),
    ] {
        assert_eq!(said(Some(CLOSED), Some(OPEN), &flow), [], "{flow:?}");
    }
}

#[test]
fn opinions_are_counted_by_what_they_say() {
    let counts = OpinionCounts::default();
    assert!(counts.get().is_empty());
    for (view, allows) in [
        (View::Audit, false),
        (View::Staged, true),
        (View::Staged, true),
    ] {
        counts.add(Opinion {
            view,
            allows,
            reason: Reason::Rule,
            rule: RuleId(1),
        });
    }
    let expected = [("audit-deny".to_owned(), 1), ("staged-allow".to_owned(), 2)];
    assert_eq!(counts.get(), expected.into());
}
