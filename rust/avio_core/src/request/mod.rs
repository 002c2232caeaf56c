// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! From a submission entry to a storage request.
//!
//! Parsing has three steps, each on private copies: [`Request::parse`] for the entry,
//! [`Segments::add`](crate::segments::Segments::add) for each segment wherever it lay, and [`Request::check`] against
//! the LUN. What has passed all three can be carried out.

mod check;
#[cfg(any(test, avio_kunit))]
mod examples;
mod parse;

use crate::memory::{Access, GuestAddr};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write {
        /// Complete only when durable.
        fua: bool,
    },
    /// Make completed writes durable.
    Flush,
    /// Forget blocks; they then hold anything.
    Discard,
    /// Forget blocks and every copy of them.
    SecureErase,
    /// Make blocks zero.
    WriteZeroes {
        /// They stay allocated.
        keep: bool,
    },
}

impl Command {
    /// What the device does with the request's memory, if it has any.
    pub const fn access(self) -> Access {
        match self {
            Self::Read => Access::DeviceWrites,
            _ => Access::DeviceReads,
        }
    }
}

/// What a request is about beside its first sector: where its segments are, or how many sectors it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the entry: the first so many of [`Submission::inline`](avio_abi::ring::Submission::inline).
    Inline(usize),
    /// In guest memory.
    List {
        /// Where the list begins.
        addr: GuestAddr,
        /// Number of segments, from 1 to [`MAX_SEGMENTS`](avio_abi::ring::MAX_SEGMENTS).
        segments: usize,
        /// Its length in bytes.
        bytes: u32,
    },
    /// There are none, but so many sectors. Not checked before [`Request::check`].
    Range(u64),
}

/// A storage request whose entry is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// On which LUN. Not checked yet.
    pub lun: u16,
    /// First sector, in units of [`SECTOR_SIZE`](avio_abi::SECTOR_SIZE). Not checked before [`check`](Self::check).
    pub sector: u64,
    /// Where the segments are.
    pub layout: Layout,
}
