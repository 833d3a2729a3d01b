//! Policies and workloads of a real API server of Kubernetes: in force, and still so with the server gone.

#[path = "kubernetes_source/faults.rs"]
mod faults;
#[path = "kubernetes_source/reports.rs"]
mod reports;

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::api_server::{Server, is_there};
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::Protocol;
use ringfence_lab::serve::Service;
use ringfence_lab::wait::eventually;
use serde_json::Value;

const PORT: u16 = 8080;

/// Longer than a client waits between two tries.
const PATIENCE: Duration = Duration::from_mins(2);

const NAMESPACE: &str = r#"
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}}
"#;

/// As much as it takes of the definition; the project's own is not at hand.
const CLUSTER_NETWORK_POLICY: &str = r#"{
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "clusternetworkpolicies.policy.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, as much as a test needs"}
    },
    "spec": {
        "group": "policy.networking.k8s.io", "scope": "Cluster",
        "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"},
        "versions": [{
            "name": "v1alpha2", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
        }]
    }
}"#;

/// Pods of that role do not reach the server.
fn cluster_policy(name: &str, priority: i32, role: &str) -> String {
    format!(
        r#"{{
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {{"name": "{name}"}},
            "spec": {{
                "tier": "Admin", "priority": {priority},
                "subject": {{"pods": {{"namespaceSelector": {{}}, "podSelector": {{"matchLabels": {{"app": "server"}}}}}}}},
                "ingress": [{{"action": "Deny", "from": [{{"pods": {{
                    "namespaceSelector": {{}}, "podSelector": {{"matchLabels": {{"app": "{role}"}}}}
                }}}}]}}]
            }}
        }}"#
    )
}

/// Only pods of that role reach the server.
fn policy(name: &str, role: &str) -> String {
    format!(
        r#"{{
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {{"name": "{name}", "namespace": "shop"}},
            "spec": {{
                "podSelector": {{"matchLabels": {{"app": "server"}}}},
                "ingress": [{{"from": [{{"podSelector": {{"matchLabels": {{"app": "{role}"}}}}}}]}}]
            }}
        }}"#
    )
}

/// A server that a file tells of, two peers that the API tells of, and what the API runs on.
struct Scene {
    _service: Service,
    agent: Agent,
    api: Server,
    server: Peer,
    friend: Peer,
    stranger: Peer,
    lab: Lab,
}

impl Scene {
    /// Everything but the agent runs, which is to be known by that name.
    fn new(user: &str) -> Result<Self> {
        Self::by(|api, _| Ok(api.kubeconfig(user)))
    }

    /// The same, with an agent that reaches the API in another way.
    fn by(way: impl FnOnce(&Server, &Lab) -> Result<PathBuf>) -> Result<Self> {
        let lab = Lab::bridged()?;
        let server = lab.peer("server", 2)?;
        let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
        let service = server.serve_tcp(PORT)?;
        let api = Server::start(&lab)?;
        let inventory = manifest::interface(&server, "shop", &[("app", "server")]);
        let inventory = lab.write("inventory.yaml", &inventory)?;
        let agent = Agent::prepare(&lab, "agent", &[&inventory])?;
        let kubeconfig = way(&api, &lab)?;
        let agent = agent.with(&["--kubeconfig", &kubeconfig.to_string_lossy()]);
        let scene = Self {
            _service: service,
            agent,
            api,
            server,
            friend,
            stranger,
            lab,
        };
        scene.populate()?;
        Ok(scene)
    }

    fn populate(&self) -> Result<()> {
        self.api.apply(self.host(), NAMESPACE)?;
        for peer in [&self.friend, &self.stranger] {
            self.pod(peer)?;
        }
        Ok(())
    }

    fn host(&self) -> &Netns {
        self.lab.host()
    }

