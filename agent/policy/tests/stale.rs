//! Tables that nobody compiles again: what they permit later, and what they close.

use agent_policy::{
    compiled::Everywhere,
    load::{InputFile, load},
    model::{Direction, ObjectName, Time},
    question::{Answer, Evaluator, Origin, Question, View, Why},
};

/// Rules of ingress for one workload: `SCHEDULED` on weekdays from nine to five, then what else is
/// given, then nothing more.
fn world(otherwise: &str) -> agent_policy::model::World {
    let text = format!(
        "apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {{namespace: shop, name: db}}
spec: {{addresses: [10.1.0.1]}}
---
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {{name: hours}}
spec:
  tier: Admin
  priority: 1
  subject: {{workloads: {{}}}}
  ingress:
  - action: Allow
    when:
      schedule:
        timeZone: UTC
        windows:
        - days: [Monday, Tuesday, Wednesday, Thursday, Friday]
          from: \"09:00\"
          to: \"17:00\"
{otherwise}
  - action: Deny
"
    );
    let loaded = load([InputFile {
        name: "hours.yaml".into(),
        bytes: text.into_bytes(),
    }]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.world
}

fn time(text: &str) -> Time {
    Time::parse(text).unwrap()
}

/// Asks tables of Monday, ten o'clock.
fn answer(otherwise: &str, at: &str) -> Answer {
    let world = world(otherwise);
    Everywhere::new(&world, time("2026-11-23T10:00:00Z")).answer(&asked(time(at)))
}

fn asked(at: Time) -> Question {
    Question {
        subject: ObjectName::new("shop", "db").into(),
        direction: Direction::Ingress,
        peer: [192, 0, 2, 1].into(),
        socket: None,
        protocol: 6,
        port: 80,
        origin: Origin::Forwarded,
        view: View::Live,
        at,
    }
}

#[test]
fn a_permission_ends_on_time_and_does_not_begin_again_by_itself() {
    for (at, allows) in [
        ("2026-11-23T16:59:59Z", true),
        ("2026-11-23T17:00:00Z", false),
        ("2026-11-24T10:00:00Z", false),
    ] {
        assert_eq!(answer("", at).allows(), allows, "{at}");
    }
}

#[test]
fn what_is_permitted_at_any_time_is_never_closed() {
    for at in [
        "2026-11-23T16:59:59Z",
        "2026-11-23T17:00:00Z",
        "2026-11-24T10:00:00Z",
        "2027-11-24T10:00:00Z",
    ] {
        assert!(answer("  - action: Allow", at).allows(), "{at}");
    }
}

#[test]
fn what_a_schedule_may_deny_is_closed_where_it_is_not_known() {
    let nightly = "  - {action: Deny, when: {schedule: {timeZone: UTC, windows: \
        [{days: [Monday], from: \"17:00\", to: \"18:00\"}]}}}
  - {action: Allow}";
    assert!(answer(nightly, "2026-11-23T10:00:00Z").allows());
    assert!(!answer(nightly, "2026-11-23T17:30:00Z").allows());
    // Permitted by now, and denied again in a week: no table says so much.
    assert!(!answer(nightly, "2026-11-23T18:30:00Z").allows());
    assert_ne!(
        answer(nightly, "2026-11-23T17:30:00Z").why,
        Why::NotIsolated
    );
}

/// Tables of any year tell the moments around their own apart.
#[test]
fn a_permission_ends_on_time_in_every_year() {
    for (expires, compiled, at, allows) in [
        (
            "1965-01-01",
            "1964-12-31T23:00:00",
            "1964-12-31T23:59:59",
            true,
        ),
        (
            "1965-01-01",
            "1964-12-31T23:00:00",
            "1965-01-01T00:00:00",
            false,
        ),
        (
            "1965-01-01",
            "1965-01-01T00:00:00",
            "1965-01-01T00:00:00",
            false,
        ),
        (
            "2600-01-01",
            "2599-12-31T23:00:00",
            "2600-01-01T00:00:00",
            false,
        ),
        (
            "9000-01-01",
            "8999-12-31T23:00:00",
            "8999-12-31T23:59:59",
            true,
        ),
        (
            "9000-01-01",
            "8999-12-31T23:00:00",
            "9000-01-01T00:00:00",
            false,
        ),
        (
            "9999-12-31",
            "1950-01-01T00:00:00",
            "1950-01-01T00:00:00",
            true,
        ),
        (
            "9999-12-31",
            "9000-01-01T00:00:00",
            "9000-01-01T00:00:00",
            true,
        ),
    ] {
        let rule = format!("  - {{action: Allow, when: {{expires: {expires}T00:00:00Z}}}}");
        let world = world(&rule);
        let tables = Everywhere::new(&world, time(&format!("{compiled}Z")));
        let found = tables.answer(&asked(time(&format!("{at}Z"))));
        assert_eq!(found.allows(), allows, "until {expires}, at {at}");
    }
}
