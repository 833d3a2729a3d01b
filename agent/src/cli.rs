//! The command line: one file to a verb.

pub(crate) mod check;
