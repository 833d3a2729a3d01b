//! Threads that ask the agent: how it is, again and again, and for each record that comes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Shared, lock, state::State};
use crate::{
    control::{
        FlowsRequest,
        client::{self, ClientError},
    },
    flow::record::Line,
};

/// Between two questions, and before an agent that is away is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// They ask until the process ends.
#[derive(Debug)]
pub(super) struct Feed {
    began: Instant,
    state: Shared,
    threads: [JoinHandle<()>; 2],
}

impl Feed {
    pub(super) fn start(socket: &Path) -> io::Result<Self> {
        let began = Instant::now();
        let state = Arc::new(Mutex::new(State::default()));
        let spawn = |name: &str, work: fn(&Path, Instant, &Shared)| {
            let (socket, state): (PathBuf, _) = (socket.to_owned(), Arc::clone(&state));
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || {
                loop {
                    work(&socket, began, &state);
                    thread::sleep(PAUSE);
                }
            })
        };
        Ok(Self {
            threads: [spawn("status", ask)?, spawn("flows", follow)?],
            began,
            state,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Since it was started.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// They never end, unless one of them panics.
    pub(super) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

fn ask(socket: &Path, began: Instant, state: &Shared) {
    let answer = client::status_in_passing(socket);
    let now = began.elapsed();
    match answer {
        Ok(status) => lock(state).heard(now, status),
        Err(error) => lock(state).away(now, &anyhow::Error::from(error)),
    }
}

/// Until the agent goes away, which the other thread tells.
fn follow(socket: &Path, began: Instant, state: &Shared) {
    let request = FlowsRequest {
        last: Some(0),
        follow: true,
        ..FlowsRequest::default()
    };
    let Ok(lines) = client::flows_in_passing(socket, request) else {
        return;
    };
    for text in lines {
        let line = text
            .and_then(|text| Line::parse(&text).map_err(|source| ClientError::Answer { source }));
        match line {
            Ok(line) => lock(state).add(began.elapsed(), &line),
            Err(ClientError::Answer { .. }) => lock(state).misunderstood(),
            Err(_) => return,
        }
    }
}
