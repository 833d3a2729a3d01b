//! Answers the one question of the agent.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::RecvFlags;

use super::{
    harden, own_end,
    protocol::{Answer, Question, TalkError, receive},
};
use crate::datapath::{
    link, netns,
    privileges::{self, Kept, VISITING},
    sockets::Sockets,
};

/// Until the agent has gone.
///
/// # Errors
///
/// If the agent can be neither heard nor answered.
pub(crate) fn run() -> anyhow::Result<()> {
    let agent = own_end()?;
    let visiting = VISITING & privileges::held()?;
    harden(Kept {
        effective: visiting,
        permitted: visiting,
        handed_on: rustix::thread::CapabilitySet::empty(),
    })?;
    serve(agent.as_fd(), open)
}

/// `open` is asked for what can be understood.
pub(super) fn serve(
    agent: BorrowedFd<'_>,
    open: impl Fn(Question) -> anyhow::Result<OwnedFd>,
) -> anyhow::Result<()> {
    loop {
        let message = match receive(agent, RecvFlags::empty()) {
            Ok(message) => message,
            Err(TalkError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let question = Question::parse(&message.bytes).filter(|_| message.descriptors.is_empty());
        // Whatever else it brought is closed before anything is done.
        drop(message);
        let answer = match question.map(&open) {
            None => Answer::Refused("this is no question".to_owned()),
            Some(Ok(socket)) => Answer::Socket(socket),
            Some(Err(error)) => Answer::Refused(format!("{error:#}")),
        };
        match answer.send(agent) {
            Ok(()) => {}
            Err(TalkError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket in the namespace that an interface leads to, if that is the one that is meant.
fn open(question: Question) -> anyhow::Result<OwnedFd> {
    let link = link::by_index(question.index())?;
    anyhow::ensure!(
        link.leads_to_netns == Some(question.number()),
        "interface {} leads to another network namespace by now",
        link.name
    );
    let namespace = netns::behind(&link)?;
    Ok(netns::within(&namespace, Sockets::open)?)
}
