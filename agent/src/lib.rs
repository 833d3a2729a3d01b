//! ringfence's agent: everything with IO.

pub mod datapath;