    /// Tells the API of a pod that has the peer's address.
    fn pod(&self, peer: &Peer) -> Result<()> {
        let role = peer.role();
        let pod = format!(
            r#"{{
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {{"name": "{role}", "namespace": "shop", "labels": {{"app": "{role}"}}}},
                "spec": {{"nodeName": "elsewhere", "containers": [{{"name": "c", "image": "i"}}]}}
            }}"#
        );
        self.api.apply(self.host(), &pod)?;
        let [address, _] = peer.addresses();
        let status = format!(
            r#"{{"status": {{"phase": "Running", "podIP": "{address}", "podIPs": [{{"ip": "{address}"}}]}}}}"#
        );
        let path = format!("/api/v1/namespaces/shop/pods/{role}/status");
        Server::patch(self.host(), &path, &status)
    }

    fn reaches(&self, peer: &Peer) -> bool {
        peer.reaches(Protocol::Tcp, self.server.v4(PORT)).is_ok()
    }

    /// Waits until just these reach the server.
    fn settles(&self, friend: bool, stranger: bool) -> Result<()> {
        let settled = eventually(PATIENCE, || {
            self.reaches(&self.friend) == friend && self.reaches(&self.stranger) == stranger
        });
        let status = self.agent.status()?;
        ensure!(
            settled,
            "friend {friend}, stranger {stranger} never came true\n{status:#}\n{}",
            self.agent.log()
        );
        Ok(())
    }

    /// Waits until what `status` says of the API is so.
    fn shows(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<()> {
        let shown = self
            .agent
            .status_eventually(PATIENCE, |status| condition(&status["kubernetes"]));
        ensure!(
            shown,
            "{what}: {:#}\n{}",
            self.agent.status()?["kubernetes"],
            self.agent.log()
        );
        Ok(())
    }
}

/// What the watch of a kind shows.
fn watch<'s>(kubernetes: &'s Value, kind: &str) -> &'s Value {
    let mut watches = kubernetes["watches"].as_array().into_iter().flatten();
    watches
        .find(|watch| watch["kind"] == kind)
        .unwrap_or(&Value::Null)
}

fn has_error(kubernetes: &Value, object: &str) -> bool {
    let mut errors = kubernetes["errors"].as_array().into_iter().flatten();
    errors.any(|error| error.as_str().is_some_and(|error| error.contains(object)))
}

#[test]
fn policies_of_the_api_are_in_force_and_survive_its_server() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin")?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.shows("complete", |kubernetes| {
        kubernetes["complete"] == true && watch(kubernetes, "RingfencePolicy")["state"] == "absent"
    })?;

    // Killed, and others go on meanwhile.
    scene.api.kill()?;
    scene.settles(true, false)?;
    scene.shows("an error", |kubernetes| {
        !watch(kubernetes, "Pod")["error"].is_null()
    })?;
    let host = scene.lab.host();
    scene.api.resume(host, 6443)?;
    scene.api.apply(host, &policy("b", "stranger"))?;
    scene.settles(true, true)?;

    // What happens while the agent cannot see it is forgotten before it looks again.
    scene.api.kill()?;
    scene.api.resume(host, 7443)?;
    scene.api.kubectl(
        host,
        &["delete", "networkpolicy", "-n", "shop", "b", "--wait=false"],
        "",
    )?;
    for number in 0..20 {
        scene
            .api
            .apply(host, &policy(&format!("c{number}"), "nobody"))?;
    }
    Server::compact(host)?;
    scene.api.kill()?;
    scene.api.resume(host, 6443)?;
    scene.settles(true, false)?;
    // 410: everything was listed anew.
    ensure!(scene.agent.log().contains("(410)"), "{}", scene.agent.log());
    scene.shows("21 policies", |kubernetes| {
        watch(kubernetes, "NetworkPolicy")["objects"] == 21
    })
}

