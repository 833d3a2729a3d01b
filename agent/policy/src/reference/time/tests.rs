use super::*;

fn at(text: &str) -> Time {
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

fn assert_times(when: &When, times: &[(&str, bool)]) {
    for (text, expected) in times {
        assert_eq!(holds(when, at(text)), *expected, "{text}");
    }
}

#[test]
fn the_first_second_is_inside_and_the_last_one_is_not() {
    let when = When {
        not_before: Some(at("2026-03-01T00:00:00Z")),
        expires: Some(at("2026-03-02T00:00:00Z")),
        schedule: None,
    };
    assert_times(
        &when,
        &[
            ("2026-02-28T23:59:59Z", false),
            ("2026-03-01T00:00:00Z", true),
            ("2026-03-01T23:59:59Z", true),
            ("2026-03-02T00:00:00Z", false),
        ],
    );
}

#[test]
fn a_window_is_of_the_clock_in_its_zone() {
    // In Kolkata it is five and a half hours later than in UTC.
    let when = weekly("Asia/Kolkata", &[Weekday::Monday], 9 * 60, 17 * 60);
    assert_times(
        &when,
        &[
            ("2026-03-02T03:29:59Z", false),
            ("2026-03-02T03:30:00Z", true),
            ("2026-03-02T11:29:59Z", true),
            ("2026-03-02T11:30:00Z", false),
            ("2026-03-03T03:30:00Z", false),
        ],
    );
    let early = weekly("Asia/Kolkata", &[Weekday::Monday], 0, 60);
    assert_times(
        &early,
        &[
            ("2026-03-01T18:30:00Z", true),
            ("2026-03-02T18:30:00Z", false),
        ],
    );
}

#[test]
fn all_parts_must_hold() {
    let mut when = weekly("UTC", &Weekday::ALL, 0, 1440);
    assert_times(
        &when,
        &[
            ("2026-03-01T00:00:00Z", true),
            ("2026-03-01T23:59:59Z", true),
        ],
    );
    when.expires = Some(at("2026-03-01T12:00:00Z"));
    assert_times(
        &when,
        &[
            ("2026-03-01T11:59:59Z", true),
            ("2026-03-01T12:00:00Z", false),
        ],
    );
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let when = weekly("UTC", &[Weekday::Sunday], 22 * 60, 6 * 60);
    assert_times(
        &when,
        &[
            ("2026-03-01T05:00:00Z", false),
            ("2026-03-01T21:59:59Z", false),
            ("2026-03-01T22:00:00Z", true),
            ("2026-03-02T05:59:59Z", true),
            ("2026-03-02T06:00:00Z", false),
            ("2026-03-02T22:00:00Z", false),
        ],
    );
}

#[test]
fn a_window_that_ends_where_it_begins_lasts_a_day() {
    let when = weekly("UTC", &[Weekday::Sunday], 540, 540);
    assert_times(
        &when,
        &[
            ("2026-03-01T08:59:59Z", false),
            ("2026-03-01T09:00:00Z", true),
            ("2026-03-02T08:59:59Z", true),
            ("2026-03-02T09:00:00Z", false),
        ],
    );
}

/// On 2026-03-29 Berlin's clocks go from 02:00 to 03:00, at 01:00 in UTC.
#[test]
fn an_hour_that_no_clock_shows_opens_nothing() {
    let inside = weekly("Europe/Berlin", &[Weekday::Sunday], 120, 180);
    assert_times(
        &inside,
        &[
            ("2026-03-29T00:59:59Z", false),
            ("2026-03-29T01:00:00Z", false),
            ("2026-03-22T01:00:00Z", true),
        ],
    );
    let over = weekly("Europe/Berlin", &[Weekday::Sunday], 150, 240);
    assert_times(
        &over,
        &[
            ("2026-03-29T00:59:59Z", false),
            ("2026-03-29T01:00:00Z", true),
            ("2026-03-29T01:59:59Z", true),
            ("2026-03-29T02:00:00Z", false),
        ],
    );
}

/// On 2026-10-25 Berlin's clocks go from 03:00 back to 02:00, at 01:00 in UTC.
#[test]
fn what_clocks_show_twice_is_open_twice() {
    let when = weekly("Europe/Berlin", &[Weekday::Sunday], 120, 150);
    assert_times(
        &when,
        &[
            ("2026-10-24T23:59:59Z", false),
            ("2026-10-25T00:00:00Z", true),
            ("2026-10-25T00:29:59Z", true),
            ("2026-10-25T00:30:00Z", false),
            ("2026-10-25T00:59:59Z", false),
            ("2026-10-25T01:00:00Z", true),
            ("2026-10-25T01:29:59Z", true),
            ("2026-10-25T01:30:00Z", false),
        ],
    );
}

#[test]
fn any_window_will_do() {
    let mut when = weekly("UTC", &[Weekday::Sunday], 0, 60);
    if let Some(schedule) = &mut when.schedule {
        schedule.windows.push(Window {
            days: [Weekday::Monday].into(),
            from: 120,
            to: 180,
        });
    }
    assert_times(
        &when,
        &[
            ("2026-03-01T00:30:00Z", true),
            ("2026-03-01T02:30:00Z", false),
            ("2026-03-02T02:30:00Z", true),
        ],
    );
}
