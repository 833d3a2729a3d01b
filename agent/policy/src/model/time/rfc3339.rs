//! The one spelling of a moment that the schemas allow: `2026-12-31T18:00:00.5+01:00`.

use jiff::civil::Date;

/// Seconds since 1970 in UTC.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let rest = &mut &*text;
    let (year, month, day) = (
        number(rest, 4)?,
        after(rest, &['-'], 2)?,
        after(rest, &['-'], 2)?,
    );
    let (hour, minute, second) = (
        after(rest, &['T', 't', ' '], 2)?,
        after(rest, &[':'], 2)?,
        after(rest, &[':'], 2)?,
    );
    skip_fraction(rest)?;
    let offset = offset(rest)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute - offset) * 60 + second.min(59))
}

/// Days since 1970; `None` where the month has no such day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let (year, month, day) = (
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    );
    let date = Date::new(year, month, day).ok()?;
    let between = Date::constant(1970, 1, 1).until(date).ok()?;
    Some(i64::from(between.get_days()))
}

/// Minutes that the clock on the wall is ahead of UTC.
fn offset(rest: &mut &str) -> Option<i64> {
    if matches!(*rest, "Z" | "z") {
        return Some(0);
    }
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (after(rest, &['+', '-'], 2)?, after(rest, &[':'], 2)?);
    (hours <= 23 && minutes <= 59 && rest.is_empty()).then_some(sign * (hours * 60 + minutes))
}

fn skip_fraction(rest: &mut &str) -> Option<()> {
    if let Some(fraction) = rest.strip_prefix('.') {
        let after = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if after.len() == fraction.len() {
            return None;
        }
        *rest = after;
    }
    Some(())
}

fn after(rest: &mut &str, separators: &[char], digits: usize) -> Option<i64> {
    *rest = rest.strip_prefix(separators)?;
    number(rest, digits)
}

fn number(rest: &mut &str, digits: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    head.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| head.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rfc_3339_is_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29t12:00:00z", 951_825_600),
            ("2026-12-31 18:00:00.123456789012+01:30", 1_798_734_600),
            ("2026-12-31T23:59:60-00:00", 1_798_761_599),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "20261231T180000Z",
            "2026-12-31T18Z",
            "2026-12-31T18:00Z",
            "2026-12-31T18:00:00",
            "2026-12-31T18:00:00+01",
            "2026-12-31T18:00:00+0100",
            "2026-12-31T18:00:00+24:00",
            "2026-12-31T18:00:00Z[UTC]",
            "2026-12-31T18:00:00+01:00[Europe/Berlin]",
            "+002026-12-31T18:00:00Z",
            "-002026-12-31T18:00:00Z",
            "2026-12-31T18:00:00.Z",
            "2026-12-31T18:00:00,5Z",
            "2026-13-31T18:00:00Z",
            "2026-02-29T18:00:00Z",
            "2026-12-31T24:00:00Z",
            "2026-12-31T18:60:00Z",
            "2026-12-31T18:00:61Z",
            "2026-12-31T18:00:00Z ",
            "2026-12-31T18:00:0éZ",
            "éé26-12-31T18:00:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