#[test]
fn kinds_that_are_defined_later_are_followed_and_what_is_wrong_takes_down_nothing_else()
-> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin")?;
    scene.agent.start()?;
    scene.settles(true, true)?;
    let host = scene.lab.host();
    let crds = scene.agent.call(&["schema", "--crds"])?;
    scene.api.apply(host, &String::from_utf8(crds.stdout)?)?;
    let deny = r#"{
        "apiVersion": "ringfence.io/v1alpha1", "kind": "RingfencePolicy", "metadata": {"name": "NAME"},
        "spec": {
            "tier": "Admin", "priority": PRIORITY,
            "subject": {"workloads": {"selector": {"matchLabels": {"app": "server"}}}},
            "ingress": [{"action": "Deny", "from": [{"workloads": {"selector": {"matchLabels": {"app": "ROLE"}}}}]FIELD}]
        }
    }"#;
    let ranked = |name: &str, priority: &str, role: &str, field: &str| {
        deny.replace("NAME", name)
            .replace("PRIORITY", priority)
            .replace("ROLE", role)
            .replace("FIELD", field)
    };
    let applied = eventually(PATIENCE, || {
        scene
            .api
            .apply(host, &ranked("good", "1", "friend", ""))
            .is_ok()
    });
    ensure!(applied, "the definitions are never served");
    // A field that nobody knows: kept by the server, refused here.
    scene
        .api
        .apply(host, &ranked("bad", "2", "stranger", r#", "port": 1"#))?;
    scene.settles(false, true)?;
    scene.shows("the error", |kubernetes| {
        has_error(kubernetes, "RingfencePolicy/bad")
    })?;
    // What the schema refuses does not get that far.
    let refused = scene
        .api
        .apply(host, &ranked("worse", "-1", "stranger", ""));
    ensure!(refused.is_err(), "a negative priority was accepted");
    let table = scene.api.kubectl(host, &["get", "rfp"], "")?;
    ensure!(table.contains("TIER") && table.contains("Admin"), "{table}");
    // A kind of others', with an object that is wrong beside a good one.
    scene.api.apply(host, CLUSTER_NETWORK_POLICY)?;
    let served = eventually(PATIENCE, || {
        let wrong = cluster_policy("wrong", -7, "friend");
        scene.api.apply(host, &wrong).is_ok()
    });
    ensure!(served, "the definition is never served");
    scene
        .api
        .apply(host, &cluster_policy("right", 5, "stranger"))?;
    scene.settles(false, false)?;
    scene.shows("the error of the other", |kubernetes| {
        has_error(kubernetes, "ClusterNetworkPolicy/wrong")
    })?;
    let events = eventually(PATIENCE, || {
        let events = scene.api.kubectl(host, &["get", "events", "-A"], "");
        events.is_ok_and(|events| events.contains("clusternetworkpolicy/wrong"))
    });
    ensure!(events, "no Event tells of it");
    let named = "clusternetworkpolicies.policy.networking.k8s.io";
    scene.api.kubectl(host, &["delete", "crd", named], "")?;
    scene.settles(false, true)?;
    // The kind is no more, and so are its policies.
    scene.api.kubectl(
        host,
        &["delete", "crd", "ringfencepolicies.ringfence.io"],
        "",
    )?;
    scene.settles(true, true)
}

#[test]
fn a_node_that_was_started_anew_enforces_what_was_kept_with_the_api_away() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin")?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.api.kill()?;
    scene.agent.terminate()?;
    scene.agent.detach()?;
    ensure!(scene.reaches(&scene.stranger));

    scene.agent.start()?;
    scene.settles(true, false)?;
    scene.shows("kept", |kubernetes| {
        kubernetes["complete"] == false && kubernetes["from_kept"] == true
    })?;
    scene.api.resume(scene.lab.host(), 6443)?;
    scene.shows("complete", |kubernetes| kubernetes["complete"] == true)?;
    scene.settles(true, false)
}

/// The rights of the agent: kinds that every cluster has but policies, and these rules.
fn role(rules: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [
            {{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {{"name": "agent"}},
              "rules": [
                {{"apiGroups": ["", "discovery.k8s.io"], "resources": ["namespaces", "nodes", "services", "pods", "endpointslices"], "verbs": ["list", "watch"]}}
                {rules}
            ]}},
            {{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {{"name": "agent"}},
              "roleRef": {{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"}},
              "subjects": [{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "agent"}}]}}
        ]}}"#
    )
}

