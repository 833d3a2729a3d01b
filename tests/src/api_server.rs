//! An API server of Kubernetes and its etcd, in the host namespace of a lab; no kubelet, no pods that run.

pub mod front;
pub mod proxy;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::{Lab, Netns};
use crate::wait::eventually;
use anyhow::{Context, Result, ensure};

/// Where its binaries are: `kube-apiserver`, `etcd` and `kubectl`.
const BINARIES: &str = "RINGFENCE_KUBE_BIN";

/// Starting takes ten seconds, and a busy machine several times that.
const PATIENCE: Duration = Duration::from_mins(3);

/// Who may do everything, and who may do what a test lets it.
const TOKENS: &str = "admin-token,admin,1,\"system:masters\"\nagent-token,agent,2\naccount-token,account,3,\"system:masters\"\n";

#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    /// Of the host, in the lab.
    address: IpAddr,
    etcd: Child,
    running: Option<Child>,
}

/// Whether there is an API server to test with; says so if there is none.
pub fn is_there() -> bool {
    let there = env::var_os(BINARIES).is_some();
    if !there {
        println!(
            "SKIPPED: no API server of Kubernetes. {BINARIES} is to name the folder of kube-apiserver, etcd and kubectl."
        );
    }
    there
}

impl Server {
    /// One that answers.
    pub fn start(lab: &Lab) -> Result<Self> {
        let binaries = env::var_os(BINARIES).context(BINARIES)?;
        let binaries = PathBuf::from(binaries);
        let [address, _] = lab.host_addresses();
        let folder = lab.folder().join("kubernetes");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("tokens.csv"), TOKENS)?;
        for user in ["admin", "agent"] {
            fs::write(folder.join(user), kubeconfig(user, 6443))?;
        }
        let key = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(folder.join("sa.key"))
            .arg("2048")
            .output()
            .context("openssl")?;
        ensure!(key.status.success(), "openssl genrsa");
        let etcd = etcd(lab.host(), &binaries, &folder)?;
        let mut server = Self {
            binaries,
            folder,
            address,
            etcd,
            running: None,
        };
        server.resume(lab.host(), 6443)?;
        Ok(server)
    }

    /// Starts the server itself, and waits until it is ready.
    pub fn resume(&mut self, host: &Netns, port: u16) -> Result<()> {
        let folder = &self.folder;
        let mut command = Command::new(self.binaries.join("kube-apiserver"));
        command.args(["--etcd-servers=http://127.0.0.1:2379", "--allow-privileged"]);
        command.arg(format!("--secure-port={port}"));
        command.arg(format!("--advertise-address={}", self.address));
        command.arg(option("--cert-dir=", &folder.join("certificates")));
        command.arg(option("--token-auth-file=", &folder.join("tokens.csv")));
        command.arg(option(
            "--service-account-key-file=",
            &folder.join("sa.key"),
        ));
        command.arg(option(
            "--service-account-signing-key-file=",
            &folder.join("sa.key"),
        ));
        command.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--bind-address=0.0.0.0",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        self.running = Some(spawn(host, &mut command, &folder.join("server.log"))?);
        let admin = self.kubeconfig("admin");
        if port != 6443 {
            fs::write(&admin, kubeconfig("admin", port))?;
        }
        let is_ready = eventually(PATIENCE, || {
            self.kubectl(host, &["get", "--raw=/readyz"], "").is_ok()
        });
        let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
        ensure!(is_ready, "the API server did not get ready:\n{log}");
        Ok(())
    }

    /// kill -9: it says good-bye to nobody.
    pub fn kill(&mut self) -> Result<()> {
        let mut server = self.running.take().context("no server to kill")?;
        server.kill()?;
        server.wait()?;
        fs::write(self.kubeconfig("admin"), kubeconfig("admin", 6443))?;
        Ok(())
    }

    /// Another cluster in the place of this one, whose server was killed: nothing of it is left.
    pub fn begin_anew(&mut self, host: &Netns, port: u16) -> Result<()> {
        self.etcd.kill()?;
        self.etcd.wait()?;
        fs::remove_dir_all(self.folder.join("etcd"))?;
        self.etcd = etcd(host, &self.binaries, &self.folder)?;
        self.resume(host, port)
    }

    /// From the server's next start on, the account has this token, and no longer `account-token`.
    pub fn renew(&self, token: &str) -> Result<()> {
        let text = TOKENS.replace("account-token", token);
        fs::write(self.folder.join("tokens.csv"), text).context("tokens")
    }

    /// Forgets all versions of objects but the last.
    pub fn compact(host: &Netns) -> Result<()> {
        let post = |path: &str, body: &str| {
            let url = format!("http://127.0.0.1:2379{path}");
            host.ask("curl", &["-sSf", "-d", body, &url])
        };
        let range = post("/v3/kv/range", r#"{"key": "eA=="}"#)?;
        let range: serde_json::Value = serde_json::from_str(&range)?;
        let revision = range["header"]["revision"].as_str().context("revision")?;
        post(
            "/v3/kv/compaction",
            &format!(r#"{{"revision": {revision}}}"#),
        )?;
        Ok(())
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(user)
    }

    fn kubectl_itself(&self) -> PathBuf {
        let own = self.binaries.join("kubectl");
        if own.exists() { own } else { "kubectl".into() }
    }

    /// What `kubectl` prints.
    pub fn kubectl(&self, host: &Netns, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.kubectl_itself());
        command.arg(option("--kubeconfig=", &self.kubeconfig("admin")));
        command.args(arguments);
        command.env("HOME", &self.folder);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = host.spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("stdin")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `kubectl` of 1.20 has no word for: the status of an object.
    pub fn patch(host: &Netns, path: &str, status: &str) -> Result<()> {
        let url = format!("https://127.0.0.1:6443{path}");
        let patched = host.ask(
            "curl",
            &[
                "-sSfk",
                "-X",
                "PATCH",
                "-H",
                "Authorization: Bearer admin-token",
                "-H",
                "Content-Type: application/merge-patch+json",
                "-d",
                status,
                &url,
            ],
        );
        patched.map(|_| ())
    }

    pub fn apply(&self, host: &Netns, objects: &str) -> Result<()> {
        // Without asking the server for its schemas, which takes longer than anything else.
        let applied = self.kubectl(host, &["apply", "--validate=false", "-f", "-"], objects);
        applied.map(|_| ())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in [Some(&mut self.etcd), self.running.as_mut()] {
            let Some(child) = child else { continue };
            let _killed = child.kill().is_ok();
            let _ended = child.wait().is_ok();
        }
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn etcd(host: &Netns, binaries: &Path, folder: &Path) -> Result<Child> {
    let mut etcd = Command::new(binaries.join("etcd"));
    etcd.arg("--data-dir").arg(folder.join("etcd"));
    etcd.args(["--listen-client-urls", "http://127.0.0.1:2379"]);
    etcd.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
    etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    spawn(host, &mut etcd, &folder.join("etcd.log"))
}

fn spawn(host: &Netns, command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    host.spawn(command)
}

fn kubeconfig(user: &str, port: u16) -> String {
    let (server, token) = (
        format!("https://127.0.0.1:{port}"),
        format!("token: {user}-token"),
    );
    kubeconfig_of(&server, &token)
}

/// For a server by its URL, and a user as the file has it.
pub fn kubeconfig_of(server: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: \
         '{server}', insecure-skip-tls-verify: true}}\nusers:\n- name: u\n  user: \
         {{{user}}}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    )
}
