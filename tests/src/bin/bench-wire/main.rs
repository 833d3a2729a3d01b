//! What a policy costs on the wire: `cargo xtask bench wire`.
//!
//! A host forwards between two namespaces, each behind a veth pair, as on a node with pods. Four
//! variants of the host in turn: no policy; nftables with connection tracking and a set of 10,000
//! prefixes; ringfence with the same prefixes, while somebody reads its flow records, once with a file and once
//! with a sink of each of five kinds, whose collectors share the machine. A round measures
//! all of them, in another order each time, and a ratio is taken within a round: what else the machine
//! does meets all three. Client, server, host and agent share its processors. On a machine that others
//! use, the time of processors that an exchange takes tells more than how many there are in a second.

mod host;
mod load;
mod report;

use std::time::Duration;

use anyhow::Result;

use crate::host::{Host, Variant};
use crate::report::Report;

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, span) = if quick {
        (2, Duration::from_millis(300))
    } else {
        (7, Duration::from_millis(1500))
    };
    let mut host = Host::new()?;
    let mut report = Report::default();
    for round in 0..rounds {
        let mut order = Variant::ALL;
        let turn = round % order.len();
        order.rotate_left(turn);
        for variant in order {
            let figures = host.with(variant, |host| load::measure(host, span))?;
            report.add(variant, figures);
        }
    }
    report.records = std::mem::take(&mut host.records);
    print!("{report}");
    report.write()
}
