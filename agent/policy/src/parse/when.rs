//! When a policy or a rule exists.

use std::collections::BTreeSet;

use super::{
    choice::DAYS,
    form,
    nearest::nearest,
    reader::{Field, Object},
};
use crate::{
    model::{Schedule, Time, Weekday, When, Window},
    yaml::quote,
};

const HOUR: u16 = 60;
const DAY: u16 = 24 * HOUR;

pub(super) fn read(field: &Field<'_>) -> Option<When> {
    let mut object = field.object()?;
    let bare = object.is_empty();
    let not_before = object.get("notBefore");
    let expires = object.get("expires");
    let schedule = object.get("schedule");
    object.deny_unknown();
    if bare {
        field.error_with_hint(
            "empty-when",
            format!(
                "{} says no time: expected `notBefore`, `expires` or `schedule`",
                field.name()
            ),
            "leave it out if it holds always",
        );
        return None;
    }
    let from = form::optional(not_before, time);
    let until = form::optional(expires.clone(), time);
    let schedule = form::optional(schedule, read_schedule);
    if let (Ok(Some(from)), Ok(Some(until)), Some(field)) = (from, until, &expires)
        && until <= from
    {
        let message = format!("`expires` {until} is not after `notBefore` {from}");
        field.error_with_hint("never-holds", message, "as it stands, it never holds");
        return None;
    }
    Some(When {
        not_before: from.ok()?,
        expires: until.ok()?,
        schedule: schedule.ok()?,
    })
}

pub(super) fn time(field: &Field<'_>) -> Option<Time> {
    let text = field.string()?;
    let time = Time::parse(text).ok();
    if time.is_none() {
        let message = format!(
            "invalid time {}: expected RFC 3339, as in `2026-12-31T18:00:00Z`",
            quote(text)
        );
        field.error("invalid-time", message);
    }
    time
}

fn read_schedule(field: &Field<'_>) -> Option<Schedule> {
    let mut object = field.object()?;
    let zone = object.require("timeZone");
    let windows = object.require("windows");
    object.deny_unknown();
    let zone = zone.and_then(|field| zone_name(&field));
    let windows = windows.and_then(|field| {
        let items = form::items(&field, Some(Schedule::MAX_WINDOWS))?;
        form::each(&items, window)
    });
    Some(Schedule {
        zone: zone?,
        windows: windows?,
    })
}

/// Spelled as in the database: a zone has one name in records and tables.
fn zone_name(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let known = Schedule::time_zone(text).is_some_and(|zone| zone.iana_name() == Some(text));
    if !known {
        let message = format!(
            "unknown time zone {}: expected a name of the IANA database, as in `Europe/Berlin`",
            quote(text)
        );
        field.error_with_suggestion("unknown-time-zone", message, || {
            let zones = Schedule::time_zones();
            let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
            nearest(text, &zones).map(str::to_owned)
        });
        return None;
    }
    Some(text.to_owned())
}

fn window(field: &Field<'_>) -> Option<Window> {
    let mut object = field.object()?;
    let days = object.require("days");
    let (from, to) = (clock(&mut object, "from"), clock(&mut object, "to"));
    object.deny_unknown();
    Some(Window {
        days: days.and_then(|field| read_days(&field))?,
        from: from?,
        to: to?,
    })
}

fn read_days(field: &Field<'_>) -> Option<BTreeSet<Weekday>> {
    let mut days = BTreeSet::new();
    let mut broken = false;
    for item in form::items(field, None)? {
        let Some(day) = DAYS.read(&item) else {
            broken = true;
            continue;
        };
        if !days.insert(day) {
            let message = format!("day `{}` is listed twice", day.name());
            item.error("duplicate-day", message);
        }
    }
    (!broken).then_some(days)
}

/// Minutes after midnight; the end of the day only where a window ends.
fn clock(object: &mut Object<'_>, name: &'static str) -> Option<u16> {
    let field = object.require(name)?;
    let text = field.string()?;
    let last = if name == "to" { DAY } else { DAY - 1 };
    let minutes = minutes(text).filter(|minutes| *minutes <= last);
    if minutes.is_none() {
        let message = format!(
            "invalid time of day {}: expected HH:MM, from 00:00 to {:02}:{:02}",
            quote(text),
            last / HOUR,
            last % HOUR
        );
        let padded = format!("0{text}");
        match self::minutes(&padded) {
            Some(_) => field.error_with_hint("invalid-clock", message, format!("write `{padded}`")),
            None => field.error("invalid-clock", message),
        }
    }
    minutes
}

fn minutes(text: &str) -> Option<u16> {
    let part = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (part(hours)?, part(minutes)?);
    (minutes < HOUR).then_some(hours * HOUR + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_two_digits_on_both_sides() {
        assert_eq!(minutes("00:00"), Some(0));
        assert_eq!(minutes("23:59"), Some(1439));
        assert_eq!(minutes("24:00"), Some(1440));
        for bad in ["", "9:00", "09:0", "09:60", "+9:00", "09-00", "09:00:00"] {
            assert_eq!(minutes(bad), None, "{bad}");
        }
    }
}
