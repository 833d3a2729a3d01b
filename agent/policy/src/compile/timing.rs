//! When rules exist: whether at a moment, and when that may next change.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::model::{Schedule, Time, Weekday, When, Window};

/// Two weeks and a day. A schedule that changes anything does so twice within that, wherever in its
/// week it is looked at, and be there a change of the clocks between.
const HORIZON_DAYS: i64 = 15;

/// A week less than the horizon.
const KNOWN_SECONDS: i64 = (HORIZON_DAYS - 8) * 86_400;

/// Several conditions that must all hold, such as those of a policy and of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    conditions: Vec<When>,
    /// Moments after the one it was made for at which it may begin or end to hold, in order.
    pub(super) changes: Vec<Time>,
    /// Until when a schedule's moments are all among them, with a week to spare; `None` without one.
    pub(super) known_until: Option<Time>,
}

impl Timing {
    /// `None` if it holds always.
    pub(super) fn new(conditions: &[&When], now: Time) -> Option<Arc<Self>> {
        let conditions: Vec<When> = conditions
            .iter()
            .filter(|when| !when.is_always())
            .map(|when| (*when).clone())
            .collect();
        if conditions.is_empty() {
            return None;
        }
        let mut changes = BTreeSet::new();
        // A schedule need not be looked at before anything else can hold.
        let begins = conditions.iter().filter_map(|when| when.not_before).max();
        let from = begins.map_or(now, |begins| begins.max(now));
        for when in &conditions {
            let When {
                not_before,
                expires,
                schedule,
            } = when;
            changes.extend(not_before.iter().chain(expires));
            changes.extend(schedule.iter().flat_map(|schedule| borders(schedule, from)));
        }
        let ends = conditions.iter().filter_map(|when| when.expires).min();
        changes.retain(|change| *change > now && ends.is_none_or(|ends| *change <= ends));
        Some(Arc::new(Self {
            known_until: conditions
                .iter()
                .any(|when| when.schedule.is_some())
                .then(|| Time::from_unix(from.unix().saturating_add(KNOWN_SECONDS))),
            conditions,
            changes: changes.into_iter().collect(),
        }))
    }

    pub(super) fn holds(&self, at: Time) -> bool {
        self.conditions.iter().all(|when| holds(when, at))
    }
}

fn holds(when: &When, at: Time) -> bool {
    let When {
        not_before,
        expires,
        schedule,
    } = when;
    not_before.is_none_or(|begin| begin <= at)
        && expires.is_none_or(|end| at < end)
        && schedule
            .as_ref()
            .is_none_or(|schedule| in_window(schedule, at))
}

fn in_window(schedule: &Schedule, at: Time) -> bool {
    let Some((zone, at)) = Schedule::time_zone(&schedule.zone).zip(timestamp(at)) else {
        // The parser knows the zone: should it not, a rule that may not hold does not.
        return false;
    };
    let shown = zone.to_datetime(at);
    let minute = minute_of_day(shown.time());
    let today = weekday(shown.date().weekday());
    let yesterday = weekday(shown.date().weekday().previous());
    schedule.windows.iter().any(|window| {
        let Window { days, from, to } = window;
        let crosses = to <= from;
        let begun_today = days.contains(&today) && minute >= *from && (crosses || minute < *to);
        begun_today || (crosses && days.contains(&yesterday) && minute < *to)
    })
}

/// Every moment of the horizon at which some window begins or ends, or the clocks are changed.
fn borders(schedule: &Schedule, from: Time) -> BTreeSet<Time> {
    let mut found = BTreeSet::new();
    let Some((zone, start)) = Schedule::time_zone(&schedule.zone).zip(timestamp(from)) else {
        return found;
    };
    let Ok(end) = start.checked_add(SignedDuration::from_hours(24 * HORIZON_DAYS)) else {
        return found;
    };
    let first = zone.to_datetime(start).date();
    let minutes: BTreeSet<u16> = schedule
        .windows
        .iter()
        .flat_map(|window| [window.from, window.to])
        .collect();
    // From the day before, whose window may end today.
    for date in first
        .yesterday()
        .into_iter()
        .chain(first.series(jiff::Span::new().days(1)))
    {
        let midnight = date.at(0, 0, 0, 0);
        if zone
            .to_timestamp(midnight)
            .is_ok_and(|midnight| midnight > end)
        {
            break;
        }
        for minute in &minutes {
            found.extend(moments(&zone, date, *minute));
        }
    }
    found.extend(
        zone.following(start)
            .map(|change| change.timestamp())
            .take_while(|change| *change <= end)
            .map(|change| Time::from_unix(change.as_second())),
    );
    found
}

