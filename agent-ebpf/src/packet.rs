//! A socket buffer as the parser reads it.

use agent_common::parse::{Header, Packet};
use aya_ebpf::{
    bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::sk_buff::SkBuff,
};

/// The buffer of a hook, with the bounds of its linear part read once.
pub(crate) struct Buffer {
    context: *mut __sk_buff,
    start: usize,
    end: usize,
}

/// Tells the compiler that a header is aligned to a word, as the kernel lays headers out, so that
/// it loads words instead of bytes. BPF itself does not need it: the machines that ringfence runs
/// on load unaligned words, and the verifier would refuse the program otherwise.
#[repr(C, align(4))]
struct WordAligned<T>(T);

/// The same of two bytes, of which each header begins at an even place.
#[repr(C, align(2))]
struct HalfAligned<T>(T);

impl Buffer {
    #[inline(always)]
    pub(crate) fn new(context: *mut __sk_buff) -> Self {
        // SAFETY: the kernel passes a valid context to the program.
        let (start, end) = unsafe { ((*context).data as usize, (*context).data_end as usize) };
        Self {
            context,
            start,
            end,
        }
    }
}

impl Packet for Buffer {
    #[inline(always)]
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        SkBuff::new(self.context).load(offset).ok()
    }

    #[inline(always)]
    fn fill<T: Header>(&self, offset: usize, place: &mut T) -> bool {
        fill(self.context, offset, place)
    }

    #[inline(always)]
    fn peek<T: Header>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            // Part of the header lies in a fragment of the buffer, or the packet ends.
            return None;
        }
        if align_of::<T>() == 1 && size_of::<T>().is_multiple_of(4) {
            // SAFETY: within the linear part, as just checked; `T` is valid for any bytes.
            return Some(unsafe { (at as *const WordAligned<T>).read() }.0);
        }
        if size_of::<T>() == 2 {
            // SAFETY: as above.
            return Some(unsafe { (at as *const HalfAligned<T>).read() }.0);
        }
        // SAFETY: as above.
        Some(unsafe { (at as *const T).read_unaligned() })
    }
}

/// Reads a header into its place, without a second one on the stack.
#[inline(always)]
pub(crate) fn fill<T: Header>(context: *mut __sk_buff, offset: usize, place: &mut T) -> bool {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a packet is shorter than 4 GiB"
    )]
    let (offset, length) = (offset as u32, size_of::<T>() as u32);
    let place = (&raw mut *place).cast();
    // SAFETY: the kernel passes a valid context to the program; as many bytes as the place has, valid as any.
    unsafe { bpf_skb_load_bytes(context.cast(), offset, place, length) == 0 }
}
