//! The truth table: who reaches whom, for some ports.
//!
//! Generic over the evaluator, so that two of them can be compared cell by cell.

mod render;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    connection::{Connection, End, Port, Verdict},
    model::{ObjectName, Time, World},
    question::Evaluator,
};

/// All pairs of different workloads for each port. As JSON: `{"pairs": [{from, to, port, verdict}…]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    workloads: Vec<ObjectName>,
    grids: Vec<Grid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid {
    port: Port,
    /// By source and then destination, in the order of the workloads.
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    Allow,
    Deny,
    /// The two have no addresses of a common family, so there is nothing that policy could judge.
    Unreachable,
    /// A workload and itself; never among the pairs.
    Itself,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<'a> {
    #[serde(serialize_with = "as_text")]
    pub from: &'a ObjectName,
    #[serde(serialize_with = "as_text")]
    pub to: &'a ObjectName,
    pub port: Port,
    pub verdict: Cell,
}

// === impl Matrix ===

impl Matrix {
    pub fn new(world: &World, evaluator: &impl Evaluator, ports: &[Port], at: Time) -> Self {
        let workloads: Vec<_> = world.workloads.keys().cloned().collect();
        let ends: Vec<_> = workloads.iter().cloned().map(End::Workload).collect();
        let row = |from: &End, port| {
            ends.iter()
                .map(|to| cell(world, evaluator, from, to, port, at))
                .collect()
        };
        let grid = |&port: &Port| Grid {
            port,
            rows: ends.iter().map(|from| row(from, port)).collect(),
        };
        Self {
            grids: ports.iter().map(grid).collect(),
            workloads,
        }
    }

    /// Port by port, then by source and destination; never a workload with itself.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.grids.iter().flat_map(move |grid| {
            self.workloads
                .iter()
                .zip(&grid.rows)
                .flat_map(move |(from, row)| {
                    self.workloads
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
    at: Time,
) -> Cell {
    if from == to {
        return Cell::Itself;
    }
    match Connection::new(world, from, to, port, at) {
        Ok(connection) => match connection.verdict(evaluator) {
            Verdict::Allow => Cell::Allow,
            Verdict::Deny => Cell::Deny,
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

fn as_text<S: Serializer>(name: &ObjectName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

#[cfg(test)]
mod tests;
