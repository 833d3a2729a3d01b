//! From the write of a file to the first packet that is judged by it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::report::Report;
use ringfence_lab::wait::{always, eventually_some};

use crate::load::{Change, Ground, MANY, PORTS};
use crate::log;

/// Between two datagrams to the same port: how exactly it is told when a change is in force.
const PACE: Duration = Duration::from_micros(250);
const SEEN: Duration = Duration::from_secs(20);
/// After so long all that came into force is told in the log.
const SETTLED: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(50);

/// What runs while policy changes. Times are nanoseconds since the epoch.
struct Probe {
    epoch: Instant,
    ports: [Port; 2],
    done: AtomicBool,
}

#[derive(Default)]
struct Port {
    /// Datagrams that were sent before do not count.
    since: AtomicU64,
    /// When the first of the others was sent that has arrived; 0 if none has.
    first: AtomicU64,
}

pub(crate) fn measure(
    ground: &Ground,
    agent: &Agent,
    times: u32,
    report: &mut Report,
) -> Result<()> {
    let probe = Arc::new(Probe {
        epoch: Instant::now(),
        ports: Default::default(),
        done: AtomicBool::new(false),
    });
    let receivers = receive(ground, &probe)?;
    let sender = {
        let probe = Arc::clone(&probe);
        let to = PORTS.map(|port| ground.server.v4(port));
        ground.client.start(move || probe.send(to))
    };
    let small = changes(ground, agent, &probe, times, 0);
    let large = changes(ground, agent, &probe, times / 10, MANY);
    probe.done.store(true, Ordering::Relaxed);
    sender.join().expect("a sender does not panic")?;
    for receiver in receivers {
        receiver.join().expect("a receiver does not panic");
    }
    for (name, outcome) in [("one rule", small?), ("about 1,000 writes", large?)] {
        let Outcome {
            from_write,
            from_sight,
            parts,
        } = outcome;
        report.times(
            &format!("change of {name}, from the write"),
            "p99 <= 10",
            from_write,
        );
        report.times(
            &format!("change of {name}, from when it was seen"),
            "p99 <= 10",
            from_sight,
        );
        for (part, times) in ["reading", "compiling", "applying"].into_iter().zip(parts) {
            report.times(&format!("  of it {part}"), "", times);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Outcome {
    from_write: Vec<Duration>,
    from_sight: Vec<Duration>,
    parts: [Vec<Duration>; 3],
}

fn changes(
    ground: &Ground,
    agent: &Agent,
    probe: &Probe,
    times: u32,
    blocks: u32,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // From a known state, whatever was before.
    ground.change(Change { open: 0, blocks: 0 })?;
    let written = probe.expects(0)?;
    probe.arrives(0, written)?;
    // A change is in force before it is told in the log.
    always(SETTLED, || true);
    let before = log::in_force(agent)?.len();
    for number in 0..times {
        let open = usize::try_from(number + 1)? % PORTS.len();
        // Not in step with who looks at the files.
        let pause = u64::from(number * 7919 % 200);
        always(Duration::from_millis(pause), || true);
        let blocks = if open == 0 { 0 } else { blocks };
        let written = probe.expects(open)?;
        ground.change(Change { open, blocks })?;
        let judged = probe.arrives(open, written)?;
        outcome.from_write.push(judged);
    }
    always(SETTLED, || true);
    let all = log::in_force(agent)?;
    let ours = all.get(before..).context("the log was cut")?;
    ensure!(
        ours.len() == usize::try_from(times)?,
        "{} changes came into force, and {times} were made",
        ours.len()
    );
    for change in ours {
        let parts = [change.reading, change.compiling, change.applying];
        outcome.from_sight.push(parts.iter().sum());
        for (all, part) in outcome.parts.iter_mut().zip(parts) {
            all.push(part);
        }
    }
    Ok(outcome)
}

impl Probe {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// From now on, the first datagram that is sent and arrives at this port is kept.
    fn expects(&self, port: usize) -> Result<u64> {
        let now = self.now();
        let Port { since, first } = self.ports.get(port).context("a port")?;
        since.store(now, Ordering::SeqCst);
        first.store(0, Ordering::SeqCst);
        Ok(now)
    }

    /// How long after `written` the first one was sent.
    fn arrives(&self, port: usize, written: u64) -> Result<Duration> {
        let Port { first, .. } = self.ports.get(port).context("a port")?;
        let sent = eventually_some(SEEN, || {
            let sent = first.load(Ordering::SeqCst);
            (sent != 0).then_some(sent)
        });
        let sent = sent.context("a change is not in force")?;
        Ok(Duration::from_nanos(sent.saturating_sub(written)))
    }

    fn send(&self, to: [SocketAddr; 2]) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let (_alive, beat) = mpsc::sync_channel::<()>(1);
        while !self.done.load(Ordering::Relaxed) {
            for to in to {
                let now = self.now().to_be_bytes();
                // A refusal that came back for an earlier one is none for this.
                let _sent = socket.send_to(&now, to).is_ok();
            }
            // Nobody answers; this is the pace.
            let _paced = beat.recv_timeout(PACE).is_ok();
        }
        Ok(())
    }
}

fn receive(ground: &Ground, probe: &Arc<Probe>) -> Result<Vec<thread::JoinHandle<()>>> {
    let mut receivers = Vec::new();
    for (index, port) in PORTS.into_iter().enumerate() {
        let socket = ground
            .server
            .within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        socket.set_read_timeout(Some(TURN))?;
        let probe = Arc::clone(probe);
        receivers.push(thread::spawn(move || {
            let mut datagram = [0; 8];
            while !probe.done.load(Ordering::Relaxed) {
                if socket.recv(&mut datagram).is_ok()
                    && let Some(Port { since, first }) = probe.ports.get(index)
                {
                    let sent = u64::from_be_bytes(datagram);
                    if sent > since.load(Ordering::SeqCst) && first.load(Ordering::SeqCst) == 0 {
                        first.store(sent, Ordering::SeqCst);
                    }
                }
            }
        }));
    }
    Ok(receivers)
}
