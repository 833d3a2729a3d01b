//! Answers the agent's questions.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStringExt as _,
    },
};

use rustix::net::RecvFlags;

use super::{
    harden, own_end,
    protocol::{Answer, Behind, LONGEST, Process, Question, TalkError, receive},
};
use crate::datapath::{
    link,
    netlink::Asking,
    netns,
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
    serve(agent.as_fd(), answer)
}

/// `find` is asked what can be understood.
pub(super) fn serve(
    agent: BorrowedFd<'_>,
    find: impl Fn(Question) -> anyhow::Result<Answer>,
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
        let answer = match question.map(&find) {
            None => Answer::Refused("this is no question".to_owned()),
            Some(Ok(answer)) => answer,
            Some(Err(error)) => Answer::Refused(format!("{error:#}")),
        };
        match answer.send(agent) {
            Ok(()) => {}
            Err(TalkError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn answer(question: Question) -> anyhow::Result<Answer> {
    match question {
        Question::Behind(end) => behind(end),
        Question::Of(process) => of(process),
        Question::Runs(process) => runs(process),
    }
}

/// A socket in the namespace that an interface leads to, if that is the one that is meant.
fn behind(end: Behind) -> anyhow::Result<Answer> {
    let link = link::by_index(end.index())?;
    anyhow::ensure!(
        link.leads_to_netns == Some(end.number()),
        "interface {} leads to another network namespace by now",
        link.name
    );
    let namespace = netns::behind(&link)?;
    Ok(Answer::Socket(netns::within(&namespace, Sockets::open)?))
}

/// The namespace of a process. Whether that is still the process that was meant, the agent looks after.
fn of(process: Process) -> anyhow::Result<Answer> {
    let namespace = File::open(netns::of_process(process.pid()))?;
    // Whoever opens it has not the right to change anything there, and so nobody has by this socket.
    let socket = netns::within(&namespace, || Asking::here()?.into_descriptor())?;
    Ok(Answer::Namespace {
        namespace: namespace.into(),
        socket,
    })
}

/// The file that a process runs. Whether that is still the process that was meant, the agent looks after.
fn runs(process: Process) -> anyhow::Result<Answer> {
    let file = fs::read_link(format!("/proc/{}/exe", process.pid()))?;
    let file = file.into_os_string().into_vec();
    anyhow::ensure!(file.len() < LONGEST, "its path is too long");
    Ok(Answer::File(file))
}
