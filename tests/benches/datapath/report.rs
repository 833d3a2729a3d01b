//! Medians and ratios, for people and for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use ringfence::datapath::object::cost::Cost;
use serde_json::{Value, json};

use crate::cases::{CGROUP, CGROUP_NULL, NULL, Round, TARGETS};

pub(crate) struct Report {
    costs: Vec<Cost>,
    rounds: BTreeMap<u32, Vec<Round>>,
}

/// Medians over the rounds of one size.
struct Line {
    entries: u32,
    case: &'static str,
    nanoseconds: f64,
    ratio: f64,
    target: Option<f64>,
}

impl Report {
    pub(crate) fn new(costs: Vec<Cost>) -> Self {
        Self {
            costs,
            rounds: BTreeMap::new(),
        }
    }

    pub(crate) fn round(&mut self, entries: u32, round: Round) {
        self.rounds.entry(entries).or_default().push(round);
    }

    pub(crate) fn print(&self) {
        for Cost {
            program,
            verified,
            stack,
            time,
        } in &self.costs
        {
            println!(
                "{program:24} {verified:>8} instructions verified in {time:.1?}, stack {stack}"
            );
        }
        println!(
            "\n{:28} {:>8} {:>9} {:>8} {:>8}",
            "", "entries", "ns", "x null", "at most"
        );
        for Line {
            entries,
            case,
            nanoseconds,
            ratio,
            target,
        } in self.lines()
        {
            let target = target.map_or_else(String::new, |target| format!("{target:.1}"));
            println!("{case:28} {entries:>8} {nanoseconds:>9.1} {ratio:>8.2} {target:>8}");
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let programs: Vec<Value> = self
            .costs
            .iter()
            .map(|cost| {
                json!({
                    "program": cost.program,
                    "verified": cost.verified,
                    "stack": cost.stack,
                    "verifyNanoseconds": u64::try_from(cost.time.as_nanos()).unwrap_or(u64::MAX),
                })
            })
            .collect();
        let packets: Vec<Value> = self
            .lines()
            .map(|line| {
                json!({
                    "case": line.case,
                    "entries": line.entries,
                    "nanoseconds": line.nanoseconds,
                    "ratio": line.ratio,
                    "target": line.target,
                })
            })
            .collect();
        let text = serde_json::to_vec_pretty(&json!({"programs": programs, "packets": packets}))?;
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        self.rounds.iter().flat_map(|(&entries, rounds)| {
            let cases = rounds.first().into_iter().flat_map(Round::keys).copied();
            cases.map(move |case| Line {
                entries,
                case,
                nanoseconds: median(rounds.iter().map(|round| round[case])),
                ratio: median(
                    rounds
                        .iter()
                        .map(|round| round[case] / round[yardstick(case)]),
                ),
                target: TARGETS
                    .iter()
                    .find(|(of, _)| *of == case)
                    .map(|(_, target)| *target),
            })
        })
    }
}

/// The null program of the same hook.
fn yardstick(case: &str) -> &'static str {
    if [CGROUP, CGROUP_NULL].contains(&case) {
        CGROUP_NULL
    } else {
        NULL
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
