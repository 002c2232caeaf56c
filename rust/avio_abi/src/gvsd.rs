// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the administrator of a guest says to `/dev/gvsdN`, the node of an adapter in the guest's driver.
//!
//! No host takes part in this, so that it can change with the driver. Reserved fields of [`Task`] must be zero. A
//! call that is refused changes nothing: EINVAL for an argument that makes no sense, ENXIO for a LUN that is not there, ENODEV when
//! the adapter is gone.

use crate::stor::LunInfo;
use crate::wire::wire_struct;
use crate::LATENCY_CLASSES;

const fn ioc(dir: u32, nr: u32, size: u32) -> u32 {
    (dir << 30) | (size << 16) | ((TYPE as u32) << 8) | nr
}

/// The ioctl type of all calls: that of the host's module, whose numbers end below these.
pub const TYPE: u8 = crate::ioctl::TYPE;

/// The adapter: [`Info`].
pub const GET_INFO: u32 = ioc(2, 0x40, 128);
/// A LUN: [`Lun`].
pub const GET_LUN: u32 = ioc(3, 0x41, 192);
/// What was counted: [`Stat`].
pub const GET_STAT: u32 = ioc(3, 0x42, 536);
/// Counts from zero again. The argument is a [`Task`] with only `lun`, which may be [`ALL`].
pub const CLEAR_STAT: u32 = ioc(3, 0x43, 32);
/// Gives a task command, or opens a gate: [`Task`].
pub const TASK: u32 = ioc(3, 0x44, 32);

/// In place of a LUN's number: all LUNs.
pub const ALL: u32 = u32::MAX;

/// Values of [`Info::state`].
pub mod state {
    /// I/O goes on.
    pub const ONLINE: u32 = 0;
    /// The adapter is being reset.
    pub const RESETTING: u32 = 1;
    /// It was given up: all I/O fails.
    pub const FAILED: u32 = 2;
}

wire_struct! {
    /// Argument of [`GET_INFO`]; all of it is the answer.
    pub struct Info(128) {
        /// PCI vendor.
        pub vendor: u16,
        /// PCI device.
        pub device: u16,
        /// Version of the interface that the adapter speaks.
        pub version: u32,
        /// [`features`](crate::features) in use.
        pub features: u64,
        /// [`state`].
        pub state: u32,
        /// Queue pairs.
        pub queues: u32,
        /// How many of them are polled.
        pub polled: u32,
        /// Entries in each ring.
        pub queue_size: u32,
        /// Number of LUN slots.
        pub luns: u32,
        /// How many of them have a LUN.
        pub present: u32,
        /// Most bytes in one request.
        pub max_bytes: u32,
        /// How often the adapter, or a queue of it, was reset because a queue had stopped or lost a request.
        pub resets: u32,
        /// Where it is on its bus, filled with zeroes.
        pub path: [u8; 32],
        /// [`Release`](crate::release::Release) of the driver.
        pub release: u32,
        /// [`Release`](crate::release::Release) of the host's software.
        pub host_release: u32,
        /// Zero.
        pub reserved: [u64; 5],
    }
}

wire_struct! {
    /// Argument of [`GET_LUN`]; all but `lun` is the answer.
    pub struct Lun(192) {
        /// Its number.
        pub lun: u32,
        /// How often it is open.
        pub opens: u32,
        /// The disk's name, filled with zeroes; zero if the driver cannot use the LUN.
        pub disk: [u8; 32],
        /// Its description.
        pub info: LunInfo,
        /// Zero.
        pub reserved: [u64; 3],
    }
}

wire_struct! {
    /// Argument of [`GET_STAT`]; all but `lun` is the answer.
    pub struct Stat(536) {
        /// A LUN's number, or [`ALL`].
        pub lun: u32,
        /// Zero.
        pub reserved: u32,
        /// READ commands.
        pub reads: u64,
        /// Bytes that they moved.
        pub read_bytes: u64,
        /// WRITE commands.
        pub writes: u64,
        /// Bytes that they moved.
        pub write_bytes: u64,
        /// FLUSH commands.
        pub flushes: u64,
        /// DISCARD, SECURE_ERASE and WRITE_ZEROES commands.
        pub ranges: u64,
        /// Commands by their [`Status`](crate::stor::Status).
        pub status: [u64; 16],
        /// Commands that were sent again.
        pub retries: u64,
        /// Times that a command's time ran out.
        pub timeouts: u64,
        /// ABORT tasks.
        pub aborts: u64,
        /// LUN_RESET tasks.
        pub resets: u64,
        /// Doorbells that were rung. Only for [`ALL`], else zero, as the next three.
        pub doorbells: u64,
        /// Batches of commands for which the device wanted no doorbell.
        pub doorbells_suppressed: u64,
        /// Interrupts of queues.
        pub interrupts: u64,
        /// Completions taken.
        pub completions: u64,
        /// Pieces of work that the block layer has merged into READ and WRITE commands, beyond the first of each.
        pub merges: u64,
        /// Commands by how long they took from the block layer's point of view, in the classes of `avio_core::latency`.
        /// Of a disk whose `iostats` is switched off, flushes only.
        pub latency: [u64; LATENCY_CLASSES],
        /// Commands that the device has now. Never cleared.
        pub in_flight: u64,
        /// Looks at polled queues, and for lone requests before an interrupt is asked for. Only for [`ALL`], else zero.
        pub polls: u64,
        /// Those that found a completion.
        pub polls_found: u64,
    }
}

wire_struct! {
    /// Argument of [`TASK`] and [`CLEAR_STAT`].
    pub struct Task(32) {
        /// One of [`task`](crate::pci::task).
        pub kind: u32,
        /// The LUN.
        pub lun: u32,
        /// For an ABORT, the queue of the request.
        pub queue: u32,
        /// For an ABORT, its tag.
        pub tag: u32,
        /// Out: how many requests in question the backing still has.
        pub left: u32,
        /// For an OPEN_GATE, `changes` of the description that the administrator has seen.
        pub changes: u32,
        /// Zero.
        pub reserved: u64,
    }
}
