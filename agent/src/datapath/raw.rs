//! The one wrapper through which values cross the kernel boundary.

use agent_common::abi::Abi;

/// An [`Abi`] value as the map functions want it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw<T: Abi>(pub(crate) T);

// SAFETY: `Abi` promises a fixed layout without padding, valid for every bit pattern; the wrapper
// is transparent.
unsafe impl<T: Abi> aya::Pod for Raw<T> {}

/// Reads an [`Abi`] value from the bytes of a ring buffer record.
pub(crate) fn read<T: Abi>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the length is right, the read is unaligned, and any bytes are a valid `T`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
