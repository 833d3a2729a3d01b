//! Datagrams that tell when a verdict has changed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfence_lab::lab::Netns;
use ringfence_lab::wait::eventually_some;

/// Between two datagrams: how exactly it is told when a change is in force.
pub(crate) const PACE: Duration = Duration::from_micros(500);
/// After so long a change was missed.
const SEEN: Duration = Duration::from_mins(1);
/// Silence that says that nothing is let in any more.
const SILENCE: Duration = Duration::from_millis(200);
const TURN: Duration = Duration::from_millis(20);

/// Notes when each datagram was sent that has arrived at one port.
#[derive(Clone)]
pub(crate) struct Heard {
    epoch: Instant,
    /// By who has sent them: the moments when the last was sent, and the first since one was asked for.
    last: Arc<Mutex<BTreeMap<u32, Moments>>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Moments {
    since: u64,
    first: Option<u64>,
    last: Option<u64>,
}

/// Runs until it is dropped.
pub(crate) struct Running {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Listens at a port in a namespace.
    pub(crate) fn listen(&self, netns: &Netns, port: u16) -> Result<Running> {
        let socket = netns.within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        socket.set_read_timeout(Some(TURN))?;
        let (heard, done) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let mut datagram = [0; 12];
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut datagram).is_ok() {
                    let (who, sent) = datagram.split_at(4);
                    let who = who.try_into().map(u32::from_be_bytes).unwrap_or_default();
                    let sent = sent.try_into().map(u64::from_be_bytes).unwrap_or_default();
                    heard.note(who, sent);
                }
            }
        });
        Ok(Running {
            done,
            threads: vec![thread],
        })
    }

    /// Sends from a namespace, as `who`, without end.
    pub(crate) fn send(&self, netns: &Netns, who: u32, from: Ipv4Addr, to: SocketAddr) -> Running {
        let (heard, done) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&done);
        let thread = netns.start(move || {
            let Ok(socket) = UdpSocket::bind((from, 0)) else {
                return;
            };
            let (_alive, beat) = mpsc::sync_channel::<()>(1);
            while !stop.load(Ordering::Relaxed) {
                let now = heard.nanos(Instant::now()).to_be_bytes();
                let datagram = [who.to_be_bytes().as_slice(), &now].concat();
                // A refusal that came back for an earlier one is none for this.
                let _sent = socket.send_to(&datagram, to).is_ok();
                // Nobody answers; this is the pace.
                let _paced = beat.recv_timeout(PACE).is_ok();
            }
        });
        Running {
            done,
            threads: vec![thread],
        }
    }

    /// From this moment on, what `who` sends counts.
    pub(crate) fn expect(&self, who: u32, since: Instant) {
        let since = self.nanos(since);
        let moments = Moments {
            since,
            ..Moments::default()
        };
        self.lock().insert(who, moments);
    }

    /// When the first one was sent that has arrived since.
    pub(crate) fn opens(&self, who: u32) -> Result<Instant> {
        let first = eventually_some(SEEN, || self.lock().get(&who)?.first);
        first
            .map(|nanos| self.moment(nanos))
            .with_context(|| format!("nothing of {who} arrives"))
    }

    /// When nothing of what was sent arrived any more: after the last one, or at once.
    pub(crate) fn closes(&self, who: u32) -> Result<Instant> {
        let last = eventually_some(SEEN, || {
            let moments = self.lock().get(&who).copied()?;
            let last = moments
                .last
                .map_or(moments.since, |last| last.max(moments.since));
            let silent = self.nanos(Instant::now()).saturating_sub(last);
            (u128::from(silent) > SILENCE.as_nanos()).then_some(last)
        });
        last.map(|nanos| self.moment(nanos))
            .with_context(|| format!("what {who} sends arrives still"))
    }

    fn note(&self, who: u32, sent: u64) {
        if let Some(moments) = self.lock().get_mut(&who)
            && sent > moments.since
        {
            moments.first = moments.first.or(Some(sent));
            moments.last = moments.last.max(Some(sent));
        }
    }

    fn nanos(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn moment(&self, nanos: u64) -> Instant {
        self.epoch + Duration::from_nanos(nanos)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Moments>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join().is_ok();
        }
    }
}
