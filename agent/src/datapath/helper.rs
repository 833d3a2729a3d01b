//! The helper: who enters network namespaces for an agent that has not the right to.
//!
//! Two processes of this binary, started before the agent gives up its capabilities. The *worker* holds
//! `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`, answers three questions ([`protocol`]), and knows nothing of
//! policy. The *starter* holds the same, so that a worker that has died or hangs can be replaced, and
//! listens to nobody. Neither outlives the agent.
//!
//! The agent waits for neither for long: it asks from the thread that enforces.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        RecvFlags,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::{
        DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior,
        set_parent_process_death_signal,
    },
};

use crate::datapath::{
    link::Link,
    privileges::{self, Kept, VISITING},
};

mod protocol;
pub(crate) mod starter;
pub(crate) mod worker;

use self::protocol::{Answer, Question, TalkError};

/// For an answer. On a busy node the worker looks at thousands of processes.
const ANSWER: Duration = Duration::from_secs(4);
/// For the first worker, which nothing that is enforced waits for yet.
const FIRST: Duration = Duration::from_secs(10);
/// For one in the place of another.
const NEXT: Duration = Duration::from_secs(2);
/// After a worker and the one in its place have both hung, nobody is asked for so long.
const REST: Duration = Duration::from_mins(1);

/// Asks the helper, for all threads of the agent.
#[derive(Debug)]
pub(crate) struct Helper {
    state: Mutex<State>,
    /// Of the state when it was last looked at: who has that may take seconds.
    seen: Mutex<Seen>,
}

/// How the helper is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The worker; `None` while there is none.
    pub(crate) pid: Option<u32>,
    /// Workers that were put in the place of others.
    pub(crate) restarts: u64,
    /// There will be none any more.
    pub(crate) has_ended: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("the helper does not enter the network namespace {which}: {why}")]
    Refused { which: String, why: String },
    #[error("{0} leads into no other network namespace")]
    Leafless(String),
    #[error("the helper did not answer in {} s", ANSWER.as_secs())]
    Hung,
    #[error("the helper is being started")]
    Starting,
    #[error("the helper has ended; the agent has to be restarted")]
    Ended,
    #[error("failed to ask the helper")]
    Talk(#[source] TalkError),
}

#[derive(Debug)]
struct State {
    starter: Child,
    /// Workers come from here.
    coming: OwnedFd,
    worker: Option<Worker>,
    started: u64,
    /// Until when the next worker is waited for. Those who come later do not wait.
    patience: Instant,
    /// One after the other.
    hung: u32,
    rests_until: Option<Instant>,
    has_ended: bool,
}

#[derive(Debug)]
struct Worker {
    pid: u32,
    process: OwnedFd,
    socket: OwnedFd,
}

// === impl Helper ===

impl Helper {
    /// Starts it with what of its capabilities this process holds.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub(crate) fn start() -> io::Result<Self> {
        privileges::hand_on(VISITING & privileges::held()?)?;
        let (coming, starters) = starter::pair()?;
        let starter = own_binary("starter")
            .stdin(starters)
            // What a terminal interrupts is the agent.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            state: Mutex::new(State {
                starter,
                coming,
                worker: None,
                started: 0,
                patience: Instant::now() + FIRST,
                hung: 0,
                rests_until: None,
                has_ended: false,
            }),
            seen: Mutex::default(),
        })
    }

    /// A socket of `sock_diag` in the namespace that an interface leads to.
    pub(crate) fn socket_behind(&self, link: &Link) -> Result<OwnedFd, HelperError> {
        let question = link
            .leads_to_netns
            .and_then(|number| Question::behind(link.index, number))
            .ok_or_else(|| HelperError::Leafless(link.name.clone()))?;
        match self.ask(question)? {
            Answer::Socket(socket) => Ok(socket),
            answer => Err(unanswered(format!("behind {}", link.name), answer)),
        }
    }

    /// The network namespace that a process is in, and a socket of `rtnetlink` there.
    pub(crate) fn namespace_of(&self, pid: u32) -> Result<[OwnedFd; 2], HelperError> {
        let which = || format!("of process {pid}");
        let question = Question::of(pid).ok_or_else(|| HelperError::Leafless(which()))?;
        match self.ask(question)? {
            Answer::Namespace { namespace, socket } => Ok([namespace, socket]),
            answer => Err(unanswered(which(), answer)),
        }
    }

    /// The file that a process runs, if the helper has nothing else to do: what is enforced comes first, and a record
    /// waits for nobody.
    pub(crate) fn file_of(&self, pid: u32) -> Option<Vec<u8>> {
        let question = Question::runs(pid)?;
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // Once, of a worker that lives: another one would have to be waited for.
        state.look();
        let answer = state.worker.is_some().then(|| state.ask_worker(question));
        *lock(&self.seen) = state.seen();
        match answer {
            Some(Ok(Answer::File(file))) => Some(file),
            _ => None,
        }
    }

    fn ask(&self, question: Question) -> Result<Answer, HelperError> {
        let mut state = lock(&self.state);
        let answer = state.ask(question);
        *lock(&self.seen) = state.seen();
        answer
    }

    pub(crate) fn seen(&self) -> Seen {
        let state = match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let mut seen = lock(&self.seen);
        if let Some(mut state) = state {
            state.look();
            *seen = state.seen();
        }
        *seen
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        lock(&self.state).end();
    }
}

// === impl State ===

