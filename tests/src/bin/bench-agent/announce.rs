//! From the moment that the kernel announces an interface, as another listener hears it, to the line that
//! says that both programs are attached: whatever the number of endpoints.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::announced::Announcements;
use ringfence_lab::lab::{Lab, Netns};
use ringfence_lab::report::Report;
use ringfence_lab::wait::{always, eventually, eventually_some};

use crate::log::{self, Moment};

const SEEN: Duration = Duration::from_secs(10);
const SETTINGS: &str = "workload_interfaces: {names: ['any*']}\n";

/// How an interface is known that appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// By a pattern of the settings alone.
    Not,
    ByName,
    ByNamespace,
}

/// A node with endpoints that are there.
struct Node {
    agent: Agent,
    announcements: Announcements,
    /// What a workload is known by.
    sink: Netns,
    /// Behind all other interfaces.
    others: Netns,
    lab: Lab,
}

pub(crate) fn measure(times: usize, report: &mut Report) -> Result<()> {
    for endpoints in [2, 200] {
        let node = Node::with(endpoints)?;
        for (known, what) in [
            (Known::Not, "of nobody"),
            (Known::ByName, "declared by name"),
            (Known::ByNamespace, "declared by namespace"),
        ] {
            let taken = node.arrivals(known, times)?;
            let what = format!("interface {what} announced to attached, {endpoints} endpoints");
            report.times(&what, "p99 <= 10", taken);
        }
    }
    Ok(())
}

impl Node {
    fn with(endpoints: usize) -> Result<Self> {
        let lab = Lab::bridged()?;
        let others = Netns::create(format!("{}-others", lab.prefix()))?;
        let sink = Netns::create(format!("{}-sink", lab.prefix()))?;
        let mut links = String::new();
        let mut inventory = workload("late", "interface: late");
        inventory.push_str(&workload(
            "sunk",
            &format!("netns: {}", sink.path().display()),
        ));
        for number in 0..endpoints {
            writeln!(
                links,
                "link add ep{number} type veth peer name ep{number} netns {}",
                others.name()
            )?;
            let name = format!("ep{number}");
            inventory.push_str(&workload(&name, &format!("interface: {name}")));
        }
        lab.host().ip(&links)?;
        lab.write("policies/inventory.yaml", &inventory)?;
        lab.write("policies/policy.yaml", ringfence_lab::scene::FRIEND_ONLY)?;
        let settings = lab.write("settings.yaml", SETTINGS)?;
        let folder: PathBuf = lab.folder().join("policies");
        let mut agent = Agent::prepare(&lab, "agent", &[&folder])?.with(&[
            "--config",
            &settings.to_string_lossy(),
            "--log-format",
            "json",
        ]);
        agent.start()?;
        let attached = agent.status_eventually(SEEN, |status| {
            let states = status["endpoints"].as_array().into_iter().flatten();
            let attached = states.filter(|endpoint| endpoint["state"] == "attached");
            attached.count() == endpoints
        });
        ensure!(attached, "not all are attached:\n{}", agent.log());
        let announcements = lab.host().announcements()?;
        Ok(Self {
            agent,
            announcements,
            sink,
            others,
            lab,
        })
    }

    fn arrivals(&self, known: Known, times: usize) -> Result<Vec<Duration>> {
        let mut taken = Vec::new();
        for number in 0..times {
            let name = match known {
                Known::Not => format!("any{number}"),
                Known::ByName => "late".to_owned(),
                // Two lead there while one is deleted.
                Known::ByNamespace => format!("sunk{number}"),
            };
            let before = self.attached(known)?.len();
            self.announcements.forget();
            let behind = match known {
                Known::Not | Known::ByName => self.others.name(),
                Known::ByNamespace => self.sink.name(),
            };
            let add = format!("link add {name} type veth peer name eth0 netns {behind}\n");
            let announced = std::thread::scope(|scope| {
                let heard = scope.spawn(|| self.announcements.wait_for(&name, SEEN));
                self.lab.host().ip(&add)?;
                heard.join().expect("a listener does not panic")
            })?;
            let seen = || self.attached(known).ok()?.get(before).copied();
            let moment = eventually_some(SEEN, seen);
            let moment = moment.with_context(|| format!("{name} is not attached"))?;
            taken.push(moment.since(Moment::of(announced)));
            self.lab.host().ip(&format!("link delete {name}\n"))?;
            let gone = eventually(SEEN, || self.is_missed(known));
            ensure!(gone, "{name} is not missed");
            // Not in step with who looks at everything.
            let pause = u64::try_from(number * 7919 % 100)?;
            always(Duration::from_millis(pause), || true);
        }
        Ok(taken)
    }

    fn is_missed(&self, known: Known) -> bool {
        let workload = match known {
            Known::Not => return true,
            Known::ByName => "bench/late",
            Known::ByNamespace => "bench/sunk",
        };
        self.agent.status().is_ok_and(|status| {
            let endpoints = status["endpoints"].as_array().into_iter().flatten();
            let mut ours = endpoints.filter(|endpoint| endpoint["name"] == workload);
            ours.any(|endpoint| endpoint["state"] == "waiting")
        })
    }

    fn attached(&self, known: Known) -> Result<Vec<Moment>> {
        let lines = match known {
            Known::Not => log::lines(&self.agent, "held: nobody knows")?,
            Known::ByName => log::lines(&self.agent, "\"bench/late\"")?,
            Known::ByNamespace => log::lines(&self.agent, "\"bench/sunk\"")?,
        };
        Ok(lines.into_iter().map(|(moment, _)| moment).collect())
    }
}

fn workload(name: &str, endpoint: &str) -> String {
    format!(
        "---\napiVersion: ringfence.io/v1alpha1\nkind: Workload\n\
         metadata: {{namespace: bench, name: {name}, labels: {{app: server}}}}\n\
         spec: {{endpoint: {{{endpoint}}}}}\n"
    )
}
