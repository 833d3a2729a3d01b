//! When something that policies say begins or ends.

use std::collections::BTreeSet;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::model::{Schedule, Time, Weekday, When, Window, World};

/// Nobody calls it a small change to wait for longer.
const HORIZON_DAYS: i64 = 7;
const DAY: i64 = 24 * 60 * 60;

/// The moments of the next days at which some policy may say something else, in order.
pub(super) fn after(world: &World, now: Time) -> BTreeSet<Time> {
    let mut found = BTreeSet::new();
    for policy in world.tier_policies.values() {
        let rules = policy.ingress.iter().chain(&policy.egress);
        for when in rules.map(|rule| &rule.when).chain([&policy.when]) {
            edges(when, now, &mut found);
        }
    }
    let end = Time::from_unix(now.unix().saturating_add(HORIZON_DAYS * DAY));
    found.retain(|time| now < *time && *time <= end);
    found
}

fn edges(when: &When, now: Time, found: &mut BTreeSet<Time>) {
    let When {
        not_before,
        expires,
        schedule,
    } = when;
    found.extend(not_before.iter().chain(expires));
    let Some(Schedule { zone, windows }) = schedule else {
        return;
    };
    let Some(zone) = Schedule::time_zone(zone) else {
        return;
    };
    let Ok(now) = Timestamp::from_second(now.unix()) else {
        return;
    };
    // What began yesterday may end today.
    let mut day = now.to_zoned(zone.clone()).date();
    day = day.yesterday().unwrap_or(day);
    for _ in 0..=HORIZON_DAYS + 1 {
        for window in windows
            .iter()
            .filter(|window| window.days.contains(&weekday(day)))
        {
            let Window { days: _, from, to } = window;
            found.extend(moment(day, *from, &zone));
            let last = if to <= from { day.tomorrow() } else { Ok(day) };
            found.extend(last.ok().and_then(|day| moment(day, *to, &zone)));
        }
        let Ok(next) = day.tomorrow() else {
            return;
        };
        day = next;
    }
}

/// Minutes after the midnight that a day begins with, by the clock on the wall.
fn moment(day: Date, minutes: u16, zone: &TimeZone) -> Option<Time> {
    let day = if minutes < 24 * 60 {
        day
    } else {
        day.tomorrow().ok()?
    };
    let minutes = minutes % (24 * 60);
    let hour = i8::try_from(minutes / 60).ok()?;
    let minute = i8::try_from(minutes % 60).ok()?;
    let zoned = day.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?;
    Some(Time::from_unix(zoned.timestamp().as_second()))
}

fn weekday(day: Date) -> Weekday {
    match day.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_an_edge_where_it_begins_and_where_it_ends() {
        let when = When {
            schedule: Some(Schedule {
                zone: "Europe/Berlin".to_owned(),
                windows: vec![Window {
                    days: [Weekday::Monday].into(),
                    from: 22 * 60,
                    to: 6 * 60,
                }],
            }),
            ..When::default()
        };
        let mut found = BTreeSet::new();
        // A Tuesday night.
        let now = Time::parse("2026-12-01T01:00:00Z").unwrap();
        edges(&when, now, &mut found);
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "2026-11-30T21:00:00Z",
                "2026-12-01T05:00:00Z",
                "2026-12-07T21:00:00Z",
                "2026-12-08T05:00:00Z"
            ]
        );
    }
}
