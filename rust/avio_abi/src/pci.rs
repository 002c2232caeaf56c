// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The PCI function that the guest sees. One memory BAR holds registers, doorbells, the MSI-X table and the LUNs.
//!
//! The VMM emulates the registers; they are used at set-up only. A doorbell is a KVM ioeventfd and an MSI-X vector an
//! irqfd, so neither reaches user space once the adapter runs.

use crate::MAX_QUEUES;

/// Vendor ID. Provisional: not assigned by the PCI-SIG.
pub const VENDOR_ID: u16 = 0x4156;

/// Device ID of a storage adapter.
pub const DEVICE_STOR: u16 = 0x1001;

/// Device ID of a LAN adapter.
pub const DEVICE_LAN: u16 = 0x1002;

/// PCI class code of a storage adapter: mass storage, other.
pub const CLASS_STOR: u32 = 0x01_80_00;

/// Which BAR.
pub const BAR: u8 = 0;

/// Length of the BAR in bytes.
pub const BAR_SIZE: u64 = 0x1_0000;

/// Value of [`reg::MAGIC`]: "AVIO" in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"AVIO");

/// 32-bit registers, by offset in the BAR. `r` is read-only, `rw` may be written while the adapter is stopped; writes
/// that break this are ignored.
pub mod reg {
    /// r: [`MAGIC`](super::MAGIC).
    pub const MAGIC: u64 = 0x00;
    /// r: newest ABI version of the device.
    pub const VERSION: u64 = 0x04;
    /// r: features of the device, low and high half.
    pub const DEVICE_FEATURES: u64 = 0x08;
    /// r: most queue pairs.
    pub const MAX_QUEUES: u64 = 0x10;
    /// r: most entries in a ring.
    pub const MAX_QUEUE_SIZE: u64 = 0x14;
    /// r: number of LUN slots: a LUN's number is less.
    pub const LUNS: u64 = 0x18;
    /// r: changes whenever a LUN's description has changed; read it before and after.
    pub const GENERATION: u64 = 0x1c;
    /// rw: ABI version that the driver speaks.
    pub const DRIVER_VERSION: u64 = 0x20;
    /// rw: number of queue pairs that the driver uses.
    pub const DRIVER_QUEUES: u64 = 0x24;
    /// rw: features that the driver uses, low and high half.
    pub const DRIVER_FEATURES: u64 = 0x28;
    /// w: one of [`super::command`]; carried out before the write returns.
    pub const COMMAND: u64 = 0x30;
    /// r: one of [`super::state`].
    pub const STATE: u64 = 0x34;
    /// r: why the last START failed, an [`ioctl::SetupError`](crate::ioctl::SetupError).
    pub const ERROR: u64 = 0x38;
    /// r: which queue the last START failed at.
    pub const ERROR_INDEX: u64 = 0x3c;
    /// rw: LUN that the next task command is for.
    pub const TASK_LUN: u64 = 0x40;
    /// rw: for an ABORT, the queue (bits 16 to 31) and the tag (bits 0 to 15).
    pub const TASK_REQUEST: u64 = 0x44;
    /// w: one of [`super::task`]; carried out before the write returns, in any state.
    pub const TASK: u64 = 0x48;
    /// r: what the last task command left: how many of its requests the backing still has, or
    /// [`super::task::REFUSED`].
    pub const TASK_RESULT: u64 = 0x4c;
    /// rw in any state: first of 8 words with a bit for each LUN, which the driver sets while the LUN is in use.
    pub const LUNS_IN_USE: u64 = 0x60;
    /// r: [`Release`](crate::release::Release) of the host's software.
    pub const RELEASE: u64 = 0x80;
    /// rw: [`Release`](crate::release::Release) of the driver.
    pub const DRIVER_RELEASE: u64 = 0x84;
    /// rw: first of the queue blocks, each of [`QUEUE_STRIDE`] bytes.
    pub const QUEUES: u64 = 0x800;
    /// Length of a queue block.
    pub const QUEUE_STRIDE: u64 = 0x20;
    /// w: first of the doorbells, one for each queue, 4 bytes apart. The value written does not matter.
    pub const DOORBELLS: u64 = 0x1000;
    /// Distance from doorbell to doorbell.
    pub const DOORBELL_STRIDE: u64 = 4;
    /// The MSI-X table.
    pub const MSIX_TABLE: u64 = 0x2000;
    /// The MSI-X pending bits.
    pub const MSIX_PBA: u64 = 0x3000;
    /// r: first of the [`LunInfo`](crate::stor::LunInfo)s.
    pub const LUN_INFO: u64 = 0x8000;
}

/// Offsets in a queue block. Addresses are guest-physical, low half first.
pub mod queue {
    /// Address of the submission ring.
    pub const SUBMISSIONS: u64 = 0x00;
    /// Address of the completion ring.
    pub const COMPLETIONS: u64 = 0x08;
    /// Address of the control block.
    pub const CONTROL: u64 = 0x10;
    /// Entries in each ring.
    pub const SIZE: u64 = 0x18;
}

/// Values of [`reg::COMMAND`].
pub mod command {
    /// Stop, forget the driver's settings, and free what the guest had given.
    pub const RESET: u32 = 0;
    /// Start with the queues and features that were set.
    pub const START: u32 = 1;
}

/// Values of [`reg::STATE`].
pub mod state {
    /// Set-up is possible.
    pub const STOPPED: u32 = 0;
    /// Queues are served.
    pub const RUNNING: u32 = 1;
    /// START failed; see [`super::reg::ERROR`]. RESET leads back to stopped.
    pub const FAILED: u32 = 2;
    /// RESET was written, and a backing still has requests; stopped as soon as it has ended them.
    pub const STOPPING: u32 = 3;
}

/// Values of [`reg::TASK`] and of [`ioctl::Task::kind`](crate::ioctl::Task).
pub mod task {
    /// The request ends as [`Aborted`](crate::stor::Status::Aborted) if its backing fails it.
    pub const ABORT: u32 = 1;
    /// All requests of the LUN do.
    pub const LUN_RESET: u32 = 2;
    /// The guest knows that the LUN's backing was replaced.
    pub const OPEN_GATE: u32 = 3;
    /// The queue is served no more. None of its requests is left when the device is done with its memory and theirs.
    pub const QUEUE_STOP: u32 = 4;
    /// A queue that was stopped, and has no request left, is served as a new one; its memory must be zero.
    pub const QUEUE_START: u32 = 5;
    /// Value of [`reg::TASK_RESULT`](super::reg::TASK_RESULT): no such command, LUN or queue, or not now.
    pub const REFUSED: u32 = u32::MAX;
}

/// MSI-X vector for changes of the configuration.
pub const VECTOR_CONFIG: u32 = 0;

/// MSI-X vector of a queue's completions.
pub const fn queue_vector(queue: u32) -> u32 {
    queue.saturating_add(1)
}

/// Most MSI-X vectors.
pub const MAX_VECTORS: u32 = MAX_QUEUES + 1;
