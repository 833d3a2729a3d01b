//! A real node of Kubernetes, as `cargo xtask test --kubernetes` brings it up, and pods that are tried from within.
//!
//! A pod's network namespace is entered by the test itself: what it sends there goes out by the pod's interface, as what
//! a container sends does, and no `kubectl exec` is in the way of hundreds of attempts.

use std::env;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cgroup;
use crate::lab::Netns;
use crate::wait::eventually_some;

/// What xtask says where the node is: the script that enters it.
const ENTRANCE: &str = "RINGFENCE_KUBE_ON";
/// Where the programs of a cluster are.
const PROGRAMS: &str = "RINGFENCE_KUBE_BIN";
/// The archive that pods are made of.
const IMAGE: &str = "RINGFENCE_IMAGE";

/// Where the agent's pods are, and which they are.
const NAMESPACE: &str = "ringfence-system";
const AGENT: &str = "app.kubernetes.io/name=ringfence";

/// Where most runtimes look for CNI plugins, and where Debian's does.
const PLUGINS: &str = "path: /opt/cni/bin";
pub const PLUGINS_HERE: &str = "/usr/lib/cni";

/// How long pods may take to be there.
const READY: Duration = Duration::from_secs(90);

/// A node that is up.
#[derive(Debug)]
pub struct Cluster {
    entrance: PathBuf,
    programs: PathBuf,
}

/// A pod that is up, as its network namespace.
#[derive(Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub addresses: Vec<IpAddr>,
    netns: Netns,
}

impl Deref for Pod {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Pod {
    /// The port at each address, IPv4 first.
    pub fn at(&self, port: u16) -> Vec<SocketAddr> {
        let at = |address: &IpAddr| SocketAddr::new(*address, port);
        self.addresses.iter().map(at).collect()
    }
}

impl Cluster {
    /// The cluster that this run has; `None`, and a word on it, where it has none.
    pub fn of_this_run() -> Option<Self> {
        let (Some(entrance), Some(programs)) = (env::var_os(ENTRANCE), env::var_os(PROGRAMS))
        else {
            eprintln!("skipped: no cluster is up; `cargo xtask test --kubernetes` runs this");
            return None;
        };
        Some(Self {
            entrance: entrance.into(),
            programs: programs.into(),
        })
    }

    /// A command in the node's namespaces.
    pub fn on_node(&self, program: &str) -> Command {
        let mut command = Command::new(&self.entrance);
        command.current_dir("/").arg("node").arg(program);
        command
    }

    /// The network of everybody who is no part of the cluster.
    pub fn outside(&self) -> Result<Netns> {
        let mut command = Command::new(&self.entrance);
        command
            .current_dir("/")
            .args(["outside", "sh", "-c", "echo $$; read _"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot enter the outside")?;
        let mut said = String::new();
        let output = child.stdout.take().context("no stdout")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut said)?;
        let netns = Netns::of_process("outside".to_owned(), said.trim().parse()?);
        drop(child.stdin.take());
        child.wait()?;
        netns
    }

    /// What `kubectl` says, or an error with what it complains about.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.on_node("kubectl").args(arguments), "")
    }

    /// As [`Cluster::kubectl`], read as JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&said).context("kubectl get says no JSON")
    }

