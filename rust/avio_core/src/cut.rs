// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Cutting a request's memory into bios.
//!
//! A request can have more pieces of memory than one bio takes. Where it is cut must be the end of a logical block.

use avio_abi::PAGE_SIZE;

/// A stretch of host memory: bytes `offset..offset + len`, counted from the start of a page frame. It may reach over
/// many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Host page frame in which it begins.
    pub frame: u64,
    /// Where in that frame: less than [`PAGE_SIZE`].
    pub offset: u32,
    /// Its length in bytes, not zero.
    pub len: u32,
}

impl Piece {
    /// The part of the piece that is left behind its first `bytes` bytes.
    pub fn tail(self, bytes: u32) -> Self {
        let start = u64::from(self.offset).saturating_add(u64::from(bytes));
        Self {
            frame: self.frame.saturating_add(start / PAGE_SIZE),
            offset: (start % PAGE_SIZE) as u32,
            len: self.len.saturating_sub(bytes),
        }
    }
}

/// How much of `pieces`, whose sum is a multiple of `block`, goes into a bio of at most `most` pieces: so many pieces,
/// the last of them shortened by so many bytes. The sum of that is a multiple of `block` too, as the block layer wants
/// of each bio. `None` if not even one block fits.
pub fn bio_part(pieces: &[Piece], most: usize, block: u32) -> Option<(usize, u32)> {
    if pieces.len() <= most {
        return Some((pieces.len(), 0));
    }
    let first = pieces.get(..most)?;
    let sum = first
        .iter()
        .fold(0u64, |sum, piece| sum.saturating_add(u64::from(piece.len)));
    let mut excess = u32::try_from(sum.checked_rem(u64::from(block))?).ok()?;
    for (before, piece) in first.iter().enumerate().rev() {
        if piece.len > excess {
            return Some((before.saturating_add(1), excess));
        }
        excess = excess.saturating_sub(piece.len);
    }
    None
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_cut))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn bios_end_on_whole_blocks() {
        let piece = |frame: u64, len: u32| Piece {
            frame,
            offset: 512,
            len,
        };
        let pieces = [
            piece(0, 3584),
            piece(1, 4096),
            piece(2, 4096),
            piece(3, 512),
        ];
        assert_eq!(bio_part(&pieces, 4, 4096), Some((4, 0)));
        assert_eq!(bio_part(&pieces, 3, 4096), Some((3, 3584)));
        assert_eq!(bio_part(&pieces, 2, 512), Some((2, 0)));
        assert_eq!(
            pieces[2].tail(512),
            Piece {
                frame: 2,
                offset: 1024,
                len: 3584
            }
        );
        assert_eq!(
            pieces[2].tail(3584),
            Piece {
                frame: 3,
                offset: 0,
                len: 512
            }
        );
        let small = [piece(0, 512); 9];
        assert_eq!(bio_part(&small, 8, 4096), Some((8, 0)));
        assert_eq!(bio_part(&small, 4, 4096), None);
        assert_eq!(bio_part(&pieces, 1, 4096), None);
    }
}
