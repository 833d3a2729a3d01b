//! The order of look-ups, and what a decision comes to at a moment.

use std::collections::BTreeMap;

use super::*;

const SET: u32 = 5;
const LOCAL: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const NODE: [u8; 4] = [10, 0, 0, 254];
const NOON: u64 = 1_000;
const OWNER: u16 = Endpoint::OWNS_ADDRESSES;

/// One decision a table, whatever the port; the node's address is the only one with an identity.
#[derive(Debug, Default)]
struct Told {
    /// By direction and identity.
    answers: BTreeMap<(u32, u32), Decision>,
    now: u64,
}

impl Told {
    fn says(mut self, direction: Direction, identity: u32, decision: Decision) -> Self {
        self.answers.insert((direction as u32, identity), decision);
        self
    }

    fn at(self, now: u64) -> Self {
        Self { now, ..self }
    }

    fn asked(&self, flags: u16, direction: Direction, peer: [u8; 4], made_here: bool) -> Verdict {
        decide(
            self,
            &Question {
                endpoint: Endpoint { id: 1, flags },
                word: Word::new(SET, 1),
                direction,
                local: LOCAL,
                peer,
                socket: NO_SOCKET,
                protocol: 6,
                port: 443,
                made_here,
            },
        )
    }
}

impl Tables<[u8; 4]> for Told {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        Versioned::settled(if *address == NODE {
            THIS_NODE | 9
        } else {
            WORLD
        })
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        let known = (1..)
            .zip(self.answers.keys())
            .find(|(_, (direction, identity))| {
                (key.set, key.direction, key.identity) == (SET, *direction, *identity)
            });
        Versioned::settled(known.map_or(NO_TABLE, |(table, _)| table))
    }

    fn decision(&self, key: &PortKey) -> Decision {
        let place = u32::from_be_bytes(key.table) as usize - 1;
        self.answers.values().nth(place).copied().unwrap()
    }

    fn now(&self) -> u64 {
        self.now
    }
}

fn by(action: Action, rule: u32) -> Decision {
    Decision::new(action, RuleId(rule))
}

fn outcome_of(decision: Decision, now: u64) -> (Reason, u32, bool) {
    let told = Told::default().says(Direction::Egress, WORLD, decision);
    let verdict = told.at(now).asked(OWNER, Direction::Egress, PEER, false);
    (verdict.reason(), verdict.rule().0, verdict.rejects())
}

#[test]
fn a_decision_says_what_happens_and_by_which_rule() {
    for (action, rule, expected) in [
        (Action::Allow, 7, (Reason::Rule, 7, false)),
        (Action::Allow, 0, (Reason::NotIsolated, 0, false)),
        (Action::Deny, 7, (Reason::DenyRule, 7, false)),
        (Action::Deny, 0, (Reason::DefaultDeny, 0, false)),
        (Action::Reject, 7, (Reason::DenyRule, 7, true)),
        (Action::Reject, 0, (Reason::DefaultDeny, 0, true)),
        (Action::Stale, 0, (Reason::StaleSchedule, 0, false)),
        (Action::Stale, 7, (Reason::StaleSchedule, 7, false)),
    ] {
        assert_eq!(outcome_of(by(action, rule), NOON), expected, "{action:?}");
    }
}

#[test]
fn an_action_of_another_version_is_denied() {
    let unknown = Decision {
        action: 77,
        ..by(Action::Allow, 7)
    };
    assert_eq!(outcome_of(unknown, NOON), (Reason::DenyRule, 7, false));
}

