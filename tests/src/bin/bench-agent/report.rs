//! What was measured, for people and for programs, and the targets beside it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ringfence_lab::agent::Agent;
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Report {
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
    /// Times of the same thing, in any order.
    pub(crate) fn times(&mut self, what: &str, target: &'static str, mut times: Vec<Duration>) {
        times.sort();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times
                .get(index)
                .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        self.lines.push(Line {
            what: format!("{what} ({} times)", times.len()),
            figures: vec![("p50", at(50)), ("p99", at(99)), ("most", at(100))],
            unit: "ms",
            target,
        });
    }

    pub(crate) fn figure(
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

    pub(crate) fn memory(&mut self, when: &str, agent: &Agent) -> Result<()> {
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
        let target = "resident <= 100";
        self.figure(&format!("memory {when}"), target, "MiB", figures);
        Ok(())
    }

    pub(crate) fn write(&self) -> Result<()> {
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
        let text = serde_json::to_vec_pretty(&json!({"agent": lines}))?;
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let path = Path::new(&manifest).join("../target/bench-agent.json");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }
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
                write!(f, " {name} {figure:.2}")?;
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
