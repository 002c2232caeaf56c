// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Values out of a fuzzer's bytes.

/// Bytes that are used up from the front.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next so many bytes, if there are.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// One of these values, chosen by the next byte.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> Option<T> {
        let choice = usize::from(self.u8()?);
        values.get(choice % values.len()).copied()
    }
}
