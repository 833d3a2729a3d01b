//! ringfence's policy core: what the policies say, and what follows from it.
//!
//! Bytes and values in, values out: no file, no clock, no network, no thread, no `unsafe`.
//! Imported by the agent and the tests; imports only `agent-common` of ours.
#![forbid(unsafe_code)]

pub mod compile;
pub mod compiled;
pub mod connection;
#[cfg(test)]
mod example;
pub mod explain;
pub mod matrix;
pub mod model;
pub mod plan;
pub mod question;
pub mod reference;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
