//! What client and server do.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::time::{ClockId, clock_gettime};

use crate::host::{Ends, Host, PORT};

/// As many as keep the processors busy while some of them wait.
const CLIENTS: usize = 6;
const ACCEPTORS: usize = 3;
/// Datagrams between two looks at the clock.
const BATCH: u32 = 64;
const PAYLOAD: [u8; 64] = [0x55; 64];
/// How long a thread waits before it looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

/// What one variant did in one round, of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// In a second.
    pub(crate) rate: f64,
    /// Microseconds of processors that each took of client, server and the way between them.
    pub(crate) time: f64,
    /// And of the agent.
    pub(crate) agent: f64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Connections that were opened and closed.
    pub(crate) connections: Figure,
    /// Datagrams of one flow that arrived.
    pub(crate) datagrams: Figure,
}

pub(crate) fn measure(host: &Host, span: Duration) -> Result<Figures> {
    Ok(Figures {
        connections: timed(host, || connections(&host.ends, span))?,
        datagrams: timed(host, || datagrams(&host.ends, span))?,
    })
}

/// Of work that says how often it was done, and in how many seconds.
fn timed(host: &Host, work: impl FnOnce() -> Result<(f64, f64)>) -> Result<Figure> {
    let own = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::try_from(time).unwrap_or_default()
    };
    let (before, agent_before) = (own(), host.agent_time());
    let (count, seconds) = work()?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
    let agent = host.agent_time().zip(agent_before);
    let agent = agent.map(|(after, before)| after.saturating_sub(before));
    Ok(Figure {
        rate: count / seconds,
        time: each(own().saturating_sub(before)),
        agent: each(agent.unwrap_or_default()),
    })
}

/// The server closes, so that it is the one that remembers, and the client has its port back.
fn connections(ends: &Ends, span: Duration) -> Result<(f64, f64)> {
    let listener = ends
        .server
        .within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .context("cannot listen")?;
    set_socket_timeout(&listener, Timeout::Recv, Some(TURN))?;
    let done = AtomicBool::new(false);
    let to = ends.to();
    thread::scope(|scope| {
        for _ in 0..ACCEPTORS {
            scope.spawn(|| accept(&listener, &done));
        }
        let begin = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| ends.client.start(move || connect(to, span)))
            .collect();
        let joined = clients.into_iter().map(thread::JoinHandle::join);
        let count = joined
            .map(|count| count.expect("a client does not panic"))
            .sum::<Result<f64>>();
        done.store(true, Ordering::Relaxed);
        Ok((count?, begin.elapsed().as_secs_f64()))
    })
}

fn accept(listener: &TcpListener, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        // An error: nobody came for a while.
        if let Ok((connection, _)) = listener.accept() {
            drop(connection);
        }
    }
}

fn connect(to: SocketAddr, span: Duration) -> Result<f64> {
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < span {
        let mut connection = TcpStream::connect_timeout(&to, PATIENCE).context("cannot connect")?;
        // The end of the stream: the server has closed.
        let length = connection.read(&mut [0]).context("no end")?;
        ensure!(length == 0, "the server said something");
        count += 1;
    }
    Ok(f64::from(count))
}

fn datagrams(ends: &Ends, span: Duration) -> Result<(f64, f64)> {
    let socket = ends
        .server
        .within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .context("cannot receive")?;
    socket.set_read_timeout(Some(TURN))?;
    let heard = Arc::new(AtomicU64::new(0));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 128]).is_ok() {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let to = ends.to();
        let counted = Arc::clone(&heard);
        let sender = ends.client.start(move || send(to, span, &counted));
        let rate = sender.join().expect("a sender does not panic");
        done.store(true, Ordering::Relaxed);
        rate
    })
}

/// Sends as fast as one thread can, over the whole way to the server's socket.
fn send(to: SocketAddr, span: Duration, heard: &AtomicU64) -> Result<(f64, f64)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.send(&PAYLOAD)?;
    let (begin, before) = (Instant::now(), heard.load(Ordering::Relaxed));
    while begin.elapsed() < span {
        for _ in 0..BATCH {
            socket.send(&PAYLOAD).context("cannot send")?;
        }
    }
    let arrived = heard.load(Ordering::Relaxed) - before;
    let arrived = u32::try_from(arrived)?;
    Ok((f64::from(arrived), begin.elapsed().as_secs_f64()))
}
