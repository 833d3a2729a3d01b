//! Which fields of a flow are told.
//!
//! A mask is applied to the flow as it is encoded: what is there is the description of the message and nothing else, so that
//! a path of any depth works, and none has to be listed here.

use std::collections::BTreeMap;

use agent_hubble_proto::{flow::Flow, schema::SCHEMA, wire};
use prost::Message as _;
use prost_types::FieldMask;

/// `None` for all.
#[derive(Debug)]
pub(super) struct Mask(Option<Fields>);

/// By their numbers.
type Fields = BTreeMap<u32, Part>;

#[derive(Debug)]
enum Part {
    Whole,
    Of(Fields),
}

/// By which the mask is known that Hubble's command line sends where nobody has asked for one.
const OF_COMMAND_LINE: [&str; 5] = ["time", "verdict", "event_type", "is_reply", "Summary"];

/// What that one forgets, though the command line shows it: without them all verdicts of policy are of no direction, by no
/// rule, and nobody has a name.
const FORGOTTEN: [&str; 8] = [
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "source_names",
    "destination_names",
];

const FLOW: &str = ".flow.Flow";

impl Mask {
    /// Paths that lead nowhere tell nothing: there are clients that know more fields.
    pub(super) fn parse(mask: Option<FieldMask>) -> Self {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Self(None);
        }
        let has = |path: &&str| paths.iter().any(|it| it == *path);
        let is_of_command_line = OF_COMMAND_LINE.iter().all(has) && !has(&"traffic_direction");
        let forgotten = is_of_command_line.then_some(FORGOTTEN);
        let mut fields = Fields::new();
        let paths = paths.iter().map(String::as_str);
        for path in paths.chain(forgotten.into_iter().flatten()) {
            add(&mut fields, FLOW, path);
        }
        Self(Some(fields))
    }

    pub(super) fn apply(&self, flow: Flow) -> Flow {
        let Some(fields) = &self.0 else { return flow };
        let mut kept = Vec::new();
        let is_kept = keep(&flow.encode_to_vec(), fields, &mut kept);
        // It is of our own making, and can be read.
        is_kept
            .and_then(|()| Flow::decode(kept.as_slice()).ok())
            .unwrap_or_default()
    }
}

fn add(fields: &mut Fields, message: &str, path: &str) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let Some(known) = SCHEMA.field(message, name) else {
        return;
    };
    let Some(rest) = rest else {
        fields.insert(known.number, Part::Whole);
        return;
    };
    // Nothing is in a number or a text.
    let Some(inner) = &known.message else { return };
    let part = fields
        .entry(known.number)
        .or_insert(Part::Of(Fields::new()));
    if let Part::Of(fields) = part {
        add(fields, inner, rest);
    }
}

/// Copies the fields that are wanted; `None` if this is no message.
fn keep(mut bytes: &[u8], fields: &Fields, kept: &mut Vec<u8>) -> Option<()> {
    while !bytes.is_empty() {
        let (field, rest) = wire::next(bytes)?;
        bytes = rest;
        match fields.get(&field.number) {
            Some(Part::Whole) => kept.extend_from_slice(field.whole),
            Some(Part::Of(fields)) => {
                let mut part = Vec::new();
                keep(field.content?, fields, &mut part)?;
                wire::put(field.number, &part, kept);
            }
            None => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use agent_hubble_proto::flow::{
        Endpoint, Layer4, Policy, Tcp, TcpFlags, TrafficDirection, Verdict, Workload, layer4,
    };

    use super::*;

    fn flow() -> Flow {
        let workload = |name: &str| Workload {
            name: name.to_owned(),
            kind: "Pod".to_owned(),
        };
        Flow {
            verdict: Verdict::Dropped.into(),
            l4: Some(Layer4 {
                protocol: Some(layer4::Protocol::Tcp(Tcp {
                    source_port: 40_000,
                    destination_port: 80,
                    flags: Some(TcpFlags {
                        syn: true,
                        ack: true,
                        ..TcpFlags::default()
                    }),
                })),
            }),
            source: Some(Endpoint {
                identity: 300,
                namespace: "shop".to_owned(),
                labels: vec!["k8s:app=api".to_owned()],
                workloads: vec![workload("a"), workload("b")],
                ..Endpoint::default()
            }),
            traffic_direction: TrafficDirection::Egress.into(),
            is_reply: Some(false),
            uuid: "u".to_owned(),
            egress_denied_by: vec![Policy::default()],
            summary: "TCP Flags: SYN".to_owned(),
            ..Flow::default()
        }
    }

    fn masked(paths: &[&str]) -> Flow {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        Mask::parse(Some(FieldMask { paths })).apply(flow())
    }

    #[test]
    fn what_is_named_is_told_and_nothing_else() {
        assert_eq!(Mask::parse(None).apply(flow()), flow());
        assert_eq!(masked(&[]), flow());
        let expected = Flow {
            verdict: Verdict::Dropped.into(),
            is_reply: Some(false),
            ..Flow::default()
        };
        assert_eq!(masked(&["verdict", "is_reply"]), expected);
        let expected = Flow {
            source: Some(Endpoint {
                identity: 300,
                workloads: vec![
                    Workload {
                        name: "a".to_owned(),
                        ..Workload::default()
                    },
                    Workload {
                        name: "b".to_owned(),
                        ..Workload::default()
                    },
                ],
                ..Endpoint::default()
            }),
            ..Flow::default()
        };
        let parts = ["source.identity", "source.workloads.name", "destination.ID"];
        assert_eq!(masked(&parts), expected);
        assert_eq!(
            masked(&["source.identity", "source"]).source,
            flow().source,
            "the whole wins"
        );
        assert_eq!(masked(&["source", "source.identity"]).source, flow().source);
        let syn = masked(&["l4.TCP.flags.SYN"]).l4.unwrap();
        let flags = TcpFlags {
            syn: true,
            ..TcpFlags::default()
        };
        let tcp = Tcp {
            flags: Some(flags),
            ..Tcp::default()
        };
        assert_eq!(syn.protocol, Some(layer4::Protocol::Tcp(tcp)));
    }

    #[test]
    fn paths_that_lead_nowhere_are_passed_over() {
        let paths = [
            "l7",
            "ip_trace_id",
            "uuid.x",
            "",
            ".",
            "source..",
            "verdict",
        ];
        let expected = Flow {
            verdict: Verdict::Dropped.into(),
            ..Flow::default()
        };
        let told = masked(&paths);
        assert_eq!(told.verdict, expected.verdict);
        assert_eq!((told.uuid.as_str(), told.l4), ("", None));
    }

    #[test]
    fn the_mask_of_the_command_line_does_not_hide_what_it_shows() {
        let default = [
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
        let told = masked(&default);
        assert_eq!(told.traffic_direction, i32::from(TrafficDirection::Egress));
        assert_eq!(told.egress_denied_by.len(), 1);
        assert_eq!(told.summary, "TCP Flags: SYN");
        assert_eq!(told.uuid, "");
        assert!(told.source.unwrap().labels.is_empty());
        // Somebody who has thought of it is taken at their word.
        let mut chosen = default.to_vec();
        chosen.push("traffic_direction");
        assert_eq!(masked(&chosen).egress_denied_by, []);
    }
}
