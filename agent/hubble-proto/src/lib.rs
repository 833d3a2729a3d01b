//! Hubble's flow API: messages, servers and clients.
//!
//! Names and numbers are those of the API, which Cilium keeps stable; the descriptions in `proto` are ours, and hold what an
//! agent without layer 7 and without agent events has to say. [`flow::FlowFilter`] is whole, and [`Strict`]
//! refuses one that is newer: a field that was passed over would leave a filter that takes what it was to keep back.

mod codec;
pub mod schema;
pub mod wire;

pub mod flow {
    tonic::include_proto!("flow");
}

pub mod relay {
    tonic::include_proto!("relay");
}

pub mod observer {
    tonic::include_proto!("observer");
}

pub mod peer {
    tonic::include_proto!("peer");
}

pub use codec::{Strict, StrictDecoder};

/// The descriptions, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