#[test]
fn a_decision_holds_until_its_moment_and_then_the_other() {
    let timed = by(Action::Allow, 7).until(NOON, Action::Reject, RuleId(8));
    assert_eq!(outcome_of(timed, NOON - 1), (Reason::Rule, 7, false));
    assert_eq!(outcome_of(timed, NOON), (Reason::DenyRule, 8, true));
    assert_eq!(outcome_of(timed, u64::MAX), (Reason::DenyRule, 8, true));
    let ends = by(Action::Deny, 7).until(NOON, Action::Allow, RuleId::NONE);
    assert_eq!(outcome_of(ends, NOON - 1), (Reason::DenyRule, 7, false));
    assert_eq!(outcome_of(ends, NOON), (Reason::NotIsolated, 0, false));
    let goes_on = by(Action::Allow, 7).until(NOON, Action::Stale, RuleId::NONE);
    assert_eq!(outcome_of(goes_on, NOON), (Reason::StaleSchedule, 0, false));
}

#[test]
fn only_what_may_change_by_itself_is_timed() {
    let timed = |decision, now| {
        let told = Told::default().says(Direction::Egress, WORLD, decision);
        let verdict = told.at(now).asked(OWNER, Direction::Egress, PEER, false);
        verdict.is_timed()
    };
    let for_ever = by(Action::Allow, 7);
    assert!(!timed(for_ever, NOON) && !timed(for_ever, u64::MAX));
    let ends = for_ever.until(NOON, Action::Deny, RuleId::NONE);
    assert!(timed(ends, 0));
    // Over is over, but only new tables say so.
    assert!(timed(ends, NOON));
}

#[test]
fn the_own_node_is_permitted_unless_the_set_says_otherwise() {
    let told = Told::default().says(Direction::Ingress, WORLD, by(Action::Deny, 0));
    let ingress = Direction::Ingress;
    let reason = |verdict: Verdict| verdict.reason();
    assert_eq!(
        reason(told.asked(OWNER, ingress, NODE, true)),
        Reason::OwnNode
    );
    // Forwarded; of an endpoint that shares its addresses; from somebody else.
    assert_eq!(
        reason(told.asked(OWNER, ingress, NODE, false)),
        Reason::DefaultDeny
    );
    assert_eq!(
        reason(told.asked(0, ingress, NODE, true)),
        Reason::DefaultDeny
    );
    assert_eq!(
        reason(told.asked(OWNER, ingress, PEER, true)),
        Reason::DefaultDeny
    );

    let quarantined = told
        .says(
            ingress,
            THIS_NODE,
            by(Action::Deny, 7).until(NOON, Action::Allow, RuleId::NONE),
        )
        // The node's address as an address like any other.
        .says(ingress, 9, by(Action::Allow, 8));
    let verdict = quarantined.asked(OWNER, ingress, NODE, true);
    assert_eq!((verdict.reason(), verdict.rule().0), (Reason::DenyRule, 7));
    assert_eq!(
        quarantined.asked(OWNER, ingress, NODE, false).rule().0,
        8,
        "what is forwarded is not the node's own"
    );
    let over = quarantined.at(NOON);
    assert_eq!(
        reason(over.asked(OWNER, ingress, NODE, true)),
        Reason::OwnNode
    );
}

#[test]
fn an_endpoint_reaches_itself_whatever_the_set_says() {
    let told = Told::default().says(Direction::Egress, WORLD, by(Action::Deny, 7));
    let verdict = told.asked(OWNER, Direction::Egress, LOCAL, false);
    assert_eq!(verdict.reason(), Reason::OwnAddress);
    let verdict = told.asked(0, Direction::Egress, LOCAL, false);
    assert_eq!(verdict.reason(), Reason::DenyRule);
}

#[test]
fn a_set_without_answers_is_closed() {
    let verdict = Told::default().asked(OWNER, Direction::Egress, PEER, false);
    assert_eq!(verdict.reason(), Reason::NotProgrammed);
}

#[test]
fn a_case_is_the_same_after_being_three_numbers() {
    for direction in [Direction::Ingress, Direction::Egress] {
        for made_here in [false, true] {
            let case = Case {
                flags: 0xfedc,
                word: Word::new(SET, 0xabcd),
                direction,
                identity: THIS_NODE | 7,
                socket: 0x8765_4321,
                protocol: 132,
                port: 0x1234,
                made_here,
            };
            assert_eq!(Case::from_words(case.to_words()), case);
        }
    }
}
