//! Hubble's API, of the agent of a real datapath, by a client of our own, and by Hubble's where there is one.

#[path = "hubble/certificates.rs"]
mod certificates;
#[path = "hubble/client.rs"]
mod client;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_hubble_proto::flow::layer4::Protocol as Layer4;
use agent_hubble_proto::flow::{EventTypeFilter, Flow, FlowFilter, TrafficDirection, Verdict};
use agent_hubble_proto::observer::GetFlowsRequest;
use anyhow::{Context, Result, ensure};
use prost_types::FieldMask;
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use tonic::Code;

use crate::certificates::Authority;
use crate::client::Client;

const LISTEN: &str = "127.0.0.1:4244";
const SOON: Duration = Duration::from_secs(30);
/// Where `cargo xtask test` has unpacked programs of others.
const CONSUMERS: &str = "RINGFENCE_CONSUMERS";

/// What Hubble's command line asks for, of version 1.19, where nobody has chosen.
const MASK: [&str; 20] = [
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
];

struct Observed {
    agent: Agent,
    scene: Scene,
}

impl Observed {
    /// With `more` settings of the API.
    fn new(more: &str) -> Result<Self> {
        let scene = Scene::with(FRIEND_ONLY)?;
        let socket = scene.lab.folder().join("hubble.sock");
        let settings = format!(
            "node: node-1\nhubble:\n  socket: {}\n  listen: {LISTEN}\n  flows: 500\n{more}",
            socket.display()
        );
        let path = scene.lab.write("settings.yaml", &settings)?;
        let mut agent = scene
            .agent()?
            .with(&["--config", &path.display().to_string()]);
        agent.start()?;
        Ok(Self { agent, scene })
    }

    fn host(&self) -> &Netns {
        self.scene.lab.host()
    }

    fn socket(&self) -> PathBuf {
        self.scene.lab.folder().join("hubble.sock")
    }

    fn by_socket(&self) -> Result<Client<'_>> {
        Client::at(self.host(), &format!("unix://{}", self.socket().display()))
    }

    fn by_tcp(&self) -> Result<Client<'_>> {
        Client::at(self.host(), &format!("http://{LISTEN}"))
    }

    /// The friend is let in, and kept out; both are told before this returns.
    fn traffic(&self) -> Result<()> {
        let (friend, server) = (&self.scene.friend, &self.scene.server);
        ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
        ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
        let client = self.by_socket()?;
        let mut seen = Vec::new();
        let is_told = eventually(SOON, || {
            seen = client.flows(all()).unwrap_or_default();
            permitted(&seen).is_some() && denied(&seen).is_some()
        });
        ensure!(is_told, "{seen:#?}\n{}", self.agent.log());
        Ok(())
    }
}

fn all() -> GetFlowsRequest {
    GetFlowsRequest::default()
}

fn only(filter: FlowFilter) -> GetFlowsRequest {
    GetFlowsRequest {
        whitelist: vec![filter],
        ..all()
    }
}

/// At the server, a verdict of policy.
fn verdict(flows: &[Flow], verdict: Verdict) -> Option<&Flow> {
    let mut flows = flows.iter();
    flows.find(|flow| {
        flow.verdict() == verdict
            && flow.traffic_direction() == TrafficDirection::Ingress
            && flow.event_type.is_some_and(|it| it.r#type == 5)
    })
}

fn permitted(flows: &[Flow]) -> Option<&Flow> {
    verdict(flows, Verdict::Forwarded)
}

fn denied(flows: &[Flow]) -> Option<&Flow> {
    verdict(flows, Verdict::Dropped)
}

fn destination_port(flow: &Flow) -> Option<u32> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Layer4::Tcp(tcp) => Some(tcp.destination_port),
        _ => None,
    }
}

