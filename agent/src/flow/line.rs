//! A line of the stream as it is passed on: written once, however many read it.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use super::{
    key::FlowId,
    record::{Direction, Kind, Line, Verdict, WorkloadRef},
};

/// Shared by the ring, its followers and the sinks. A record takes twice the room of its text, and most wait for
/// nothing but to be copied out.
#[derive(Debug)]
pub(crate) struct Written {
    text: Box<[u8]>,
    flow: Option<Flow>,
}

/// What records of flows are chosen by.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) kind: Kind,
    pub(crate) verdict: Verdict,
    pub(crate) direction: Direction,
    pub(crate) id: FlowId,
    /// A policy in audit, or a staged one, says something else.
    pub(crate) has_opinions: bool,
    pub(crate) ips: [Option<IpAddr>; 2],
    pub(crate) ends: [Option<Arc<WorkloadRef>>; 2],
}

impl Written {
    /// `scratch` is used again for the next line.
    pub(crate) fn new(line: Line, scratch: &mut Vec<u8>) -> Arc<Self> {
        scratch.clear();
        line.write(scratch);
        let flow = match line {
            Line::Flow(record) => Some(Flow {
                kind: record.kind,
                verdict: record.verdict,
                direction: record.direction,
                id: record.flow_id,
                has_opinions: !record.would_be.is_empty(),
                ips: [record.src.ip, record.dst.ip],
                ends: [record.src.workload, record.dst.workload],
            }),
            Line::Loss(_) | Line::Tampering(_) => None,
        };
        Arc::new(Self {
            text: scratch.as_slice().into(),
            flow,
        })
    }

    /// As JSON, with its end.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Appends it with the field that comes last, of one of so many.
    pub(crate) fn put_sampled(&self, one_in: NonZeroU32, out: &mut Vec<u8>) {
        let Some(open) = self.text.strip_suffix(b"}\n") else {
            return out.extend_from_slice(&self.text);
        };
        out.extend_from_slice(open);
        out.extend_from_slice(format!(",\"sampling\":{one_in}}}\n").as_bytes());
    }

    /// `None` if it is about no flow.
    pub(crate) fn flow(&self) -> Option<&Flow> {
        self.flow.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn line(&self) -> Line {
        Line::parse(str::from_utf8(&self.text).unwrap()).unwrap()
    }
}
