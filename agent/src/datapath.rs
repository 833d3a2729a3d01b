//! Everything that touches the kernel. Only this module names aya, bpffs and netlink.

pub(crate) mod maps;
pub(crate) mod object;
pub(crate) mod raw;
pub(crate) mod slots;
pub(crate) mod sync;
pub(crate) mod words;
