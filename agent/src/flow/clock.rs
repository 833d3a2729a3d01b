//! Two clocks that must not mix: the kernel's boot clock, and the wall clock of records.

use std::{fmt, str::FromStr, time::Duration};

use agent_policy::model::Time;
use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds of `CLOCK_BOOTTIME`, as events and the flow table carry them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(pub(crate) u64);

/// Nanoseconds since the epoch, UTC. RFC 3339 with nine digits wherever it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WallTime(pub(crate) i64);

/// How far the wall clock was ahead of the boot clock when it was read.
///
/// A value, so that what depends on time is testable. Read it at use: the wall clock may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    offset: i64,
}

impl BootTime {
    pub(crate) fn now() -> Self {
        Self(nanoseconds(clock_gettime(ClockId::Boottime)).unsigned_abs())
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }

    pub(crate) fn minus(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanoseconds))
    }
}

impl Clock {
    pub(crate) fn read() -> Self {
        let boot = nanoseconds(clock_gettime(ClockId::Boottime));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        Self {
            offset: wall.saturating_sub(boot),
        }
    }

    /// The one place where boot time becomes wall time.
    pub(crate) fn wall(self, time: BootTime) -> WallTime {
        WallTime(self.offset.saturating_add_unsigned(time.0))
    }
}

impl WallTime {
    pub(crate) fn now() -> Self {
        Self(nanoseconds(clock_gettime(ClockId::Realtime)))
    }

    /// As policies tell the time.
    pub(crate) fn whole_seconds(self) -> Time {
        Time::from_unix(self.0.div_euclid(1_000_000_000))
    }

    fn timestamp(self) -> Timestamp {
        // The whole range of 64 bits lies within the years that jiff knows.
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
    }

    /// Appends what [`fmt::Display`] shows. Every record has two or three of them, and this takes a tenth of the time.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let (seconds, nanoseconds) = (
            self.0.div_euclid(1_000_000_000),
            self.0.rem_euclid(1_000_000_000),
        );
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, date) = civil(day);
        let parts = [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (date, 2, b'T'),
            (second / 3600, 2, b':'),
            (second / 60 % 60, 2, b':'),
            (second % 60, 2, b'.'),
            (nanoseconds, 9, b'Z'),
        ];
        for (number, width, then) in parts {
            let from = out.len();
            out.resize(from + width, b'0');
            let mut rest = number;
            for digit in out.iter_mut().skip(from).rev() {
                *digit += u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
            out.push(then);
        }
    }

    /// Down to milliseconds, for tables that people read.
    pub(crate) fn to_milliseconds(self) -> String {
        format!("{:.3}", self.timestamp())
    }

    /// Hours to milliseconds, likewise.
    pub(crate) fn time_of_day(self) -> String {
        let text = self.to_milliseconds();
        text.split_once('T')
            .map_or(text.clone(), |(_, time)| time.to_owned())
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.timestamp())
    }
}

impl FromStr for WallTime {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let timestamp: Timestamp = text.parse()?;
        Ok(Self(
            i64::try_from(timestamp.as_nanosecond()).unwrap_or(i64::MAX),
        ))
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Year, month and day of a number of days since 1970-01-01, by the Gregorian calendar: years begin in March, so that
/// the leap day is the last, and 400 of them have the same days each time.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + i64::from(month <= 2), month, date)
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_rfc_3339_with_nanoseconds_and_comes_back() {
        let time = WallTime(1_700_000_000_000_000_007);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.000000007Z");
        assert_eq!(time.to_string().parse::<WallTime>().unwrap(), time);
        assert_eq!(time.time_of_day(), "22:13:20.000Z");
    }

    #[test]
    fn wall_time_is_appended_as_it_is_shown() {
        let shown = |time: WallTime| {
            let mut text = Vec::new();
            time.put(&mut text);
            String::from_utf8(text).unwrap()
        };
        let day = 86_400_000_000_000;
        // Every day of four hundred years, each at another time of the day; and both ends of the range.
        for number in -73_000..73_100 {
            let time = WallTime(number * (day + 1_234_567_891) % i64::MAX);
            assert_eq!(shown(time), time.to_string());
        }
        for time in [i64::MIN, -1, 0, 951_782_400_000_000_000, i64::MAX].map(WallTime) {
            assert_eq!(shown(time), time.to_string());
        }
    }

    #[test]
    fn boot_time_becomes_wall_time_by_the_offset_of_both_clocks() {
        let before = WallTime::now();
        let seen = Clock::read().wall(BootTime::now());
        assert!(seen.0.abs_diff(before.0) < 1_000_000_000);
    }
}
