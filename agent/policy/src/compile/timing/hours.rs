//! The hours of a schedule: what its windows come to on the wall of its zone.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::HORIZON_DAYS;
use crate::model::{Schedule, Time, Weekday, Window};

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

/// A [`Schedule`], made to be asked often: the zone looked up, the windows put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    /// The parser knows the zone: should it not, a rule that may not hold does not.
    zone: Option<TimeZone>,
    /// Minutes of the week, the end of each outside; in order, and none touches the next.
    open: Vec<(u32, u32)>,
    /// Minutes of the day at which some window begins or ends.
    borders: BTreeSet<u16>,
}

impl Hours {
    pub(super) fn of(schedule: &Schedule) -> Self {
        let Schedule { zone, windows } = schedule;
        let mut all: Vec<(u32, u32)> = windows.iter().flat_map(minutes).collect();
        all.sort_unstable();
        let mut open: Vec<(u32, u32)> = Vec::new();
        for (first, end) in all {
            match open.last_mut() {
                Some((_, last)) if first <= *last => *last = end.max(*last),
                _ => open.push((first, end)),
            }
        }
        let borders = windows.iter().flat_map(|window| [window.from, window.to]);
        Self {
            zone: Schedule::time_zone(zone),
            open,
            borders: borders.collect(),
        }
    }

    pub(super) fn holds(&self, at: Time) -> bool {
        let Some((zone, at)) = self.zone.as_ref().zip(timestamp(at)) else {
            return false;
        };
        let shown = minute_of_week(zone.to_datetime(at));
        let begun = self.open.partition_point(|(first, _)| *first <= shown);
        let last = begun.checked_sub(1).and_then(|index| self.open.get(index));
        last.is_some_and(|(_, end)| shown < *end)
    }

    /// Every moment of the horizon at which some window begins or ends, or the clocks are changed.
    pub(super) fn changes(&self, from: Time) -> BTreeSet<Time> {
        let mut found = BTreeSet::new();
        let Some((zone, start)) = self.zone.as_ref().zip(timestamp(from)) else {
            return found;
        };
        let Ok(end) = start.checked_add(SignedDuration::from_hours(24 * HORIZON_DAYS)) else {
            return found;
        };
        let first = zone.to_datetime(start).date();
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
            for minute in &self.borders {
                found.extend(moments(zone, date, *minute));
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
}

/// The minutes of the week in which a window is open, each part cut at the week's end.
fn minutes(window: &Window) -> impl Iterator<Item = (u32, u32)> {
    let Window { days, from, to } = window;
    let (from, to) = (u32::from(*from), u32::from(*to));
    let length = if to <= from {
        DAY + to - from
    } else {
        to - from
    };
    let begun = (0..)
        .zip(Weekday::ALL)
        .filter(|(_, day)| days.contains(day));
    begun
        .map(move |(number, _)| number * DAY + from)
        .flat_map(move |first| {
            let end = first + length;
            [(first, end.min(WEEK)), (0, end.saturating_sub(WEEK))]
        })
        .filter(|(first, end)| first < end)
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

fn minute_of_week(shown: civil::DateTime) -> u32 {
    let day = i32::from(shown.date().weekday().to_monday_zero_offset());
    let minutes = (day * 24 + i32::from(shown.hour())) * 60 + i32::from(shown.minute());
    u32::try_from(minutes).unwrap_or_default()
}
