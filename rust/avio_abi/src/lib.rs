// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What an AVIO guest, host module and VMM agree on.
//!
//! Three parties share these definitions and trust none of the others: the guest driver, the host kernel module and
//! the VMM between them. `docs/abi.md` is the specification; this crate is its transcription, and holds no logic
//! beyond turning bytes into typed values and back. Everything is little-endian.
//!
//! - [`pci`]: the PCI function that the guest sees, and its registers.
//! - [`ring`]: submission and completion entries, segments, and the control block of a queue pair.
//! - [`stor`]: storage commands, their statuses, and the description of a LUN.
//! - [`ioctl`]: what the VMM says to `/dev/avio-stor`.
//! - [`gvsd`]: what the guest's administrator says to `/dev/gvsdN`.
//! - [`release`]: releases of the software.

#![cfg_attr(not(avio_kernel), no_std)]
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod gvsd;
pub mod ioctl;
pub mod pci;
pub mod release;
pub mod ring;
mod setup_error;
pub mod stor;
pub mod wire;

/// The newest version of this interface. A guest asks for a version no greater than the host's.
pub const ABI_VERSION: u32 = 1;

/// Most queue pairs that an adapter can have.
pub const MAX_QUEUES: u32 = 64;

/// Most entries that one ring can have. A power of two.
pub const MAX_QUEUE_SIZE: u32 = 1024;

/// Fewest entries that one ring can have. A power of two.
pub const MIN_QUEUE_SIZE: u32 = 2;

/// Most LUNs that a storage adapter can have.
pub const MAX_LUNS: u32 = 256;

/// Classes by which it is counted how long requests take: `avio_core::latency`.
pub const LATENCY_CLASSES: usize = 32;

/// Most memory regions that a table can have.
pub const MAX_REGIONS: u32 = 256;

/// Unit of every address and size in the memory table, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// Unit of every sector number, in bytes, whatever the LUN's logical block size is.
pub const SECTOR_SIZE: u64 = 512;

/// Optional parts of the interface, as a bit set. A guest uses only what both sides have.
pub mod features {
    /// The FLUSH command.
    pub const FLUSH: u64 = 1 << 0;
    /// The FUA flag of WRITE.
    pub const FUA: u64 = 1 << 1;
    /// Requests whose segments lie in a list in guest memory.
    pub const SEGMENT_LIST: u64 = 1 << 2;
    /// The commands that name blocks and move no data: DISCARD, SECURE_ERASE, WRITE_ZEROES.
    pub const RANGES: u64 = 1 << 3;
    /// LUNs that change while the driver runs: the configuration interrupt and the status
    /// [`Attention`](crate::stor::Status::Attention).
    pub const EVENTS: u64 = 1 << 4;
    /// The task registers.
    pub const TASKS: u64 = 1 << 5;
    /// Interrupt positions ahead of what is in flight: the device interrupts before it rests.
    pub const COALESCE: u64 = 1 << 6;
    /// The tasks that stop and start one queue.
    pub const QUEUE_RESET: u64 = 1 << 7;
    /// All that this version defines.
    pub const ALL: u64 =
        FLUSH | FUA | SEGMENT_LIST | RANGES | EVENTS | TASKS | COALESCE | QUEUE_RESET;
    /// Each of them with its name.
    pub const NAMES: [(u64, &str); 8] = [
        (FLUSH, "FLUSH"),
        (FUA, "FUA"),
        (SEGMENT_LIST, "SEGMENT_LIST"),
        (RANGES, "RANGES"),
        (EVENTS, "EVENTS"),
        (TASKS, "TASKS"),
        (COALESCE, "COALESCE"),
        (QUEUE_RESET, "QUEUE_RESET"),
    ];
}
