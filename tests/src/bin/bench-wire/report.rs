//! Medians and ratios, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::host::{Records, Variant};
use crate::load::{Figure, Figures};

#[derive(Default)]
pub(crate) struct Report {
    rounds: BTreeMap<Variant, Vec<Figures>>,
    pub(crate) records: BTreeMap<Variant, Records>,
}

/// One variant's rounds of one kind.
struct Line {
    what: &'static str,
    variant: Variant,
    rate: f64,
    /// Of the rate to that of no policy: median, least and most.
    ratio: [f64; 3],
    time: f64,
    /// Of no policy's time to this one's, so that less than 1 is worse, as of rates.
    time_ratio: [f64; 3],
    agent: f64,
}

type Pick = fn(&Figures) -> Figure;

const KINDS: [(&str, Pick); 2] = [
    ("TCP connect and close", |figures| figures.connections),
    ("UDP packets of one flow", |figures| figures.datagrams),
];

impl Report {
    pub(crate) fn add(&mut self, variant: Variant, figures: Figures) {
        self.rounds.entry(variant).or_default().push(figures);
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (what, pick) in KINDS {
            let of = |variant| -> Vec<Figure> {
                let rounds = self.rounds.get(&variant);
                rounds.into_iter().flatten().map(pick).collect()
            };
            let none = of(Variant::None);
            for variant in Variant::ALL {
                let figures = of(variant);
                let pairs = || figures.iter().zip(&none);
                lines.push(Line {
                    what,
                    variant,
                    rate: median(figures.iter().map(|figure| figure.rate)),
                    ratio: spread(pairs().map(|(figure, none)| figure.rate / none.rate)),
                    time: median(figures.iter().map(|figure| figure.time)),
                    time_ratio: spread(pairs().map(|(figure, none)| none.time / figure.time)),
                    agent: median(figures.iter().map(|figure| figure.agent)),
                });
            }
        }
        lines
    }

    pub(crate) fn write(&self) -> Result<()> {
        let lines: Vec<Value> = self
            .lines()
            .iter()
            .map(|line| {
                let [median, least, most] = line.ratio;
                let [time, least_time, most_time] = line.time_ratio;
                json!({
                    "case": line.what,
                    "variant": line.variant.name(),
                    "rate": line.rate,
                    "ratio": median,
                    "leastRatio": least,
                    "mostRatio": most,
                    "microseconds": line.time,
                    "timeRatio": time,
                    "leastTimeRatio": least_time,
                    "mostTimeRatio": most_time,
                    "agentMicroseconds": line.agent,
                })
            })
            .collect();
        let records: serde_json::Map<_, _> = self
            .records
            .iter()
            .map(|(variant, records)| (variant.name().to_owned(), json!(records)))
            .collect();
        let text = serde_json::to_vec_pretty(&json!({"wire": lines, "records": records}))?;
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let path = Path::new(&manifest).join("../target/bench-wire.json");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds.get(&Variant::None).map_or(0, Vec::len);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        writeln!(
            f,
            "Medians of {rounds} rounds; the load of the machine was {}",
            load.split(' ').next().unwrap_or("not told")
        )?;
        writeln!(
            f,
            "{:24} {:10} {:>9} {:>6} {:>13} {:>9} {:>6} {:>13} {:>9}",
            "",
            "",
            "a second",
            "ratio",
            "least, most",
            "us each",
            "ratio",
            "least, most",
            "agent us"
        )?;
        for Line {
            what,
            variant,
            rate,
            ratio,
            time,
            time_ratio,
            agent,
        } in self.lines()
        {
            let name = variant.name();
            write!(f, "{what:24} {name:10} {rate:>9.0}")?;
            let [median, least, most] = ratio;
            write!(f, " {median:>6.3} {least:>6.3} {most:>6.3}")?;
            let [median, least, most] = time_ratio;
            write!(f, " {time:>9.2} {median:>6.3} {least:>6.3} {most:>6.3}")?;
            writeln!(f, " {agent:>9.2}")?;
        }
        for (variant, records) in &self.records {
            let Records {
                events,
                lost_in_kernel,
                written,
                lost_by_sinks,
                read_by_client,
            } = records;
            writeln!(
                f,
                "records of {}: {events} events read and {lost_in_kernel} lost in the kernel; to sinks \
                 {written} passed on and {lost_by_sinks} lost; {read_by_client} lines read by `flows --follow`",
                variant.name()
            )?;
        }
        writeln!(
            f,
            "Only the ratios count, and less than 1 is worse: rates and times are those of this machine, with \
             client, server and agent on the same processors. Times are those of processors, the agent's \
             own apart."
        )
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let [median, ..] = spread(values);
    median
}

/// Median, least and most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let values = sorted(values);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    [
        at(values.len() / 2),
        at(0),
        at(values.len().saturating_sub(1)),
    ]
}
