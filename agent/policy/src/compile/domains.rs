//! Names of the DNS that peer lists name, and those that are known.

use std::collections::{BTreeMap, BTreeSet};

/// Both sides are found by the ends of names: either may be a hundred thousand.
#[derive(Debug, Default)]
pub(super) struct Domains {
    /// The lists that have a pattern. A leading `*.` stands for one or more labels.
    lists: BTreeMap<String, BTreeSet<u32>>,
    /// Known names from their last character to their first: those with one end are in a row.
    known: BTreeSet<String>,
}

impl Domains {
    pub(super) fn add(&mut self, list: u32, pattern: &str) {
        let lists = self.lists.entry(pattern.to_owned()).or_default();
        lists.insert(list);
    }

    pub(super) fn remove(&mut self, list: u32, pattern: &str) {
        if let Some(lists) = self.lists.get_mut(pattern) {
            lists.remove(&list);
            if lists.is_empty() {
                self.lists.remove(pattern);
            }
        }
    }

    pub(super) fn know(&mut self, name: &str, is_known: bool) {
        if is_known {
            self.known.insert(reversed(name));
        } else {
            self.known.remove(&reversed(name));
        }
    }

    /// The lists that have a name, by itself or by its end.
    pub(super) fn lists_with(&self, name: &str) -> BTreeSet<u32> {
        let ends = name
            .match_indices('.')
            .filter_map(|(at, _)| name.get(at..))
            .filter_map(|end| self.lists.get(&format!("*{end}")));
        let itself = self.lists.get(name);
        ends.chain(itself).flatten().copied().collect()
    }

    /// The known names that a pattern stands for.
    pub(super) fn names(&self, pattern: &str) -> Vec<String> {
        match pattern.strip_prefix('*') {
            Some(end) => {
                let end = reversed(end);
                self.known
                    .range(end.clone()..)
                    .take_while(|name| name.starts_with(&end))
                    .map(|name| reversed(name))
                    .collect()
            }
            None if self.known.contains(&reversed(pattern)) => vec![pattern.to_owned()],
            None => Vec::new(),
        }
    }
}

fn reversed(name: &str) -> String {
    name.chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_find_one_another() {
        let patterns = ["a.example", "*.example", "*.a.example", "*.b.example"];
        let names = [
            "a.example",
            "x.a.example",
            "an-example.org",
            "example",
            "y.x.a.example",
        ];
        let mut domains = Domains::default();
        for (list, pattern) in (0..).zip(patterns) {
            domains.add(list, pattern);
        }
        for name in names {
            domains.know(name, true);
        }
        for (name, lists) in names
            .into_iter()
            .zip([&[0, 1][..], &[1, 2], &[], &[], &[1, 2]])
        {
            assert_eq!(
                domains.lists_with(name),
                lists.iter().copied().collect(),
                "{name}"
            );
            for (list, pattern) in (0..).zip(patterns) {
                let found = domains.names(pattern).contains(&name.to_owned());
                assert_eq!(found, lists.contains(&list), "{pattern} {name}");
            }
        }
        domains.know("a.example", false);
        domains.remove(1, "*.example");
        assert_eq!(domains.names("a.example"), Vec::<String>::new());
        assert_eq!(domains.lists_with("x.a.example"), [2].into());
    }
}
