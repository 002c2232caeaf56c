// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A queue pair in guest memory: a submission ring, a completion ring and a control block.
//!
//! Both rings have the same number of entries, a power of two. Positions are free-running 32-bit counters; the slot
//! of a position is its remainder by the ring's size. `docs/abi.md` gives the ordering rules.

use crate::wire::wire_struct;

/// Length of a submission entry, in bytes.
pub const SUBMISSION_SIZE: usize = 64;

/// Length of a completion entry, in bytes.
pub const COMPLETION_SIZE: usize = 8;

/// Length of the control block, in bytes.
pub const CONTROL_SIZE: usize = 128;

/// Required alignment of both rings and of the control block, in bytes.
pub const RING_ALIGN: u64 = 64;

/// Most segments that a submission entry holds itself.
pub const INLINE_SEGMENTS: usize = 3;

/// Most segments that a request can have, by way of a list.
pub const MAX_SEGMENTS: u32 = 256;

/// Most bytes that a request can move.
pub const MAX_REQUEST_BYTES: u32 = 4 << 20;

/// Words of the control block, as byte offsets of 32-bit values. The driver writes the first cache line and the
/// device the second, so that neither writes a line that the other polls for a different reason.
pub mod control {
    /// Driver: position after the last submission entry.
    pub const SQ_TAIL: usize = 0;
    /// Driver: position after the last completion entry that it has taken.
    pub const CQ_HEAD: usize = 4;
    /// Driver: the completion position whose entry, once written, is to raise an interrupt.
    pub const CQ_EVENT: usize = 8;
    /// Driver: how often it has written [`CQ_EVENT`] to ask for an interrupt.
    pub const CQ_ARMS: usize = 12;
    /// Device: position after the last submission entry that it has copied.
    pub const SQ_HEAD: usize = 64;
    /// Device: the submission position whose entry, once published, is to ring the doorbell.
    pub const SQ_EVENT: usize = 68;
    /// Device: zero while the queue works, else the [`Broken`](super::Broken) reason.
    pub const STATE: usize = 72;
}

wire_struct! {
    /// A run of guest memory.
    pub struct Segment(16) {
        /// Guest-physical address.
        pub addr: u64,
        /// Length in bytes, not zero.
        pub len: u32,
        /// [`segment_flags`].
        pub flags: u32,
    }
}

/// Flags of a [`Segment`].
pub mod segment_flags {
    /// The device writes the memory (a READ) rather than reads it. Must agree with the command.
    pub const DEVICE_WRITES: u32 = 1 << 0;
    /// The memory holds a list of segments. Only in the first inline segment of a request with a
    /// segment list.
    pub const LIST: u32 = 1 << 1;
}

wire_struct! {
    /// A submission entry: one request, whole, in one cache line.
    pub struct Submission(64) {
        /// What to do: for storage, [`stor::opcode`](crate::stor::opcode).
        pub opcode: u8,
        /// [`stor::flags`](crate::stor::flags).
        pub flags: u8,
        /// Chosen by the driver, less than the ring's size, and not in flight on this queue.
        pub tag: u16,
        /// Which LUN.
        pub lun: u16,
        /// Number of segments, inline or in the list; zero for a command without data.
        pub segments: u16,
        /// First sector, in units of [`SECTOR_SIZE`](crate::SECTOR_SIZE); zero where the command has none.
        pub sector: u64,
        /// The segments, or in the first one the list; unused ones are zero. A command without data that names blocks
        /// has their number, in sectors, as the address of the first.
        pub inline: [Segment; 3],
    }
}

/// A completion entry. One aligned 8-byte store publishes it whole.
///
/// | bits | field |
/// |---|---|
/// | 0..16 | tag |
/// | 16..24 | status |
/// | 24 | phase |
/// | 25..32 | zero |
/// | 32..64 | bytes moved |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's tag.
    pub tag: u16,
    /// How it ended: for storage, [`stor::Status`](crate::stor::Status).
    pub status: u8,
    /// Bytes moved; zero on an error.
    pub bytes: u32,
}

const PHASE: u64 = 1 << 24;

impl Completion {
    /// The entry as it is stored, with its phase mark.
    #[inline]
    pub const fn encode(self, phase: bool) -> u64 {
        let mark = if phase { PHASE } else { 0 };
        self.tag as u64 | ((self.status as u64) << 16) | mark | ((self.bytes as u64) << 32)
    }

    /// The entry and its phase mark.
    #[inline]
    pub const fn decode(word: u64) -> (Self, bool) {
        let entry = Self {
            tag: word as u16,
            status: (word >> 16) as u8,
            bytes: (word >> 32) as u32,
        };
        (entry, word & PHASE != 0)
    }
}

/// Why the device has stopped serving a queue. Only a driver that violates the protocol sees one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Broken {
    /// `SQ_TAIL` is further ahead than the ring is long, or went back.
    SubmissionIndex = 1,
    /// `CQ_HEAD` is ahead of what was completed, or went back.
    CompletionIndex = 2,
    /// More requests than the completion ring has free entries.
    CompletionOverrun = 3,
    /// A tag not less than the ring's size.
    TagRange = 4,
    /// A tag that is in flight.
    TagInFlight = 5,
}

impl Broken {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::SubmissionIndex,
        Self::CompletionIndex,
        Self::CompletionOverrun,
        Self::TagRange,
        Self::TagInFlight,
    ];

    /// The reason with this number.
    pub fn from_u32(reason: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u32 == reason)
    }

    /// The reason in a word, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SubmissionIndex => "submission_index",
            Self::CompletionIndex => "completion_index",
            Self::CompletionOverrun => "completion_overrun",
            Self::TagRange => "tag_range",
            Self::TagInFlight => "tag_in_flight",
        }
    }
}
