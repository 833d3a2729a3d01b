//! Programs of others read the flow records of a real datapath by IPFIX: nfcapd with nfdump, and tshark.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Where `cargo xtask test` has unpacked programs of others.
const CONSUMERS: &str = "RINGFENCE_CONSUMERS";
/// Of nfcapd, and of sockets of the test.
const NFCAPD: u16 = 9995;
const DATAGRAMS: u16 = 9996;
const STREAM: u16 = 9997;

/// Where programs are, if these are.
fn programs(names: &[&str]) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(CONSUMERS)?);
    let all = names.iter().all(|name| folder.join(name).is_file());
    all.then_some(folder)
}

fn skipped() {
    eprintln!("skipped: no nfdump or tshark in ${CONSUMERS}: `cargo xtask test` unpacks them");
}

/// One of the programs, with the libraries that were unpacked beside it.
fn program(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(folder.join(name));
    let libraries = fs::read_dir(folder.join("../lib")).into_iter().flatten();
    let libraries = libraries.filter_map(|entry| Some(entry.ok()?.path()));
    let libraries = libraries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    if let Ok(path) = env::join_paths(libraries) {
        command.env("LD_LIBRARY_PATH", path);
    }
    // What people have set up for theirs is not asked.
    command.env("HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run a program")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

struct Nfcapd {
    child: Child,
    folder: PathBuf,
}

impl Nfcapd {
    fn start(scene: &Scene, programs: &Path) -> Result<Self> {
        let folder = scene.lab.folder().join("nfcapd");
        fs::create_dir_all(&folder)?;
        let mut command = program(programs, "nfcapd");
        command
            .args(["-b", "127.0.0.1", "-p", &NFCAPD.to_string(), "-w"])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("../nfcapd.log"))?);
        let child = scene.lab.host().spawn(&mut command)?;
        let running = Self { child, folder };
        let is_there = eventually(SOON, || is_bound(scene.lab.host(), NFCAPD));
        ensure!(is_there, "nfcapd does not listen: {}", running.log());
        Ok(running)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("../nfcapd.log")).unwrap_or_default()
    }

    /// It writes what it has when it ends: rows of values by name.
    fn finish(mut self, programs: &Path) -> Result<(Vec<BTreeMap<String, String>>, String)> {
        let process = i32::try_from(self.child.id())?;
        let process = Pid::from_raw(process).context("no process")?;
        kill_process(process, Signal::TERM)?;
        self.child.wait()?;
        let mut nfdump = program(programs, "nfdump");
        nfdump.arg("-R").arg(&self.folder).args(["-o", "csv"]);
        let text = output(&mut nfdump)?;
        // What they add up to is behind them.
        let mut lines = text.lines().take_while(|line| !line.starts_with("Summary"));
        let header: Vec<_> = lines.next().unwrap_or_default().split(',').collect();
        let rows = lines.map(|line| {
            let names = header.iter().map(|name| (*name).to_owned());
            names.zip(line.split(',').map(str::to_owned)).collect()
        });
        Ok((rows.collect(), self.log()))
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_bound(host: &Netns, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    let table = host.within(|| fs::read_to_string("/proc/thread-self/net/udp"));
    let table = table.unwrap_or_default();
    table.lines().any(|line| {
        let local = line.split_whitespace().nth(1);
        local.is_some_and(|local| local.ends_with(&wanted))
    })
}

fn enforced(scene: &Scene, settings: &str) -> Result<Agent> {
    let path = scene.lab.write("settings.yaml", settings)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;
    Ok(agent)
}

/// What is let in, and what is not, of both families.
fn talk(scene: &Scene) -> Result<()> {
    let (friend, server) = (&scene.friend, &scene.server);
    for to in server.at(PORT) {
        for protocol in Protocol::ALL {
            ensure!(friend.probe(protocol, to) == Outcome::Allowed);
        }
    }
    for to in server.at(OTHER_PORT) {
        ensure!(friend.probe(Protocol::Tcp, to) == Outcome::TimedOut);
    }
    for to in server.addresses() {
        ensure!(friend.ping(to) == Outcome::TimedOut);
    }
    Ok(())
}

/// Waits until all records so far are out of this sink.
fn is_out(agent: &Agent, sink: &str, number: u64) -> Result<()> {
    let mut last = Value::Null;
    let is_so = eventually(SOON, || {
        last = agent.status().unwrap_or_default();
        let counts = &last["records"]["sinks"][sink];
        let [seen, exported] = ["seen", "exported"].map(|what| counts[what].as_u64());
        seen == exported && seen >= Some(number)
    });
    ensure!(is_so, "{:#}\n{}", last["records"], agent.log());
    Ok(())
}

/// The agent's own file of the same records.
fn canonical(agent: &Agent) -> Result<Vec<Value>> {
    let text = fs::read_to_string(agent.flow_file())?;
    let lines = text.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    Ok(lines
        .into_iter()
        .filter(|it| it["flow_id"].is_string())
        .collect())
}

/// From the highest bit on.
fn flags(flags: &Value) -> String {
    let flags = flags.as_u64().unwrap_or(0);
    let letters = "CEUAPRSF".chars().rev().enumerate();
    let shown = letters.map(|(bit, letter)| if flags >> bit & 1 == 1 { letter } else { '.' });
    shown.collect::<Vec<_>>().into_iter().rev().collect()
}

/// As nfdump shows it.
fn row_of(record: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut row = BTreeMap::new();
    let mut put = |name: &str, value: String| row.insert(name.to_owned(), value);
    put("sa", text(&record["src"]["ip"]));
    put("da", text(&record["dst"]["ip"]));
    if record["icmp"].is_null() {
        put("sp", text(&record["src"]["port"]));
        put("dp", text(&record["dst"]["port"]));
    } else {
        let [kind, code] = ["type", "code"].map(|it| record["icmp"][it].as_u64().unwrap_or(0));
        put("dp", (kind * 256 + code).to_string());
    }
    let number = record["protocol"]["number"].as_u64();
    let name = match number {
        Some(1) => "ICMP",
        Some(6) => "TCP",
        Some(17) => "UDP",
        _ => "ICMP6",
    };
    put("pr", name.to_owned());
    put("flg", flags(&record["forward"]["tcp_flags"]));
    let is_in = record["direction"] == "ingress" && record["ifindex"].is_number();
    put(
        "in",
        if is_in {
            text(&record["ifindex"])
        } else {
            "0".to_owned()
        },
    );
    for (way, [packets, bytes]) in [("forward", ["ipkt", "ibyt"]), ("reverse", ["opkt", "obyt"])] {
        put(packets, text(&record[way]["packets"]));
        put(bytes, text(&record[way]["bytes"]));
    }
    row
}

#[test]
fn nfdump_shows_what_was_seen_also_before_nfcapd_was_there() -> Result<()> {
    let Some(programs) = programs(&["nfcapd", "nfdump"]) else {
        skipped();
        return Ok(());
    };
    let scene = Scene::with(FRIEND_ONLY)?;
    let settings = format!("sinks: [{{name: nfcapd, ipfix: {{to: '127.0.0.1:{NFCAPD}'}}}}]\n");
    let mut agent = enforced(&scene, &settings)?;
    // Nobody is there yet, and records wait.
    talk(&scene)?;
    let nfcapd = Nfcapd::start(&scene, &programs)?;
    is_out(&agent, "nfcapd", 8)?;
    talk(&scene)?;
    is_out(&agent, "nfcapd", 16)?;
    agent.terminate()?;
    let (mut rows, log) = nfcapd.finish(&programs)?;
    ensure!(log.contains("Sequence Errors: 0, Bad Packets: 0"), "{log}");
    let records = canonical(&agent)?;
    ensure!(
        rows.len() == records.len(),
        "{} rows of {} records",
        rows.len(),
        records.len()
    );
    for record in &records {
        let expected = row_of(record);
        let fits = |row: &BTreeMap<String, String>| {
            expected
                .iter()
                .all(|(name, value)| row.get(name) == Some(value))
        };
        let Some(at) = rows.iter().position(fits) else {
            bail!("{expected:?} of {record:#} is not in {rows:#?}");
        };
        rows.swap_remove(at);
    }
    Ok(())
}

/// A file of packets as tshark reads it: of IPv4, as if they had been captured.
#[derive(Default)]
struct Capture(Vec<u8>);

impl Capture {
    fn new() -> Self {
        let mut bytes = Vec::new();
        // Magic number, version 2.4, no time zone, length of packets, raw IP.
        bytes.extend(0xa1b2_c3d4_u32.to_be_bytes());
        bytes.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 101]);
        Self(bytes)
    }

    fn packet(&mut self, protocol: u8, transport: &[u8], data: &[u8]) -> Result<()> {
        let length = u16::try_from(20 + transport.len() + data.len())?;
        self.0.extend([0; 8]);
        for _ in 0..2 {
            self.0.extend(u32::from(length).to_be_bytes());
        }
        self.0.extend([0x45, 0]);
        self.0.extend(length.to_be_bytes());
        self.0.extend([
            0, 0, 0x40, 0, 64, protocol, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1,
        ]);
        self.0.extend(transport);
        self.0.extend(data);
        Ok(())
    }

    fn datagrams(mut self, datagrams: &[Vec<u8>]) -> Result<Self> {
        for datagram in datagrams {
            let mut header = [4000_u16.to_be_bytes(), DATAGRAMS.to_be_bytes()].concat();
            header.extend(u16::try_from(8 + datagram.len())?.to_be_bytes());
            header.extend([0; 2]);
            self.packet(17, &header, datagram)?;
        }
        Ok(self)
    }

    /// Cut into segments, wherever messages end.
    fn stream(mut self, stream: &[u8]) -> Result<Self> {
        let mut at = 1_u32;
        for segment in stream.chunks(1000) {
            let mut header = [4000_u16.to_be_bytes(), STREAM.to_be_bytes()].concat();
            header.extend(at.to_be_bytes());
            // Acknowledgement, length of the header, ACK, window, checksum, urgent pointer.
            header.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
            self.packet(6, &header, segment)?;
            at += u32::try_from(segment.len())?;
        }
        Ok(self)
    }
}

