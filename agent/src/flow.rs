//! From what the kernel tells to what people and machines read.
//!
//! ```text
//! events ─┐                 reports            records ┌► sink (JSON lines)
//!         ├─► tracker ─────────────────► enrich ───────┤
//! sweeps ─┘     └► removals                ▲           └► ring (control socket, Hubble)
//!                                        views
//! ```
//!
//! Counters live in the kernel's table; events only say *open, change, deny, close*. What is lost
//! on the way is counted at the stage that lost it, and a loss record stands in the stream.
//!
//! Imported by the daemon, the control socket, metrics and the CLI. Never imports the datapath: events and
//! listings come in as values of `agent_common`.

pub(crate) mod addresses;
pub(crate) mod clock;
mod community;
pub(crate) mod enrich;
pub(crate) mod idle;
pub(crate) mod key;
pub(crate) mod names;
pub(crate) mod pipeline;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod ring;
pub(crate) mod sink;
pub(crate) mod stage;
pub(crate) mod tracker;
pub(crate) mod views;
