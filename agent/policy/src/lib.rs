//! ringfence's policy core: what the policies say, and what follows from it.
//!
//! Bytes and values in, values out: no file, no clock, no network, no thread, no `unsafe`.
//! Imported by the agent and the tests; imports only `agent-common` of ours.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod classes;
pub mod compact;
pub mod compile;
pub mod compiled;
pub mod connection;
pub mod diagnostic;
pub mod diff;
#[cfg(test)]
mod example;
#[cfg(test)]
mod exhaustive;
pub mod explain;
mod lint;
pub mod load;
pub mod matrix;
pub mod model;
mod parse;
pub mod plan;
pub mod policy_test;
pub mod question;
pub mod reference;
pub mod schema;
pub mod shown;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
pub mod verify;
pub mod yaml;
