//! Fields whose value is one word out of a few. The tables here are also what the schemas list.

use super::{nearest::nearest, reader::Field};
use crate::{
    model::{Denied, Mode, Protocol, Tier, TierAction, Weekday},
    yaml::quote,
};

/// The words, and how messages speak of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<T: 'static> {
    what: &'static str,
    code: &'static str,
    words: &'static [(&'static str, T)],
}

pub(crate) const PROTOCOLS: Choice<Protocol> = Choice {
    what: "protocol",
    code: "unknown-protocol",
    words: &[
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
        ("SCTP", Protocol::Sctp),
    ],
};

/// Of `ClusterNetworkPolicy`.
pub(super) const CLUSTER_TIERS: Choice<Tier> = Choice {
    what: "tier",
    code: "unknown-tier",
    words: &[("Admin", Tier::Admin), ("Baseline", Tier::Baseline)],
};

/// Of `RingfencePolicy`.
pub(crate) const TIERS: Choice<Tier> = Choice {
    what: "tier",
    code: "unknown-tier",
    words: &[
        ("Quarantine", Tier::Quarantine),
        ("Admin", Tier::Admin),
        ("Baseline", Tier::Baseline),
    ],
};

/// Of `ClusterNetworkPolicy`.
pub(super) const CLUSTER_ACTIONS: Choice<TierAction> = Choice {
    what: "action",
    code: "unknown-action",
    words: &[
        ("Accept", TierAction::Accept),
        ("Deny", TierAction::Deny),
        ("Pass", TierAction::Pass),
    ],
};

/// Of `RingfencePolicy`.
pub(crate) const ACTIONS: Choice<TierAction> = Choice {
    what: "action",
    code: "unknown-action",
    words: &[
        ("Allow", TierAction::Accept),
        ("Deny", TierAction::Deny),
        ("Pass", TierAction::Pass),
    ],
};

pub(crate) const MODES: Choice<Mode> = Choice {
    what: "mode",
    code: "unknown-mode",
    words: &[
        ("enforce", Mode::Enforce),
        ("audit", Mode::Audit),
        ("staged", Mode::Staged),
    ],
};

pub(crate) const DENIED: Choice<Denied> = Choice {
    what: "answer",
    code: "unknown-denied",
    words: &[("drop", Denied::Drop), ("reject", Denied::Reject)],
};

pub(crate) const DAYS: Choice<Weekday> = Choice {
    what: "day",
    code: "unknown-day",
    words: &[
        ("Monday", Weekday::Monday),
        ("Tuesday", Weekday::Tuesday),
        ("Wednesday", Weekday::Wednesday),
        ("Thursday", Weekday::Thursday),
        ("Friday", Weekday::Friday),
        ("Saturday", Weekday::Saturday),
        ("Sunday", Weekday::Sunday),
    ],
};

impl<T: Copy> Choice<T> {
    pub(super) const fn new(
        what: &'static str,
        code: &'static str,
        words: &'static [(&'static str, T)],
    ) -> Self {
        Self { what, code, words }
    }

    pub(crate) fn words(&self) -> Vec<&'static str> {
        self.words.iter().map(|(word, _)| *word).collect()
    }

    pub(super) fn read(&self, field: &Field<'_>) -> Option<T> {
        let seen = field.string()?;
        let found = self.words.iter().find(|(word, _)| *word == seen);
        if found.is_none() {
            let words = self.words();
            let message = format!(
                "unknown {} {}: expected {}",
                self.what,
                quote(seen),
                alternatives(&words, "or")
            );
            field.error_with_suggestion(self.code, message, || meant(seen, &words));
        }
        found.map(|(_, value)| *value)
    }
}

/// Words for the same in other places.
const ELSEWHERE: [(&str, &str); 4] = [
    ("accept", "Allow"),
    ("allow", "Accept"),
    ("drop", "Deny"),
    ("block", "Deny"),
];

/// What somebody probably means: the word of another kind, the only word that begins so, or a near
/// one.
fn meant<'w>(seen: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = seen.to_ascii_lowercase();
    let same = |word: &&&str| {
        ELSEWHERE
            .iter()
            .any(|(there, here)| lower == *there && *here == **word)
    };
    if let Some(word) = words.iter().find(same) {
        return Some(word);
    }
    let mut begun = words
        .iter()
        .filter(|word| lower.len() >= 2 && word.to_ascii_lowercase().starts_with(&lower));
    match (begun.next(), begun.next()) {
        (Some(word), None) => Some(word),
        _ => nearest(seen, words),
    }
}

/// As in "`a`, `b` or `c`".
pub(super) fn alternatives(words: &[&str], conjunction: &str) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {conjunction} `{last}`", first.join(", "))
        }
    }
}
