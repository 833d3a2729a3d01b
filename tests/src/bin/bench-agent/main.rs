//! What the agent itself costs, with a large policy in force: `cargo xtask bench agent`.
//!
//! 10,000 workloads and 100,000 address blocks, all of the blocks in rules of one endpoint. Measured are
//! the start, a change of policy from its file to the first packet that is judged by it, an
//! interface that appears, with few endpoints and many, the memory, and events of new flows as fast as one sender can make them.

mod announce;
mod arrival;
mod change;
mod events;
mod load;
mod log;
mod start;

use anyhow::Result;
use ringfence_lab::report::Report;

use crate::load::Ground;

/// Workloads of the inventory.
const WORKLOADS: u32 = 10_000;
/// What an agent may take.
const MEMORY: &str = "resident <= 100";
/// Blocks in rules.
const BLOCKS: u32 = 100_000;

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (changes, arrivals, starts) = if quick { (50, 10, 1) } else { (1000, 100, 5) };
    let announced = if quick { 20 } else { 250 };
    let ground = Ground::new()?;
    let mut report = Report::new("agent");
    let agent = start::measure(&ground, starts, &mut report)?;
    change::measure(&ground, &agent, changes, &mut report)?;
    arrival::measure(&ground, &agent, arrivals, &mut report)?;
    report.memory("after the changes", MEMORY, &agent)?;
    events::measure(&ground, &agent, &mut report)?;
    report.memory("after the events", MEMORY, &agent)?;
    drop(agent);
    announce::measure(announced, &mut report)?;
    println!("{report}");
    report.write()
}
