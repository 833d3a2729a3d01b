//! Records as messages of syslog: RFC 5424, over UDP (RFC 5426), TCP (RFC 6587, octets counted) and TLS (RFC 5425).

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
    net::{TcpStream, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    format::Message,
    output::{Failure, Output, Settled},
    remote::{Remote, Tls, TlsStream},
};
use crate::flow::{
    clock::WallTime,
    record::{Line, Verdict, WorkloadRef},
};

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SyslogSettings {
    pub(crate) to: Remote,
    pub(crate) transport: Transport,
    pub(crate) facility: Facility,
    pub(crate) message: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Udp,
    #[default]
    Tcp,
    Tls,
}

/// Those that are for use as one likes, and those a security log may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Facility {
    Daemon = 3,
    Authpriv = 10,
    #[default]
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// Numbers of RFC 5424, table 2.
#[derive(Clone, Copy)]
enum Severity {
    Alert = 1,
    Warning = 4,
    Informational = 6,
}

/// What a datagram of IPv4 has room for.
const LARGEST: usize = 65_507;

/// Before a name is looked up anew for datagrams.
const LOOKED_UP: Duration = Duration::from_mins(1);

pub(super) struct Syslog {
    settings: SyslogSettings,
    /// As in every message.
    node: String,
    pid: u32,
    way: Option<Way>,
    batch: Vec<u8>,
    message: Vec<u8>,
}

enum Way {
    Udp(UdpSocket, Instant),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl Syslog {
    pub(super) fn new(settings: SyslogSettings, node: &Arc<str>) -> Self {
        Self {
            settings,
            node: header_field(node),
            pid: std::process::id(),
            way: None,
            batch: Vec::new(),
            message: Vec::new(),
        }
    }

    /// A connection that is still good, or a new one.
    fn way(&mut self) -> anyhow::Result<Way> {
        let SyslogSettings {
            to, transport, tls, ..
        } = &self.settings;
        if let Some(mut way) = self.way.take() {
            if way.is_good() {
                return Ok(way);
            }
            if let Way::Udp(socket, _) = way {
                // Where the name cannot be looked up, the old address may be as good as ever.
                let socket = to.datagrams().unwrap_or(socket);
                return Ok(Way::Udp(socket, Instant::now()));
            }
        }
        Ok(match transport {
            Transport::Udp => Way::Udp(to.datagrams()?, Instant::now()),
            Transport::Tcp => Way::Tcp(to.connect()?),
            Transport::Tls => {
                let tls = tls.clone().unwrap_or_default();
                Way::Tls(Box::new(to.connect_tls(&tls)?))
            }
        })
    }

    /// The next message, into `self.message`.
    fn put(&mut self, line: &Line) {
        let (severity, kind, time) = head(line);
        let priority = self.settings.facility as u8 * 8 + severity as u8;
        let mut head = format!("<{priority}>1 ");
        let (node, pid) = (&self.node, self.pid);
        // Six digits of a second at most.
        write!(
            head,
            "{} {node} ringfence {pid} {kind} - ",
            Microseconds(time)
        )
        .unwrap_or_default();
        self.message.clear();
        self.message.extend_from_slice(head.as_bytes());
        self.settings.message.put(line, &mut self.message);
    }

    fn send(&mut self, way: &mut Way, lines: &[Cow<'_, Line>]) -> io::Result<Settled> {
        self.batch.clear();
        let mut settled = Settled::exported(lines);
        for line in lines {
            self.put(line);
            if let Way::Udp(socket, _) = way {
                if self.message.len() > LARGEST {
                    self.put(&without_labels(line));
                }
                if self.message.len() > LARGEST {
                    settled.lose(line);
                } else {
                    socket.send(&self.message)?;
                }
            } else {
                write!(self.batch, "{} ", self.message.len())?;
                self.batch.extend_from_slice(&self.message);
            }
        }
        match way {
            Way::Udp(..) => {}
            Way::Tcp(stream) => stream.write_all(&self.batch)?,
            Way::Tls(stream) => stream.send(&self.batch)?,
        }
        Ok(settled)
    }
}

impl Output for Syslog {
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure> {
        let to = self.settings.to.clone();
        let away = |error: anyhow::Error| Failure::Away(error.context(format!("syslog at {to}")));
        let mut way = self.way().map_err(away)?;
        // On failure the connection is dropped: what comes after half a message would be read as its rest.
        let settled = self
            .send(&mut way, lines)
            .map_err(|error| away(error.into()))?;
        self.way = Some(way);
        Ok(settled)
    }

    fn late_loss(&self) -> &'static str {
        "too-long"
    }

    fn finish(&mut self) -> Settled {
        if let Some(Way::Tls(stream)) = self.way.take() {
            stream.close();
        }
        Settled::default()
    }
}

impl Way {
    /// Whether the far end has not closed it meanwhile, and its name need not be looked up anew.
    fn is_good(&mut self) -> bool {
        match self {
            Self::Udp(_, since) => since.elapsed() < LOOKED_UP,
            Self::Tcp(stream) => is_open(stream),
            Self::Tls(stream) => stream.is_open(),
        }
    }
}

/// A server of syslog says nothing: what there is to read is the end.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = stream.peek(&mut byte);
    if stream.set_nonblocking(false).is_err() {
        return false;
    }
    match peeked {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn head(line: &Line) -> (Severity, &'static str, WallTime) {
    match line {
        Line::Flow(record) => {
            let severity = match record.verdict {
                Verdict::Allow => Severity::Informational,
                Verdict::Deny => Severity::Warning,
            };
            (
                severity,
                record.kind.name(),
                record.end.unwrap_or(record.start),
            )
        }
        Line::Loss(record) => (Severity::Warning, "loss", record.loss.last),
        Line::Tampering(record) => (Severity::Alert, "tampering", record.tampering.at),
    }
}

/// Labels are all that may be long: a pod has as many as somebody gives it, and is not to be hidden by that.
fn without_labels(line: &Line) -> Line {
    let mut line = line.clone();
    if let Line::Flow(record) = &mut line {
        for end in [&mut record.src, &mut record.dst] {
            if let Some(workload) = &mut end.workload {
                *workload = Arc::new(WorkloadRef {
                    labels: Arc::default(),
                    ..WorkloadRef::clone(workload)
                });
            }
        }
    }
    line
}

/// Printable ASCII without spaces, as fields of the header are.
fn header_field(text: &str) -> String {
    let printable = |it: char| if it.is_ascii_graphic() { it } else { '?' };
    let field: String = text.chars().map(printable).take(255).collect();
    if field.is_empty() {
        "-".to_owned()
    } else {
        field
    }
}

/// RFC 3339, with six digits of the second.
struct Microseconds(WallTime);

impl std::fmt::Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(time) = self;
        let text = time.to_string();
        match text
            .strip_suffix('Z')
            .and_then(|text| text.get(..text.len() - 3))
        {
            Some(text) => write!(f, "{text}Z"),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests;
