//! A long run of everything at once: policies and inventories that change, endpoints that come and
//! go, agents that are killed, hang and restart, and traffic of both families all the while.
//!
//! What happens follows from a seed; when exactly, from the machine. At any time: who is always
//! denied gets nothing through, who is always permitted loses nothing. In each phase, once the agent
//! has read what there is to read: what policy says is what probes meet, and what the kernel holds is
//! what the agent believes. At each phase's end, back in the state that all begin in: no more memory,
//! descriptors, sockets, entries, pins than the first time. At the very end: nothing at all.

mod cast;
mod dice;
mod footprint;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::agent::Agent;
use crate::kernel::Objects;
use crate::soak::cast::{Cast, Lasting, Traffic};
use crate::soak::dice::Dice;
use crate::soak::footprint::Footprint;
use crate::soak::world::{GUESTS, Group, World};
use crate::wait::eventually;

/// For a world to be in force.
const IN_FORCE: Duration = Duration::from_secs(30);
/// For the kernel to free what nobody uses any more.
const FREED: Duration = Duration::from_secs(20);
/// Until the last flow was silent for long enough to be forgotten: UDP 60 s, and a sweep or two.
const IDLE: Duration = Duration::from_secs(100);
/// A run that is shorter does not wait for that.
const WAITS_FROM: Duration = Duration::from_mins(2);
/// Phases in which everything happens for the first time, and may take its place.
const WARM_UP: u64 = 4;
/// Steps that a failure tells of.
const TOLD: usize = 40;
/// Lines of the agent's log that a failure tells of.
const LINES: usize = 40;
/// Few, so that numbers of endpoints are used again.
const SETTINGS: &str = "capacities: {endpoints: 40}\n";

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// No phase is begun after it.
    pub span: Duration,
    pub seed: u64,
    /// The program `lab-peer`, see [`crate::cgroup::Cgroup::create`].
    pub helper: PathBuf,
}

/// What has happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub seed: u64,
    phases: u64,
    steps: BTreeMap<&'static str, u64>,
    /// Changes of policy and inventory.
    flips: u64,
    /// Exchanges that were held against what policy says, by what it says.
    permitted: u64,
    denied: u64,
    attempts: u64,
    denied_datagrams: u64,
    permitted_datagrams: u64,
    echoed: u64,
    retransmitted: u64,
    events_lost: u64,
    first: Footprint,
    last: Footprint,
    most: Footprint,
    took: Duration,
}

