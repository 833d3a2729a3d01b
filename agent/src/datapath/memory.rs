//! Memory that is free, given back to the kernel.

/// Gives back what this process has freed. The allocator keeps pages for what is asked for next, wherever something is
/// still in use behind them: after a large policy has been read and compiled, as much again as is in use.
///
/// Takes some ten milliseconds for a hundred MB, and other threads may have to wait for memory meanwhile.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no pointer is involved, and it may be called at any time from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}
