//! Records as rows, for people.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use crate::{
    cli::output::{Colour, Columns, Paint},
    flow::{
        clock::WallTime,
        record::{
            End, Line, LossRecord, Record, TamperRecord, Tampering, Traffic, Verdict, WouldBe,
        },
    },
};

/// Written one by one, as they come. What is in them is escaped where columns are written.
#[derive(Debug)]
pub(super) struct FlowTable<const N: usize> {
    columns: Columns<N>,
    layout: Layout<N>,
    paint: Paint,
}

/// What the columns are. The first is the time, the last the rest.
#[derive(Debug)]
struct Layout<const N: usize> {
    header: [&'static str; N],
    /// What most rows need, so that columns seldom grow on the way.
    widths: [usize; N],
    node: Option<usize>,
    kind: usize,
    verdict: usize,
    time: fn(WallTime) -> String,
    row: fn(&Record) -> [String; N],
}

const NARROW: Layout<9> = Layout {
    header: [
        "TIME",
        "KIND",
        "VERDICT",
        "SOURCE",
        "DESTINATION",
        "PROTO",
        "BYTES",
        "PROCESS",
        "RULE/REASON",
    ],
    widths: [13, 6, 7, 24, 24, 5, 11, 16, 0],
    node: None,
    kind: 1,
    verdict: 2,
    time: WallTime::time_of_day,
    row: narrow,
};

const WIDE: Layout<17> = Layout {
    header: [
        "TIME",
        "NODE",
        "KIND",
        "VERDICT",
        "DIRECTION",
        "SOURCE",
        "ADDRESS",
        "DESTINATION",
        "ADDRESS",
        "PROTO",
        "PACKETS",
        "BYTES",
        "FLAGS",
        "PROCESS",
        "UID",
        "FLOW",
        "RULE/REASON",
    ],
    widths: [24, 8, 6, 7, 9, 16, 18, 16, 18, 5, 7, 11, 7, 16, 5, 16, 0],
    node: Some(1),
    kind: 2,
    verdict: 3,
    time: WallTime::to_milliseconds,
    row: wide,
};

/// Of what there is not.
const NONE: &str = "-";

/// As they stand in a TCP header, from the lowest bit on.
const FLAGS: &str = "FSRPAUEC";

impl FlowTable<9> {
    pub(super) fn narrow(paint: Paint) -> Self {
        Self::new(NARROW, paint)
    }
}

impl FlowTable<17> {
    pub(super) fn wide(paint: Paint) -> Self {
        Self::new(WIDE, paint)
    }
}

impl<const N: usize> FlowTable<N> {
    fn new(layout: Layout<N>, paint: Paint) -> Self {
        Self {
            columns: Columns::new(layout.widths),
            layout,
            paint,
        }
    }

    pub(super) fn write_header(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.columns
            .write(&self.layout.header, self.paint, None, out)
    }

    pub(super) fn write(&mut self, line: &Line, out: &mut impl Write) -> io::Result<()> {
        let (row, colour) = match line {
            Line::Flow(record) => (
                (self.layout.row)(record),
                match record.verdict {
                    Verdict::Allow => Colour::Green,
                    Verdict::Deny => Colour::Red,
                },
            ),
            Line::Loss(record) => (self.loss(record), Colour::Yellow),
            Line::Tampering(record) => (self.tampering(record), Colour::Red),
        };
        let coloured = Some((self.layout.verdict, colour));
        self.columns.write(&row, self.paint, coloured, out)
    }

    fn loss(&self, record: &LossRecord) -> [String; N] {
        let loss = &record.loss;
        let what = format!("{} lost at {}: {}", loss.count, loss.stage, loss.reason);
        self.remark(loss.last, &record.node, "loss", what)
    }

    fn tampering(&self, record: &TamperRecord) -> [String; N] {
        let Tampering {
            how,
            what,
            count,
            at,
            restored,
        } = &record.tampering;
        let now = if *restored {
            "restored"
        } else {
            "not restored"
        };
        let what = format!("{what} {how} by others ({count}), {now}");
        self.remark(*at, &record.node, "tamper", what)
    }

