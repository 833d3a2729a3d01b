//! When rules exist: whether at a moment, and when that may next change.

mod hours;

use std::{collections::BTreeSet, sync::Arc};

use self::hours::Hours;
use crate::model::{Schedule, Time, When};

/// Two weeks and a day. A schedule that changes anything does so twice within that, wherever in its
/// week it is looked at, and be there a change of the clocks between.
const HORIZON_DAYS: i64 = 15;

const DAY_SECONDS: i64 = 86_400;

/// A week less than the horizon.
const KNOWN_SECONDS: i64 = (HORIZON_DAYS - 8) * DAY_SECONDS;

/// Several conditions that must all hold, such as those of a policy and of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    conditions: Vec<Condition>,
    /// Moments after the one it was made for at which it may begin or end to hold, in order.
    pub(super) changes: Vec<Time>,
    /// Until when a schedule's moments are all among them, with a week to spare; `None` without one.
    pub(super) known_until: Option<Time>,
    course: Course,
}

/// A [`When`], made to be asked often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    not_before: Option<Time>,
    expires: Option<Time>,
    hours: Option<Hours>,
}

/// What a timing says from the moment it was made for up to where its schedule was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Course {
    holds_first: bool,
    /// Those changes at which it does begin or end to hold.
    flips: Vec<Time>,
    /// `None`: without end.
    end: Option<Time>,
}

/// The moments of the horizon at which a schedule may begin or end to hold, and some before it.
pub(crate) fn moments(schedule: &Schedule, from: Time) -> BTreeSet<Time> {
    Hours::of(schedule).changes(from)
}

impl Timing {
    /// `None` if it holds always.
    pub(super) fn new(conditions: &[&When], now: Time) -> Option<Arc<Self>> {
        let conditions: Vec<Condition> = conditions
            .iter()
            .filter(|when| !when.is_always())
            .map(|when| Condition::of(when))
            .collect();
        if conditions.is_empty() {
            return None;
        }
        let mut changes = BTreeSet::new();
        // A schedule need not be looked at before anything else can hold.
        let begins = conditions.iter().filter_map(|one| one.not_before).max();
        let from = begins.map_or(now, |begins| begins.max(now));
        for Condition {
            not_before,
            expires,
            hours,
        } in &conditions
        {
            changes.extend(not_before.iter().chain(expires));
            changes.extend(hours.iter().flat_map(|hours| hours.changes(from)));
        }
        let ends = conditions.iter().filter_map(|one| one.expires).min();
        changes.retain(|change| *change > now && ends.is_none_or(|ends| *change <= ends));
        let has_hours = conditions.iter().any(|one| one.hours.is_some());
        let later = |seconds| Time::from_unix(from.unix().saturating_add(seconds));
        let end = has_hours.then(|| later(HORIZON_DAYS * DAY_SECONDS));
        Some(Arc::new(Self {
            known_until: has_hours.then(|| later(KNOWN_SECONDS)),
            course: Course::new(now, &changes, end, |at| hold(&conditions, at)),
            conditions,
            changes: changes.into_iter().collect(),
        }))
    }

    pub(super) fn first_change_after(&self, at: Time) -> Option<Time> {
        let before = self.changes.partition_point(|change| *change <= at);
        self.changes.get(before).copied()
    }

    /// When it begins or ends to hold after a moment, of which its changes are known.
    pub(super) fn next_flip(&self, at: Time) -> Option<Time> {
        self.course.flips.get(self.course.passed(at)).copied()
    }

    /// At the moment it was made for, or later.
    pub(super) fn holds(&self, at: Time) -> bool {
        self.course
            .holds(at)
            .unwrap_or_else(|| hold(&self.conditions, at))
    }
}

impl Condition {
    fn of(when: &When) -> Self {
        let When {
            not_before,
            expires,
            schedule,
        } = when;
        Self {
            not_before: *not_before,
            expires: *expires,
            hours: schedule.as_ref().map(Hours::of),
        }
    }

    fn holds(&self, at: Time) -> bool {
        self.not_before.is_none_or(|begin| begin <= at)
            && self.expires.is_none_or(|end| at < end)
            && self.hours.as_ref().is_none_or(|hours| hours.holds(at))
    }
}

fn hold(conditions: &[Condition], at: Time) -> bool {
    conditions.iter().all(|one| one.holds(at))
}

impl Course {
    fn new(
        now: Time,
        changes: &BTreeSet<Time>,
        end: Option<Time>,
        holds: impl Fn(Time) -> bool,
    ) -> Self {
        let holds_first = holds(now);
        let mut before = holds_first;
        let flips = changes.iter().copied().filter(|change| {
            let flips = holds(*change) != before;
            before ^= flips;
            flips
        });
        Self {
            holds_first,
            flips: flips.collect(),
            end,
        }
    }

    /// `None` beyond its end.
    fn holds(&self, at: Time) -> Option<bool> {
        if self.end.is_some_and(|end| end < at) {
            return None;
        }
        Some(self.holds_first ^ (self.passed(at) % 2 == 1))
    }

    fn passed(&self, at: Time) -> usize {
        self.flips.partition_point(|flip| *flip <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Weekday, Window};

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
            let holds = |at| hold(&timing.conditions, at);
            let mut before = holds(start);
            let mut flips = 0;
            let end = start.unix() + (HORIZON_DAYS - 1) * 86_400;
            for second in (start.unix()..end)
                .step_by(60)
                .map(|at| at - at.rem_euclid(60) + 60)
            {
                let now = Time::from_unix(second);
                let holds = holds(now);
                assert_eq!(timing.holds(now), holds, "{case:?} from {start}: {now}");
                if holds != before {
                    flips += 1;
                    assert!(
                        timing.changes.contains(&now),
                        "{case:?} from {start}: {now}"
                    );
                    let last = Time::from_unix(second - 1);
                    assert_eq!(timing.next_flip(last), Some(now), "{case:?} from {start}");
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
