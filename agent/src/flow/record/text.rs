//! A record as a line of JSON: what its `Serialize` would write, at a fraction of the cost.
//!
//! Most of a record is who and which rule, the same for thousands of them: their JSON is made once, and copied.

use std::sync::OnceLock;

use serde::Serialize;

use super::{End, Line, ProcessRef, Protocol, Record, Traffic, Verdict};
use crate::flow::{clock::WallTime, key::FlowId};

/// The JSON of what is part of many records. Made when it is first asked for, and no part of the value.
#[derive(Debug, Default)]
pub(crate) struct Fragment(OnceLock<Box<[u8]>>);

/// Appends a line, with its end.
pub(super) fn line(line: &Line, out: &mut Vec<u8>) {
    match line {
        Line::Flow(record) => flow(record, out),
        Line::Loss(record) => json(record, out),
        Line::Tampering(record) => json(record, out),
    }
    out.push(b'\n');
}

/// In the order of the fields, which is part of the format.
fn flow(record: &Record, out: &mut Vec<u8>) {
    let Record {
        schema_version: _,
        seq: _,
        node: _,
        cluster: _,
        agent_version: _,
        kind: _,
        flow_id: _,
        community_id: _,
        start: _,
        end: _,
        src,
        dst,
        protocol,
        icmp,
        direction,
        initiator_known,
        forward,
        reverse,
        rtt_us,
        end_reason,
        verdict,
        policy,
        policy_revision,
        default_deny,
        reason,
        drop_reason,
        would_be,
        ifindex,
        generation,
        endpoint,
        process,
        sampling,
    } = record;
    head(record, out);
    put(out, r#","src":"#);
    side(src, out);
    put(out, r#","dst":"#);
    side(dst, out);
    put(out, r#","protocol":"#);
    transport(protocol, out);
    optional(r#","icmp":"#, icmp.as_ref(), out);
    put(out, r#","direction":"#);
    json(direction, out);
    put(out, r#","initiator_known":"#);
    json(initiator_known, out);
    put(out, r#","forward":"#);
    traffic(forward, out);
    put(out, r#","reverse":"#);
    traffic(reverse, out);
    optional(r#","rtt_us":"#, rtt_us.as_ref(), out);
    if let Some(reason) = end_reason {
        put(out, r#","end_reason":""#);
        put(out, reason.name());
        out.push(b'"');
    }
    put(
        out,
        match verdict {
            Verdict::Allow => r#","verdict":"allow""#,
            Verdict::Deny => r#","verdict":"deny""#,
        },
    );
    if let Some(policy) = policy {
        put(out, r#","policy":"#);
        policy.json.put(&**policy, out);
    }
    optional(r#","policy_revision":"#, policy_revision.as_ref(), out);
    put(out, r#","default_deny":"#);
    json(default_deny, out);
    optional(r#","reason":"#, reason.as_ref(), out);
    optional(r#","drop_reason":"#, drop_reason.as_ref(), out);
    if !would_be.is_empty() {
        put(out, r#","would_be":"#);
        json(would_be, out);
    }
    optional(r#","ifindex":"#, ifindex.as_ref(), out);
    optional(r#","generation":"#, generation.as_ref(), out);
    optional(r#","endpoint":"#, endpoint.as_ref(), out);
    if let Some(process) = process {
        put(out, r#","process":"#);
        owner(process, out);
    }
    optional(r#","sampling":"#, sampling.as_ref(), out);
    out.push(b'}');
}

/// Whose record of which flow it is, and of when.
fn head(record: &Record, out: &mut Vec<u8>) {
    let Record {
        schema_version,
        seq,
        node,
        cluster,
        agent_version,
        kind,
        flow_id,
        community_id,
        start,
        end,
        ..
    } = record;
    put(out, r#"{"schema_version":"#);
    json(schema_version, out);
    put(out, r#","seq":"#);
    json(seq, out);
    put(out, r#","node":"#);
    json(node, out);
    optional(r#","cluster":"#, cluster.as_ref(), out);
    put(out, r#","agent_version":"#);
    json(agent_version, out);
    put(out, r#","kind":""#);
    put(out, kind.name());
    put(out, r#"","flow_id":"#);
    id(*flow_id, out);
    optional(r#","community_id":"#, community_id.as_ref(), out);
    put(out, r#","start":"#);
    time(*start, out);
    if let Some(end) = end {
        put(out, r#","end":"#);
        time(*end, out);
    }
}

fn side(end: &End, out: &mut Vec<u8>) {
    let End {
        ip,
        port,
        workload,
        service,
        dns_name,
    } = end;
    let before = out.len();
    optional(r#","ip":"#, ip.as_ref(), out);
    optional(r#","port":"#, port.as_ref(), out);
    if let Some(workload) = workload {
        put(out, r#","workload":"#);
        workload.json.put(&**workload, out);
    }
    optional(r#","service":"#, service.as_ref(), out);
    optional(r#","dns_name":"#, dns_name.as_ref(), out);
    // Which of them comes first is not known before.
    match out.get_mut(before) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

fn transport(protocol: &Protocol, out: &mut Vec<u8>) {
    let Protocol { number, name } = protocol;
    put(out, r#"{"number":"#);
    json(number, out);
    optional(r#","name":"#, name.as_ref(), out);
    out.push(b'}');
}

fn traffic(traffic: &Traffic, out: &mut Vec<u8>) {
    let Traffic {
        packets,
        bytes,
        tcp_flags,
    } = traffic;
    put(out, r#"{"packets":"#);
    json(packets, out);
    put(out, r#","bytes":"#);
    json(bytes, out);
    optional(r#","tcp_flags":"#, tcp_flags.as_ref(), out);
    out.push(b'}');
}

fn owner(process: &ProcessRef, out: &mut Vec<u8>) {
    let ProcessRef {
        pid,
        start_time,
        comm,
        exe,
        uid,
        cgroup_id,
        cgroup,
        container_id,
        via,
    } = process;
    put(out, r#"{"pid":"#);
    json(pid, out);
    if let Some(start) = start_time {
        put(out, r#","start_time":"#);
        time(*start, out);
    }
    put(out, r#","comm":"#);
    json(comm, out);
    optional(r#","exe":"#, exe.as_ref(), out);
    put(out, r#","uid":"#);
    json(uid, out);
    put(out, r#","cgroup_id":"#);
    json(cgroup_id, out);
    optional(r#","cgroup":"#, cgroup.as_ref(), out);
    optional(r#","container_id":"#, container_id.as_ref(), out);
    optional(r#","via":"#, via.as_ref(), out);
    out.push(b'}');
}

fn time(time: WallTime, out: &mut Vec<u8>) {
    out.push(b'"');
    time.put(out);
    out.push(b'"');
}

fn id(id: FlowId, out: &mut Vec<u8>) {
    out.push(b'"');
    id.put(out);
    out.push(b'"');
}

fn optional(key: &str, value: Option<&impl Serialize>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        put(out, key);
        json(value, out);
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Strings and numbers only, into memory: there is nothing that could fail.
fn json(value: &impl Serialize, out: &mut Vec<u8>) {
    drop(serde_json::to_writer(out, value));
}

impl Fragment {
    /// Appends the JSON of `value`, which must be the same each time.
    fn put(&self, value: &impl Serialize, out: &mut Vec<u8>) {
        let Self(text) = self;
        let text = text.get_or_init(|| {
            let mut text = Vec::new();
            json(value, &mut text);
            text.into()
        });
        out.extend_from_slice(text);
    }
}

/// A copy may be changed, and makes its own.
impl Clone for Fragment {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// It follows from the value that it is part of.
impl PartialEq for Fragment {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Fragment {}
