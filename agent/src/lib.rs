//! ringfence: what the daemon and its command line are made of.
//!
//! A library only so that the end-to-end tests can drive its parts on a real kernel.

pub mod datapath;