impl Report {
    /// How it goes.
    pub fn line(&self) -> String {
        let Self {
            phases,
            flips,
            permitted,
            denied,
            attempts,
            last,
            ..
        } = self;
        let seconds = self.took.as_secs();
        format!(
            "{seconds:>5} s: {phases} phases, {flips} changes, {} verdicts, {attempts} denied attempts; {last}",
            permitted + denied
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs();
        writeln!(
            f,
            "seed {}: {} phases in {seconds} s",
            self.seed, self.phases
        )?;
        writeln!(f, "  changes of policy and inventory: {}", self.flips)?;
        for (step, count) in &self.steps {
            writeln!(f, "  {step}: {count}")?;
        }
        let Self {
            permitted, denied, ..
        } = self;
        writeln!(
            f,
            "  verdicts as policy says: {permitted} permitted, {denied} denied"
        )?;
        writeln!(
            f,
            "  always denied: {} attempts and {} datagrams, none got through",
            self.attempts, self.denied_datagrams
        )?;
        writeln!(
            f,
            "  always permitted: {} datagrams, none lost; {} bytes echoed, {} segments sent again",
            self.permitted_datagrams, self.echoed, self.retransmitted
        )?;
        writeln!(f, "  events lost in the kernel: {}", self.events_lost)?;
        writeln!(f, "  the agent at first: {}", self.first)?;
        writeln!(f, "  the agent at last:  {}", self.last)?;
        write!(f, "  the most of each:   {}", self.most)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Policy and inventory change so many times.
    Flips(u32),
    Kill,
    Hang,
    Restart,
    GuestComesOrGoes(usize),
    GroupComesOrGoes,
    /// A file that cannot be read as policy.
    Broken,
}

impl Step {
    /// Those that each phase of the warm-up ends with, so that the agent has been through all of it. What it
    /// loads for the first control group, it keeps.
    const FIRST: [[Self; 2]; 4] = [
        [Self::Kill, Self::GroupComesOrGoes],
        [Self::Hang, Self::GroupComesOrGoes],
        [Self::Restart, Self::GroupComesOrGoes],
        [Self::Broken, Self::GroupComesOrGoes],
    ];

    fn thrown(dice: &mut Dice) -> Self {
        match dice.below(20) {
            0..=7 => Self::Flips(1 + dice.below(8)),
            8 => Self::Kill,
            9 => Self::Hang,
            10 => Self::Restart,
            11..=15 => Self::GuestComesOrGoes(dice.pick(&[0, 1, 2])),
            16..=18 => Self::GroupComesOrGoes,
            _ => Self::Broken,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Flips(_) => "bursts of changes",
            Self::Kill => "kills",
            Self::Hang => "hangs",
            Self::Restart => "restarts",
            Self::GuestComesOrGoes(_) => "interfaces that came or went",
            Self::GroupComesOrGoes => "control groups that came or went",
            Self::Broken => "files with errors",
        }
    }
}

/// Runs the plan. `told` hears of each phase, and ends the run by an error.
///
/// # Errors
///
/// If anything was otherwise than it has to be, with the seed and what happened last.
pub fn run(plan: &Plan, mut told: impl FnMut(&Report) -> Result<()>) -> Result<Report> {
    let mut soak = Soak::begin(plan)?;
    let outcome = soak.phases(plan, &mut told);
    let outcome = outcome.and_then(|()| soak.end(plan));
    outcome.with_context(|| soak.story())?;
    Ok(soak.report)
}

/// Dropped in order.
struct Soak {
    lasting: Option<Lasting>,
    agent: Agent,
    cast: Cast,
    dice: Dice,
    world: World,
    report: Report,
    /// What agents have had in the kernel.
    ours: Objects,
    /// Of the machine, before.
    disciplines: String,
    begun: Instant,
    story: VecDeque<String>,
}

impl Soak {
    fn begin(plan: &Plan) -> Result<Self> {
        let begun = Instant::now();
        let cast = Cast::gather(plan.helper.clone())?;
        let disciplines = cast.lab.host().ask("tc", &["qdisc", "show"])?;
        let world = World::base(0);
        cast.lab.write("policies/policy.yaml", &world.policies())?;
        cast.lab
            .write("policies/inventory.yaml", &world.inventory())?;
        let settings = cast.lab.write("settings.yaml", SETTINGS)?;
        let folder = cast.lab.folder().join("policies");
        let settings = settings.to_string_lossy();
        let mut agent =
            Agent::prepare(&cast.lab, "agent", &[&folder])?.with(&["--config", &settings]);
        agent.start()?;
        let lasting = Lasting::begin(&cast)?;
        Ok(Self {
            lasting: Some(lasting),
            agent,
            cast,
            dice: Dice::new(plan.seed),
            world,
            report: Report {
                seed: plan.seed,
                ..Report::default()
            },
            ours: Objects::default(),
            disciplines,
            begun,
            story: VecDeque::new(),
        })
    }

    fn phases(&mut self, plan: &Plan, told: &mut impl FnMut(&Report) -> Result<()>) -> Result<()> {
        while self.report.phases == 0 || self.begun.elapsed() < plan.span {
            self.phase()?;
            self.report.phases += 1;
            self.report.took = self.begun.elapsed();
            told(&self.report)?;
        }
        Ok(())
    }

    fn phase(&mut self) -> Result<()> {
        let traffic = Traffic::begin(&self.cast)?;
        let number = self.report.phases;
        self.tell(&format!("phase {number}"));
        let first = usize::try_from(number).ok();
        let first = first.and_then(|number| Step::FIRST.get(number));
        let others = 2 + self.dice.below(6);
        let mut steps: Vec<Step> = (0..others).map(|_| Step::thrown(&mut self.dice)).collect();
        steps.extend(first.into_iter().flatten());
        for step in steps {
            self.step(step, &traffic)
                .with_context(|| format!("{step:?}"))?;
            *self.report.steps.entry(step.name()).or_default() += 1;
            traffic.goes_on(10)?;
            self.lasting()?.goes_on()?;
        }
        self.comes_to_rest().context("at rest")?;

        self.back_to_base()?;
        self.comes_to_rest().context("back at the base")?;
        let footprint = Footprint::of(&self.agent, &mut self.ours)?;
        self.tell(&footprint.to_string());
        self.leaks(&footprint).context("a leak")?;
        let volume = traffic.end(&self.cast)?;
        self.report.attempts += volume.attempts;
        self.report.denied_datagrams += volume.denied_datagrams;
        self.report.permitted_datagrams += volume.permitted_datagrams;
        Ok(())
    }

    fn step(&mut self, step: Step, traffic: &Traffic) -> Result<()> {
        self.tell(&format!("{step:?}"));
        match step {
            Step::Flips(times) => {
                for _ in 0..times {
                    self.flip()?;
                    // Some are overtaken before anybody has read them.
                    traffic.goes_on(u64::from(self.dice.below(40)))?;
                }
            }
            Step::Kill => {
                self.remember_objects()?;
                self.agent.kill()?;
                traffic.goes_on(50)?;
                if self.dice.one_in(2) {
                    self.flip()?;
                }
                self.agent.start()?;
            }
            Step::Hang => {
                self.agent.signal(Signal::STOP)?;
                traffic.goes_on(50)?;
                self.flip()?;
                traffic.goes_on(50)?;
                self.agent.signal(Signal::CONT)?;
            }
            Step::Restart => {
                self.remember_objects()?;
                let status = self.agent.terminate()?;
                ensure!(status.success(), "the agent ended with {status}");
                traffic.goes_on(20)?;
                self.agent.start()?;
            }
            Step::GuestComesOrGoes(index) => {
                let guest = GUESTS.get(index).copied().context("a guest")?;
                if self.cast.is_here(guest) {
                    self.cast.guest_leaves(guest);
                } else {
                    self.cast.guest_arrives(guest)?;
                }
            }
            Step::GroupComesOrGoes => {
                if self.cast.has_group() {
                    self.cast.group_leaves();
                    if self.dice.one_in(2) {
                        self.world.group = None;
                        self.write()?;
                    }
                } else {
                    let path = self.cast.group_arrives()?;
                    let may_reach = self.dice.one_in(2);
                    self.world.group = Some(Group { path, may_reach });
                    self.write()?;
                }
            }
            Step::Broken => {
                let path = self.cast.lab.write("policies/broken.yaml", "kind: [")?;
                self.flip()?;
                traffic.goes_on(50)?;
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn flip(&mut self) -> Result<()> {
        self.world = self.world.thrown(&mut self.dice);
        self.write()
    }

    /// The inventory, which has the marker and is read first, is written last: who has read it reads
    /// this policy, too.
    fn write(&mut self) -> Result<()> {
        self.world.marker += 1;
        self.report.flips += 1;
        let lab = &self.cast.lab;
        lab.write("policies/policy.yaml", &self.world.policies())?;
        lab.write("policies/inventory.yaml", &self.world.inventory())?;
        Ok(())
    }

    fn back_to_base(&mut self) -> Result<()> {
        for guest in GUESTS {
            self.cast.guest_leaves(guest);
        }
        self.cast.group_leaves();
        self.tell("back to the base");
        self.world = World::base(self.world.marker);
        self.write()
    }

    /// Waits until what was written is in force, and holds it against what is met.
    fn comes_to_rest(&mut self) -> Result<()> {
        let marker = format!("shop/{}", self.world.marker_name());
        let endpoints = self.cast.endpoints(&self.world);
        let is_in_force = |status: &Value| {
            let states: BTreeMap<&str, &str> = status["endpoints"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|endpoint| {
                    Some((endpoint["name"].as_str()?, endpoint["state"].as_str()?))
                })
                .collect();
            status["last_load"]["ok"] == true
                && states.contains_key(marker.as_str())
                && endpoints
                    .iter()
                    .all(|name| states.get(name.as_str()) == Some(&"attached"))
        };
        let seen = self.agent.status_eventually(IN_FORCE, is_in_force);
        ensure!(
            seen,
            "{marker} is not in force, or not everybody of {endpoints:?} is attached: {:#}",
            self.agent.status()?
        );
        let questions = self.cast.questions(&self.world);
        let form = self.world.form;
        self.cast
            .verify(&questions)
            .with_context(|| format!("policy said by {form:?}"))?;
        let permitted = questions.iter().filter(|question| question.is_permitted);
        let permitted = u64::try_from(permitted.count())?;
        self.report.permitted += permitted;
        self.report.denied += u64::try_from(questions.len())? - permitted;
        self.believes_what_is()
    }

    /// The agent's tables are the kernel's.
    fn believes_what_is(&mut self) -> Result<()> {
        let footprint = Footprint::of(&self.agent, &mut self.ours)?;
        let status = self.agent.status()?;
        for (name, tables) in [
            ("ipcache_v4", &["HOSTS_V4", "IPCACHE_V4"][..]),
            ("ipcache_v6", &["HOSTS_V6", "IPCACHE_V6"]),
            ("sockets", &["SOCKETS"]),
            ("policy", &["POLICY"]),
            ("ports", &["PORTS"]),
            ("addresses", &["ADDRESSES"]),
        ] {
            let fills = status["tables"].as_array().into_iter().flatten();
            let believed = fills
                .filter(|fill| fill["name"] == name)
                .find_map(|fill| fill["used"].as_u64());
            let there = tables
                .iter()
                .map(|table| footprint.entries.get(*table).copied())
                .sum::<Option<u64>>();
            ensure!(
                believed.is_some() && believed == there,
                "{tables:?} have {there:?} entries, and the agent believes {believed:?}"
            );
        }
        ensure!(
            status["tampered"].is_null(),
            "taken for somebody else's doing: {}",
            status["tampered"]
        );
        self.report.events_lost = status["events"]["lost"].as_u64().unwrap_or_default();
        self.report.most.peak(&footprint);
        Ok(())
    }

    fn leaks(&mut self, footprint: &Footprint) -> Result<()> {
        let report = &mut self.report;
        if report.phases == 0 {
            report.first = footprint.clone();
        }
        let entries = &report.first.entries;
        ensure!(
            footprint.entries == *entries,
            "entries by table: {:?}, and there were {entries:?}",
            footprint.entries
        );
        if report.phases < WARM_UP {
            report.first.peak(footprint);
        } else {
            footprint.is_no_more_than(&report.first)?;
        }
        report.last = footprint.clone();
        Ok(())
    }

    /// Ends everything, and looks for what is left.
    fn end(&mut self, plan: &Plan) -> Result<()> {
        let lasting = self.lasting.take().context("the streams have ended")?;
        let (echoed, retransmitted) = lasting.end()?;
        self.report.echoed = echoed;
        self.report.retransmitted = retransmitted;
        if plan.span >= WAITS_FROM {
            self.tell("until flows are forgotten");
            let mut left = (0, 0);
            let forgotten = eventually(IDLE, || {
                left = footprint::flows(&self.agent).unwrap_or((u64::MAX, u64::MAX));
                left == (0, 0)
            });
            let (flows, held) = left;
            ensure!(
                forgotten,
                "{flows} flows are left, and endpoints are said to hold {held}"
            );
        }
        self.remember_objects()?;
        self.tell("the end");
        self.agent.terminate()?;
        self.agent.detach()?;
        let mut left = Objects::default();
        let freed = eventually(FREED, || {
            left = Objects::now()
                .map(|now| now.still_in(&self.ours))
                .unwrap_or_default();
            left.is_empty()
        });
        ensure!(freed, "the kernel still holds {left:?}");
        let pins = footprint::pins(self.agent.bpffs())?;
        ensure!(pins.is_empty(), "pins are left: {pins:?}");
        let disciplines = self.cast.lab.host().ask("tc", &["qdisc", "show"])?;
        ensure!(
            disciplines == self.disciplines,
            "queueing disciplines are left:\n{disciplines}"
        );
        self.report.took = self.begun.elapsed();
        Ok(())
    }

    fn lasting(&self) -> Result<&Lasting> {
        self.lasting.as_ref().context("the streams have ended")
    }

    fn remember_objects(&mut self) -> Result<()> {
        Footprint::of(&self.agent, &mut self.ours).map(|_| ())
    }

    fn tell(&mut self, what: &str) {
        if self.story.len() == TOLD {
            self.story.pop_front();
        }
        let at = self.begun.elapsed().as_secs_f64();
        self.story.push_back(format!("{at:8.2} s {what}"));
    }

    /// For the message of a failure.
    fn story(&self) -> String {
        let steps: Vec<&str> = self.story.iter().map(String::as_str).collect();
        let log = self.agent.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        format!(
            "seed {}\n{}\n{:#?}\n{}",
            self.report.seed,
            steps.join("\n"),
            self.world,
            lines.get(from..).unwrap_or_default().join("\n")
        )
    }
}
