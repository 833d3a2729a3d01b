//! Truth tables: what is expected, and how a difference is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use serde_json::Value;

/// `{"x/a": {"TCP/80,UDP/80": ["y/b"], "*": […]}}`, for one direction.
pub(crate) struct Table<'a>(pub(crate) &'a Value);

impl Table<'_> {
    pub(crate) fn permits(&self, subject: &str, port: &str, peer: &str) -> bool {
        let Some(open) = self.0.get(subject) else {
            return true;
        };
        let open = open.as_object().expect("peers by port");
        open.iter()
            .filter(|(ports, _)| *ports == "*" || ports.split(',').any(|listed| listed == port))
            .any(|(_, peers)| {
                peers
                    .as_array()
                    .expect("a list of pods")
                    .iter()
                    .any(|open| open == peer)
            })
    }
}

/// One connection, egress first.
pub(crate) struct Cell<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) port: &'a str,
    pub(crate) expected: [bool; 2],
    pub(crate) seen: [bool; 2],
}

/// All cells of a step by port, source and destination.
#[derive(Default)]
pub(crate) struct Diff {
    grids: BTreeMap<String, BTreeMap<(String, String), &'static str>>,
    differs: BTreeSet<String>,
}

impl Diff {
    pub(crate) fn note(&mut self, cell: &Cell<'_>) {
        let Cell {
            from,
            to,
            port,
            expected,
            seen,
        } = *cell;
        let all = |sides: [bool; 2]| sides.iter().all(|side| *side);
        let shown = match (expected == seen, all(expected), all(seen)) {
            (true, true, _) => ".",
            (true, false, _) => "X",
            (false, true, false) => "-!",
            (false, false, true) => "+!",
            (false, _, _) => "?!",
        };
        if expected != seen {
            self.differs.insert(port.to_owned());
        }
        let grid = self.grids.entry(port.to_owned()).or_default();
        grid.insert((from.to_owned(), to.to_owned()), shown);
    }

    pub(crate) fn text(&self) -> Option<String> {
        let mut text = String::new();
        for (port, grid) in self
            .grids
            .iter()
            .filter(|(port, _)| self.differs.contains(*port))
        {
            let columns: BTreeSet<_> = grid.keys().map(|(_, to)| to).collect();
            let rows: BTreeSet<_> = grid.keys().map(|(from, _)| from).collect();
            let width = columns
                .iter()
                .chain(&rows)
                .map(|name| name.len())
                .max()
                .unwrap_or(0)
                + 1;
            write!(
                text,
                "{port}: . open, X closed, -! lost, +! gained, ?! right by accident\n{:width$}",
                ""
            )
            .unwrap();
            for to in &columns {
                write!(text, "{to:>width$}").unwrap();
            }
            for from in rows {
                write!(text, "\n{from:>width$}").unwrap();
                for to in &columns {
                    let key = (from.clone(), (*to).clone());
                    write!(text, "{:>width$}", grid.get(&key).unwrap_or(&"")).unwrap();
                }
            }
            text.push('\n');
        }
        (!text.is_empty()).then_some(text)
    }
}

#[test]
fn a_difference_is_shown_where_it_is() {
    let mut diff = Diff::default();
    for (from, to, seen) in [("x/a", "x/b", true), ("x/b", "x/a", false)] {
        diff.note(&Cell {
            from,
            to,
            port: "TCP/80",
            expected: [true; 2],
            seen: [seen; 2],
        });
    }
    let text = diff.text().expect("one cell differs");
    let grid = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(grid, "     x/a x/b\n x/a       .\n x/b  -!    ");
    assert_eq!(Diff::default().text(), None);
}
