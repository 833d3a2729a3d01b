//! What is wrong with a cluster, or is meant to harm it, costs whoever it comes from. No API server answers here: the
//! agent enforces what it has kept of one.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::kept;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use serde_json::{Value, json};

const PORT: u16 = 8080;
const TOLD: Duration = Duration::from_secs(30);

/// A server in one namespace and another one in another, of files, with what the API has told beside.
struct Scene {
    agent: Agent,
    client: Peer,
    server: Peer,
    other: Peer,
    _lab: Lab,
}

impl Scene {
    fn new(objects: &[Value], settings: &str) -> Result<Self> {
        let lab = Lab::bridged()?;
        let client = lab.peer("client", 2)?;
        let (server, other) = (lab.peer("server", 3)?, lab.peer("other", 4)?);
        let inventory = [
            manifest::interface(&server, "shop", &[("app", "server")]),
            manifest::interface(&other, "greedy", &[("app", "other")]),
        ];
        let inventory = lab.write("inventory.yaml", &inventory.join("---\n"))?;
        let settings = lab.write("ringfence.yaml", settings)?;
        let agent = kept::agent_beside(&lab, objects, &[&inventory])?;
        let agent = agent.with(&["--config", &settings.to_string_lossy()]);
        Ok(Self {
            agent,
            client,
            server,
            other,
            _lab: lab,
        })
    }

    fn shows(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<()> {
        let shown = self
            .agent
            .status_eventually(TOLD, |status| condition(&status["kubernetes"]));
        ensure!(
            shown,
            "{what}: {:#}\n{}",
            self.agent.status()?["kubernetes"],
            self.agent.log()
        );
        Ok(())
    }
}

fn has_error(kubernetes: &Value, words: &[&str]) -> bool {
    let mut errors = kubernetes["errors"].as_array().into_iter().flatten();
    errors.any(|error| {
        let error = error.as_str().unwrap_or_default();
        words.iter().all(|word| error.contains(word))
    })
}

#[test]
fn a_kubeconfig_that_leads_nowhere_is_named_and_what_was_kept_is_in_force() -> Result<()> {
    let mut scene = Scene::new(&[kept::unreachable("shop", "server")], "{}\n")?;
    let _service = scene.server.serve(Protocol::Tcp, PORT)?;
    scene.agent.start()?;
    let probed = scene.client.probe(Protocol::Tcp, scene.server.v4(PORT));
    ensure!(probed == Outcome::TimedOut, "{probed:?}");
    scene.shows("where it leads", |kubernetes| {
        let mut watches = kubernetes["watches"].as_array().into_iter().flatten();
        let is_named = watches.all(|watch| {
            let error = watch["error"].as_str();
            error.is_some_and(|error| error.contains("onnect"))
        });
        is_named && kubernetes["server"] == "http://127.0.0.1:1/"
    })
}

#[test]
fn a_namespace_whose_policies_fill_the_tables_hinders_no_other() -> Result<()> {
    // Few words that are many answers: each of the last has the ports of the first, too.
    let ports = |from: u32, count: u32| -> Vec<Value> {
        let all = (0..count).map(|number| json!({"port": from + 2 * number}));
        all.collect()
    };
    let block = |cidr: &str| json!([{"ipBlock": {"cidr": cidr}}]);
    let mut rules = vec![json!({"from": block("0.0.0.0/0"), "ports": ports(1, 19)})];
    for number in 1..=20 {
        let from = block(&format!("192.0.2.{}/32", 2 * number));
        rules.push(json!({"from": from, "ports": ports(1001 + 2 * number, 1)}));
    }
    let greedy = |name: &str, rules: &[Value]| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "greedy", "name": name, "uid": name},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules},
        })
    };
    let objects = [
        kept::unreachable("shop", "server"),
        greedy("answers", &rules),
        greedy("words", &[json!({"ports": ports(1, 41)})]),
    ];
    let mut scene = Scene::new(&objects, "capacities: {port_entries: 320}\n")?;
    let _services = [
        scene.server.serve(Protocol::Tcp, PORT)?,
        scene.other.serve(Protocol::Tcp, PORT)?,
    ];
    scene.agent.start()?;
    let probed = scene.client.probe(Protocol::Tcp, scene.server.v4(PORT));
    ensure!(
        probed == Outcome::TimedOut,
        "{probed:?}\n{}",
        scene.agent.log()
    );
    scene.shows("what is too much", |kubernetes| {
        let answers = ["greedy/answers", "does not fit", "`ports`"];
        let words = ["greedy/words", "expected at most 40"];
        has_error(kubernetes, &answers) && has_error(kubernetes, &words)
    })
}
