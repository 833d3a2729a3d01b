//! A line of the stream as it is passed on: written once, however many read it.

use std::sync::Arc;

use super::record::{Kind, Line, Verdict, WorkloadRef};

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

    /// `None` if it is about no flow.
    pub(crate) fn flow(&self) -> Option<&Flow> {
        self.flow.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn line(&self) -> Line {
        Line::parse(str::from_utf8(&self.text).unwrap()).unwrap()
    }
}