#[test]
fn a_kind_of_a_definition_that_may_not_be_seen_keeps_nothing_else_from_being_enforced() -> Result<()>
{
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("agent")?;
    scene.api.apply(scene.host(), CLUSTER_NETWORK_POLICY)?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    let rules = r#", {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]}"#;
    scene.api.apply(scene.host(), &role(rules))?;
    scene.agent.launch()?;
    scene.shows("complete", |kubernetes| {
        let refused = watch(kubernetes, "ClusterNetworkPolicy");
        let error = refused["error"].as_str().unwrap_or_default();
        kubernetes["complete"] == true
            && refused["state"] == "forbidden"
            && error.contains("cannot list")
    })?;
    scene.settles(true, false)?;
    // With the right, it is as if there had always been one.
    let kinds = r#", {"apiGroups": ["policy.networking.k8s.io", "ringfence.io"], "resources": ["*"], "verbs": ["list", "watch"]}"#;
    let all = format!("{rules}{kinds}");
    scene.api.apply(scene.host(), &role(&all))?;
    scene.shows("listed", |kubernetes| {
        watch(kubernetes, "ClusterNetworkPolicy")["state"] == "listed"
    })
}

#[test]
fn missing_rights_are_named_and_half_of_the_api_is_not_enforced() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("agent")?;
    scene.api.apply(scene.host(), &policy("a", "friend"))?;
    let kinds = r#"{"apiGroups": ["policy.networking.k8s.io", "ringfence.io"], "resources": ["*"], "verbs": ["list", "watch"]}"#;
    let role = |policies: &str| role(&format!(", {kinds}{policies}"));
    scene.api.apply(scene.host(), &role(""))?;
    let Scene {
        agent, api, lab, ..
    } = &mut scene;
    let (binary, socket) = (agent.binary().to_owned(), agent.socket());
    let named = || {
        let mut status = Command::new(&binary);
        status
            .args(["status", "-o", "json", "--socket"])
            .arg(&socket);
        let status = lab.host().output(&mut status).ok()?;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let error = watch(&status["kubernetes"], "NetworkPolicy")["error"].as_str()?;
        let says = error.contains("cannot list") && error.contains("networkpolicies");
        (says && status["generation"] == 0).then_some(())
    };
    thread::scope(|scope| {
        let started = scope.spawn(|| agent.start());
        let is_named = eventually(PATIENCE, || named().is_some());
        let rest = r#", {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]}"#;
        api.apply(lab.host(), &role(rest))?;
        let started = started.join().expect("no panic");
        ensure!(is_named, "what is missing is not named: {started:?}");
        started
    })?;
    scene.settles(true, false)
}

#[test]
fn a_node_loses_the_taint_that_keeps_pods_off_it_until_it_enforces_and_no_other() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut scene = Scene::new("admin")?;
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_lowercase();
    let node = format!(
        r#"{{
            "apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}},
            "spec": {{"taints": [
                {{"key": "ringfence.io/not-ready", "effect": "NoSchedule"}},
                {{"key": "example.org/other", "effect": "NoSchedule"}}
            ]}}
        }}"#
    );
    scene.api.apply(scene.host(), &node)?;
    scene.agent.start()?;
    let taints = || {
        let path = "jsonpath={.spec.taints[*].key}";
        let asked = scene
            .api
            .kubectl(scene.host(), &["get", "node", &name, "-o", path], "");
        asked.unwrap_or_default()
    };
    let is_gone = || {
        let taints = taints();
        taints.contains("example.org/other") && !taints.contains("ringfence.io/not-ready")
    };
    ensure!(
        eventually(Duration::from_secs(30), is_gone),
        "{}\n{}",
        taints(),
        scene.agent.log()
    );
    Ok(())
}
