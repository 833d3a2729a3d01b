//! The program that writes events.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use ringfence_lab::agent::Agent;

/// Maps that it shares with the agent.
const SHARED: [&str; 2] = ["EVENTS", "LOST"];
/// The first that an agent has numbered.
const ENDPOINT: u64 = 1;
/// Each run makes a flow, and each flow two events.
const EVENTS: u64 = 2;

pub(crate) struct Flood {
    ebpf: Ebpf,
}

impl Flood {
    /// With the ring buffer of this agent, which runs.
    pub(crate) fn at(agent: &Agent) -> Result<Self> {
        let object = std::env::var_os("RINGFENCE_BPF_OBJECT").context("no object")?;
        let mut loader = EbpfLoader::new();
        for name in SHARED {
            let pin = pin(agent.bpffs(), name).with_context(|| format!("{name} has no pin"))?;
            loader.map_pin_path(name, pin);
        }
        let mut ebpf = loader.load_file(PathBuf::from(object))?;
        let program: &mut SchedClassifier = ebpf
            .program_mut("flood")
            .context("no program")?
            .try_into()?;
        program.load()?;
        let mut state: Array<_, u64> = ebpf.map_mut("FLOOD").context("no state")?.try_into()?;
        state.set(0, ENDPOINT, 0)?;
        Ok(Self { ebpf })
    }

    /// Makes so many flows a second, and returns how many events that were, and how long it took.
    pub(crate) fn run(&mut self, rate: u32, time: Duration) -> Result<(u64, Duration)> {
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut("flood")
            .context("no program")?
            .try_into()?;
        let (begin, mut flows) = (Instant::now(), 0_u64);
        loop {
            let passed = begin.elapsed().min(time);
            let due = u64::try_from(passed.as_micros())? * u64::from(rate) / 1_000_000;
            let missing = u32::try_from(due - flows)?;
            if missing > 0 {
                let packet = [0; 64];
                let options = TestRunOptions {
                    data_in: Some(&packet),
                    repeat: missing,
                    ..TestRunOptions::default()
                };
                program.test_run(options)?;
                flows = due;
            }
            if passed == time {
                return Ok((flows * EVENTS, begin.elapsed()));
            }
            crate::pause();
        }
    }
}

fn pin(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    for entry in entries {
        let path = entry.path();
        if path.file_name().is_some_and(|it| it == name) {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = pin(&path, name)
        {
            return Some(found);
        }
    }
    None
}
