//! When something exists, as a set: whether one time takes in another, and whether it ever comes.

use std::collections::BTreeMap;

use crate::model::{Schedule, Time, Weekday, When, Window};

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

/// All of several [`When`]s at once: of a policy, and of its rule.
#[derive(Clone, Debug)]
pub(super) struct Span<'a> {
    not_before: Option<Time>,
    expires: Option<Time>,
    schedules: Vec<&'a Schedule>,
}

// === impl Span ===

impl<'a> Span<'a> {
    pub(super) fn of(whens: impl IntoIterator<Item = &'a When>) -> Self {
        let mut span = Self {
            not_before: None,
            expires: None,
            schedules: Vec::new(),
        };
        for when in whens {
            let When {
                not_before,
                expires,
                schedule,
            } = when;
            span.not_before = span.not_before.max(*not_before);
            span.expires = match (span.expires, *expires) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            span.schedules.extend(schedule);
        }
        span
    }

    /// Whether it is in force whenever `other` is.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.not_before <= other.not_before
            && self
                .expires
                .is_none_or(|end| other.expires.is_some_and(|other| other <= end))
            && self
                .schedules
                .iter()
                .all(|schedule| other.schedules.contains(schedule))
    }

    /// Whether no moment is within both.
    pub(super) fn is_apart(&self, other: &Self) -> bool {
        let both = Self {
            not_before: self.not_before.max(other.not_before),
            expires: match (self.expires, other.expires) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            schedules: [&self.schedules[..], &other.schedules[..]].concat(),
        };
        both.is_never()
    }

    /// Whether no moment is within it. Schedules of two zones are taken to meet.
    pub(super) fn is_never(&self) -> bool {
        let ended = |(start, end)| start >= end;
        if self.not_before.zip(self.expires).is_some_and(ended) {
            return true;
        }
        self.schedules.iter().enumerate().any(|(at, one)| {
            let later = self.schedules.iter().skip(at + 1);
            later
                .filter(|other| one.zone == other.zone)
                .any(|other| !weeks_meet(one, other))
        })
    }
}

/// Whether two schedules of one zone have a minute of the week in common.
fn weeks_meet(a: &Schedule, b: &Schedule) -> bool {
    let open = |schedule: &Schedule| -> BTreeMap<u32, u32> {
        let mut open = BTreeMap::new();
        for (first, end) in schedule.windows.iter().flat_map(minutes) {
            let last: &mut u32 = open.entry(first).or_default();
            *last = end.max(*last);
        }
        open
    };
    let (a, b) = (open(a), open(b));
    // Where two meet, one of them begins while the other is open.
    let begins_within = |one: &BTreeMap<u32, u32>, other: &BTreeMap<u32, u32>| {
        let mut other = other.iter().peekable();
        let mut open_until = 0;
        one.keys().any(|first| {
            while let Some((_, end)) = other.next_if(|(begin, _)| *begin <= first) {
                open_until = open_until.max(*end);
            }
            *first < open_until
        })
    };
    begins_within(&a, &b) || begins_within(&b, &a)
}

/// The minutes of the week, each window cut at its end.
fn minutes(window: &Window) -> Vec<(u32, u32)> {
    let Window { days, from, to } = window;
    let (from, to) = (u32::from(*from), u32::from(*to));
    let length = if to <= from {
        to + DAY - from
    } else {
        to - from
    };
    let starts = (0u32..)
        .zip(Weekday::ALL)
        .filter(|(_, day)| days.contains(day))
        .map(|(number, _)| number * DAY + from);
    starts
        .flat_map(|start| {
            let end = start + length;
            [(start, end.min(WEEK)), (0, end.saturating_sub(WEEK))]
        })
        .filter(|(start, end)| start < end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(day: Weekday, from: u16, to: u16) -> Schedule {
        Schedule {
            zone: "Europe/Berlin".to_owned(),
            windows: vec![Window {
                days: [day].into(),
                from,
                to,
            }],
        }
    }

    #[test]
    fn a_window_over_midnight_reaches_the_next_day_and_week() {
        let night = schedule(Weekday::Sunday, 23 * 60, 60);
        let monday = |from, to| schedule(Weekday::Monday, from, to);
        assert!(weeks_meet(&night, &monday(0, 30)));
        assert!(!weeks_meet(&night, &monday(60, 120)));
        // From and to the same is a whole day.
        assert!(weeks_meet(&monday(0, 0), &monday(1439, 1440)));
    }

    #[test]
    fn spans_that_end_before_they_begin_are_never() {
        let when = |not_before: Option<i64>, expires: Option<i64>| When {
            not_before: not_before.map(Time::from_unix),
            expires: expires.map(Time::from_unix),
            schedule: None,
        };
        let (early, late) = (when(None, Some(10)), when(Some(10), None));
        assert!(Span::of([&early, &late]).is_never());
        assert!(Span::of([&early]).is_apart(&Span::of([&late])));
        let always = When::default();
        assert!(Span::of([&always]).covers(&Span::of([&early])));
        assert!(!Span::of([&early]).covers(&Span::of([&always])));
        assert!(Span::of([&early]).covers(&Span::of([&when(Some(3), Some(9))])));
    }
}
