//! Numbered datagrams at a high rate, and who of the senders was heard.
//!
//! Nothing is echoed: what arrives shows what the hooks of the receiver's interface let pass, packet
//! by packet, and what does not arrive shows what they dropped.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::lab::Netns;
use crate::probe::any_port;
use crate::wait::eventually;

/// How often a receiver looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);
/// How often a sender looks how many datagrams are due.
const BEAT: Duration = Duration::from_millis(1);
/// A sender that was not let run does not make up for more than this at once: a queue on the way
/// would overflow, which is no doing of any program.
const BURST: u64 = 64;
/// Room for what arrives while the receiver is not let run.
const BUFFER: libc::c_int = 32 << 20;
/// No sender runs longer, whoever forgets it.
const LIMIT: Duration = Duration::from_mins(3);
/// For the last datagrams to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Counts datagrams by their sender's address; ends on drop.
#[derive(Debug)]
pub struct Receiver {
    heard: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A running sender.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    /// With those that the kernel did not take.
    tried: Arc<AtomicU64>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Counts what arrives at `port` of any address of this namespace.
    pub fn hear(&self, port: u16) -> Result<Receiver> {
        let socket = self
            .within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("cannot hear at {port} in {}", self.name()))?;
        Receiver::of(socket)
    }

    /// Begins to send numbered datagrams to `to` from this namespace, so many a second.
    pub fn flood(&self, to: SocketAddr, rate: u32) -> Result<Flood> {
        let socket = self.within(|| UdpSocket::bind(any_port(to.ip())))?;
        Ok(Flood::from(socket, to, rate))
    }
}

impl Receiver {
    /// Counts what arrives at a socket.
    pub fn of(socket: UdpSocket) -> Result<Self> {
        let_wait(&socket)?;
        socket.set_read_timeout(Some(TURN))?;
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = Arc::clone(&heard);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut datagram) {
                    let mut heard = counted.lock().unwrap_or_else(PoisonError::into_inner);
                    *heard.entry(from.ip().to_canonical()).or_default() += 1;
                }
            }
        });
        Ok(Self {
            heard,
            stop,
            thread: Some(thread),
        })
    }

    /// Datagrams heard of this sender so far.
    pub fn heard(&self, from: IpAddr) -> u64 {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&from).copied().unwrap_or(0)
    }

    /// An error unless `number` datagrams of this sender arrive, and no more.
    pub fn hears(&self, from: IpAddr, number: u64) -> Result<()> {
        eventually(ARRIVAL, || self.heard(from) >= number);
        let heard = self.heard(from);
        ensure!(heard == number, "of {number} datagrams of {from}, {heard}");
        Ok(())
    }
}

impl Flood {
    /// Begins to send numbered datagrams from a socket, so many a second.
    pub fn from(socket: UdpSocket, to: SocketAddr, rate: u32) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let tried = Arc::new(AtomicU64::new(0));
        let attempts = Arc::clone(&tried);
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let (begin, mut due) = (Instant::now(), 0_u64);
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout)
                && begin.elapsed() < LIMIT
            {
                let whole = begin.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                let whole = u64::try_from(whole).unwrap_or(u64::MAX);
                for _ in 0..whole.saturating_sub(due).min(BURST) {
                    let number = counted.load(Ordering::Relaxed);
                    if send(&socket, &number.to_be_bytes(), to) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    attempts.fetch_add(1, Ordering::Relaxed);
                }
                due = whole;
            }
        });
        Self {
            sent,
            tried,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Begins to send as many as one processor can, from there.
    pub fn unbounded(socket: UdpSocket, to: SocketAddr, processor: usize) -> Self {
        const BATCH: usize = 256;
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let tried = Arc::new(AtomicU64::new(0));
        let attempts = Arc::clone(&tried);
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut here = CpuSet::new();
            here.set(processor);
            // Where it may not, it sends from somewhere else.
            let _pinned = sched_setaffinity(None, &here).is_ok();
            let begin = Instant::now();
            while stopped.try_recv() == Err(TryRecvError::Empty) && begin.elapsed() < LIMIT {
                for _ in 0..BATCH {
                    let number = counted.load(Ordering::Relaxed);
                    if send(&socket, &number.to_be_bytes(), to) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    attempts.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            sent,
            tried,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What was sent, and what the kernel refused to send.
    pub fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    /// Waits until so many more were tried.
    pub fn tries(&self, number: u64) -> Result<()> {
        let target = self.tried() + number;
        let tried = eventually(LIMIT, || self.tried() >= target);
        ensure!(tried, "the flood stands at {}, not {target}", self.tried());
        Ok(())
    }

    /// Waits until so many more were sent.
    pub fn sends(&self, number: u64) -> Result<()> {
        let target = self.sent() + number;
        let sent = eventually(LIMIT, || self.sent() >= target);
        ensure!(sent, "the flood stands at {}, not {target}", self.sent());
        Ok(())
    }

    /// Ends it, with how many datagrams were sent.
    pub fn finish(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join().is_ok();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join().is_ok();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// True if the kernel took it: what it refuses was never on its way.
fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> bool {
    match socket.send_to(datagram, to) {
        Ok(_) => true,
        // A refusal that came back for an earlier one.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            socket.send_to(datagram, to).is_ok()
        }
        Err(_) => false,
    }
}

/// Gives the socket a buffer that the limits of the system do not allow for.
fn let_wait(socket: &UdpSocket) -> Result<()> {
    let size = BUFFER;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of the value, which
    // outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            length,
        )
    };
    ensure!(
        result == 0,
        "no large buffer: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
