//! What was measured, for people and for programs, and the targets beside it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::agent::Agent;

#[derive(Debug)]
pub struct Report {
    /// What is measured, in one word.
    of: &'static str,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    what: String,
    figures: Vec<(&'static str, f64)>,
    unit: &'static str,
    target: &'static str,
}

impl Report {
    pub fn new(of: &'static str) -> Self {
        let lines = Vec::new();
        Self { of, lines }
    }

    /// Times of the same thing, in any order.
    pub fn times(&mut self, what: &str, target: &'static str, times: Vec<Duration>) {
        let what = format!("{what} ({} times)", times.len());
        self.figure(&what, target, "ms", percentiles(times, 1e3));
    }

    /// The same of a metric that others measure too, by its name and in its unit.
    pub fn metric(&mut self, name: &str, target: &'static str, times: Vec<Duration>) {
        self.figure(name, target, "s", percentiles(times, 1.0));
    }

    pub fn figure(
        &mut self,
        what: &str,
        target: &'static str,
        unit: &'static str,
        figures: Vec<(&'static str, f64)>,
    ) {
        self.lines.push(Line {
            what: what.to_owned(),
            figures,
            unit,
            target,
        });
    }

    pub fn memory(&mut self, when: &str, target: &'static str, agent: &Agent) -> Result<()> {
        let process = agent.process().context("the agent does not run")?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .context("cannot read the agent's status")?;
        let mib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kib: u32 = number.context("no such line")?.parse()?;
            Ok(f64::from(kib) / 1024.0)
        };
        let figures = vec![
            ("resident", mib("VmRSS:")?),
            ("of it its own", mib("RssAnon:")?),
            ("peak", mib("VmHWM:")?),
        ];
        self.figure(&format!("memory {when}"), target, "MiB", figures);
        Ok(())
    }

    pub fn write(&self) -> Result<()> {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let figures = line.figures.iter();
                let figures: serde_json::Map<String, Value> = figures
                    .map(|(name, figure)| ((*name).to_owned(), json!(figure)))
                    .collect();
                json!({
                    "case": line.what, "unit": line.unit, "target": line.target,
                    "figures": figures,
                })
            })
            .collect();
        let text = serde_json::to_vec_pretty(&json!({self.of: lines}))?;
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let file = format!("../target/bench-{}.json", self.of);
        let path = Path::new(&manifest).join(file);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

fn percentiles(mut times: Vec<Duration>, unit: f64) -> Vec<(&'static str, f64)> {
    times.sort();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        let time = times.get(index);
        time.map_or(f64::NAN, |time| time.as_secs_f64() * unit)
    };
    vec![
        ("p50", at(50)),
        ("p90", at(90)),
        ("p99", at(99)),
        ("most", at(100)),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line {
            what,
            figures,
            unit,
            target,
        } in &self.lines
        {
            write!(f, "{what:60}")?;
            for (name, figure) in figures {
                write!(f, " {name} {figure:.*}", if *unit == "s" { 4 } else { 2 })?;
            }
            write!(f, " {unit}")?;
            if !target.is_empty() {
                write!(f, "   (target: {target})")?;
            }
            writeln!(f)?;
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("not told");
        write!(
            f,
            "Times are those of this machine, whose load was {load}; sender and agent share its \
             processors."
        )
    }
}
