//! Whether a policy is in force everywhere, asked of a real API server that several agents tell what they enforce.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::{Agent, binary};
use ringfence_lab::api_server::{Server, is_there};
use ringfence_lab::lab::{Lab, Netns};
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);

/// What agents are bound to in a cluster.
const RIGHTS: &str = "../agent/deploy/base/rbac.yaml";

/// An API server, and nodes of which it has been told; their agents share a host.
struct Scene {
    agents: Vec<Agent>,
    api: Server,
    lab: Lab,
}

impl Scene {
    fn new(user: &str, nodes: &[&str]) -> Result<Self> {
        let lab = Lab::bridged()?;
        let api = Server::start(&lab)?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        api.apply(lab.host(), &namespace.to_string())?;
        let kubeconfig = api.kubeconfig(user);
        let agent = |node: &&str| {
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
            api.apply(lab.host(), &object.to_string())?;
            let agent = Agent::prepare(&lab, node, &[])?;
            Ok(agent.with(&[
                "--node",
                node,
                "--kubeconfig",
                &kubeconfig.to_string_lossy(),
            ]))
        };
        let agents = nodes.iter().map(agent).collect::<Result<_>>()?;
        Ok(Self { agents, api, lab })
    }

    fn host(&self) -> &Netns {
        self.lab.host()
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.api.apply(self.host(), &object.to_string())
    }

    fn define_kinds(&self) -> Result<()> {
        let kinds = Command::new(binary()?)
            .args(["schema", "--crds"])
            .output()?;
        self.api
            .apply(self.host(), &String::from_utf8(kinds.stdout)?)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.api.kubectl(self.host(), arguments, "")
    }

    /// What an operator sees, and whether the exit code says that all is well.
    fn asks(&self, more: &[&str]) -> Result<(Value, bool)> {
        let mut status = Command::new(binary()?);
        status.args(["status", "--cluster", "-o", "json", "--kubeconfig"]);
        status.arg(self.api.kubeconfig("admin")).args(more);
        let output = self.host().output(&mut status)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
        Ok((answer, output.status.success()))
    }

    /// Waits until nodes are as they should be, each as `NODE STATE`, the worst first.
    fn shows(&self, more: &[&str], expected: &[&str]) -> Result<()> {
        let mut last = String::new();
        let shown = eventually(PATIENCE, || {
            let Ok((answer, is_well)) = self.asks(more) else {
                return false;
            };
            let nodes = answer["nodes"].as_array().into_iter().flatten();
            let states = nodes.map(|node| {
                let [name, state] = ["name", "state"].map(|field| node[field].as_str());
                format!("{} {}", name.unwrap_or_default(), state.unwrap_or_default())
            });
            let states: Vec<String> = states.collect();
            last = format!("{answer:#}");
            let all_are_well = states.iter().all(|state| state.ends_with(" in-force"));
            states == expected && is_well == all_are_well
        });
        let logs: Vec<String> = self.agents.iter().map(Agent::log).collect();
        ensure!(shown, "{more:?} {expected:?}\n{last}\n{}", logs.join("\n"));
        Ok(())
    }
}

/// Waits until an agent says why it tells the API nothing, or (`None`) that it does.
fn says(agent: &Agent, why: Option<&str>) -> Result<()> {
    let said = agent.status_eventually(PATIENCE, |status| {
        let reason = status["kubernetes"]["not_published"].as_str();
        match (reason, why) {
            (None, None) => status["kubernetes"]["complete"] == true,
            (Some(reason), Some(why)) => reason.contains(why),
            _ => false,
        }
    });
    ensure!(said, "{why:?}: {:#}", agent.status()?["kubernetes"]);
    Ok(())
}

/// Of that name, for the pods of an app.
fn policy(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}},
    })
}

