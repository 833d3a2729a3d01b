//! "Wait until", against what the reference says at every minute of the days to come.

use super::*;
use crate::model::{Schedule, Time, Weekday, Window};

/// Nobody may reach `shop/web` in these minutes of Sundays.
fn closed_on_sundays(zone: &str, from: u16, to: u16) -> World {
    let window = Window {
        days: [Weekday::Sunday].into(),
        from,
        to,
    };
    let sundays = When {
        schedule: Some(Schedule {
            zone: zone.to_owned(),
            windows: vec![window],
        }),
        ..When::default()
    };
    let mut world = example::world();
    let rules = vec![denies_everybody(sundays)];
    add(&mut world, for_web("sundays", Tier::Admin, rules));
    world
}

/// The first whole minute of the next seven days at which the verdict is another.
fn first_minute_of_another_verdict(world: &World, asked: Asked<'_>, now: Time) -> Option<Time> {
    let Asked { from, to, port } = asked;
    let verdict = |at| {
        let connection = Connection::new(world, from, to, port, Perspective::live(at)).unwrap();
        connection.verdict(&Reference(world))
    };
    let before = verdict(now);
    let next = now.unix() - now.unix().rem_euclid(60) + 60;
    (next..=now.unix() + 7 * 86_400)
        .step_by(60)
        .map(Time::from_unix)
        .find(|at| verdict(*at) != before)
}

/// What it says at each of these moments, and what reading the clock every minute says.
fn check(zone: &str, windows: &[(u16, u16)], moments: &[&str]) {
    for (from, to) in windows {
        let world = closed_on_sundays(zone, *from, *to);
        let end = |text| End::parse(&world, text).unwrap();
        let (source, destination) = (end("192.0.2.1"), end("shop/web"));
        let asked = Asked {
            from: &source,
            to: &destination,
            port: "TCP/80".parse().unwrap(),
        };
        for now in moments {
            let now = Time::parse(now).unwrap();
            let found = Counterfactual::find(&world, Perspective::live(now), asked).unwrap();
            let until = match found.changes.as_slice() {
                [
                    Step {
                        edit: Edit::Wait { until },
                        ..
                    },
                ] => Some(*until),
                _ => None,
            };
            let expected = first_minute_of_another_verdict(&world, asked, now);
            assert_eq!(until, expected, "{from} to {to} {zone}, at {now}");
        }
    }
}

/// Two o'clock is followed by three.
#[test]
fn waiting_knows_the_hour_that_berlin_leaves_out() {
    check(
        "Europe/Berlin",
        &[(135, 165), (90, 150), (150, 195), (120, 180), (1410, 130)],
        &[
            "2026-03-27T12:00:00Z",
            "2026-03-29T00:45:30Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:05:00Z",
        ],
    );
}

/// What shows a quarter past two shows it again.
#[test]
fn waiting_knows_the_hour_that_berlin_has_twice() {
    check(
        "Europe/Berlin",
        &[(135, 165), (90, 150), (150, 195), (120, 180), (1410, 130)],
        &[
            "2026-10-23T12:00:00Z",
            "2026-10-25T00:20:00Z",
            "2026-10-25T00:50:00Z",
            "2026-10-25T01:20:00Z",
            "2026-10-25T01:50:00Z",
        ],
    );
}

/// Two o'clock is followed by half past two.
#[test]
fn waiting_knows_the_half_hour_that_lord_howe_leaves_out() {
    check(
        "Australia/Lord_Howe",
        &[(125, 145), (105, 135), (135, 200), (120, 150), (1410, 125)],
        &[
            "2026-10-02T12:00:00Z",
            "2026-10-03T15:20:00Z",
            "2026-10-03T15:30:00Z",
            "2026-10-03T15:40:00Z",
        ],
    );
}

/// Two o'clock is half past one again.
#[test]
fn waiting_knows_the_half_hour_that_lord_howe_has_twice() {
    check(
        "Australia/Lord_Howe",
        &[(95, 115), (75, 105), (105, 135), (90, 120), (1410, 100)],
        &[
            "2026-04-03T12:00:00Z",
            "2026-04-04T14:40:00Z",
            "2026-04-04T14:58:00Z",
            "2026-04-04T15:10:00Z",
            "2026-04-04T15:28:00Z",
        ],
    );
}
