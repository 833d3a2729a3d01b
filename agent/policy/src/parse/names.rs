//! Which names the Kubernetes API accepts, and what to say about others.

use super::reader::Field;
use crate::yaml::quote;

/// The rules for a kind of name, in the words of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    what: &'static str,
    expected: &'static str,
    holds: fn(&str) -> bool,
}

pub(super) const LABEL: Rule = Rule {
    what: "name",
    expected: "1 to 63 lower-case letters, digits and `-`, a letter or digit at both ends",
    holds: is_dns_label,
};

pub(super) const SUBDOMAIN: Rule = Rule {
    what: "name",
    expected: "at most 253 lower-case letters, digits, `-` and `.`, a letter or digit at both ends \
               of each part",
    holds: is_dns_subdomain,
};

pub(super) const LABEL_KEY: Rule = Rule {
    what: "label key",
    expected: "an optional DNS prefix and `/`, then 1 to 63 letters, digits, `-`, `_` and `.`, a \
               letter or digit at both ends",
    holds: is_label_key,
};

pub(super) const LABEL_VALUE: Rule = Rule {
    what: "label value",
    expected: "nothing, or at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both \
               ends",
    holds: |value| value.is_empty() || is_qualified(value),
};

pub(super) const PORT_NAME: Rule = Rule {
    what: "port name",
    expected: "1 to 15 lower-case letters, digits and `-`, at least one letter, no `-` at the ends \
               or twice in a row",
    holds: is_port_name,
};

impl Rule {
    pub(super) fn holds(self, name: &str) -> bool {
        (self.holds)(name)
    }

    pub(super) fn message(self, name: &str) -> String {
        format!(
            "invalid {} {}: expected {}",
            self.what,
            quote(name),
            self.expected
        )
    }

    /// The text of a field that must follow the rule.
    pub(super) fn read(self, field: &Field<'_>) -> Option<String> {
        let name = field.string()?;
        if !self.holds(name) {
            field.error("invalid-name", self.message(name));
            return None;
        }
        Some(name.to_owned())
    }
}

fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_dns_subdomain(name: &str) -> bool {
    // A part may be longer than 63 here: the API checks only the whole.
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(part)
}

fn is_qualified(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && name.starts_with(end)
        && name.ends_with(end)
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_qualified(key),
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
    }
}

fn is_port_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(inner)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_accept_and_refuse() {
        let long = "a".repeat(64);
        for (rule, good, bad) in [
            (
                LABEL,
                &["a", "shop-1", "0"][..],
                &["", "-a", "A", "a.b", &long][..],
            ),
            (
                SUBDOMAIN,
                &["a.b", "node-1.example"],
                &["", "a..b", ".a", "a_b", "a."],
            ),
            (
                LABEL_KEY,
                &["app", "a.b/c_D", "x"],
                &["", "/a", "a/", "a/b/c", "A/b", "-a", &long],
            ),
            (LABEL_VALUE, &["", "A.b_c-1"], &["-", "a b", "a/b", &long]),
            (
                PORT_NAME,
                &["http", "h2c", "a-b"],
                &["", "80", "a--b", "-a", "Http", "sixteen-letters-"],
            ),
        ] {
            for name in good {
                assert!(rule.holds(name), "{rule:?} {name}");
            }
            for name in bad {
                assert!(!rule.holds(name), "{rule:?} {name}");
            }
        }
    }
}