#[test]
fn what_policy_lets_in_and_keeps_out_is_told() -> Result<()> {
    let observed = Observed::new("")?;
    observed.traffic()?;
    let client = observed.by_tcp()?;
    let flows = client.flows(GetFlowsRequest {
        number: u64::MAX,
        ..all()
    })?;
    let let_in = permitted(&flows).context("nobody was let in")?;
    ensure!(let_in.is_reply == Some(false), "{let_in:#?}");
    ensure!(
        let_in.event_type.is_some_and(|it| it.sub_type == 0),
        "{let_in:#?}"
    );
    ensure!(destination_port(let_in) == Some(PORT.into()), "{let_in:#?}");
    ensure!(let_in.summary.starts_with("TCP"), "{let_in:#?}");
    let [rule] = &let_in.ingress_allowed_by[..] else {
        anyhow::bail!("{let_in:#?}");
    };
    ensure!(
        (rule.kind.as_str(), rule.name.as_str()) == ("NetworkPolicy", "server"),
        "{rule:?}"
    );
    let (source, destination) = (
        let_in.source.clone().unwrap_or_default(),
        let_in.destination.clone().unwrap_or_default(),
    );
    ensure!((source.namespace.as_str(), source.pod_name.as_str()) == ("shop", "friend"));
    ensure!(destination.pod_name == "server" && destination.identity >= 256);
    let ip = let_in.ip.clone().unwrap_or_default();
    let server = observed.scene.server.v4(PORT).ip().to_string();
    ensure!(ip.destination == server, "{ip:?}");

    let kept_out = denied(&flows).context("nobody was kept out")?;
    ensure!(kept_out.is_reply.is_none(), "{kept_out:#?}");
    ensure!((kept_out.drop_reason, kept_out.drop_reason_desc) == (133, 133));
    ensure!(destination_port(kept_out) == Some(OTHER_PORT.into()));
    let interface = kept_out.interface.clone().unwrap_or_default();
    ensure!(
        interface.name == observed.scene.server.interface(),
        "{interface:?}"
    );

    // The end comes, as a trace, with numbers of its own for where it was.
    let ended = GetFlowsRequest {
        follow: true,
        number: 500,
        ..only(FlowFilter {
            event_type: vec![EventTypeFilter {
                r#type: 4,
                match_sub_type: true,
                sub_type: 0,
            }],
            destination_pod: vec!["shop/serv".to_owned()],
            ..FlowFilter::default()
        })
    };
    let ended = client.first(ended)?;
    ensure!(
        ended.trace_observation_point == 101 && ended.verdict() == Verdict::Forwarded,
        "{ended:#?}"
    );
    Ok(())
}

#[test]
fn filters_choose_and_what_cannot_be_judged_is_refused() -> Result<()> {
    let observed = Observed::new("")?;
    observed.traffic()?;
    let client = observed.by_socket()?;
    let text = |it: &str| vec![it.to_owned()];
    let told = |filter: FlowFilter| client.flows(only(filter));
    let by_namespace = |namespace: &str| FlowFilter {
        source_pod: text(namespace),
        ..FlowFilter::default()
    };
    ensure!(!told(by_namespace("shop/"))?.is_empty());
    ensure!(told(by_namespace("other/"))?.is_empty());
    // A name without a namespace is of the one that is called so.
    ensure!(told(by_namespace("friend"))?.is_empty());
    let by_port = |port: u16| FlowFilter {
        destination_port: text(&port.to_string()),
        verdict: vec![Verdict::Dropped.into()],
        ..FlowFilter::default()
    };
    ensure!(!told(by_port(OTHER_PORT))?.is_empty());
    ensure!(told(by_port(PORT))?.is_empty());
    let drops = told(FlowFilter {
        event_type: vec![EventTypeFilter {
            r#type: 1,
            ..EventTypeFilter::default()
        }],
        ..FlowFilter::default()
    })?;
    let sub_type = drops.first().and_then(|drop| drop.event_type);
    ensure!(sub_type.is_some_and(|it| it.sub_type == 133), "{drops:#?}");
    let last = client.flows(GetFlowsRequest {
        number: 1,
        ..only(by_port(OTHER_PORT))
    })?;
    ensure!(last.len() == 1, "{last:#?}");
    for (refused, named) in [
        (
            FlowFilter {
                http_method: text("GET"),
                ..FlowFilter::default()
            },
            "http_method",
        ),
        (
            FlowFilter {
                destination_port: text("http"),
                ..FlowFilter::default()
            },
            "destination_port",
        ),
        (
            FlowFilter {
                source_label: text("app=a=b"),
                ..FlowFilter::default()
            },
            "source_label",
        ),
    ] {
        let status = client.refused(only(refused))?;
        ensure!(
            status.code() == Code::InvalidArgument && status.message().contains(named),
            "{status}"
        );
    }
    Ok(())
}

