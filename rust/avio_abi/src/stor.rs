// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Storage: commands, how they end, and what a LUN is.

use crate::wire::wire_struct;

/// Commands of a storage adapter.
pub mod opcode {
    /// Blocks to memory.
    pub const READ: u8 = 1;
    /// Memory to blocks.
    pub const WRITE: u8 = 2;
    /// Make all completed writes of the LUN durable. No sector, no segments.
    pub const FLUSH: u8 = 3;
    /// The LUN may forget these blocks; what they then hold is anything. No segments.
    pub const DISCARD: u8 = 4;
    /// Forget these blocks and every copy of them. No segments.
    pub const SECURE_ERASE: u8 = 5;
    /// These blocks are zero from now on. No segments.
    pub const WRITE_ZEROES: u8 = 6;
}

/// Flags of a storage command.
pub mod flags {
    /// With WRITE: complete only when these blocks are durable.
    pub const FUA: u8 = 1 << 0;
    /// With WRITE_ZEROES: the blocks stay allocated, so that a later write to them cannot run out of space.
    pub const KEEP: u8 = 1 << 1;
}

/// How a storage command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The backing device reported an error.
    IoError = 1,
    /// An opcode, flag or feature that the device does not have or that was not negotiated.
    Unsupported = 2,
    /// Segments that break the rules: their number, length, flags, list, or sum.
    BadSegments = 3,
    /// No such LUN.
    BadLun = 4,
    /// Sectors past the end, or not whole logical blocks.
    OutOfRange = 5,
    /// A write to a read-only LUN.
    ReadOnly = 6,
    /// A segment or list outside the guest's memory, or a READ into read-only memory.
    BadAddress = 7,
    /// The backing device is full.
    NoSpace = 8,
    /// The host lacked memory; the same request may succeed later.
    NoMemory = 9,
    /// The LUN has changed since the last request to it. Nothing was done; read its description and send again.
    Attention = 10,
    /// The LUN's backing was replaced by another, and the guest has not said yet that it knows. Nothing was done.
    Replaced = 11,
    /// Ended by a task command, or because its LUN was taken away.
    Aborted = 12,
}

impl Status {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::IoError,
        Self::Unsupported,
        Self::BadSegments,
        Self::BadLun,
        Self::OutOfRange,
        Self::ReadOnly,
        Self::BadAddress,
        Self::NoSpace,
        Self::NoMemory,
        Self::Attention,
        Self::Replaced,
        Self::Aborted,
    ];

    /// The status with this number.
    pub fn from_u8(status: u8) -> Option<Self> {
        Self::ALL.get(usize::from(status)).copied()
    }

    /// The status in a word, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::IoError => "io_error",
            Self::Unsupported => "unsupported",
            Self::BadSegments => "bad_segments",
            Self::BadLun => "bad_lun",
            Self::OutOfRange => "out_of_range",
            Self::ReadOnly => "read_only",
            Self::BadAddress => "bad_address",
            Self::NoSpace => "no_space",
            Self::NoMemory => "no_memory",
            Self::Attention => "attention",
            Self::Replaced => "replaced",
            Self::Aborted => "aborted",
        }
    }
}

/// Flags of a [`LunInfo`].
pub mod lun_flags {
    /// The LUN exists.
    pub const PRESENT: u32 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u32 = 1 << 1;
    /// Completed writes may be lost until a FLUSH.
    pub const WRITE_CACHE: u32 = 1 << 2;
    /// The device makes a FUA write durable by itself, without a flush of everything.
    pub const FUA: u32 = 1 << 3;
    /// The medium has no seek cost.
    pub const NON_ROTATIONAL: u32 = 1 << 4;
    /// The backing was replaced by another: every request ends as [`Status::Replaced`](super::Status::Replaced) until
    /// the guest gives [`task::OPEN_GATE`](crate::pci::task::OPEN_GATE).
    pub const GATED: u32 = 1 << 5;
    /// The backing is gone, and may come back: every request ends in an error.
    pub const LOST: u32 = 1 << 6;
    /// What is behind computes checksums or parity of the data: it must not change while a WRITE is in flight.
    pub const STABLE_WRITES: u32 = 1 << 7;
}

wire_struct! {
    /// What a LUN is and can take. The guest finds one for each LUN in the register window.
    pub struct LunInfo(128) {
        /// [`lun_flags`]; zero if there is no such LUN.
        pub flags: u32,
        /// Logical block size in bytes: a power of two from 512 to 4096.
        pub logical_block: u32,
        /// Capacity, in units of [`SECTOR_SIZE`](crate::SECTOR_SIZE).
        pub sectors: u64,
        /// Physical block size in bytes.
        pub physical_block: u32,
        /// Most bytes in one request.
        pub max_bytes: u32,
        /// Most segments in one request.
        pub max_segments: u32,
        /// What the address and length of each segment must be a multiple of, in bytes: a power of two from 512 to
        /// 4096, not less than `logical_block`.
        pub segment_align: u32,
        /// Serial number, ASCII, filled with zeroes.
        pub serial: [u8; 40],
        /// Most sectors of one DISCARD; zero if the LUN has none.
        pub max_discard: u32,
        /// What a DISCARD should be a multiple of, in bytes.
        pub discard_granularity: u32,
        /// Most sectors of one SECURE_ERASE; zero if the LUN has none.
        pub max_secure_erase: u32,
        /// Most sectors of one WRITE_ZEROES; zero if the LUN has none.
        pub max_write_zeroes: u32,
        /// World-wide name, as NAA, EUI-64 or NGUID bytes, filled with zeroes; zero if there is none.
        pub wwn: [u8; 16],
        /// Changes whenever this description does, or another LUN takes its place.
        pub changes: u32,
        /// What requests should be a multiple of, in bytes, such as a chunk of a stripe; zero if that is all the same.
        pub io_min: u32,
        /// What long transfers should be a multiple of, in bytes, such as a stripe; zero if that is all the same.
        pub io_opt: u32,
        /// Zero.
        pub reserved: u32,
        /// Zero.
        pub reserved1: u64,
    }
}
