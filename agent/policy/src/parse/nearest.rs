//! Which known name a misspelt one probably was.

/// The nearest of `known`, if it is near enough to be worth saying.
pub(super) fn nearest<'k>(seen: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 64;
    if seen.len() > LONGEST {
        return None;
    }
    let lower = seen.to_lowercase();
    known
        .iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1.max(name.len() / 3))
        .map(|(_, name)| name)
}

/// Insertions, removals and replacements that lead from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row
            .iter_mut()
            .zip(std::iter::once(None).chain(b.chars().map(Some)))
        {
            let Some(y) = y else {
                *cell = i + 1;
                continue;
            };
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["podSelector", "namespaceSelector", "ipBlock"];
        assert_eq!(nearest("podselector", &known), Some("podSelector"));
        assert_eq!(nearest("podSelectr", &known), Some("podSelector"));
        assert_eq!(nearest("ipblok", &known), Some("ipBlock"));
        assert_eq!(nearest("service", &known), None);
    }
}