impl State {
    fn ask(&mut self, question: Question) -> Result<Answer, HelperError> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Err(HelperError::Hung);
        }
        self.look();
        // One that has died meanwhile is no reason to give up, nor is the first that hangs.
        match self.ask_worker(question) {
            Err(HelperError::Talk(TalkError::Gone)) => self.ask_worker(question),
            Err(HelperError::Hung) if self.rests_until.is_none() => self.ask_worker(question),
            answer => answer,
        }
    }

    fn ask_worker(&mut self, question: Question) -> Result<Answer, HelperError> {
        let worker = self.worker()?;
        match worker.ask(question) {
            Ok(answer) => {
                self.hung = 0;
                self.rests_until = None;
                Ok(answer)
            }
            Err(TalkError::Late) => {
                self.lose();
                self.hung += 1;
                if self.hung > 1 {
                    self.rests_until = Some(Instant::now() + REST);
                }
                tracing::warn!("the helper hangs, and is replaced");
                Err(HelperError::Hung)
            }
            // An answer to something else: it is not to be relied upon.
            Err(error) => {
                self.lose();
                Err(HelperError::Talk(error))
            }
        }
    }

    /// The worker that there is, or that comes before patience ends.
    fn worker(&mut self) -> Result<&Worker, HelperError> {
        while self.worker.is_none() {
            if self.has_ended {
                return Err(HelperError::Ended);
            }
            let rest = self.patience.saturating_duration_since(Instant::now());
            if rest.is_zero() || !self.take(Some(rest)) && !self.has_ended {
                return Err(HelperError::Starting);
            }
        }
        self.worker.as_ref().ok_or(HelperError::Starting)
    }

    /// Takes what workers there are, and puts away one that has ended.
    fn look(&mut self) {
        while !self.has_ended && self.take(None) {}
        if self.worker.as_ref().is_some_and(Worker::has_ended) {
            self.lose();
        }
    }

    /// Whether a worker has come, at once or in some time.
    fn take(&mut self, patience: Option<Duration>) -> bool {
        let coming = self.coming.as_fd();
        let flags = if patience.is_some() {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        let message = set_socket_timeout(coming, Timeout::Recv, patience)
            .map_err(TalkError::from)
            .and_then(|()| protocol::receive(coming, flags))
            .and_then(Worker::read);
        match message {
            Ok(worker) => {
                if self.started > 0 {
                    tracing::warn!(
                        pid = worker.pid,
                        "the helper had ended; another takes its place"
                    );
                }
                self.started += 1;
                self.worker = Some(worker);
                true
            }
            Err(TalkError::Late) => false,
            // No descriptor was free for it: it ends by itself, and another comes.
            Err(TalkError::Garbled) if patience.is_none() => {
                tracing::warn!("a worker of the helper did not arrive");
                false
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the helper has ended for good: other network namespaces are not entered any more"
                );
                self.end();
                false
            }
        }
    }

    /// Ends the worker, and waits for the next one from now on.
    fn lose(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill();
            self.patience = Instant::now() + NEXT;
        }
    }

    fn end(&mut self) {
        self.lose();
        if !self.has_ended {
            self.has_ended = true;
            // It may have ended already.
            drop(self.starter.kill());
            drop(self.starter.wait());
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            pid: self.worker.as_ref().map(|worker| worker.pid),
            restarts: self.started.saturating_sub(1),
            has_ended: self.has_ended,
        }
    }
}

// === impl Worker ===

impl Worker {
    fn read(message: protocol::Message) -> Result<Self, TalkError> {
        let pid = message.bytes.as_slice().try_into();
        let pid = pid
            .map(u32::from_ne_bytes)
            .map_err(|_| TalkError::Garbled)?;
        let mut descriptors = message.descriptors.into_iter();
        match (descriptors.next(), descriptors.next()) {
            (Some(socket), Some(process)) => Ok(Self {
                pid,
                process,
                socket,
            }),
            _ => Err(TalkError::Garbled),
        }
    }

    fn ask(&self, question: Question) -> Result<Answer, TalkError> {
        let socket = self.socket.as_fd();
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(socket, direction, Some(ANSWER))?;
        }
        protocol::send(socket, &question.bytes(), &[])?;
        Answer::read(protocol::receive(socket, RecvFlags::empty())?)
    }

    fn has_ended(&self) -> bool {
        let next = protocol::receive(self.socket.as_fd(), RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(next, Err(TalkError::Gone))
    }

    fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.process, Signal::KILL)
            && error != Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, "cannot end a helper that is replaced");
        }
    }
}

/// To a question about the namespace `which` there was no such answer as was asked for.
fn unanswered(which: String, answer: Answer) -> HelperError {
    match answer {
        Answer::Refused(why) => HelperError::Refused { which, why },
        Answer::Socket(_) | Answer::Namespace { .. } | Answer::File(_) => {
            HelperError::Talk(TalkError::Garbled)
        }
    }
}

/// This binary once more, as a part of the helper.
fn own_binary(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ringfence")
        .args(["helper", role])
        .env_clear()
        .current_dir("/")
        .stdout(Stdio::null());
    command
}

/// The socket that a part of the helper was started with.
fn own_end() -> anyhow::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    anyhow::ensure!(
        protocol::is_ours(socket.as_fd()),
        "this is a part of `ringfence run`, which starts it by itself"
    );
    Ok(socket)
}

/// Gives up everything else, is read by nobody, and ends with whoever started it.
fn harden(kept: Kept) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    privileges::restrict(kept)?;
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic has left is looked at before it is used.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
