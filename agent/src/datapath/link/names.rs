//! Which interfaces are meant, by their names.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// `IFNAMSIZ`, less the zero at its end.
const LONGEST: usize = 15;

/// The name of an interface, or what names begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub(crate) enum NamePattern {
    Exactly(String),
    Beginning(String),
}

/// Why a text is no [`NamePattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NamePatternError {
    #[error("a name, as in cali0, or what names begin with, as in cali*")]
    NoName,
    #[error("something before the `*`: the node's own interfaces are not its workloads'")]
    Everything,
    #[error("another name: nothing of a workload is at the loopback interface")]
    Loopback,
    #[error("at most {LONGEST} bytes, as the kernel has it")]
    TooLong,
}

impl NamePattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(it) => name == it,
            Self::Beginning(it) => name.starts_with(it),
        }
    }
}

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, NamePatternError> {
        let (name, pattern): (_, fn(String) -> Self) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, Self::Beginning),
            None => (text, Self::Exactly),
        };
        // As the kernel's `dev_valid_name`, and without what could be taken for more of a pattern.
        let is_foreign = |letter: char| {
            letter.is_whitespace() || letter.is_control() || "/:*?[]{}".contains(letter)
        };
        if text == "*" {
            return Err(NamePatternError::Everything);
        }
        if name.is_empty() || name == "." || name == ".." || name.contains(is_foreign) {
            return Err(NamePatternError::NoName);
        }
        if text == "lo" {
            return Err(NamePatternError::Loopback);
        }
        if name.len() > LONGEST {
            return Err(NamePatternError::TooLong);
        }
        Ok(pattern(name.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => f.write_str(name),
            Self::Beginning(name) => write!(f, "{name}*"),
        }
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_itself_and_a_beginning_all_that_begin_with_it() {
        let matches = |pattern: &str, name| pattern.parse::<NamePattern>().unwrap().matches(name);
        assert!(matches("tap0", "tap0"));
        assert!(!matches("tap0", "tap01"));
        assert!(matches("tap*", "tap"));
        assert!(matches("tap*", "tap01"));
        assert!(!matches("tap*", "vtap0"));
    }

    #[test]
    fn what_no_interface_can_be_called_is_refused() {
        for (text, error) in [
            ("", NamePatternError::NoName),
            ("*", NamePatternError::Everything),
            ("lo", NamePatternError::Loopback),
            ("veth*0", NamePatternError::NoName),
            ("veth?", NamePatternError::NoName),
            ("veth**", NamePatternError::NoName),
            ("a/b", NamePatternError::NoName),
            ("a b", NamePatternError::NoName),
            ("..", NamePatternError::NoName),
            ("0123456789abcdef", NamePatternError::TooLong),
        ] {
            assert_eq!(text.parse::<NamePattern>(), Err(error), "{text:?}");
        }
    }
}
