//! Selectors as sets: whether one takes in all of another, and whether two can meet.
//!
//! A selector is a conjunction over keys, so it is a product of one set for each key, and both
//! questions are answered exactly, key by key, without knowing a single workload.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use crate::{
    load::NAMESPACE_NAME_LABEL,
    model::{Labels, NamespaceScope, Requirement, Selector},
};

/// All label maps that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabelSet<'a> {
    /// The keys that are not free, sorted.
    keys: Vec<(&'a str, Key<'a>)>,
}

/// What one key may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key<'a> {
    absent: bool,
    present: Values<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Values<'a> {
    Only(BTreeSet<&'a str>),
    AllBut(BTreeSet<&'a str>),
}

/// Whether a selector matches labels.
///
/// Its own match, as each evaluator has: a lint that shared theirs would be wrong with them.
pub(super) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector
        .requirements
        .iter()
        .all(|requirement| match requirement {
            Requirement::In { key, values } => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn { key, values } => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists { key } => labels.contains_key(key),
            Requirement::DoesNotExist { key } => !labels.contains_key(key),
        })
}

// === impl LabelSet ===

impl<'a> LabelSet<'a> {
    pub(super) fn of(selector: &'a Selector) -> Self {
        let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
        for requirement in &selector.requirements {
            let (name, key) = Key::of(requirement);
            match keys.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(key);
                }
                Entry::Occupied(mut entry) => entry.get_mut().intersect(key),
            }
        }
        Self {
            keys: keys.into_iter().filter(|(_, key)| !key.is_free()).collect(),
        }
    }

    /// Namespaces. Each carries its name as a label, so that a name is a selector too.
    pub(super) fn of_scope(scope: &'a NamespaceScope) -> Self {
        match scope {
            NamespaceScope::Matching(selector) => Self::of(selector),
            NamespaceScope::Named(name) => Self {
                keys: vec![(NAMESPACE_NAME_LABEL, Key::only([name.as_str()]))],
            },
        }
    }

    /// Whether no labels whatsoever match.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.iter().any(|(_, key)| key.is_empty())
    }

    /// Whether whatever matches `other` matches this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let each = |(name, key): &(&str, Key<'_>)| {
            other
                .key(name)
                .is_some_and(|narrower| narrower.is_within(key))
        };
        other.is_empty() || self.keys.iter().all(each)
    }

    /// Whether some labels match both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let each = |(name, key): &(&str, Key<'_>)| {
            other.key(name).is_none_or(|other| {
                let mut both = key.clone();
                both.intersect(other.clone());
                !both.is_empty()
            })
        };
        !self.is_empty() && !other.is_empty() && self.keys.iter().all(each)
    }

    /// The keys that must have one of a few values, with these values.
    pub(super) fn listed(&self) -> impl Iterator<Item = (&'a str, &BTreeSet<&'a str>)> {
        self.keys.iter().filter_map(|(name, key)| match key {
            Key {
                absent: false,
                present: Values::Only(values),
            } => Some((*name, values)),
            _ => None,
        })
    }

    fn key(&self, name: &str) -> Option<&Key<'a>> {
        let at = self
            .keys
            .binary_search_by_key(&name, |(name, _)| *name)
            .ok()?;
        self.keys.get(at).map(|(_, key)| key)
    }
}

// === impl Key ===

impl<'a> Key<'a> {
    fn of(requirement: &'a Requirement) -> (&'a str, Self) {
        match requirement {
            Requirement::In { key, values } => (key, Self::only(values.iter().map(String::as_str))),
            Requirement::NotIn { key, values } => {
                let values = values.iter().map(String::as_str).collect();
                let key_set = Self {
                    absent: true,
                    present: Values::AllBut(values),
                };
                (key, key_set)
            }
            Requirement::Exists { key } => {
                let any = Self {
                    absent: false,
                    present: Values::AllBut(BTreeSet::new()),
                };
                (key, any)
            }
            Requirement::DoesNotExist { key } => {
                let none = Self {
                    absent: true,
                    present: Values::Only(BTreeSet::new()),
                };
                (key, none)
            }
        }
    }

    fn only(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            absent: false,
            present: Values::Only(values.into_iter().collect()),
        }
    }

    fn is_free(&self) -> bool {
        matches!(self, Self { absent: true, present: Values::AllBut(values) } if values.is_empty())
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self { absent: false, present: Values::Only(values) } if values.is_empty())
    }

    fn is_within(&self, other: &Self) -> bool {
        (!self.absent || other.absent)
            && match (&self.present, &other.present) {
                (Values::Only(a), Values::Only(b)) => a.is_subset(b),
                (Values::Only(a), Values::AllBut(b)) => a.is_disjoint(b),
                (Values::AllBut(a), Values::AllBut(b)) => b.is_subset(a),
                // There are always more values than any list has.
                (Values::AllBut(_), Values::Only(_)) => false,
            }
    }

    /// Costs what the shorter list has: a selector may speak of one key a hundred thousand times.
    fn intersect(&mut self, other: Self) {
        self.absent &= other.absent;
        let own = std::mem::replace(&mut self.present, Values::Only(BTreeSet::new()));
        self.present = match (own, other.present) {
            (Values::Only(a), Values::Only(b)) => {
                let (mut few, many) = by_length(a, b);
                few.retain(|value| many.contains(value));
                Values::Only(few)
            }
            (Values::Only(mut listed), Values::AllBut(without))
            | (Values::AllBut(without), Values::Only(mut listed)) => {
                if without.len() < listed.len() {
                    for value in &without {
                        listed.remove(value);
                    }
                } else {
                    listed.retain(|value| !without.contains(value));
                }
                Values::Only(listed)
            }
            (Values::AllBut(a), Values::AllBut(b)) => {
                let (few, mut many) = by_length(a, b);
                many.extend(few);
                Values::AllBut(many)
            }
        };
    }
}

/// The shorter one first.
fn by_length<'a>(
    a: BTreeSet<&'a str>,
    b: BTreeSet<&'a str>,
) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    if a.len() <= b.len() { (a, b) } else { (b, a) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies::{policy, world};

    proptest! {
        #[test]
        fn sets_say_what_selectors_match(a in policy(4), b in policy(4), world in world()) {
            let (a, b) = (a.subject, b.subject);
            let (one, other) = (LabelSet::of(&a), LabelSet::of(&b));
            for workload in world.workloads.values() {
                let (in_one, in_other) = (matches(&a, &workload.labels), matches(&b, &workload.labels));
                prop_assert!(!(one.covers(&other) && in_other && !in_one));
                prop_assert!(one.meets(&other) || !(in_one && in_other));
                prop_assert!(!(one.is_empty() && in_one));
            }
        }
    }

    #[test]
    fn a_longer_list_of_requirements_is_within_a_shorter_one() {
        let requirement = |key: &str, values: &[&str]| Requirement::In {
            key: key.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let wide = Selector {
            requirements: vec![requirement("app", &["a", "b"])],
        };
        let narrow = Selector {
            requirements: vec![requirement("tier", &["x"]), requirement("app", &["a"])],
        };
        let (wide, narrow) = (LabelSet::of(&wide), LabelSet::of(&narrow));
        assert!(wide.covers(&narrow) && !narrow.covers(&wide));
        let exists = Selector {
            requirements: vec![Requirement::Exists { key: "app".into() }],
        };
        assert!(LabelSet::of(&exists).covers(&wide));
        assert!(!wide.covers(&LabelSet::of(&exists)));
    }
}
