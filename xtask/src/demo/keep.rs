//! What to try while `--keep` holds the lab up.

use std::path::Path;

use ringfence_lab::agent::Agent;

use super::script::{Attempt, Expected, SCRIPT};
use super::stage::Stage;

pub(super) fn invitation(stage: &Stage, agent: &Agent, policies: &Path) -> String {
    let ringfence = agent.binary().display();
    let socket = agent.socket();
    let socket = socket.display();
    let allowed = example(stage, Expected::Allow);
    let denied = example(stage, Expected::Deny);
    format!(
        "
The lab is up, in network namespaces {prefix}-*. To try from another terminal, as root:

  a connection that is allowed
    {allowed}
  one that is denied
    {denied}
  what the agent holds
    {ringfence} status --socket {socket}
  flow records as they come
    {ringfence} flows --follow --socket {socket}
  why
    {ringfence} policy explain -f {policies} --from dev/attacker --to shop/api-service --port TCP/8080
  change policy: edit a file below
    {policies}
  and try again; a change is in force within a second.

Ctrl-C takes everything down.",
        prefix = stage.lab.prefix(),
        policies = policies.display(),
    )
}

/// The first TCP connection of the script with that verdict, as a command line that needs
/// nothing but a shell.
fn example(stage: &Stage, expected: Expected) -> String {
    let tcp = |attempt: &&Attempt| {
        attempt.expected == expected && attempt.protocol == ringfence_lab::probe::Protocol::Tcp
    };
    let Some(attempt) = SCRIPT.iter().find(tcp) else {
        return String::new();
    };
    format!(
        "nsenter --net={} timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{} && echo connected' \
         || echo denied",
        stage.netns(attempt.from).path().display(),
        stage.address(*attempt),
        attempt.port,
    )
}
