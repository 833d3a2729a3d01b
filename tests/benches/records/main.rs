//! What records cost on their way out, for each kind of sink: `cargo xtask bench records`.
//!
//! Flows begin and end at the boundary of the ring buffer: a program writes their events there, which is what the
//! programs of the datapath do, and the agent that ships reads them. A network on this machine could not carry as many
//! without itself taking the processors. An agent without a sink is the yardstick, measured before each sink.
//!
//! Servers that sinks send to are threads of this program: they share the processors with the agent.

mod flood;
mod sinks;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::report::Report;
use ringfence_lab::scene::{FRIEND_ONLY, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

use crate::flood::Flood;
use crate::sinks::Case;

/// What is to be carried, in flows a second, each with two records.
const RATE: u32 = 100_000;
/// Rates that are tried until something is lost: each a quarter more than the one before.
const LEAST: u32 = 10_000;
const MOST: u32 = 400_000;
/// Of /proc, a second: the same wherever Linux runs (`USER_HZ`).
const TICKS: f64 = 100.0;
const SETTLED: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let (seconds, step) = if is_quick { (2, 1) } else { (30, 3) };
    let mut report = Report::new("records");
    for case in &sinks::CASES {
        let bare = Run::start(None)?.carries(seconds)?;
        let run = Run::start(Some(case))?;
        let carried = run.carries(seconds)?;
        let rate = if is_quick {
            None
        } else {
            Some(Run::start(Some(case))?.highest(step)?)
        };
        told(&mut report, case, &bare, &carried, rate);
    }
    println!("{report}");
    report.write()
}

fn told(report: &mut Report, case: &Case, bare: &Carried, carried: &Carried, rate: Option<u32>) {
    let mut figures = vec![
        ("flows a second", carried.rate),
        ("processor seconds a million records", carried.cost()),
        ("of them without a sink", bare.cost()),
        ("peak MiB", carried.peak),
        ("of them without a sink (peak)", bare.peak),
        ("events lost", carried.lost_events),
        ("records lost by the sink", carried.lost_records),
    ];
    figures.extend(carried.bytes.map(|bytes| ("bytes a record", bytes)));
    figures.extend(rate.map(|rate| ("most flows a second without a loss", f64::from(rate))));
    report.figure(case.name, "0 lost uncounted", "", figures);
}

/// An agent with one sink, or none.
struct Run {
    agent: Agent,
    flood: Flood,
    folder: PathBuf,
    _scene: Scene,
}

struct Carried {
    rate: f64,
    processor: f64,
    records: f64,
    peak: f64,
    lost_events: f64,
    lost_records: f64,
    bytes: Option<f64>,
}

impl Carried {
    fn cost(&self) -> f64 {
        self.processor / self.records * 1e6
    }
}

impl Run {
    fn start(case: Option<&Case>) -> Result<Self> {
        let scene = Scene::with(FRIEND_ONLY)?;
        let folder = scene.lab.folder().join("records");
        std::fs::create_dir_all(&folder)?;
        let settings = case.map(|case| case.settings(&folder, scene.lab.host()));
        let settings = settings.transpose()?.unwrap_or_default();
        let path = scene.lab.write("settings.yaml", &settings)?;
        let config = path.display().to_string();
        let agent = scene.agent()?.without_flow_file();
        let mut agent = agent.with(&["--config", &config]);
        agent.start()?;
        let flood = Flood::at(&agent)?;
        Ok(Self {
            agent,
            flood,
            folder,
            _scene: scene,
        })
    }

    /// So many seconds at [`RATE`]; nothing may be lost without being counted.
    fn carries(mut self, seconds: u32) -> Result<Carried> {
        let before = processor(&self.agent)?;
        let (made, took) = self.flood.run(RATE, Duration::from_secs(seconds.into()))?;
        let counts = self.settled(made)?;
        let processor = processor(&self.agent)? - before;
        let peak = peak(&self.agent)?;
        let bytes = bytes(&self.folder);
        self.agent.terminate()?;
        let exported = counts.exported;
        Ok(Carried {
            rate: float(made) / 2.0 / took.as_secs_f64(),
            processor,
            records: float(counts.records),
            peak,
            lost_events: float(counts.lost_events),
            lost_records: float(counts.lost_records),
            bytes: (bytes > 0 && counts.sinks == 1).then(|| float(bytes) / float(exported)),
        })
    }

    /// The highest rate at which nothing was lost.
    fn highest(mut self, seconds: u32) -> Result<u32> {
        let (mut rate, mut highest, mut made) = (LEAST, 0, 0);
        while rate <= MOST {
            made += self.flood.run(rate, Duration::from_secs(seconds.into()))?.0;
            let counts = self.settled(made)?;
            if counts.lost_events + counts.lost_records > 0 {
                break;
            }
            highest = rate;
            rate += rate / 4;
        }
        self.agent.terminate()?;
        Ok(highest)
    }

    /// When everything has come to rest. Each event has been read or counted as lost; each that was read has a record, and so has the end of a flow
    /// whose event was lost; and each of these the sink has exported or counted as lost.
    fn settled(&self, made: u64) -> Result<Counts> {
        let mut last = Counts::default();
        let is_settled = eventually(SETTLED, || {
            last = Counts::of(&self.agent.status().unwrap_or_default());
            last.seen_events + last.lost_events >= made
                && last.records >= last.seen_events
                && last.sink_seen == last.records * last.sinks
                && last.exported + last.lost_records == last.sink_seen
        });
        // What comes from elsewhere: nothing talks here but the flood.
        ensure!(
            is_settled && last.seen_events + last.lost_events == made,
            "{made} events made: {last:?}\n{}",
            self.agent.log()
        );
        Ok(last)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    seen_events: u64,
    lost_events: u64,
    records: u64,
    sinks: u64,
    /// Of all of them, as is what follows.
    sink_seen: u64,
    exported: u64,
    lost_records: u64,
}

impl Counts {
    fn of(status: &Value) -> Self {
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
        let sinks = status.pointer("/records/sinks").and_then(Value::as_object);
        let sum = |what: &str| {
            let sinks = sinks.into_iter().flat_map(|sinks| sinks.values());
            sinks.filter_map(|counts| counts[what].as_u64()).sum()
        };
        Self {
            seen_events: number("/events/seen").unwrap_or_default(),
            lost_events: number("/events/lost").unwrap_or_default(),
            records: number("/records/stream/seen").unwrap_or_default(),
            sinks: sinks.map_or(0, |sinks| sinks.len() as u64),
            sink_seen: sum("seen"),
            exported: sum("exported"),
            lost_records: sum("lost"),
        }
    }
}

fn pid(agent: &Agent) -> Result<u32> {
    agent.process().context("no agent runs")
}

/// Seconds that its threads have run, those that have ended included.
fn processor(agent: &Agent) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid(agent)?))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(float(ticks) / TICKS)
}

fn peak(agent: &Agent) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(agent)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).context("no peak")?;
    Ok(float(kib) / 1024.0)
}

/// Of all files below.
fn bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn float(count: u64) -> f64 {
    count as f64
}

/// So that nobody spins.
fn pause() {
    sleep(Duration::from_millis(1));
}
