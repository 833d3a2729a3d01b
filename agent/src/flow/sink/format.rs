//! A line in the words of whoever reads it.

mod cef;
mod ecs;
mod ocsf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
        // Strings and numbers only, into memory.
        serde_json::to_writer(&mut *out, &object).unwrap_or_default();
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

/// An object that has only what is known.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, key: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        let is_nothing = match &value {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !is_nothing {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn with_object(self, key: &str, value: Self) -> Self {
        self.with(key, Value::Object(value.0))
    }

    fn done(self) -> Value {
        Value::Object(self.0)
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
