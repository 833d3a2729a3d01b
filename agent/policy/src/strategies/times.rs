//! Times of rules, and the moments at which they begin and end.

use std::{collections::BTreeSet, iter::once};

use jiff::{ToSpan, civil};
use proptest::{collection::vec, option, prelude::*, sample};

use crate::model::{Schedule, Time, Weekday, When, Window, World};

/// One zone without an offset, one with an odd one, and one that moves its clocks.
const ZONES: [&str; 3] = ["UTC", "Asia/Kolkata", "Europe/Berlin"];

/// Berlin leaves out the hour from 2 o'clock on the one day, and has it twice on the other.
const DAYS: [civil::Date; 2] = [civil::date(2026, 3, 29), civil::date(2026, 10, 25)];

/// At 01:00 in UTC.
const CHANGES_OF_CLOCKS: [Time; 2] = [
    Time::from_unix(1_774_746_000),
    Time::from_unix(1_792_890_000),
];

/// Around these days and the changes of the clocks, in seconds.
const MOMENTS: [Time; 6] = [
    Time::from_unix(1_774_735_200),
    CHANGES_OF_CLOCKS[0],
    Time::from_unix(1_774_771_200),
    Time::from_unix(1_792_886_400),
    CHANGES_OF_CLOCKS[1],
    Time::from_unix(1_792_918_800),
];

/// The hour that is missing or doubled, its middle, and the ends of days.
const MINUTES: [u16; 6] = [0, 120, 150, 180, 540, 1439];

/// Always, for the most part.
pub(super) fn when() -> impl Strategy<Value = When> {
    let moment = || option::weighted(0.4, sample::select(&MOMENTS[..]));
    let sometimes =
        (moment(), moment(), option::of(schedule())).prop_map(|(one, other, schedule)| {
            let (not_before, expires) = match (one, other) {
                (Some(one), Some(other)) if one == other => (Some(one), None),
                (Some(one), Some(other)) => (Some(one.min(other)), Some(one.max(other))),
                ends => ends,
            };
            When {
                not_before,
                expires,
                schedule,
            }
        });
    prop_oneof![4 => Just(When::default()), 1 => sometimes]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let to = prop_oneof![4 => sample::select(&MINUTES[..]), 1 => Just(1440)];
    let days = sample::subsequence(Weekday::ALL.to_vec(), 1..=4);
    let window = (days, sample::select(&MINUTES[..]), to).prop_map(|(days, from, to)| Window {
        days: days.into_iter().collect(),
        from,
        to,
    });
    (sample::select(&ZONES[..]), vec(window, 1..=2)).prop_map(|(zone, windows)| Schedule {
        zone: zone.to_owned(),
        windows,
    })
}

/// Just before, at and just after each moment at which a rule of this world begins or ends; of a
/// schedule, those around a few days. At least one.
pub(super) fn moments(world: &World) -> Vec<Time> {
    let mut moments: BTreeSet<Time> = once(Time::from_unix(1_774_735_200)).collect();
    let whens = world.tier_policies.values().flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress);
        once(&policy.when).chain(rules.map(|rule| &rule.when))
    });
    for when in whens {
        let When {
            not_before,
            expires,
            schedule,
        } = when;
        let scheduled = schedule.iter().flat_map(boundaries);
        for at in not_before.iter().chain(expires).copied().chain(scheduled) {
            moments.extend([-1, 0, 1].map(|seconds| Time::from_unix(at.unix() + seconds)));
        }
    }
    moments.into_iter().collect()
}

/// What a clock on the wall shows never or twice is both of the moments that it could be.
fn boundaries(schedule: &Schedule) -> Vec<Time> {
    let Some(zone) = Schedule::time_zone(&schedule.zone) else {
        return Vec::new();
    };
    let days = DAYS.iter().flat_map(|day| {
        [-1, 0, 1]
            .into_iter()
            .filter_map(|away| day.checked_add(away.days()).ok())
    });
    let ends: BTreeSet<u16> = schedule
        .windows
        .iter()
        .flat_map(|window| [window.from, window.to])
        .collect();
    let shown = days.flat_map(|day| {
        ends.iter().filter_map(move |minutes| {
            let midnight = day.to_datetime(civil::Time::midnight());
            midnight.checked_add(i64::from(*minutes).minutes()).ok()
        })
    });
    let mut found: Vec<Time> = shown
        .flat_map(|shown| {
            let moment = zone.to_ambiguous_timestamp(shown);
            [moment.earlier(), moment.later()]
        })
        .filter_map(|moment| Some(Time::from_unix(moment.ok()?.as_second())))
        .collect();
    found.extend(CHANGES_OF_CLOCKS);
    found
}
