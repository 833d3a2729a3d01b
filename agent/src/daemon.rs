//! The agent as it runs.

use crate::config::Config;

/// Enforces until it is told to stop.
#[expect(clippy::unused_async, reason = "it will wait for everything there is")]
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet: {}", config.node)
}

/// Removes every trace from the kernel.
pub(crate) fn detach(config: &Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet: {}", config.bpffs.display())
}