/// When a clock shows a minute of a day: twice, where it is set back; what it never shows falls on
/// the change of the clocks.
fn moments(zone: &TimeZone, date: civil::Date, minute: u16) -> Vec<Time> {
    let shown = i64::from(minute);
    let Ok(shown) = date
        .at(0, 0, 0, 0)
        .checked_add(SignedDuration::from_mins(shown))
    else {
        return Vec::new();
    };
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    [ambiguous.earlier(), ambiguous.later()]
        .into_iter()
        .flatten()
        .map(|moment| Time::from_unix(moment.as_second()))
        .collect()
}

fn timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::from_second(time.unix()).ok()
}

fn minute_of_day(time: civil::Time) -> u16 {
    let minutes = i32::from(time.hour()) * 60 + i32::from(time.minute());
    u16::try_from(minutes).unwrap_or_default()
}

fn weekday(day: civil::Weekday) -> Weekday {
    match day {
        civil::Weekday::Monday => Weekday::Monday,
        civil::Weekday::Tuesday => Weekday::Tuesday,
        civil::Weekday::Wednesday => Weekday::Wednesday,
        civil::Weekday::Thursday => Weekday::Thursday,
        civil::Weekday::Friday => Weekday::Friday,
        civil::Weekday::Saturday => Weekday::Saturday,
        civil::Weekday::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        Time::parse(text).unwrap()
    }

    fn weekly(zone: &str, days: &[Weekday], from: u16, to: u16) -> When {
        let window = Window {
            days: days.iter().copied().collect(),
            from,
            to,
        };
        When {
            schedule: Some(Schedule {
                zone: zone.to_owned(),
                windows: vec![window],
            }),
            ..When::default()
        }
    }

    #[test]
    fn what_holds_always_has_no_timing() {
        assert_eq!(Timing::new(&[&When::default()], Time::default()), None);
    }

    #[test]
    fn nothing_begins_or_ends_but_at_a_listed_moment() {
        let hour = 60;
        let weekend = [Weekday::Saturday, Weekday::Sunday];
        let cases = [
            weekly("UTC", &Weekday::ALL, 9 * hour, 17 * hour),
            weekly("Asia/Kathmandu", &weekend, 22 * hour, 6 * hour),
            weekly(
                "Europe/Berlin",
                &[Weekday::Sunday],
                2 * hour + 30,
                3 * hour + 15,
            ),
            weekly(
                "America/New_York",
                &[Weekday::Saturday],
                23 * hour,
                2 * hour + 30,
            ),
            weekly("Australia/Lord_Howe", &Weekday::ALL, hour + 45, hour + 50),
            weekly("UTC", &[Weekday::Monday], 0, 0),
        ];
        // Both changes of the clocks, on either side of the equator, and a week without one.
        let starts = [
            "2026-03-06T11:07:00Z",
            "2026-03-27T05:00:00Z",
            "2026-10-02T23:59:00Z",
            "2026-10-24T00:00:01Z",
            "2026-06-01T12:00:00Z",
        ];
        for (case, start) in cases.iter().flat_map(|case| starts.map(|at| (case, at))) {
            let start = time(start);
            let timing = Timing::new(&[case], start).unwrap();
            let mut before = timing.holds(start);
            let mut flips = 0;
            let end = start.unix() + (HORIZON_DAYS - 1) * 86_400;
            for second in (start.unix()..end)
                .step_by(60)
                .map(|at| at - at.rem_euclid(60) + 60)
            {
                let now = Time::from_unix(second);
                let holds = timing.holds(now);
                if holds != before {
                    flips += 1;
                    assert!(
                        timing.changes.contains(&now),
                        "{case:?} from {start}: {now}"
                    );
                }
                before = holds;
            }
            assert!(
                flips >= 2,
                "{case:?} from {start} says the same all the time"
            );
        }
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_it_begins_on() {
        let night = weekly("UTC", &[Weekday::Friday], 22 * 60, 6 * 60);
        let timing = Timing::new(&[&night], Time::default()).unwrap();
        for (at, holds) in [
            ("2026-11-27T21:59:59Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:59Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
        ] {
            assert_eq!(timing.holds(time(at)), holds, "{at}");
        }
    }

    #[test]
    fn a_schedule_that_begins_in_a_year_is_seen_from_there() {
        let mut when = weekly("UTC", &[Weekday::Monday], 9 * 60, 10 * 60);
        when.not_before = Some(time("2027-11-23T12:00:00Z"));
        let timing = Timing::new(&[&when], time("2026-11-24T12:00:00Z")).unwrap();
        assert!(timing.changes.contains(&time("2027-11-29T09:00:00Z")));
    }
}
