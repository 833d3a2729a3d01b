//! New flows as fast as one sender makes them: which of them have a record, and which are counted as lost.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::report::Report;
use ringfence_lab::wait::eventually;

use crate::load::{FLOWS, Ground};

/// Sockets that send in turn, each to every port: so many flows for each of the ports.
const SOCKETS: usize = 12;
/// For the last events to be read.
const READ: Duration = Duration::from_secs(30);

pub(crate) fn measure(ground: &Ground, agent: &Agent, report: &mut Report) -> Result<()> {
    let before = counts(agent)?;
    let server = ground.server.v4(0).ip();
    let (from, to) = FLOWS;
    let (flows, took) = ground.client.within(|| -> Result<(u32, Duration)> {
        let mut sockets = Vec::new();
        let mut ports = BTreeSet::new();
        for _ in 0..SOCKETS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            ensure!(ports.insert(socket.local_addr()?.port()), "a port twice");
            sockets.push(socket);
        }
        let (begin, mut flows) = (Instant::now(), 0);
        for socket in &sockets {
            for port in from..=to {
                // Nobody listens, and who says so is not asked.
                flows += u32::from(socket.send_to(b"new", (server, port)).is_ok());
            }
        }
        Ok((flows, begin.elapsed()))
    })?;
    let mut after = counts(agent)?;
    let settled = eventually(READ, || {
        let earlier = after;
        after = counts(agent).unwrap_or(earlier);
        after == earlier && after.seen + after.lost >= before.seen + before.lost + u64::from(flows)
    });
    let Counts { seen, lost, .. } = after;
    let seen = seen - before.seen;
    let lost = lost - before.lost;
    ensure!(
        settled && seen + lost >= u64::from(flows),
        "of {flows} flows, {seen} have an event and {lost} are counted as lost: others are not counted"
    );
    let rate = f64::from(flows) / took.as_secs_f64();
    let share = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    report.figure(
        "events of new flows, from one sender",
        "100000 a second, 0 lost uncounted",
        "",
        vec![
            ("flows a second", rate),
            ("flows", f64::from(flows)),
            ("events read", share(seen)),
            ("counted as lost", share(lost)),
            (
                "records lost on the way to the file",
                share(after.records_lost - before.records_lost),
            ),
        ],
    );
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    seen: u64,
    lost: u64,
    records_lost: u64,
}

fn counts(agent: &Agent) -> Result<Counts> {
    let status = agent.status()?;
    let event = |name: &str| status["events"][name].as_u64().unwrap_or_default();
    let sinks = status["records"]["sinks"].as_object();
    let lost = sinks.map(|sinks| {
        let sinks = sinks.values();
        sinks
            .filter_map(|counts| counts["lost"].as_u64())
            .sum::<u64>()
    });
    Ok(Counts {
        seen: event("seen"),
        lost: event("lost"),
        records_lost: lost.unwrap_or_default(),
    })
}
