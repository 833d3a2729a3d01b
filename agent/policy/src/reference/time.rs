//! §7: whether a policy or a rule exists at a moment.

use jiff::{Timestamp, civil};

use crate::model::{Schedule, Time, Weekday, When, Window};

/// §7.1
pub(super) fn holds(when: &When, at: Time) -> bool {
    let When {
        not_before,
        expires,
        schedule,
    } = when;
    not_before.is_none_or(|first| first <= at)
        && expires.is_none_or(|end| at < end)
        && schedule
            .as_ref()
            .is_none_or(|schedule| is_scheduled(schedule, at))
}

/// §7.2: by what the clock on the wall shows, and by nothing else. A zone that nobody knows has no
/// clock, and parsers let none pass.
fn is_scheduled(schedule: &Schedule, at: Time) -> bool {
    let Schedule { zone, windows } = schedule;
    let Some(wall) = Schedule::time_zone(zone)
        .zip(Timestamp::from_second(at.unix()).ok())
        .map(|(zone, at)| zone.to_datetime(at))
    else {
        return false;
    };
    windows.iter().any(|window| is_open(window, wall))
}

fn is_open(window: &Window, wall: civil::DateTime) -> bool {
    let Window { days, from, to } = window;
    let minute =
        u16::from(wall.hour().unsigned_abs()) * 60 + u16::from(wall.minute().unsigned_abs());
    let today = weekday(wall.weekday());
    let yesterday = weekday(wall.weekday().previous());
    if from < to {
        return days.contains(&today) && *from <= minute && minute < *to;
    }
    days.contains(&today) && *from <= minute || days.contains(&yesterday) && minute < *to
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
mod tests;