    /// Creates or changes objects, in this order.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.apply_text(&list(objects))
    }

    /// As [`Cluster::apply`], of YAML.
    pub fn apply_text(&self, text: &str) -> Result<()> {
        // CEL rules are not known to every API server.
        let apply = ["apply", "--validate=false", "-f", "-"];
        run(self.on_node("kubectl").args(apply), text).map(drop)
    }

    /// Deletes what is there of these, and waits until it is gone.
    pub fn delete(&self, objects: &[Value]) -> Result<()> {
        self.delete_text(&list(objects))
    }

    pub fn delete_text(&self, text: &str) -> Result<()> {
        let mut kubectl = self.on_node("kubectl");
        kubectl.args(["delete", "--ignore-not-found", "--wait", "-f", "-"]);
        run(&mut kubectl, text).map(drop)
    }

    /// The objects below a folder of the repository, as `kubectl apply -k` would send them.
    pub fn kustomized(&self, folder: &str) -> Result<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        // Outside of the node, which does not see every folder of the machine.
        let mut kubectl = Command::new(self.programs.join("kubectl"));
        run(kubectl.arg("kustomize").arg(folder), "")
    }

    /// Gives the node the image under test, by the names that its archive has for it.
    pub fn import_image(&self) -> Result<()> {
        let archive = env::var_os(IMAGE).with_context(|| format!("{IMAGE} names no archive"))?;
        let archive = fs::File::open(archive).context("cannot open the image's archive")?;
        let mut import = self.on_node("ctr");
        import
            .args(["-n", "k8s.io", "image", "import", "-"])
            .stdin(archive);
        let output = import.output().context("cannot run ctr")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr image import: {said}");
        Ok(())
    }

    /// What `agent/deploy/with-cni` is, with the image under test, ready.
    pub fn install_agent(&self) -> Result<()> {
        self.install_agent_of("one")
    }

    /// The same, by another name of the image.
    pub fn install_agent_of(&self, tag: &str) -> Result<()> {
        self.import_image()?;
        self.apply_text(&self.of_image("agent/deploy/with-cni", tag)?)?;
        self.agent_is_ready()
    }

    /// Waits until the agent's daemon set is what it was last made to be.
    pub fn agent_is_ready(&self) -> Result<()> {
        let rolled = self.rolled_out("ringfence");
        rolled.with_context(|| self.agent_log().unwrap_or_default())
    }

    /// As `agent/docs/kubernetes.md` has it.
    pub fn uninstall_agent(&self) -> Result<()> {
        let base = self.of_image("agent/deploy/base", "one")?;
        let last = self.of_image("agent/deploy/uninstall", "one")?;
        // Where there was no agent, there is no place for what takes it off either.
        self.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        ])?;
        let agent = ["-n", NAMESPACE, "delete", "daemonset", "ringfence"];
        self.kubectl(&[&agent[..], &["--ignore-not-found", "--cascade=foreground"]].concat())?;
        self.apply_text(&last)?;
        self.rolled_out("ringfence-uninstall")?;
        self.delete_text(&last)?;
        self.delete_text(&base)
    }

    /// Takes the agent's pod away without any notice.
    pub fn delete_agent_pod(&self) -> Result<()> {
        let pods = ["-n", NAMESPACE, "delete", "pods", "-l", AGENT];
        self.kubectl(&[&pods[..], &["--force", "--grace-period=0"]].concat())
            .map(drop)
    }

    /// What the agent says of itself.
    pub fn agent_status(&self) -> Result<Value> {
        let status = ["/ringfence", "status", "-o", "json"];
        let exec = [
            "-n",
            NAMESPACE,
            "exec",
            "daemonset/ringfence",
            "-c",
            "ringfence",
            "--",
        ];
        let said = self.kubectl(&[&exec[..], &status].concat())?;
        serde_json::from_str(&said).context("status is no JSON")
    }

    /// What the agent's pods are made of.
    pub fn agent_images(&self) -> Result<String> {
        let images = "jsonpath={.items[*].spec.containers[*].image}";
        self.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", AGENT, "-o", images])
    }

    /// The end of what the agent has logged, and how its pod is.
    pub fn agent_log(&self) -> Result<String> {
        let pods = self.kubectl(&["-n", NAMESPACE, "describe", "pods"])?;
        let log = self.kubectl(&[
            "-n",
            NAMESPACE,
            "logs",
            "-l",
            AGENT,
            "-c",
            "ringfence",
            "--tail=60",
        ])?;
        Ok(format!("--- pods\n{pods}--- log\n{log}---"))
    }

    fn rolled_out(&self, daemon_set: &str) -> Result<()> {
        let name = format!("daemonset/{daemon_set}");
        self.kubectl(&[
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            "--timeout=120s",
            &name,
        ])
        .map(drop)
    }

    /// [`Cluster::kustomized`], with the image under test.
    fn of_image(&self, folder: &str, tag: &str) -> Result<String> {
        let text = self.kustomized(folder)?;
        let release = format!("localhost/ringfence:{}", env!("CARGO_PKG_VERSION"));
        ensure!(text.contains(&release), "{folder} has no image {release}");
        let text = text.replace(&release, &format!("localhost/ringfence:{tag}"));
        Ok(text.replace(PLUGINS, &format!("path: {PLUGINS_HERE}")))
    }

    /// The pod, once it is ready and its namespace is found.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let found = eventually_some(READY, || self.look_for(namespace, name).ok()?);
        found.with_context(|| {
            let told = self.kubectl(&["-n", namespace, "describe", "pod", name]);
            format!(
                "pod {namespace}/{name} is not ready\n{}",
                told.unwrap_or_default()
            )
        })
    }

    fn look_for(&self, namespace: &str, name: &str) -> Result<Option<Pod>> {
        Ok(read(&self.get(&["-n", namespace, "pod", name])?))
    }

    /// All pods of these namespaces, once each of them is ready.
    pub fn pods(&self, namespaces: &[&str]) -> Result<Vec<Pod>> {
        let found = eventually_some(READY, || {
            let all = self.get(&["pods", "--all-namespaces"]).ok()?;
            let wanted = all["items"].as_array()?.iter().filter(|pod| {
                let namespace = pod["metadata"]["namespace"].as_str();
                namespace.is_some_and(|namespace| namespaces.contains(&namespace))
            });
            wanted.map(read).collect::<Option<Vec<_>>>()
        });
        found.context("not all pods are ready")
    }
}

/// `None` unless it is ready, with all addresses.
fn read(pod: &Value) -> Option<Pod> {
    let text = |pointer: &str| Some(pod.pointer(pointer)?.as_str()?.to_owned());
    let conditions = pod.pointer("/status/conditions")?.as_array()?;
    let is_ready =
        |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    if !conditions.iter().any(is_ready) || !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let addresses = pod.pointer("/status/podIPs")?.as_array()?.iter();
    let addresses: Option<Vec<_>> = addresses
        .map(|ip| ip["ip"].as_str()?.parse().ok())
        .collect();
    let namespace = text("/metadata/namespace")?;
    let name = text("/metadata/name")?;
    let process = process_of(&text("/metadata/uid")?)?;
    Some(Pod {
        netns: Netns::of_process(format!("{namespace}/{name}"), process).ok()?,
        namespace,
        name,
        addresses: addresses?,
    })
}

/// Some process of a pod, by its control group.
fn process_of(uid: &str) -> Option<u32> {
    let pods = cgroup::root().ok()?.join("kubepods");
    let classes = [
        pods.clone(),
        pods.join("burstable"),
        pods.join("besteffort"),
    ];
    let mut group = classes.iter().map(|class| class.join(format!("pod{uid}")));
    for container in fs::read_dir(group.find(|group| group.is_dir())?)
        .ok()?
        .flatten()
    {
        let processes = fs::read_to_string(container.path().join("cgroup.procs"));
        let Ok(processes) = processes else { continue };
        if let Some(process) = processes.lines().next() {
            return process.parse().ok();
        }
    }
    None
}

fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _written = writing.join().is_ok();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
