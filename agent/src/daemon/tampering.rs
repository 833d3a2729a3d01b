//! What others did to the agent's programs and tables: to the log, the counters and the records.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    daemon::status::Shared,
    datapath::tamper::Tampering,
    flow::{clock::WallTime, pipeline::PipelineInput, record},
};

/// Records that wait while the pipeline is behind. What comes on top of that is in the log and in the
/// counters alone.
const WAITING: usize = 256;

/// Tells of tampering.
#[derive(Debug)]
pub(crate) struct Teller {
    records: mpsc::Sender<PipelineInput>,
    waiting: VecDeque<record::Tampering>,
}

impl Teller {
    pub(crate) fn new(records: mpsc::Sender<PipelineInput>) -> Self {
        Self {
            records,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn tell(&mut self, noticed: Vec<Tampering>, shared: &Arc<Shared>) {
        for tampering in noticed {
            let Tampering {
                kind,
                what,
                count,
                restored,
            } = tampering;
            let how = kind.name();
            if restored {
                tracing::warn!(how, count, "{what} was tampered with, and is restored");
            } else {
                tracing::error!(
                    how,
                    count,
                    "{what} was tampered with, and cannot be restored"
                );
            }
            shared.tampered(how, count);
            if self.waiting.len() < WAITING {
                self.waiting.push_back(record::Tampering {
                    how: Cow::Borrowed(how),
                    what,
                    count,
                    at: WallTime::now(),
                    restored,
                });
            }
        }
        while let Some(record) = self.waiting.front() {
            // Full: at the next look. Closed: the agent is ending.
            let input = PipelineInput::Tampering(record.clone());
            if self.records.try_send(input).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}
