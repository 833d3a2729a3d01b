//! What the tests of all crates need: packets, and the datapath's tables as plain collections.
//!
//! Behind the feature `testing`, with std; nothing that ships uses it.

pub(crate) mod flows;
pub mod packet;
mod twin;

pub use self::{
    flows::Flows,
    packet::PacketBuilder,
    twin::{FamilyFlows, Slice, Twin},
};
