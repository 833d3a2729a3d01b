//! Plain scalars to values, by the core schema of YAML 1.2.
//!
//! The booleans of YAML 1.1 (`y`, `on`, …) stay strings: a label `on` must not turn into `true`.

use std::sync::Arc;

use super::Value;

pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::String(Arc::from(text));
    }
    if has_leading_zero(text) {
        return Value::LeadingZero(Arc::from(text));
    }
    integer(text)
        .or_else(|| float(text))
        .unwrap_or_else(|| Value::String(Arc::from(text)))
}

/// A boolean of YAML 1.1 that is none of YAML 1.2.
pub(super) fn is_word(text: &str) -> bool {
    const WORDS: [&str; 6] = ["y", "yes", "on", "n", "no", "off"];
    text.len() <= 3 && WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// `0120` is 120 here and 80 where YAML 1.1 is read, as `kubectl` does.
fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

fn integer(text: &str) -> Option<Value> {
    let parsed = if let Some(digits) = text.strip_prefix("0x") {
        digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| i64::from_str_radix(digits, 16))
    } else if let Some(digits) = text.strip_prefix("0o") {
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| i64::from_str_radix(digits, 8))
    } else {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse())
    };
    parsed?.ok().map(Value::Integer)
}

fn float(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        let infinity = if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
        return Some(Value::Float(infinity));
    }
    // Rust also reads `inf` and `nan`, which the core schema takes for strings.
    let shape = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|b| b.is_ascii_digit());
    shape.then(|| text.parse().ok())?.map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for (text, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("TRUE", Value::Bool(true)),
            ("80", Value::Integer(80)),
            ("-1", Value::Integer(-1)),
            ("0", Value::Integer(0)),
            ("0777", Value::LeadingZero(Arc::from("0777"))),
            ("-08", Value::LeadingZero(Arc::from("-08"))),
            ("0x1F", Value::Integer(31)),
            ("0o17", Value::Integer(15)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("99999999999999999999", Value::Float(1e20)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_value_elsewhere_stays_a_string() {
        for text in [
            "y",
            "n",
            "yes",
            "on",
            "off",
            "inf",
            "nan",
            "0x",
            "1.2.3.4",
            "10.0.0.0/8",
            "1_000",
            "-",
            "1-2",
            "0o9",
            "::1",
        ] {
            assert_eq!(resolve(text), Value::String(Arc::from(text)), "{text}");
        }
    }
}
