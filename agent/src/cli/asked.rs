//! What a question is about: files or the running agent, a view, and a moment.

use std::path::PathBuf;

use agent_policy::{
    connection::Perspective,
    model::{Time, TimeError, World},
    question::View,
};
use clap::{Args, ValueEnum};

use crate::{
    cli::policy::{Input, Settings, world_of},
    config::DEFAULT_SOCKET,
    control::client,
    flow::clock::WallTime,
};

/// A world to ask about, and how to look at it.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Policy and inventory: a file, a folder, or - for standard input. May be repeated.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "PATH",
        required_unless_present = "live"
    )]
    paths: Vec<PathBuf>,
    /// Ask about what the running agent enforces, instead of files
    #[arg(long, conflicts_with = "paths")]
    live: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    look: Look,
}

/// The running agent.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Control socket of the agent
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// How the world is looked at.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Which policies have a say
    #[arg(long, value_name = "VIEW", value_enum)]
    view: Option<Views>,
    /// The moment that is asked about, as in 2026-12-31T18:00:00Z; now, if left out
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Views {
    /// Those that are enforced
    Live,
    /// And those in audit
    Audit,
    /// The enforced ones and those that are staged
    Staged,
}

fn moment(text: &str) -> Result<Time, TimeError> {
    Time::parse(text)
}

impl Asked {
    /// The world; what is wrong with files goes to standard error.
    pub(crate) fn world(&self) -> anyhow::Result<World> {
        if self.live {
            self.agent.world()
        } else {
            world_of(&Input::of(self.paths.clone()).parse(), &self.settings)
        }
    }

    pub(crate) fn perspective(&self) -> Perspective {
        self.look.perspective()
    }
}

impl Agent {
    /// What the agent enforces now.
    pub(crate) fn world(&self) -> anyhow::Result<World> {
        let served = client::world(&self.socket)?;
        Ok(served.world.into_iter().collect())
    }
}

impl Look {
    pub(crate) fn perspective(&self) -> Perspective {
        Perspective {
            view: self.view.map(View::from).unwrap_or_default(),
            at: self.at.unwrap_or_else(|| WallTime::now().whole_seconds()),
        }
    }
}

impl From<Views> for View {
    fn from(view: Views) -> Self {
        match view {
            Views::Live => Self::Live,
            Views::Audit => Self::Audit,
            Views::Staged => Self::Staged,
        }
    }
}
