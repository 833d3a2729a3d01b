//! Connection attempts in a steady beat: does something get through while the agent is busy,
//! reloads, or is dead?

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getpeername, socket_with};

use crate::lab::Netns;
use crate::probe::{PATIENCE, Protocol, any_port};
use crate::wait::eventually;

/// 100 attempts a second: a gap of 10 ms is hit.
const BEAT: Duration = Duration::from_millis(10);
/// How long an attempt is watched. Below the first retransmission of a SYN, so that each
/// attempt stands for one packet at one time.
const WATCHED: Duration = Duration::from_millis(500);
/// No prober runs longer, whoever forgets it.
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    successes: AtomicU64,
    /// When the first and the last attempt that succeeded were begun.
    span: Mutex<Option<(Instant, Instant)>>,
}

impl Counts {
    fn success(&self, begun: Instant) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = span.unwrap_or((begun, begun));
        *span = Some((first.min(begun), last.max(begun)));
    }
}

/// A running prober.
#[derive(Debug)]
pub struct Prober {
    counts: Arc<Counts>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Begins to try `to` from this namespace, a new source port each time.
    pub fn prober(&self, protocol: Protocol, to: SocketAddr) -> Prober {
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = self.start(move || {
            let begin = Instant::now();
            let mut pending = VecDeque::new();
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout)
                && begin.elapsed() < LIMIT
            {
                pending.extend(Attempt::begin(protocol, to));
                counted.attempts.fetch_add(1, Ordering::Relaxed);
                reap(&mut pending, &counted);
            }
            // What is still under way gets its full time.
            eventually(WATCHED, || {
                reap(&mut pending, &counted);
                pending.is_empty()
            });
        });
        Prober {
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// Attempts of one round that are under way at the same time.
const AT_ONCE: usize = 512;

impl Netns {
    /// Tries all of these at the same time, once, and says which succeeded. It waits for those of which `hopes` says so
    /// for the full time of an attempt, and for the others half a second at least.
    pub fn round(&self, tries: &[(Protocol, SocketAddr)], hopes: &[bool]) -> Vec<bool> {
        self.within(|| {
            let rounds = tries.chunks(AT_ONCE).zip(hopes.chunks(AT_ONCE));
            rounds
                .flat_map(|(tries, hopes)| round(tries, hopes))
                .collect()
        })
    }
}

fn round(tries: &[(Protocol, SocketAddr)], hopes: &[bool]) -> Vec<bool> {
    let begun = Instant::now();
    let attempts: Vec<_> = tries
        .iter()
        .map(|(protocol, to)| Attempt::begin(*protocol, *to))
        .collect();
    let mut seen = vec![false; attempts.len()];
    eventually(PATIENCE, || {
        for (attempt, seen) in attempts.iter().zip(&mut seen) {
            // Told once: a datagram is received once.
            *seen = *seen || attempt.as_ref().is_some_and(Attempt::succeeded);
        }
        let fulfilled = seen.iter().zip(hopes).all(|(seen, hoped)| seen >= hoped);
        fulfilled && begun.elapsed() >= WATCHED
    });
    seen
}

impl Prober {
    pub fn attempts(&self) -> u64 {
        self.counts.attempts.load(Ordering::Relaxed)
    }

    pub fn successes(&self) -> u64 {
        self.counts.successes.load(Ordering::Relaxed)
    }

    /// When the first and the last attempt that succeeded were begun.
    pub fn span_of_success(&self) -> Option<(Instant, Instant)> {
        *self
            .counts
            .span
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `number` more attempts were made.
    pub fn makes(&self, number: u64) -> Result<()> {
        let target = self.attempts() + number;
        let made = eventually(LIMIT, || self.attempts() >= target);
        ensure!(
            made,
            "the prober stands at {} attempts, not {target}",
            self.attempts()
        );
        Ok(())
    }

    /// Makes no more attempts, and does not wait for those that are under way.
    pub fn halt(&mut self) {
        drop(self.stop.take());
    }

    /// Ends it, with the numbers of attempts and of successes.
    pub fn finish(mut self) -> (u64, u64) {
        self.end();
        (self.attempts(), self.successes())
    }

    /// Ends it, with an error if anything got through.
    pub fn finish_denied(self) -> Result<()> {
        let (attempts, successes) = self.finish();
        ensure!(attempts > 0, "the prober made no attempt");
        ensure!(
            successes == 0,
            "{successes} of {attempts} attempts got through"
        );
        Ok(())
    }

    fn end(&mut self) {
        self.halt();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join().is_ok();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.end();
    }
}

struct Attempt {
    begun: Instant,
    wire: Wire,
}

enum Wire {
    Tcp(OwnedFd),
    Udp(UdpSocket),
}

impl Attempt {
    /// `None` if not even a packet could be sent, which cgroup programs cause: it is denied.
    fn begin(protocol: Protocol, to: SocketAddr) -> Option<Self> {
        let wire = match protocol {
            Protocol::Tcp => {
                let family = if to.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                };
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(family, SocketType::STREAM, flags, None).ok()?;
                match connect(&socket, &to) {
                    Ok(()) | Err(Errno::INPROGRESS) => Wire::Tcp(socket),
                    Err(_) => return None,
                }
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(any_port(to.ip())).ok()?;
                socket.set_nonblocking(true).ok()?;
                socket.connect(to).ok()?;
                socket.send(b"ping").ok()?;
                Wire::Udp(socket)
            }
        };
        Some(Self {
            begun: Instant::now(),
            wire,
        })
    }

    fn succeeded(&self) -> bool {
        match &self.wire {
            // A socket has a peer from the SYN-ACK on.
            Wire::Tcp(socket) => getpeername(socket).is_ok_and(|peer| peer.is_some()),
            Wire::Udp(socket) => socket.recv(&mut [0; 16]).is_ok(),
        }
    }
}

/// Counts and forgets what succeeded, forgets what is too old.
fn reap(pending: &mut VecDeque<Attempt>, counts: &Counts) {
    pending.retain(|attempt| {
        if attempt.succeeded() {
            counts.success(attempt.begun);
            return false;
        }
        attempt.begun.elapsed() < WATCHED
    });
}
