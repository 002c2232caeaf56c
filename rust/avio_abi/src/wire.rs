// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Structures as bytes: fixed layout, little-endian, no padding, no `unsafe`.

/// A value with a fixed little-endian layout.
pub trait Wire: Sized {
    /// Its length in bytes.
    const SIZE: usize;

    /// The value whose bytes are all zero.
    const ZERO: Self;

    /// Takes the value from the front of `bytes` and returns it with what follows; `None` if `bytes` is too short.
    fn take(bytes: &[u8]) -> Option<(Self, &[u8])>;

    /// Puts the value at the front of `out` and returns what follows; `None` if `out` is too short.
    fn put<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]>;
}

macro_rules! wire_int {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            const SIZE: usize = core::mem::size_of::<$int>();
            const ZERO: Self = 0;

            #[inline]
            fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (head, rest) = bytes.split_first_chunk()?;
                Some((<$int>::from_le_bytes(*head), rest))
            }

            #[inline]
            fn put<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
                let (head, rest) = out.split_first_chunk_mut()?;
                *head = self.to_le_bytes();
                Some(rest)
            }
        }
    )*};
}

wire_int!(u8, u16, u32, u64, i32);

impl<T: Wire + Copy, const N: usize> Wire for [T; N] {
    const SIZE: usize = T::SIZE * N;
    const ZERO: Self = [T::ZERO; N];

    #[inline]
    fn take(mut bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut all = Self::ZERO;
        for one in &mut all {
            (*one, bytes) = T::take(bytes)?;
        }
        Some((all, bytes))
    }

    #[inline]
    fn put<'a>(&self, mut out: &'a mut [u8]) -> Option<&'a mut [u8]> {
        for one in self {
            out = one.put(out)?;
        }
        Some(out)
    }
}

/// Declares a structure whose fields lie one behind the other, and its [`Wire`] form.
///
/// `$size` is the length that the specification gives; a structure that does not add up to it does not compile.
macro_rules! wire_struct {
    ($(#[$doc:meta])* pub struct $name:ident($size:literal) { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        impl $crate::wire::Wire for $name {
            const SIZE: usize = 0 $(+ <$ty as $crate::wire::Wire>::SIZE)*;
            const ZERO: Self = Self { $($field: <$ty as $crate::wire::Wire>::ZERO,)* };

            #[inline]
            fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
                $(let ($field, bytes) = <$ty as $crate::wire::Wire>::take(bytes)?;)*
                Some((Self { $($field,)* }, bytes))
            }

            #[inline]
            fn put<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
                $(let out = $crate::wire::Wire::put(&self.$field, out)?;)*
                Some(out)
            }
        }

        const _: () = assert!(<$name as $crate::wire::Wire>::SIZE == $size);

        impl Default for $name {
            fn default() -> Self {
                <Self as $crate::wire::Wire>::ZERO
            }
        }

        impl $name {
            /// Reads the structure from its bytes.
            #[inline]
            pub fn from_bytes(bytes: &[u8; $size]) -> Self {
                match <Self as $crate::wire::Wire>::take(bytes) {
                    Some((value, _)) => value,
                    None => <Self as $crate::wire::Wire>::ZERO,
                }
            }

            /// The structure's bytes.
            #[inline]
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                let _ = $crate::wire::Wire::put(self, &mut bytes);
                bytes
            }
        }
    };
}
pub(crate) use wire_struct;
