//! The figures, for people and for programs, with the targets beside them.

use std::collections::BTreeSet;

use agent_policy::{compiled::Compiled, model::World};
use serde_json::json;

use crate::{cluster::Size, measure::Sample};

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
    pub(crate) tables: Vec<Tables>,
}

#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) size: &'static str,
    pub(crate) name: &'static str,
    pub(crate) sample: Sample,
    pub(crate) target: Option<Target>,
}

/// What is hoped for at the full size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) milliseconds: f64,
    pub(crate) megabytes: Option<f64>,
}

/// How much of what there is.
#[derive(Debug)]
pub(crate) struct Tables {
    size: &'static str,
    pub(crate) counts: Vec<(&'static str, usize)>,
}

/// The figure that all others are told in.
const YARDSTICK: &str = "copy the world's maps";

impl Report {
    pub(crate) fn table(&self) {
        println!(
            "{:42} {:>5} {:>11} {:>11} {:>9} {:>8} {:>8}  target",
            "", "size", "cpu ms", "wall ms", "x copy", "peak MB", "kept MB"
        );
        for figure in &self.figures {
            let Figure {
                size,
                name,
                sample,
                target,
            } = figure;
            let Sample {
                processor,
                wall,
                peak,
                kept,
            } = sample;
            println!(
                "{name:42} {size:>5} {processor:>11.3} {wall:>11.3} {:>9.3} {:>8.1} {:>8.1}  {}",
                self.ratio(figure),
                megabytes(*peak),
                megabytes(*kept),
                target.map_or_else(String::new, |target| target.text(sample)),
            );
        }
        println!("\nThe same work at the full size, against a tenth of it:");
        for (figure, ratio) in self.growth() {
            println!("{:42} x {ratio:.1}", figure.name);
        }
        println!();
        let Some(first) = self.tables.first() else {
            return;
        };
        for (at, (name, _)) in first.counts.iter().enumerate() {
            print!("{name:42}");
            for tables in &self.tables {
                print!(" {:>11}", tables.counts[at].1);
            }
            println!();
        }
    }

    /// One object a line.
    pub(crate) fn lines(&self) {
        for figure in &self.figures {
            let Figure {
                size,
                name,
                sample,
                target,
            } = figure;
            let line = json!({
                "figure": name,
                "size": size,
                "cpuMilliseconds": sample.processor,
                "wallMilliseconds": sample.wall,
                "ratio": self.ratio(figure),
                "peakBytes": sample.peak,
                "keptBytes": sample.kept,
                "targetMilliseconds": target.map(|target| target.milliseconds),
                "targetMegabytes": target.and_then(|target| target.megabytes),
            });
            println!("{line}");
        }
        for Tables { size, counts } in &self.tables {
            for (name, count) in counts {
                println!("{}", json!({"count": name, "size": size, "value": count}));
            }
        }
    }

    fn ratio(&self, figure: &Figure) -> f64 {
        let yardstick = self
            .figures
            .iter()
            .find(|other| other.size == figure.size && other.name == YARDSTICK);
        yardstick.map_or(f64::NAN, |one| {
            figure.sample.processor / one.sample.processor
        })
    }

    fn growth(&self) -> impl Iterator<Item = (&Figure, f64)> {
        let small = self.figures.first().map(|figure| figure.size);
        let large = self
            .figures
            .iter()
            .filter(move |one| Some(one.size) != small);
        large.filter_map(move |figure| {
            let other = self
                .figures
                .iter()
                .find(|other| other.name == figure.name && Some(other.size) == small)?;
            Some((figure, figure.sample.processor / other.sample.processor))
        })
    }
}

impl Target {
    fn text(self, sample: &Sample) -> String {
        let Self {
            milliseconds,
            megabytes: most,
        } = self;
        let is_met = sample.processor <= milliseconds
            && most.is_none_or(|most| megabytes(sample.peak) <= most);
        let most = most.map_or_else(String::new, |most| format!(", {most} MB"));
        let met = if is_met { "met" } else { "MISSED" };
        format!("<= {milliseconds} ms{most}: {met}")
    }
}

impl Tables {
    pub(crate) fn of(size: Size, world: &World, compiled: &Compiled) -> Self {
        let Compiled {
            prefixes,
            sockets: _,
            policy,
            port_tables,
            subjects,
            rules,
            next_change: _,
        } = compiled;
        let identities: BTreeSet<u32> = prefixes.values().copied().collect();
        let sets: BTreeSet<u32> = policy.keys().map(|key| key.set).collect();
        let entries = port_tables.values().map(|table| table.0.len()).sum();
        let counts = vec![
            ("pods", world.workloads.len()),
            ("namespaces", world.namespaces.len()),
            (
                "policies",
                world.network_policies.len() + world.tier_policies.len(),
            ),
            ("CIDRs in them", size.cidrs as usize),
            ("endpoints of this node", subjects.len()),
            ("rules that select one of them", rules.len()),
            ("prefix entries", prefixes.len()),
            ("identities", identities.len()),
            ("policy sets", sets.len()),
            ("policy entries", policy.len()),
            ("port tables", port_tables.len()),
            ("port entries", entries),
        ];
        Self {
            size: size.name,
            counts,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
