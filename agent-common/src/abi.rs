//! What every value that crosses the kernel boundary must be.

/// Raised with every change of a layout, a map or the meaning of a field.
///
/// Maps are pinned below a folder of this number: an agent never reads the maps of another ABI.
pub const ABI_VERSION: u32 = 7;

/// The first version whose flow tables and words are laid out, and mean, as those of this one.
///
/// An agent takes over flows of versions from this one on when it takes another's place. It becomes
/// [`ABI_VERSION`] with every change of a flow, its key or a word that is more than a meaning for bits that were
/// 0 in all versions before, as the round trip of a flow is since 7.
pub const FLOWS_SINCE: u32 = if cfg!(target_endian = "little") {
    2
} else {
    // Of a big-endian number of 32 bits, other halves were 0.
    7
};

/// A plain value with a fixed layout: `repr(C)`, no padding, every bit pattern valid.
///
/// # Safety
///
/// Implemented by the macro `abi!` alone, which proves all three at compile time except the last; a type
/// that has an enum, a `bool` or a reference for a field must not implement it.
pub unsafe trait Abi: Copy + 'static {
    /// One line per field: `OFFSET SIZE NAME`, for the checked-in listing.
    const FIELDS: &'static [Field];
    const NAME: &'static str;
}

/// A field of an [`Abi`] type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub size: usize,
}

/// Declares a struct that crosses the boundary and proves its layout.
macro_rules! abi {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident: $size:literal {
            $( $(#[$field_meta:meta])* pub $field:ident: $ty:ty, )*
        }
    )*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $ty, )* }

        const _: () = {
            assert!(size_of::<$name>() == $size, "the size is part of the contract");
            assert!(0 $(+ size_of::<$ty>())* == $size, "padding would leak and break map keys");
        };

        // SAFETY: `repr(C)`, no padding (asserted above), and the field types are integers,
        // arrays of integers or `Abi` types.
        unsafe impl $crate::abi::Abi for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::abi::Field] = &[$(
                $crate::abi::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$ty>(),
                },
            )*];
        }
    )*};
}
pub(crate) use abi;

// SAFETY: integers have no padding and no invalid values.
unsafe impl Abi for u32 {
    const NAME: &'static str = "u32";
    const FIELDS: &'static [Field] = &[];
}
// SAFETY: as above.
unsafe impl Abi for u64 {
    const NAME: &'static str = "u64";
    const FIELDS: &'static [Field] = &[];
}
