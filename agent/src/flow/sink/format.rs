//! A line in the words of whoever reads it.

mod cef;
mod ecs;
mod ocsf;

use serde::{Deserialize, Serialize};

use crate::flow::record::{End, Line, Record, Verdict};

/// Of lines in files, and in messages of syslog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The canonical record, as JSON.
    #[default]
    Ringfence,
    /// Elastic Common Schema, as JSON.
    Ecs,
    /// Open Cybersecurity Schema Framework, class 4001, as JSON.
    Ocsf,
}

/// What a message of syslog says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Message {
    #[default]
    Ringfence,
    Ecs,
    Ocsf,
    /// Common Event Format, a line of text.
    Cef,
}

impl Format {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How all lines begin.
    pub(super) fn begin(self) -> &'static [u8] {
        match self {
            Self::Ringfence => b"{\"schema_version\"",
            Self::Ecs | Self::Ocsf => b"{\"",
        }
    }

    /// Appends `line`, with its end.
    pub(super) fn put(self, line: &Line, out: &mut Vec<u8>) {
        let object = match self {
            Self::Ringfence => return line.write(out),
            Self::Ecs => ecs::object(line),
            Self::Ocsf => ocsf::object(line),
        };
        out.extend_from_slice(&object);
        out.push(b'\n');
    }
}

impl Message {
    /// Appends `line`, without an end.
    pub(super) fn put(self, line: &Line, out: &mut Vec<u8>) {
        let format = match self {
            Self::Ringfence => Format::Ringfence,
            Self::Ecs => Format::Ecs,
            Self::Ocsf => Format::Ocsf,
            Self::Cef => return cef::put(line, out),
        };
        format.put(line, out);
        out.pop();
    }
}

/// An object that has only what is known, as it is written so far: each field behind a comma. A tree of values would be
/// made for nothing but to be written.
#[derive(Default)]
struct Object(Vec<u8>);

impl Object {
    /// `key` is a word of a schema, which needs no escapes.
    fn with(mut self, key: &'static str, value: impl Serialize) -> Self {
        let before = self.0.len();
        self.key(key);
        let at = self.0.len();
        // Strings and numbers only, into memory.
        let is_written = serde_json::to_writer(&mut self.0, &value).is_ok();
        if !is_written || matches!(self.0.get(at..), Some(b"null" | b"{}")) {
            self.0.truncate(before);
        }
        self
    }

    fn with_object(mut self, key: &'static str, value: Self) -> Self {
        if !value.0.is_empty() {
            self.key(key);
            self.0.extend_from_slice(&value.done());
        }
        self
    }

    fn key(&mut self, key: &str) {
        for part in [",\"", key, "\":"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    fn done(self) -> Vec<u8> {
        let Self(mut text) = self;
        match text.first_mut() {
            Some(comma) => *comma = b'{',
            None => text.push(b'{'),
        }
        text.push(b'}');
        text
    }
}

/// Permitted, and a policy in audit, or a staged one, says otherwise.
fn is_audit(record: &Record) -> bool {
    let mut would_be = record.would_be.iter();
    record.verdict == Verdict::Allow && would_be.any(|would| would.verdict == Verdict::Deny)
}

/// Of what the canonical record says and another schema has no word for.
fn own_words(record: &Record) -> Object {
    let would_be = (!record.would_be.is_empty()).then_some(&record.would_be);
    Object::default()
        .with("flow_id", record.flow_id)
        .with("kind", record.kind)
        .with("verdict", record.verdict)
        .with("default_deny", record.default_deny)
        .with("reason", &record.reason)
        .with("drop_reason", &record.drop_reason)
        .with("end_reason", record.end_reason)
        .with("initiator_known", record.initiator_known)
        .with("policy", &record.policy)
        .with("would_be", would_be)
        .with("endpoint", &record.endpoint)
        .with("generation", record.generation)
        .with("sampling", record.sampling)
        .with("icmp", record.icmp)
        .with("ifindex", record.ifindex)
        .with("process", &record.process)
        .with_object("source", workload(&record.src))
        .with_object("destination", workload(&record.dst))
        .with("service", &record.dst.service)
        .with("forward_tcp_flags", record.forward.tcp_flags)
        .with("reverse_tcp_flags", record.reverse.tcp_flags)
        .with("rtt_us", record.rtt_us)
}

/// Labels as text: keys with dots become objects in some stores, and one key may begin another.
fn workload(end: &End) -> Object {
    let Some(workload) = &end.workload else {
        return Object::default();
    };
    let labels = workload.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let namespace = Some(&workload.namespace).filter(|it| !it.is_empty());
    Object::default()
        .with("namespace", namespace)
        .with("name", &workload.name)
        .with("kind", &workload.kind)
        .with("owner", &workload.owner)
        .with("labels", (!labels.is_empty()).then_some(labels))
}

#[cfg(test)]
mod tests;
