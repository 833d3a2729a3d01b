//! Things with labels, and sets of their numbers.

use std::collections::{BTreeSet, HashMap};

use crate::{
    lint::labels::matches,
    model::{Labels, Requirement, Selector},
};

/// Things with labels, found by one of these.
#[derive(Debug)]
pub(super) struct Indexed<'a, T> {
    pub(super) things: Vec<(&'a Labels, T)>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
}

/// Those whom a policy is about, by number.
#[derive(Clone, Debug, Default)]
pub(in crate::lint) struct Selected {
    words: Vec<u64>,
}

// === impl Indexed ===

impl<'a, T> Indexed<'a, T> {
    pub(super) fn new(things: impl IntoIterator<Item = (&'a Labels, T)>) -> Self {
        let things: Vec<_> = things.into_iter().collect();
        let mut by_label: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, (labels, _)) in things.iter().enumerate() {
            for (key, value) in *labels {
                let of_label = by_label.entry((key.as_str(), value.as_str()));
                of_label.or_default().push(number);
            }
        }
        Self { things, by_label }
    }

    pub(super) fn matching<'s>(
        &'s self,
        selector: &'s Selector,
    ) -> impl Iterator<Item = (usize, &'s T)> {
        let candidates: Box<dyn Iterator<Item = usize>> = match self.narrowest(selector) {
            // Each has one value of a key, so none comes twice.
            Some((key, values)) => Box::new(
                values
                    .iter()
                    .flat_map(move |value| self.with_label(key, value))
                    .copied(),
            ),
            None => Box::new(0..self.things.len()),
        };
        candidates.filter_map(|number| {
            let (labels, thing) = self.things.get(number)?;
            matches(selector, labels).then_some((number, thing))
        })
    }

    /// No more than so many match.
    pub(super) fn bound(&self, selector: &Selector) -> usize {
        self.narrowest(selector)
            .map_or(self.things.len(), |(key, values)| self.count(key, values))
    }

    fn narrowest<'s>(&self, selector: &'s Selector) -> Option<(&'s str, &'s BTreeSet<String>)> {
        let listed = selector.requirements.iter().filter_map(|one| match one {
            Requirement::In { key, values } => Some((key.as_str(), values)),
            Requirement::NotIn { .. }
            | Requirement::Exists { .. }
            | Requirement::DoesNotExist { .. } => None,
        });
        listed.min_by_key(|(key, values)| self.count(key, values))
    }

    fn count(&self, key: &str, values: &BTreeSet<String>) -> usize {
        let each = values.iter().map(|value| self.with_label(key, value).len());
        each.sum()
    }

    fn with_label<'s>(&'s self, key: &'s str, value: &'s str) -> &'s [usize] {
        let found = self.by_label.get(&(key, value));
        found.map_or(&[][..], Vec::as_slice)
    }
}

// === impl Selected ===

impl Selected {
    pub(in crate::lint) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(in crate::lint) fn meets(&self, other: &Self) -> bool {
        let mut both = self.words.iter().zip(&other.words);
        both.any(|(one, other)| one & other != 0)
    }

    pub(super) fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= 1 << (number % 64);
        }
    }

    pub(in crate::lint) fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..).zip(&self.words).flat_map(|(at, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| at * 64 + bit)
        })
    }
}
