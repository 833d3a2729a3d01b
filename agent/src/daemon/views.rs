//! Policy sets that decide nothing, asked in the kernel's own tables.

use std::path::Path;

use agent_common::{
    decide::{Question, Tables},
    flow::{Flow, FlowKey},
    protocol::Address,
    table::{Endpoint, NO_SOCKET, Word},
    verdict::{Reason, RuleId, Verdict},
};

use crate::{
    datapath::sets::KernelTables,
    flow::{clock::BootTime, key::Key, report::FlowReport, views::PolicySets},
};

#[derive(Debug)]
pub(crate) struct Sets(KernelTables);

impl Sets {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self(KernelTables::open(folder, || BootTime::now().0)?))
    }

    fn decide<A: Address>(
        &self,
        key: &FlowKey<A>,
        flow: &FlowReport,
        endpoint: Endpoint,
        word: Word,
    ) -> Verdict
    where
        KernelTables: Tables<A>,
    {
        let Self(tables) = self;
        tables.decide(&Question {
            endpoint,
            word,
            direction: flow.direction,
            local: key.local,
            peer: key.remote,
            // Whose socket it was, nobody can tell any more.
            socket: NO_SOCKET,
            protocol: key.protocol,
            port: key.responder_port(flow.direction),
            made_here: flow.origin & Flow::MADE_HERE != 0,
        })
    }
}

impl PolicySets for Sets {
    fn ask(&self, flow: &FlowReport, endpoint: Endpoint, set: u32) -> Option<(Reason, RuleId)> {
        let word = Word::new(set, flow.generation);
        let verdict = match &flow.key {
            Key::V4(key) => self.decide(key, flow, endpoint, word),
            Key::V6(key) => self.decide(key, flow, endpoint, word),
        };
        let reason = verdict.reason();
        (reason != Reason::NotProgrammed).then_some((reason, verdict.rule()))
    }
}