    /// A row that is about no flow.
    fn remark(&self, at: WallTime, node: &str, kind: &str, what: String) -> [String; N] {
        let mut row = [(); N].map(|()| NONE.to_owned());
        for (number, cell) in row.iter_mut().enumerate() {
            if number == 0 {
                *cell = (self.layout.time)(at);
            } else if number == self.layout.kind {
                kind.clone_into(cell);
            } else if Some(number) == self.layout.node {
                node.clone_into(cell);
            }
        }
        if let Some(last) = row.last_mut() {
            *last = what;
        }
        row
    }
}

fn narrow(record: &Record) -> [String; 9] {
    [
        record.end.unwrap_or(record.start).time_of_day(),
        record.kind.name().to_owned(),
        record.verdict.name().to_owned(),
        end(&record.src),
        end(&record.dst),
        protocol(record),
        both(record, |traffic| traffic.bytes.to_string()),
        process(record),
        why(record),
    ]
}

fn wide(record: &Record) -> [String; 17] {
    let workload = |end: &End| {
        let workload = end.workload.as_ref().map(ToString::to_string);
        let hint = hint(end).map(|hint| format!("({hint})"));
        match (workload, hint) {
            (Some(workload), Some(hint)) => format!("{workload} {hint}"),
            (workload, hint) => workload.or(hint).unwrap_or_else(|| NONE.to_owned()),
        }
    };
    let uid = record.process.as_ref().map(|process| process.uid);
    [
        record.end.unwrap_or(record.start).to_milliseconds(),
        record.node.to_string(),
        record.kind.name().to_owned(),
        record.verdict.name().to_owned(),
        record.direction.name().to_owned(),
        workload(&record.src),
        address(&record.src),
        workload(&record.dst),
        address(&record.dst),
        protocol(record),
        both(record, |traffic| traffic.packets.to_string()),
        both(record, |traffic| traffic.bytes.to_string()),
        both(record, flags),
        process(record),
        uid.map_or_else(|| NONE.to_owned(), |uid| uid.to_string()),
        record.flow_id.to_string(),
        why(record),
    ]
}

/// To the responder and back.
fn both(record: &Record, text: fn(&Traffic) -> String) -> String {
    format!("{}/{}", text(&record.forward), text(&record.reverse))
}

fn flags(traffic: &Traffic) -> String {
    let Some(seen) = traffic.tcp_flags else {
        return NONE.to_owned();
    };
    let letters = FLAGS.chars().enumerate();
    let letters = letters.filter(|(bit, _)| seen >> bit & 1 != 0);
    letters.map(|(_, letter)| letter).collect()
}

fn protocol(record: &Record) -> String {
    match record.icmp {
        Some(icmp) => format!("{} {}/{}", record.protocol, icmp.kind, icmp.code),
        None => record.protocol.to_string(),
    }
}

/// By name, else by address.
pub(super) fn end(end: &End) -> String {
    let name = match &end.workload {
        Some(workload) => with_port(workload.to_string(), end.port),
        None => address(end),
    };
    match hint(end) {
        Some(hint) => format!("{name} ({hint})"),
        None => name,
    }
}

/// Never alone: whoever controls a resolver or writes Services chooses it. A workload needs no name by DNS.
fn hint(end: &End) -> Option<String> {
    let service = (end.service.as_ref()).map(|service| format!("service/{service}"));
    let name = end.dns_name.as_ref().filter(|_| end.workload.is_none());
    service.or_else(|| name.map(ToString::to_string))
}

fn address(end: &End) -> String {
    let host = match end.ip {
        Some(IpAddr::V6(ip)) if end.port.is_some() => format!("[{ip}]"),
        Some(ip) => ip.to_string(),
        None => "?".to_owned(),
    };
    with_port(host, end.port)
}

fn with_port(host: String, port: Option<u16>) -> String {
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn process(record: &Record) -> String {
    let process = record.process.as_ref();
    process.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

/// The rule, or the reason where there was none.
pub(in crate::cli) fn decided(record: &Record) -> String {
    match (&record.policy, &record.drop_reason, &record.reason) {
        (Some(rule), _, _) => rule.to_string(),
        (None, Some(reason), _) | (None, None, Some(reason)) => reason.to_string(),
        (None, None, None) => NONE.to_owned(),
    }
}

fn why(record: &Record) -> String {
    let decided = decided(record);
    let mut text = match record.end_reason {
        Some(reason) => format!("{decided} ({})", reason.name()),
        None => decided,
    };
    for WouldBe {
        view,
        verdict,
        policy,
        reason,
    } in &record.would_be
    {
        let by = policy
            .as_ref()
            .map_or_else(|| reason.to_string(), ToString::to_string);
        text = format!("{text}; {} would {}: {by}", view.name(), verdict.name());
    }
    text
}