#[test]
fn an_operator_sees_on_which_nodes_a_policy_is_in_force() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin", &["n1", "n2", "n3"])?;
    scene.define_kinds()?;
    scene.apply(&policy("a", "one"))?;
    scene.apply(&policy("b", "two"))?;
    for agent in scene.agents.iter_mut().take(2) {
        agent.start()?;
    }
    let one = ["--policy", "shop/a"];
    let other = ["--policy", "NetworkPolicy/shop/b"];
    for asked in [&[][..], &one, &other] {
        scene.shows(asked, &["n3 silent", "n1 in-force", "n2 in-force"])?;
    }
    scene.kubectl(&["delete", "node", "n3"])?;
    scene.shows(&[], &["n1 in-force", "n2 in-force"])?;

    // As kubectl shows it, and whose it is.
    let table = scene.kubectl(&["get", "agentstatuses"])?;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let header = [
        "NAME",
        "ENFORCING",
        "GENERATION",
        "POLICIES",
        "ERRORS",
        "VERSION",
        "SEEN",
    ];
    ensure!(rows.len() == 3 && rows[0] == header, "{table}");
    ensure!(
        rows[1].len() == 7 && rows[1][..2] == ["n1", "true"] && rows[1][3] == "2",
        "{table}"
    );
    let uid = |kind: &str, path: &str| {
        let path = format!("jsonpath={{{path}}}");
        scene.kubectl(&["get", kind, "n1", "-o", &path])
    };
    let owner = uid("agentstatus", ".metadata.ownerReferences[0].uid")?;
    ensure!(
        !owner.is_empty() && owner == uid("node", ".metadata.uid")?,
        "{owner}"
    );

    // One that is gone lacks the next change, and no other.
    let gone = scene.agents.get_mut(1).context("n2")?;
    gone.kill()?;
    scene.apply(&policy("a", "three"))?;
    scene.shows(&one, &["n2 lagging", "n1 in-force"])?;
    scene.shows(&other, &["n1 in-force", "n2 in-force"])?;
    scene.agents.get_mut(1).context("n2")?.start()?;
    scene.shows(&one, &["n1 in-force", "n2 in-force"])?;
    // Nor does what is no other policy at all, but has another version.
    scene.kubectl(&["label", "networkpolicy", "-n", "shop", "b", "seen=true"])?;
    scene.shows(&[], &["n1 in-force", "n2 in-force"])?;
    scene.kubectl(&["delete", "networkpolicy", "-n", "shop", "b"])?;
    scene.shows(&[], &["n1 in-force", "n2 in-force"])?;
    let (policies, _) = scene.asks(&[])?;
    ensure!(policies["policies"] == 1, "{policies}");

    // An error is that of its object alone.
    let bad = json!({
        "apiVersion": "ringfence.io/v1alpha1", "kind": "RingfencePolicy", "metadata": {"name": "bad"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingres": []},
    });
    scene.apply(&bad)?;
    scene.shows(&["--policy", "bad"], &["n1 held", "n2 held"])?;
    scene.shows(&one, &["n1 in-force", "n2 in-force"])?;
    scene.shows(&[], &["n1 held", "n2 held"])?;
    let (answer, _) = scene.asks(&[])?;
    let message = answer["nodes"][0]["messages"][0]
        .as_str()
        .unwrap_or_default();
    ensure!(
        message.contains("RingfencePolicy/bad is not in force"),
        "{answer:#}"
    );

    // What there is not nobody can ask about.
    let mut status = Command::new(binary()?);
    status.args(["status", "--cluster", "--policy", "shop/c", "--kubeconfig"]);
    status.arg(scene.api.kubeconfig("admin"));
    let output = scene.host().output(&mut status)?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}

#[test]
fn the_rights_of_the_deployment_suffice_and_nothing_depends_on_telling() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("agent", &["n1"])?;
    let rights = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RIGHTS))?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ringfence-system"}});
    scene.apply(&namespace)?;
    let bind = |scene: &Scene, rights: &str| {
        let user = "kind: User\n    apiGroup: rbac.authorization.k8s.io\n    name: agent\n";
        let account =
            "kind: ServiceAccount\n    name: ringfence\n    namespace: ringfence-system\n";
        ensure!(rights.contains(account), "{rights}");
        scene
            .api
            .apply(scene.host(), &rights.replace(account, user))
    };
    bind(&scene, &rights)?;
    scene.apply(&policy("a", "one"))?;
    scene.agents.first_mut().context("n1")?.start()?;
    let agent = scene.agents.first().context("n1")?;
    says(agent, Some("the server has no kind `AgentStatus`"))?;

    let without = rights.replace("[agentstatuses]", "[others]");
    ensure!(without != rights, "{rights}");
    bind(&scene, &without)?;
    scene.define_kinds()?;
    says(
        agent,
        Some("agentstatuses.ringfence.io \"n1\" is forbidden"),
    )?;
    scene.shows(&[], &["n1 silent"])?;
    ensure!(
        agent.status()?["enforcing"] == true,
        "{:#}",
        agent.status()?
    );

    bind(&scene, &rights)?;
    says(agent, None)?;
    scene.shows(&[], &["n1 in-force"])?;
    // Nothing else is missing: every kind is watched, and what is wrong is told as an Event.
    let status = agent.status()?;
    let watches = status["kubernetes"]["watches"]
        .as_array()
        .context("watches")?;
    ensure!(
        watches.iter().all(|watch| watch["error"].is_null()),
        "{watches:?}"
    );
    let log = agent.log();
    ensure!(
        !log.contains("servers' own addresses are not known"),
        "{log}"
    );
    let bad = json!({
        "apiVersion": "ringfence.io/v1alpha1", "kind": "RingfencePolicy", "metadata": {"name": "bad"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingres": []},
    });
    scene.apply(&bad)?;
    let told = eventually(PATIENCE, || {
        let events = scene.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
        events.is_ok_and(|reasons| reasons.contains("NotInForce"))
    });
    ensure!(told, "no Event: {}", agent.log());
    // The taint can be taken off, too.
    let taint = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": "ringfence.io/not-ready", "effect": "NoSchedule"}]},
    });
    scene.apply(&taint)?;
    let agent = scene.agents.first_mut().context("n1")?;
    agent.kill()?;
    agent.start()?;
    let is_gone = eventually(PATIENCE, || {
        let taints = scene.kubectl(&["get", "node", "n1", "-o", "jsonpath={.spec.taints[*].key}"]);
        taints.is_ok_and(|taints| !taints.contains("not-ready"))
    });
    ensure!(is_gone, "the taint is still there");
    Ok(())
}
