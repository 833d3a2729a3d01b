//! ringfence: what the daemon and its command line are made of.
//!
//! A library only so that the end-to-end tests can drive its parts on a real kernel.

mod cli;
mod cni;
mod config;
mod control;
mod daemon;
pub mod datapath;
mod exit;
mod flow;
mod hubble;
mod log;
mod metrics;
mod source;

pub use cli::run;