#[test]
fn the_mask_of_the_command_line_keeps_what_it_shows() -> Result<()> {
    let observed = Observed::new("")?;
    observed.traffic()?;
    let client = observed.by_socket()?;
    let masked = |paths: &[&str]| {
        client.flows(GetFlowsRequest {
            field_mask: Some(FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
            ..all()
        })
    };
    let flows = masked(&MASK)?;
    let let_in = permitted(&flows).context("no direction is left")?;
    ensure!(let_in.ingress_allowed_by.len() == 1 && let_in.uuid.is_empty());
    let source = let_in.source.clone().unwrap_or_default();
    ensure!(source.labels.is_empty() && source.pod_name == "friend");
    let few = masked(&["verdict", "to_come"])?;
    ensure!(
        few.iter()
            .all(|flow| flow.ip.is_none() && flow.verdict != 0)
    );
    Ok(())
}

#[test]
fn a_follower_is_told_what_comes() -> Result<()> {
    let observed = Observed::new("")?;
    let client = observed.by_tcp()?;
    let follow = GetFlowsRequest {
        follow: true,
        ..only(FlowFilter {
            verdict: vec![Verdict::Dropped.into()],
            ..FlowFilter::default()
        })
    };
    let first = client.first_while(follow, || {
        let (stranger, server) = (&observed.scene.stranger, &observed.scene.server);
        drop(stranger.probe(Protocol::Tcp, server.v4(PORT)));
    })?;
    ensure!(first.source.is_some_and(|it| it.pod_name == "stranger"));
    let is_counted = |status: &serde_json::Value| {
        let count = |what: &str| status["hubble"][what].as_u64();
        count("told") > Some(0) && count("missed") == Some(0) && count("streams") == Some(0)
    };
    let counted = observed.agent.status_eventually(SOON, is_counted);
    ensure!(counted, "{:#}", observed.agent.status()?);
    Ok(())
}

#[test]
fn clients_find_the_services_that_they_look_for() -> Result<()> {
    let observed = Observed::new("")?;
    observed.traffic()?;
    let mode = fs::metadata(observed.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    for client in [observed.by_socket()?, observed.by_tcp()?] {
        for (service, code) in [
            ("", None),
            ("hubble.server.Observer", None),
            ("observer.Other", Some(Code::NotFound)),
        ] {
            ensure!(client.health(service)? == code, "{service}");
        }
        let status = client.status()?;
        ensure!(
            status.max_flows == 500 && status.num_flows >= 2 && status.flows_rate > 0.0,
            "{status:?}"
        );
        ensure!(status.seen_flows >= status.num_flows && status.num_connected_nodes.is_none());
        let nodes = client.nodes()?;
        ensure!(
            nodes.len() == 1
                && nodes
                    .iter()
                    .all(|it| it.name == "default/node-1" && it.state == 1),
            "{nodes:?}"
        );
        let namespaces = client.namespaces()?;
        ensure!(namespaces == ["default/shop"], "{namespaces:?}");
        let (peer, is_open) = client.peer()?;
        ensure!(
            peer.name == "default/node-1" && peer.address == LISTEN && peer.tls.is_none(),
            "{peer:?}"
        );
        ensure!(is_open, "its stream has ended");
        let services = client.reflected()?;
        for expected in ["observer.Observer", "peer.Peer", "grpc.health.v1.Health"] {
            let of_versions = services.iter().filter(|it| *it == expected);
            ensure!(of_versions.count() == 2, "{services:?}");
        }
        for method in ["GetAgentEvents", "GetDebugEvents"] {
            ensure!(client.unknown(method)? == Code::Unimplemented, "{method}");
        }
    }
    Ok(())
}

#[test]
fn silent_clients_keep_nobody_from_the_socket() -> Result<()> {
    let observed = Observed::new("")?;
    let silent = observed.host().within(|| {
        let connections = (0..100).map(|_| TcpStream::connect(LISTEN));
        connections.collect::<Result<Vec<_>, _>>()
    })?;
    ensure!(observed.by_socket()?.status()?.max_flows == 500);
    drop(silent);
    ensure!(observed.by_tcp()?.status()?.max_flows == 500);
    Ok(())
}

#[test]
fn who_asks_by_tls_proves_who_they_are_and_certificates_can_be_replaced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (authority, other) = (
        Authority::new(folder.path(), "one")?,
        Authority::new(folder.path(), "other")?,
    );
    // As Hubble's clients expect nodes to be called.
    let name = "node-1.default.hubble-grpc.cilium.io";
    let at = |file: &str| folder.path().join(file);
    authority.issue(name, &at("server"))?;
    fs::copy(authority.certificate(), at("clients.pem"))?;
    let observed = Observed::new(&format!(
        "  tls: {{cert_file: {0}.pem, key_file: {0}.key, client_ca_file: {1}}}\n",
        at("server").display(),
        at("clients.pem").display(),
    ))?;
    let ask = |authority: &Authority, client: Option<&Authority>| {
        let identity = client.map(|it| it.issue("a-client", &at("client")));
        let identity = identity.transpose()?.map(|()| at("client"));
        let client = Client::by_tls(
            observed.host(),
            LISTEN,
            name,
            authority.certificate(),
            identity,
        )?;
        client.status()
    };
    ask(&authority, Some(&authority)).with_context(|| observed.agent.log())?;
    ensure!(ask(&authority, None).is_err(), "without a certificate");
    ensure!(ask(&authority, Some(&other)).is_err(), "of a stranger");
    ensure!(ask(&other, Some(&authority)).is_err(), "it is no other");
    ensure!(observed.by_tcp()?.status().is_err(), "without TLS");
    let peer = observed.by_socket()?.peer()?.0;
    ensure!(
        peer.tls.as_ref().is_some_and(|it| it.server_name == name),
        "{peer:?}"
    );

    // Half of it is no good, and changes nothing.
    fs::write(at("server.key"), "half")?;
    ask(&authority, Some(&authority))?;
    other.issue(name, &at("server"))?;
    fs::copy(other.certificate(), at("clients.pem"))?;
    let mut last = Ok(());
    let is_replaced = eventually(SOON, || {
        last = ask(&other, Some(&other)).map(drop);
        last.is_ok()
    });
    ensure!(is_replaced, "{last:?}\n{}", observed.agent.log());
    ensure!(ask(&authority, Some(&authority)).is_err(), "of before");
    Ok(())
}

/// Hubble's command line, where there is one.
struct CommandLine {
    program: PathBuf,
    observed: Observed,
}

impl CommandLine {
    fn new() -> Result<Option<Self>> {
        let program = env::var_os(CONSUMERS).map(|folder| PathBuf::from(folder).join("hubble"));
        let Some(program) = program.filter(|path| path.is_file()) else {
            eprintln!("skipped: no hubble in ${CONSUMERS}");
            return Ok(None);
        };
        let observed = Observed::new("")?;
        observed.traffic()?;
        Ok(Some(Self { program, observed }))
    }

    fn command(&self, arguments: &[&str], server: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--server", server]);
        command.env("HOME", self.observed.scene.lab.folder());
        command.stdin(Stdio::null());
        command
    }

    /// Whether it succeeds, and what it says.
    fn call(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = self
            .observed
            .host()
            .output(&mut self.command(arguments, LISTEN))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    }

    fn shows(&self, arguments: &[&str], expected: &[&str]) -> Result<()> {
        let (succeeded, text) = self.call(arguments)?;
        for expected in expected {
            ensure!(
                succeeded && text.contains(expected),
                "{expected} in {arguments:?}: {text}"
            );
        }
        Ok(())
    }

    /// What a call shows that does not end by itself.
    fn begins(&self, arguments: &[&str], server: &str, expected: &str) -> Result<()> {
        let mut command = self.command(arguments, server);
        let mut child = self.observed.host().spawn(command.stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first = lines.next();
        child.kill()?;
        child.wait()?;
        let first = first.context("no line")??;
        ensure!(first.contains(expected), "{arguments:?}: {first}");
        Ok(())
    }
}

#[test]
fn the_command_line_of_hubble_shows_it_in_all_forms() -> Result<()> {
    let Some(hubble) = CommandLine::new()? else {
        return Ok(());
    };
    hubble.shows(&["status"], &["): Ok", "/500", "Flows/s: "])?;
    let denied = "policy-verdict:none INGRESS DENIED (TCP Flags: SYN)";
    let allowed = "policy-verdict:L3-L4 INGRESS ALLOWED (TCP";
    let ends = ["shop/friend:", "shop/server:8080 (ID:"];
    for observe in [&["observe", "--last", "100"][..], &["observe", "--all"]] {
        hubble.shows(observe, &[denied, allowed])?;
        hubble.shows(observe, &ends)?;
    }
    let policies = ["observe", "--print-policy-names", "--verdict", "FORWARDED"];
    hubble.shows(&policies, &["ALLOWED BY server (NetworkPolicy)"])?;
    hubble.shows(&["observe", "-t", "drop"], &["Policy denied DROPPED"])?;
    let traces = ["observe", "-t", "trace:to-endpoint"];
    hubble.shows(&traces, &["to-endpoint FORWARDED"])?;
    let table = ["TIMESTAMP", "shop/server:8080"];
    hubble.shows(&["observe", "-o", "table"], &table)?;
    hubble.shows(&["observe", "-o", "dict"], &["SUMMARY: TCP Flags: SYN"])?;
    let json = ["\"node_name\":\"default/node-1\"", "\"is_reply\":false"];
    for form in ["json", "jsonpb"] {
        hubble.shows(&["observe", "-o", form, "--since", "1h"], &json)?;
    }
    let node = ["default/node-1", "Connected", "ringfence v"];
    hubble.shows(&["list", "nodes", "-o", "wide"], &node)?;
    hubble.shows(&["list", "namespaces", "-o", "wide"], &["shop", "default"])?;
    hubble.shows(&["reflect"], &["observer/observer.proto"])?;
    let (succeeded, text) = hubble.call(&["observe", "agent-events"])?;
    ensure!(!succeeded && text.contains("Unimplemented"), "{text}");
    let socket = format!("unix://{}", hubble.observed.socket().display());
    for server in [LISTEN, &socket] {
        hubble.begins(&["watch", "peers"], server, "PEER_ADDED")?;
        hubble.begins(&["observe", "--follow", "--last", "3"], server, "shop/")?;
    }
    Ok(())
}

#[test]
fn the_command_line_of_hubble_chooses_by_all_flags() -> Result<()> {
    let Some(hubble) = CommandLine::new()? else {
        return Ok(());
    };
    for (flags, is_seen) in [
        (&["--namespace", "shop"][..], true),
        (&["--namespace", "other"], false),
        (&["--pod", "shop/friend"], true),
        (&["--pod", "friend"], false),
        (&["--to-port", "8080"], true),
        (&["--to-port", "1"], false),
        (&["--protocol", "tcp"], true),
        (&["--protocol", "udp"], false),
        (&["--label", "app=friend"], true),
        (&["--from-label", "host:app notin (friend)"], false),
        (&["--workload", "Workload/server"], true),
        (&["--traffic-direction", "ingress"], true),
        (&["--not", "--namespace", "shop"], false),
        (&["--node-name", "node-*"], true),
        (&["--node-name", "other"], false),
        (&["--tcp-flags", "SYN"], true),
        (&["--cluster", "default"], true),
        (&["-A"], true),
        (&["-4"], true),
        (&["-6"], false),
        (&["--drop-reason-desc", "POLICY_DENIED"], true),
        (&["--from-identity", "world"], false),
        (&["--until", "1h"], false),
        (&["--first", "3"], true),
    ] {
        let (succeeded, text) =
            hubble.call(&[&["observe", "--print-node-name"], flags].concat())?;
        ensure!(
            succeeded && text.contains("[default/node-1]: shop/") == is_seen,
            "{flags:?}: {text}"
        );
    }
    for flags in [&["--http-status", "500"][..], &["--protocol", "http"]] {
        let (succeeded, text) = hubble.call(&[&["observe"], flags].concat())?;
        ensure!(
            !succeeded && text.contains("InvalidArgument"),
            "{flags:?}: {text}"
        );
    }
    Ok(())
}
