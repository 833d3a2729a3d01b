//! The truth table: who reaches whom, for some ports.
//!
//! Generic over the evaluator, so that two of them can be compared cell by cell.

mod render;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    connection::{End, Perspective, Port, Verdict, Ways},
    model::World,
    question::Evaluator,
};

/// All pairs of different ends for each port. As JSON: `{"pairs": [{from, to, port, verdict}…]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    ends: Vec<End>,
    grids: Vec<Grid>,
}

/// Who is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axes {
    #[default]
    Workloads,
    /// And every node, behind the workloads.
    WorkloadsAndNodes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid {
    port: Port,
    /// By source and then destination, in the order of the ends.
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// Between all of their addresses.
    Allow,
    /// Between all of their addresses.
    Deny,
    /// Some pairs of their addresses are permitted and others denied.
    Mixed,
    /// The two have no addresses of a common family, so there is nothing that policy could judge.
    Unreachable,
    /// An end and itself; never among the pairs.
    Itself,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<'a> {
    pub from: &'a End,
    pub to: &'a End,
    pub port: Port,
    pub verdict: Cell,
}

// === impl Matrix ===

impl Matrix {
    pub fn new(
        world: &World,
        evaluator: &impl Evaluator,
        axes: Axes,
        ports: &[Port],
        perspective: Perspective,
    ) -> Self {
        let workloads = world.workloads.keys().cloned().map(End::Workload);
        let nodes = world.nodes.keys().cloned().map(End::Node);
        let ends: Vec<_> = match axes {
            Axes::Workloads => workloads.collect(),
            Axes::WorkloadsAndNodes => workloads.chain(nodes).collect(),
        };
        let row = |from: &End, port| {
            ends.iter()
                .map(|to| cell(world, evaluator, from, to, port, perspective))
                .collect()
        };
        let grid = |&port: &Port| Grid {
            port,
            rows: ends.iter().map(|from| row(from, port)).collect(),
        };
        Self {
            grids: ports.iter().map(grid).collect(),
            ends,
        }
    }

    /// Port by port, then by source and destination; never an end with itself.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.grids.iter().flat_map(move |grid| {
            self.ends
                .iter()
                .zip(&grid.rows)
                .flat_map(move |(from, row)| {
                    self.ends
                        .iter()
                        .zip(row)
                        .filter(|(_, verdict)| **verdict != Cell::Itself)
                        .map(move |(to, &verdict)| Pair {
                            from,
                            to,
                            port: grid.port,
                            verdict,
                        })
                })
        })
    }
}

fn cell(
    world: &World,
    evaluator: &impl Evaluator,
    from: &End,
    to: &End,
    port: Port,
    perspective: Perspective,
) -> Cell {
    if from == to {
        return Cell::Itself;
    }
    match Ways::new(world, from, to, port, perspective) {
        Ok(ways) => match ways.common_verdict(evaluator) {
            Some(Verdict::Allow) => Cell::Allow,
            Some(Verdict::Deny) => Cell::Deny,
            None => Cell::Mixed,
        },
        // Both names are from this world, so only their addresses can be missing.
        Err(_) => Cell::Unreachable,
    }
}

impl Serialize for Matrix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A list that is never held in memory as such.
        struct Pairs<'a>(&'a Matrix);
        impl Serialize for Pairs<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.pairs())
            }
        }
        let mut object = serializer.serialize_struct("Matrix", 1)?;
        object.serialize_field("pairs", &Pairs(self))?;
        object.end()
    }
}

#[cfg(test)]
mod tests;
