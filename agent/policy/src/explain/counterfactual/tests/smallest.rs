//! What is said, against every edit of the list in the documentation.

mod list;

use proptest::test_runner::TestCaseError;

use super::*;
use crate::{
    connection::Outcome,
    model::SubjectName,
    question::{Evaluator, Question},
};

/// A question about a world.
#[derive(Clone, Copy)]
struct Case<'a> {
    world: &'a World,
    perspective: Perspective,
    asked: Asked<'a>,
}

impl Case<'_> {
    /// The verdict after some edits; `None` if the ends can no longer talk to each other.
    fn after(self, edits: &[Edit]) -> Option<Verdict> {
        let (mut changed, mut later) = (self.world.clone(), self.perspective);
        for edit in edits {
            edit.apply(&mut changed, &mut later);
        }
        let Asked { from, to, port } = self.asked;
        let connection = Connection::new(&changed, from, to, port, later).ok()?;
        Some(connection.verdict(&Reference(&changed)))
    }
}

/// The ends and the port of a question.
fn connection_of(question: &Question) -> (End, End, Port) {
    let subject = match &question.subject {
        SubjectName::Workload(name) => End::Workload(name.clone()),
        SubjectName::Node(name) => End::Node(name.clone()),
    };
    let peer = End::Address(question.peer);
    let (from, to) = match question.direction {
        Direction::Ingress => (peer, subject),
        Direction::Egress => (subject, peer),
    };
    let port = Port {
        protocol: question.protocol,
        number: question.port,
    };
    (from, to, port)
}

/// Whether no edit can be expected.
fn is_beyond_edits(connection: &Connection, outcome: &Outcome, port: Port) -> bool {
    // Frontends behind a frontend can not be asked about one by one.
    if connection.backends.iter().any(|one| !one.stands_alone) {
        return true;
    }
    // A port that no rule can list apart, and what policy has no say about.
    let unlisted = matches!(port.protocol, 6 | 17 | 132) && port.number == 0;
    let beyond = [&outcome.egress, &outcome.ingress].into_iter().all(|side| {
        matches!(
            side.reason,
            Reason::Itself | Reason::NoSubject | Reason::OwnAddress | Reason::OwnNode
        ) || side.kind == Some(PolicyKind::Failsafe)
    });
    outcome.verdict == Verdict::Allow && (unlisted || beyond)
}

/// Whether an edit comes before what is said. New rules in one place come at once, however they
/// call the peer; and so does an item of ports, for whichever port it goes.
fn comes_before(edit: &Edit, said: &Edit) -> bool {
    match (edit, said) {
        (
            Edit::RemovePort { rule, position, .. },
            Edit::RemovePort {
                rule: of,
                position: at,
                ..
            },
        ) if (rule, position) == (of, at) => false,
        (Edit::AddRule { rule, .. }, Edit::AddRule { rule: said, .. }) => rule < said,
        _ => edit < said,
    }
}

/// Together the edits turn the verdict round, and none of them can be left out.
fn check_said(case: Case<'_>, found: &Counterfactual, said: &[Edit]) -> Result<(), TestCaseError> {
    if said.is_empty() {
        prop_assert_eq!(found.searched, Searched::Part);
        return Ok(());
    }
    prop_assert_eq!(case.after(said), Some(found.verdict), "{:?}", found);
    for place in 0..said.len() {
        let mut others = said.to_vec();
        let left_out = others.remove(place);
        let then = case.after(&others);
        prop_assert_ne!(
            then,
            Some(found.verdict),
            "{:?} without {}",
            found,
            left_out
        );
    }
    Ok(())
}

/// No edit of the list that comes before what is said turns the verdict round; none at all where
/// several are said.
fn check_smaller(
    case: Case<'_>,
    connection: &Connection,
    found: &Counterfactual,
    said: &[Edit],
) -> Result<(), TestCaseError> {
    let is_smaller = |edit: &Edit| match said {
        [said] => comes_before(edit, said),
        _ => true,
    };
    let turns = |edits: &[Edit]| case.after(edits) == Some(found.verdict);
    for edit in list::half_hours(case.perspective.at).filter(is_smaller) {
        prop_assert!(
            !turns(std::slice::from_ref(&edit)),
            "{:?}, but {}",
            found,
            edit
        );
    }
    for need in connection.needs() {
        let why = Reference(case.world).answer(&need.asked).why;
        for (edit, undone) in list::about(case.world, &need, &why) {
            if is_smaller(&edit) && turns(std::slice::from_ref(&edit)) {
                let by_accident = undone.is_some_and(|undo| turns(&[edit.clone(), undo]));
                prop_assert!(by_accident, "{:?}, but {}", found, edit);
            }
        }
    }
    Ok(())
}

fn check(world: &World, question: &Question) -> Result<(), TestCaseError> {
    let (from, to, port) = connection_of(question);
    let (view, at) = (question.view, question.at);
    let case = Case {
        world,
        perspective: Perspective { view, at },
        asked: Asked {
            from: &from,
            to: &to,
            port,
        },
    };
    let Ok(connection) = Connection::new(world, &from, &to, port, case.perspective) else {
        return Ok(());
    };
    let outcome = connection.judge(world, &Reference(world));
    let Some(found) = Counterfactual::find(world, case.perspective, case.asked) else {
        let beyond = is_beyond_edits(&connection, &outcome, port);
        prop_assert!(beyond, "{:?} {:?}", question, outcome);
        return Ok(());
    };
    prop_assert_ne!(found.verdict, outcome.verdict);
    let said: Vec<Edit> = found.changes.iter().map(|step| step.edit.clone()).collect();
    check_said(case, &found, &said)?;
    // Frontends behind a frontend can not be asked about one by one.
    let apart = connection.backends.iter().all(|one| one.stands_alone);
    if apart && found.searched == Searched::All {
        check_smaller(case, &connection, &found, &said)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// And what is denied, by a default deny above all, can always be permitted.
    #[test]
    fn what_is_said_turns_the_verdict_round_and_no_smaller_edit_does(
        (world, _, questions) in strategies::world_and_questions(),
    ) {
        for question in questions.iter().take(16) {
            check(&world, question)?;
        }
    }
}
