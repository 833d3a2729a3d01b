//! Records as comma-separated values (RFC 4180), for spreadsheets.
//!
//! The columns and their order are part of the format; new ones come at the end. Each record is one line: what would break
//! lines, or what a terminal would obey, is escaped as in tables. What a spreadsheet would take for a formula is
//! preceded by an apostrophe, since names and labels are other people's. JSON has all exactly.

use std::{borrow::Cow, io};

use agent_policy::shown::shown;
use csv::{Terminator, Writer, WriterBuilder};

use crate::flow::record::{
    End, EndReason, Line, LossRecord, ProcessRef, Record, RuleRef, TamperRecord, Via, WouldBe,
};

/// Writes a header, and rows as they come.
pub(super) struct CsvWriter<W: io::Write>(Writer<W>);

impl<W: io::Write> CsvWriter<W> {
    pub(super) fn new<'a>(out: W, header: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let mut builder = WriterBuilder::new();
        let mut writer = builder.terminator(Terminator::CRLF).from_writer(out);
        writer.write_record(header).map_err(cause)?;
        Ok(Self(writer))
    }

    pub(super) fn of_records(out: W) -> io::Result<Self> {
        Self::new(out, COLUMNS.iter().map(|(name, _)| *name))
    }

    pub(super) fn record(&mut self, line: &Line) -> io::Result<()> {
        self.row(COLUMNS.iter().map(|(name, of_flow)| match line {
            Line::Flow(record) => of_flow(record),
            Line::Loss(record) => of_loss(name, record),
            Line::Tampering(record) => of_tampering(name, record),
        }))
    }

    pub(super) fn row(&mut self, cells: impl Iterator<Item = String>) -> io::Result<()> {
        self.0.write_record(cells.map(harmless)).map_err(cause)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The writer's own error, by which a reader that has seen enough is known.
fn cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn harmless(cell: String) -> String {
    const BEGIN: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let cell = shown(cell).to_string();
    if cell.starts_with(BEGIN) {
        return format!("'{cell}");
    }
    cell
}

type Column = (&'static str, fn(&Record) -> String);

/// Of a flow. What is absent is empty.
const COLUMNS: &[Column] = &[
    ("schema_version", |flow| flow.schema_version.to_string()),
    ("kind", |flow| flow.kind.name().to_owned()),
    ("seq", |flow| flow.seq.to_string()),
    ("node", |flow| flow.node.to_string()),
    ("start", |flow| flow.start.to_string()),
    ("end", |flow| text(flow.end)),
    ("verdict", |flow| flow.verdict.name().to_owned()),
    ("direction", |flow| flow.direction.name().to_owned()),
    ("protocol", protocol),
    ("icmp_type", |flow| text(flow.icmp.map(|icmp| icmp.kind))),
    ("icmp_code", |flow| text(flow.icmp.map(|icmp| icmp.code))),
    ("initiator_known", |flow| flow.initiator_known.to_string()),
    ("src_ip", |flow| text(flow.src.ip)),
    ("src_port", |flow| text(flow.src.port)),
    ("src_namespace", |flow| workload(&flow.src).0),
    ("src_name", |flow| workload(&flow.src).1),
    ("src_kind", |flow| workload(&flow.src).2),
    ("src_labels", |flow| labels(&flow.src)),
    ("dst_ip", |flow| text(flow.dst.ip)),
    ("dst_port", |flow| text(flow.dst.port)),
    ("dst_namespace", |flow| workload(&flow.dst).0),
    ("dst_name", |flow| workload(&flow.dst).1),
    ("dst_kind", |flow| workload(&flow.dst).2),
    ("dst_labels", |flow| labels(&flow.dst)),
    ("forward_packets", |flow| flow.forward.packets.to_string()),
    ("forward_bytes", |flow| flow.forward.bytes.to_string()),
    ("forward_tcp_flags", |flow| text(flow.forward.tcp_flags)),
    ("reverse_packets", |flow| flow.reverse.packets.to_string()),
    ("reverse_bytes", |flow| flow.reverse.bytes.to_string()),
    ("reverse_tcp_flags", |flow| text(flow.reverse.tcp_flags)),
    ("end_reason", |flow| {
        text(flow.end_reason.map(EndReason::name))
    }),
    ("reason", |flow| text(flow.reason.as_ref())),
    ("drop_reason", |flow| text(flow.drop_reason.as_ref())),
    ("default_deny", |flow| flow.default_deny.to_string()),
    ("policy_kind", |flow| of_rule(flow, |it| Some(&it.kind))),
    ("policy_namespace", |flow| {
        of_rule(flow, |it| it.namespace.as_deref())
    }),
    ("policy_name", |flow| of_rule(flow, |it| Some(&it.name))),
    ("policy_rule", |flow| of_rule(flow, |it| Some(&it.rule))),
    ("policy_rule_id", |flow| {
        text(flow.policy.as_ref().map(|it| it.rule_id))
    }),
    ("policy_tier", |flow| of_rule(flow, |it| it.tier.as_deref())),
    ("policy_rule_name", |flow| {
        of_rule(flow, |it| it.rule_name.as_deref())
    }),
    ("policy_reason", |flow| {
        of_rule(flow, |it| it.reason.as_deref())
    }),
    ("policy_approved_by", |flow| {
        of_rule(flow, |it| it.approved_by.as_deref())
    }),
    ("policy_owner", |flow| {
        of_rule(flow, |it| it.owner.as_deref())
    }),
    ("would_be", would_be),
    ("endpoint", |flow| text(flow.endpoint.as_ref())),
    ("pid", |flow| of_process(flow, |it| Some(it.pid))),
    ("process_start_time", |flow| {
        of_process(flow, |it| it.start_time)
    }),
    ("comm", |flow| of_process(flow, |it| Some(it.comm.clone()))),
    ("uid", |flow| of_process(flow, |it| Some(it.uid))),
    ("cgroup_id", |flow| {
        of_process(flow, |it| Some(it.cgroup_id))
    }),
    ("cgroup", |flow| of_process(flow, |it| it.cgroup.clone())),
    ("via", |flow| of_process(flow, |it| it.via.map(Via::name))),
    ("flow_id", |flow| flow.flow_id.to_string()),
    ("community_id", |flow| text(flow.community_id.as_ref())),
    ("generation", |flow| text(flow.generation)),
    ("ifindex", |flow| text(flow.ifindex)),
    ("sampling", |flow| text(flow.sampling)),
    ("agent_version", |flow| flow.agent_version.to_string()),
    // Of what is about no flow.
    ("stage", nothing),
    ("count", nothing),
    ("how", nothing),
    ("what", nothing),
    ("restored", nothing),
    ("cluster", |flow| text(flow.cluster.as_ref())),
    ("src_owner", |flow| owner(&flow.src)),
    ("src_dns_name", |flow| text(flow.src.dns_name.as_ref())),
    ("dst_owner", |flow| owner(&flow.dst)),
    ("dst_dns_name", |flow| text(flow.dst.dns_name.as_ref())),
    ("rtt_us", |flow| text(flow.rtt_us)),
    ("exe", |flow| of_process(flow, |it| it.exe.clone())),
    ("container_id", |flow| {
        of_process(flow, |it| it.container_id.clone())
    }),
    ("policy_revision", |flow| text(flow.policy_revision)),
    ("dst_service", |flow| text(flow.dst.service.as_ref())),
];

fn of_loss(column: &str, record: &LossRecord) -> String {
    let LossRecord {
        schema_version,
        seq,
        node,
        kind: _,
        loss,
    } = record;
    match column {
        "schema_version" => schema_version.to_string(),
        "kind" => "loss".to_owned(),
        "seq" => text(*seq),
        "node" => node.to_string(),
        "start" => loss.first.to_string(),
        "end" => loss.last.to_string(),
        "reason" => loss.reason.to_string(),
        "stage" => loss.stage.to_string(),
        "count" => loss.count.to_string(),
        _ => String::new(),
    }
}

fn of_tampering(column: &str, record: &TamperRecord) -> String {
    let TamperRecord {
        schema_version,
        seq,
        node,
        kind: _,
        tampering,
    } = record;
    match column {
        "schema_version" => schema_version.to_string(),
        "kind" => "tampering".to_owned(),
        "seq" => seq.to_string(),
        "node" => node.to_string(),
        "start" | "end" => tampering.at.to_string(),
        "count" => tampering.count.to_string(),
        "how" => tampering.how.to_string(),
        "what" => tampering.what.clone(),
        "restored" => tampering.restored.to_string(),
        _ => String::new(),
    }
}

fn owner(end: &End) -> String {
    text(end.workload.as_ref().and_then(|it| it.owner.as_ref()))
}

fn nothing(_: &Record) -> String {
    String::new()
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// By name, else by number.
fn protocol(flow: &Record) -> String {
    match &flow.protocol.name {
        Some(name) => name.to_string(),
        None => flow.protocol.number.to_string(),
    }
}

/// Namespace, name and kind.
fn workload(end: &End) -> (String, String, String) {
    end.workload.as_ref().map_or_else(Default::default, |it| {
        (it.namespace.clone(), it.name.clone(), it.kind.to_string())
    })
}

/// `KEY=VALUE`, separated by `;`, which is in neither.
fn labels(end: &End) -> String {
    let labels = end.workload.iter().flat_map(|it| it.labels.iter());
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(";")
}

fn of_rule(flow: &Record, part: fn(&RuleRef) -> Option<&str>) -> String {
    text(flow.policy.as_deref().and_then(part))
}

fn of_process<T: ToString>(flow: &Record, part: fn(&ProcessRef) -> Option<T>) -> String {
    text(flow.process.as_ref().and_then(part))
}

/// Such as `audit deny default-deny; staged allow shop/api ingress[0]`.
fn would_be(flow: &Record) -> String {
    let other = |other: &WouldBe| {
        let WouldBe {
            view,
            verdict,
            policy,
            reason,
        } = other;
        let by = policy
            .as_ref()
            .map_or(Cow::Borrowed(&**reason), |rule| rule.to_string().into());
        format!("{} {} {by}", view.name(), verdict.name())
    };
    let others: Vec<_> = flow.would_be.iter().map(other).collect();
    others.join("; ")
}
