//! What is wrong with the way to a cluster. No API server answers here: the agent enforces what it has kept of one.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::kept;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use serde_json::Value;

const PORT: u16 = 8080;
const TOLD: Duration = Duration::from_secs(30);

/// A server of a file, with what the API has told beside.
struct Scene {
    agent: Agent,
    client: Peer,
    server: Peer,
    _lab: Lab,
}

impl Scene {
    fn new(objects: &[Value]) -> Result<Self> {
        let lab = Lab::bridged()?;
        let client = lab.peer("client", 2)?;
        let server = lab.peer("server", 3)?;
        let inventory = manifest::interface(&server, "shop", &[("app", "server")]);
        let inventory = lab.write("inventory.yaml", &inventory)?;
        let agent = kept::agent_beside(&lab, objects, &[&inventory])?;
        Ok(Self {
            agent,
            client,
            server,
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

#[test]
fn a_kubeconfig_that_leads_nowhere_is_named_and_what_was_kept_is_in_force() -> Result<()> {
    let mut scene = Scene::new(&[kept::unreachable("shop", "server")])?;
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