/// What tshark reads in packets.
struct Tshark {
    programs: PathBuf,
    capture: PathBuf,
}

impl Tshark {
    fn of(scene: &Scene, programs: PathBuf, packets: &Capture) -> Result<Self> {
        let capture = scene.lab.folder().join("capture.pcap");
        fs::write(&capture, &packets.0)?;
        Ok(Self { programs, capture })
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut tshark = program(&self.programs, "tshark");
        tshark.arg("-r").arg(&self.capture);
        tshark.args(["-d", &format!("udp.port=={DATAGRAMS},cflow")]);
        tshark.args(["-d", &format!("tcp.port=={STREAM},cflow")]);
        output(tshark.args(arguments))
    }

    /// Nothing that it would warn of, sequence numbers and unknown templates included.
    fn complains_of_nothing(&self) -> Result<()> {
        let told = self.ask(&["-Y", "cflow && (_ws.malformed || _ws.expert)", "-V"])?;
        ensure!(told.trim().is_empty(), "{told}");
        let all = self.ask(&["-V"])?;
        ensure!(!all.contains("no template found"), "{all}");
        Ok(())
    }

    /// Each value of this field, in all packets.
    fn values(&self, field: &str) -> Result<Vec<String>> {
        let told = self.ask(&["-T", "fields", "-E", "aggregator=;", "-e", field])?;
        let values = told.lines().flat_map(|line| line.split(';'));
        let values = values.filter(|value| !value.is_empty());
        Ok(values.map(str::to_owned).collect())
    }

