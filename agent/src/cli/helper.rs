//! `ringfence helper …`: parts of the agent that are processes of their own. It starts them by itself.

use clap::Subcommand;

use crate::{
    datapath::helper::{starter, worker},
    exit::Answer,
};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum HelperCommand {
    /// Starts workers.
    Starter,
    /// Enters network namespaces.
    Worker,
}

impl HelperCommand {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::Starter => starter::run()?,
            Self::Worker => worker::run()?,
        }
        Ok(Answer::Yes)
    }
}
