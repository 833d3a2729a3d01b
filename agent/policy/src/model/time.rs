//! When a rule exists.

mod rfc3339;

use std::{collections::BTreeSet, fmt};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A moment of the wall clock: seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time: expected RFC 3339, as in `2026-12-31T18:00:00Z` or `2026-12-31T18:00:00+01:00`")]
pub struct TimeError;

/// All parts must hold; without any, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct When {
    /// From this moment on.
    pub not_before: Option<Time>,
    /// Until just before this moment; later than `not_before`.
    pub expires: Option<Time>,
    pub schedule: Option<Schedule>,
}

/// Some hours of some days of every week, by the clock on the wall of a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// A name of the IANA time zone database; known to it.
    pub zone: String,
    /// Any of them; at least one, at most [`Schedule::MAX_WINDOWS`].
    pub windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The days on which it begins; at least one.
    pub days: BTreeSet<Weekday>,
    /// Minutes after midnight, at most 1439.
    pub from: u16,
    /// Minutes after midnight, at most 1440; the minute itself is outside. Not after `from`: of the
    /// next day.
    pub to: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

// === impl Time ===

impl Time {
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    pub const fn unix(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339, and nothing else of the many forms of ISO 8601. A fraction of a second is cut
    /// off, a leap second is the one before it. The last day of the year 9999, by which people mean
    /// never, is the last moment that can be shown.
    ///
    /// # Errors
    ///
    /// If the text is nothing of the kind, or names no offset from UTC.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let seconds = rfc3339::seconds(text).ok_or(TimeError)?;
        Ok(Self(seconds.clamp(
            Timestamp::MIN.as_second(),
            Timestamp::MAX.as_second(),
        )))
    }
}

/// RFC 3339, in UTC.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} s", self.0),
        }
    }
}

// === impl When ===

impl When {
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Schedule ===

impl Schedule {
    /// Nobody means more of a week, and each begins and ends every week: what holds when is worked
    /// out for all of these moments.
    pub const MAX_WINDOWS: usize = 100;

    /// The rules of a time zone, from the database that is part of this program.
    pub fn time_zone(name: &str) -> Option<TimeZone> {
        jiff::tz::TimeZoneDatabase::bundled().get(name).ok()
    }

    /// Every name of that database, as it is spelled there.
    pub fn time_zones() -> Vec<String> {
        jiff::tz::TimeZoneDatabase::bundled()
            .available()
            .map(|name| name.as_str().to_owned())
            .collect()
    }
}

// === impl Weekday ===

impl Weekday {
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Monday => "Monday",
            Self::Tuesday => "Tuesday",
            Self::Wednesday => "Wednesday",
            Self::Thursday => "Thursday",
            Self::Friday => "Friday",
            Self::Saturday => "Saturday",
            Self::Sunday => "Sunday",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_is_shown() {
        for text in ["2026-12-31T18:00:00Z", "1970-01-01T00:00:00Z"] {
            assert_eq!(Time::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Time::parse("2026-12-31T18:00:00.9+02:00").unwrap(),
            Time::parse("2026-12-31T16:00:00Z").unwrap()
        );
        for text in ["", "tomorrow", "2026-12-31", "2026-12-31T18:00:00"] {
            Time::parse(text).unwrap_err();
        }
    }

    #[test]
    fn never_is_later_than_all_else_and_can_be_shown() {
        let never = Time::parse("9999-12-31T23:59:59Z").unwrap();
        assert!(never > Time::parse("9999-12-30T21:59:59Z").unwrap());
        assert_eq!(Time::parse(&never.to_string()).unwrap(), never);
    }

    #[test]
    fn zones_are_known_without_files() {
        assert!(Schedule::time_zone("Europe/Berlin").is_some());
        assert!(Schedule::time_zone("Europe/Berln").is_none());
    }
}