    /// Flow records as the agent has written them to its own file.
    fn shows(&self, records: &[Value]) -> Result<()> {
        self.complains_of_nothing()?;
        for (field, value) in FIELDS {
            let mut expected: Vec<_> = records.iter().flat_map(value).collect();
            let mut seen = self.values(field)?;
            expected.sort();
            seen.sort();
            ensure!(
                seen == expected,
                "{field}: {seen:?}, expected: {expected:?}"
            );
        }
        Ok(())
    }
}

type ValuesOf = fn(&Value) -> Vec<String>;

/// As tshark names them. Those of the way back have the names of those of the way there.
const FIELDS: [(&str, ValuesOf); 10] = [
    ("cflow.firewall_event", |record| {
        let kinds = [("start", 1), ("end", 2), ("deny", 3), ("update", 5)];
        let fits = kinds.iter().filter(|(kind, _)| record["kind"] == *kind);
        fits.map(|(_, number)| number.to_string()).collect()
    }),
    // The two highest bits: forwarded, or dropped.
    ("cflow.forwarding_status", |record| {
        let is_allowed = record["verdict"] == "allow";
        vec![if is_allowed { "1" } else { "2" }.to_owned()]
    }),
    ("cflow.srcaddr", |record| address(record, "src", false)),
    ("cflow.dstaddr", |record| address(record, "dst", false)),
    ("cflow.srcaddrv6", |record| address(record, "src", true)),
    ("cflow.dstaddrv6", |record| address(record, "dst", true)),
    ("cflow.srcport", |record| numbers([&record["src"]["port"]])),
    ("cflow.dstport", |record| numbers([&record["dst"]["port"]])),
    ("cflow.octets", |record| {
        numbers(["forward", "reverse"].map(|way| &record[way]["bytes"]))
    }),
    ("cflow.packets", |record| {
        numbers(["forward", "reverse"].map(|way| &record[way]["packets"]))
    }),
];

