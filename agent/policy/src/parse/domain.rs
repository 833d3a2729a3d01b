//! Names of the DNS, as peers and in tables.

use super::reader::Field;
use crate::yaml::quote;

const EXPECTED: &str = "at least two labels of letters, digits, `-` and `_`, a letter or digit at the end of each, \
                        at most 63 characters a label and 253 in all";

/// A name, or `*.` and a name.
pub(super) fn pattern(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    match text.strip_prefix("*.") {
        Some(suffix) => read(field, suffix).map(|suffix| format!("*.{suffix}")),
        None => read(field, text),
    }
}

/// A name in lower case, without a final dot. The field is where it stands.
pub(super) fn read(field: &Field<'_>, text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let valid = name.len() <= 253 && name.contains('.') && name.split('.').all(is_label);
    if !valid {
        let message = format!("invalid domain name {}: expected {EXPECTED}", quote(text));
        if text.contains('*') {
            let hint = "`*.` may only stand in front of the whole name of a peer";
            field.error_with_hint("invalid-domain", message, hint);
        } else {
            field.error("invalid-domain", message);
        }
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// A label may begin with `_`, as service records do.
fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && label.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_hosts_and_services() {
        for good in ["a", "_tcp", "a-b", "A_1"] {
            assert!(is_label(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a_", "é", "a b", "*", &long] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
