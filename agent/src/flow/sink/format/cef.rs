//! Common Event Format, version 0: a header of seven fields between bars, and keys with values.

use std::{fmt, io::Write as _, net::IpAddr};

use crate::flow::{
    clock::WallTime,
    record::{Direction, Kind, Line, LossRecord, Record, TamperRecord, Verdict},
};

/// Of ten.
const INFORMATIONAL: u8 = 1;
const MEDIUM: u8 = 5;
const HIGH: u8 = 8;

pub(super) fn put(line: &Line, out: &mut Vec<u8>) {
    match line {
        Line::Flow(record) => flow(record, out),
        Line::Loss(record) => loss(record, out),
        Line::Tampering(record) => tampering(record, out),
    }
}

fn flow(record: &Record, out: &mut Vec<u8>) {
    let (what, severity) = match record.kind {
        Kind::Start => ("Flow started", INFORMATIONAL),
        Kind::Update => ("Flow goes on", INFORMATIONAL),
        Kind::End => ("Flow ended", INFORMATIONAL),
        Kind::Deny => ("Flow denied", MEDIUM),
    };
    let at = record.end.unwrap_or(record.start);
    header(record.kind.name(), what, severity, at, out);
    time("start", record.start, out);
    if let Some(end) = record.end {
        time("end", end, out);
    }
    field("act", record.verdict.name(), out);
    field("dvchost", &record.node, out);
    let direction = match record.direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    };
    field("deviceDirection", &direction, out);
    match &record.protocol.name {
        Some(name) => field("proto", name, out),
        None => field("proto", &record.protocol.number, out),
    }
    ends(record, out);
    if let Some(service) = &record.dst.service {
        field("destinationServiceName", service, out);
    }
    // As the dictionary has it: from the source to the destination, and back.
    field("in", &record.forward.bytes, out);
    field("out", &record.reverse.bytes, out);
    if let Some(process) = &record.process {
        let (pid, name) = match record.direction {
            Direction::Egress => ("spid", "sproc"),
            Direction::Ingress => ("dpid", "dproc"),
        };
        field(pid, &process.pid, out);
        field(name, &process.comm, out);
    }
    if let Some(rule) = &record.policy {
        custom("cs1", "policy", &rule, out);
    }
    let why = match record.verdict {
        Verdict::Allow => record.reason.as_ref().or(record.drop_reason.as_ref()),
        Verdict::Deny => record.drop_reason.as_ref().or(record.reason.as_ref()),
    };
    if let Some(why) = why {
        field("reason", why, out);
    }
    if let Some(end) = record.end_reason {
        field("outcome", end.name(), out);
    }
    if !record.would_be.is_empty() {
        let would: Vec<String> = record.would_be.iter().map(would_be).collect();
        custom("cs4", "wouldBe", &would.join(", "), out);
    }
    if let Some(sampling) = record.sampling {
        custom("cn1", "sampling", &sampling, out);
    }
    if let Some(rtt) = record.rtt_us {
        custom("cn3", "roundTripMicroseconds", &rtt, out);
    }
    custom("cn2", "sequence", &record.seq, out);
    field("externalId", &record.flow_id, out);
}

fn would_be(would: &crate::flow::record::WouldBe) -> String {
    format!("{} would {}", would.view.name(), would.verdict.name())
}

/// Addresses of version 6 have fields of their own.
fn ends(record: &Record, out: &mut Vec<u8>) {
    let sides = [
        (
            &record.src,
            "src",
            "spt",
            "shost",
            ("c6a2", "Source IPv6 Address"),
            ("cs2", "sourceWorkload"),
        ),
        (
            &record.dst,
            "dst",
            "dpt",
            "dhost",
            ("c6a3", "Destination IPv6 Address"),
            ("cs3", "destinationWorkload"),
        ),
    ];
    for (end, v4, port, host, (v6, label), (workload, workload_label)) in sides {
        match end.ip {
            Some(IpAddr::V4(ip)) => field(v4, &ip, out),
            Some(IpAddr::V6(ip)) => custom(v6, label, &ip, out),
            None => {}
        }
        if let Some(number) = end.port {
            field(port, &number, out);
        }
        if let Some(name) = &end.dns_name {
            field(host, name, out);
        }
        if let Some(it) = &end.workload {
            custom(workload, workload_label, it, out);
        }
    }
}

fn loss(record: &LossRecord, out: &mut Vec<u8>) {
    let loss = &record.loss;
    header("loss", "Records lost", MEDIUM, loss.last, out);
    time("start", loss.first, out);
    time("end", loss.last, out);
    field("dvchost", &record.node, out);
    field("cnt", &loss.count, out);
    field("reason", &loss.reason, out);
    custom("cs1", "stage", &loss.stage, out);
}

fn tampering(record: &TamperRecord, out: &mut Vec<u8>) {
    let tampering = &record.tampering;
    header("tampering", "Changed by others", HIGH, tampering.at, out);
    field("dvchost", &record.node, out);
    field("cnt", &tampering.count, out);
    field("act", &tampering.how, out);
    field(
        "outcome",
        if tampering.restored {
            "restored"
        } else {
            "not restored"
        },
        out,
    );
    custom("cs1", "what", &tampering.what, out);
}

/// With its first field, when it was.
fn header(signature: &str, name: &str, severity: u8, at: WallTime, out: &mut Vec<u8>) {
    let version = env!("CARGO_PKG_VERSION");
    let at = at.0.div_euclid(1_000_000);
    write!(
        out,
        "CEF:0|ringfence|ringfence|{version}|{signature}|{name}|{severity}|rt={at}"
    )
    .unwrap_or_default();
}

fn time(key: &str, time: WallTime, out: &mut Vec<u8>) {
    field(key, &time.0.div_euclid(1_000_000), out);
}

fn custom(key: &str, label: &str, value: &(impl fmt::Display + ?Sized), out: &mut Vec<u8>) {
    field(&format!("{key}Label"), label, out);
    field(key, value, out);
}

/// No value can begin another field, or end the line.
fn field(key: &str, value: &(impl fmt::Display + ?Sized), out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    for letter in value.to_string().chars() {
        match letter {
            '\\' => out.extend_from_slice(br"\\"),
            '=' => out.extend_from_slice(br"\="),
            '\n' => out.extend_from_slice(br"\n"),
            '\r' => out.extend_from_slice(br"\r"),
            // Some readers end a line there, too.
            '\u{2028}' | '\u{2029}' => out.push(b' '),
            other if other.is_control() => out.push(b' '),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}
