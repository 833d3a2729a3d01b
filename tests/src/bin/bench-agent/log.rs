//! What the agent's log tells of times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ringfence_lab::agent::Agent;
use serde_json::Value;

const DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// Microseconds of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        Self::of(SystemTime::now())
    }

    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros() % u128::from(DAY);
        Self(u64::try_from(micros).unwrap_or_default())
    }

    /// Of `2026-11-29T11:10:25.123456Z`.
    fn parse(text: &str) -> Option<Self> {
        let clock = text.split_once('T')?.1.strip_suffix('Z')?;
        let (clock, fraction) = clock.split_once('.')?;
        let mut seconds = 0;
        for part in clock.split(':') {
            seconds = seconds * 60 + part.parse::<u64>().ok()?;
        }
        let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
        Some(Self(seconds * 1_000_000 + micros))
    }

    /// Nothing if it was not later after all: who noted the other moment may have been kept waiting.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let micros = (self.0 + DAY - earlier.0) % DAY;
        Duration::from_micros(if micros < DAY / 2 { micros } else { 0 })
    }
}

/// A line that says that policy came into force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce {
    pub(crate) reading: Duration,
    pub(crate) compiling: Duration,
    pub(crate) applying: Duration,
    pub(crate) prefixes: u64,
}

/// The lines with this message, oldest first, and when they were written.
pub(crate) fn lines(agent: &Agent, message: &str) -> Result<Vec<(Moment, Value)>> {
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains(message));
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).context("a log in JSON")?;
            let moment = line["timestamp"].as_str().and_then(Moment::parse);
            Ok((moment.context("a time")?, line))
        })
        .collect()
}

pub(crate) fn in_force(agent: &Agent) -> Result<Vec<InForce>> {
    let lines = lines(agent, "policy is in force")?.into_iter();
    lines
        .map(|(_, line)| {
            let time = |name: &str| {
                let text = line[name].as_str().with_context(|| format!("no {name}"))?;
                duration(text).with_context(|| format!("not a duration: {text}"))
            };
            Ok(InForce {
                reading: time("reading")?,
                compiling: time("compiling")?,
                applying: time("applying")?,
                prefixes: line["prefixes"].as_u64().unwrap_or_default(),
            })
        })
        .collect()
}

/// As `Debug` writes it.
fn duration(text: &str) -> Option<Duration> {
    for (unit, seconds) in [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Some(Duration::from_secs_f64(number * seconds));
        }
    }
    None
}