fn numbers<const N: usize>(values: [&Value; N]) -> Vec<String> {
    let numbers = values.into_iter().filter_map(Value::as_u64);
    numbers.map(|number| number.to_string()).collect()
}

fn address(record: &Value, side: &str, is_v6: bool) -> Vec<String> {
    let ip = record[side]["ip"].as_str();
    let ip = ip.filter(|ip| ip.contains(':') == is_v6);
    ip.map(str::to_owned).into_iter().collect()
}

#[test]
fn tshark_reads_datagrams_and_a_stream_without_complaint() -> Result<()> {
    let Some(programs) = programs(&["tshark"]) else {
        skipped();
        return Ok(());
    };
    let scene = Scene::with(FRIEND_ONLY)?;
    let host = scene.lab.host();
    let datagrams = host.within(|| UdpSocket::bind(("127.0.0.1", DATAGRAMS)))?;
    let listener = host.within(|| TcpListener::bind(("127.0.0.1", STREAM)))?;
    let settings = format!(
        "sinks:\n- {{name: datagrams, ipfix: {{to: '127.0.0.1:{DATAGRAMS}', template_seconds: 1}}}}\n\
         - {{name: stream, ipfix: {{to: '127.0.0.1:{STREAM}', transport: tcp}}}}\n"
    );
    let mut agent = enforced(&scene, &settings)?;
    for round in 1..3 {
        talk(&scene)?;
        is_out(&agent, "datagrams", round * 8)?;
        is_out(&agent, "stream", round * 8)?;
    }
    agent.terminate()?;
    let records = canonical(&agent)?;

    datagrams.set_nonblocking(true)?;
    let mut received = Vec::new();
    let mut datagram = vec![0; 65_536];
    while let Ok(length) = datagrams.recv(&mut datagram) {
        ensure!(length <= 1400, "{length} bytes");
        received.push(datagram[..length].to_vec());
    }
    let packets = Capture::new().datagrams(&received)?;
    let tshark = Tshark::of(&scene, programs.clone(), &packets)?;
    tshark.shows(&records)?;

    let mut stream = Vec::new();
    listener.accept()?.0.read_to_end(&mut stream)?;
    let packets = Capture::new().stream(&stream)?;
    let tshark = Tshark::of(&scene, programs, &packets)?;
    tshark.shows(&records)?;
    // Our own elements are told in-band.
    let names = tshark.values("cflow.information_element_name")?;
    ensure!(
        names.iter().any(|name| name == "ringfencePolicyName"),
        "{names:?}"
    );
    Ok(())
}
