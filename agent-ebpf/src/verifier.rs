//! What is written the way it is for the verifier's sake.

use core::arch::asm;

/// The same value, of which the verifier knows nothing any more.
///
/// It follows every value that it knows apart: a parser that ends in a dozen places with other
/// constants makes it walk through all that follows a dozen times. Measured on 6.18.
#[inline(always)]
pub(crate) fn forgotten(mut value: u64, unknown: u64) -> u64 {
    // SAFETY: arithmetic on registers. Twice the same is nothing, which the verifier does not see,
    // nor does the compiler, as these are two blocks.
    unsafe {
        asm!("{value} ^= {unknown}", value = inout(reg) value, unknown = in(reg) unknown);
        asm!("{value} ^= {unknown}", value = inout(reg) value, unknown = in(reg) unknown);
    }
    value
}
