//! Integers in a map value that several processors and the agent look at.
//!
//! `core::sync::atomic` has only 64-bit loads and stores for the BPF target, and no addition.

use core::{cell::UnsafeCell, fmt};

/// An integer that is read and written at once, by anybody at any time.
///
/// No order among several of them is promised: each stands alone.
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: every access is a single volatile or atomic access of at most 64 bits, aligned.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: valid and aligned; volatile, so that it is one load and happens here.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: as above, one store.
        unsafe { self.0.get().write_volatile(value) }
    }
}

impl Shared<u64> {
    /// Adds without losing what other processors add.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: valid and aligned. The form without a result is all that kernel 5.10 knows.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({at} + 0) += {value}",
                at = in(reg) self.0.get(),
                value = in(reg) value,
            );
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: valid and aligned for as long as `self` is borrowed.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }
            .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
