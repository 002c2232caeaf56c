// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a VMM says to `/dev/avio-stor`. One open file is one adapter.
//!
//! Order: [`SET_MEMORY`], [`ADD_LUN`] as often as needed, then for each run of the guest's driver [`SET_FEATURES`],
//! [`SET_QUEUE`] for each queue, [`START`], and at its reset [`STOP`]. LUNs may change at any time. Reserved fields must be zero. A call that is
//! refused changes nothing; where its argument has an `error` field, a [`SetupError`] stands in it beside the errno.

use crate::wire::wire_struct;
use crate::LATENCY_CLASSES;

pub use crate::setup_error::SetupError;

const fn ioc(dir: u32, nr: u32, size: u32) -> u32 {
    (dir << 30) | (size << 16) | ((TYPE as u32) << 8) | nr
}
const fn read(nr: u32, size: u32) -> u32 {
    ioc(2, nr, size)
}
const fn read_write(nr: u32, size: u32) -> u32 {
    ioc(3, nr, size)
}

/// The ioctl type of all calls.
pub const TYPE: u8 = 0xBB;

/// What the module can do, and which disks it still has: [`Info`].
pub const GET_INFO: u32 = read(0x00, 64);
/// Replace the table of guest memory: [`SetMemory`].
pub const SET_MEMORY: u32 = read_write(0x01, 32);
/// Attach a block device as a LUN: [`AddLun`].
pub const ADD_LUN: u32 = read_write(0x02, 208);
/// Detach a LUN: [`RemoveLun`].
pub const REMOVE_LUN: u32 = read_write(0x03, 16);
/// Set what was negotiated: [`SetFeatures`].
pub const SET_FEATURES: u32 = read_write(0x04, 24);
/// Describe a queue pair: [`SetQueue`].
pub const SET_QUEUE: u32 = read_write(0x05, 56);
/// Serve the queues: [`Start`].
pub const START: u32 = read_write(0x06, 16);
/// Stop serving, finish what is in flight, forget queues and features. No argument. EAGAIN while a backing does not
/// give back what it has: no queue is served any more; call again.
pub const STOP: u32 = ioc(0, 0x07, 0);
/// State and counters of a queue: [`QueueStatus`].
pub const GET_QUEUE: u32 = read_write(0x08, 128);
/// Look at a LUN's backing again, and change its state: [`UpdateLun`].
pub const UPDATE_LUN: u32 = read_write(0x09, 160);
/// Limit a LUN's rate: [`SetLimits`].
pub const SET_LIMITS: u32 = read_write(0x0a, 48);
/// State and counters of a LUN: [`LunStatus`].
pub const GET_LUN: u32 = read_write(0x0b, 512);
/// Take no more requests and wait for those in flight; the rings keep their positions. No argument. EAGAIN as for
/// [`STOP`].
pub const QUIESCE: u32 = ioc(0, 0x0c, 0);
/// Go on after [`QUIESCE`]. No argument.
pub const RESUME: u32 = ioc(0, 0x0d, 0);
/// Carry out a task command of the guest: [`Task`].
pub const TASK: u32 = read_write(0x0e, 32);
/// Set how long workers poll before they sleep: [`SetPoll`].
pub const SET_POLL: u32 = read_write(0x0f, 16);

wire_struct! {
    /// Argument of [`GET_INFO`].
    pub struct Info(64) {
        /// Newest ABI version, [`ABI_VERSION`](crate::ABI_VERSION).
        pub version: u32,
        /// Most queue pairs.
        pub max_queues: u32,
        /// Most entries in a ring.
        pub max_queue_size: u32,
        /// Most LUNs.
        pub max_luns: u32,
        /// [`features`](crate::features) on offer.
        pub features: u64,
        /// Disks of removed LUNs that are still open: a backing has requests, or a worker has yet to hear of the removal. The
        /// first call that finds neither closes them; this one looks.
        pub leaving: u64,
        /// Zero.
        pub reserved: [u64; 4],
    }
}

wire_struct! {
    /// A run of guest-physical addresses backed by the caller's memory.
    pub struct Region(32) {
        /// First guest-physical address, a multiple of [`PAGE_SIZE`](crate::PAGE_SIZE).
        pub guest_addr: u64,
        /// Length in bytes, a multiple of [`PAGE_SIZE`](crate::PAGE_SIZE), not zero.
        pub size: u64,
        /// Address in the caller, a multiple of [`PAGE_SIZE`](crate::PAGE_SIZE).
        pub user_addr: u64,
        /// [`region_flags`].
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Flags of a [`Region`].
pub mod region_flags {
    /// The device may not write it.
    pub const READ_ONLY: u32 = 1 << 0;
}

wire_struct! {
    /// Argument of [`SET_MEMORY`].
    pub struct SetMemory(32) {
        /// Address of an array of [`Region`]s, in any order.
        pub regions: u64,
        /// Their number; zero lets go of all memory.
        pub count: u32,
        /// Zero.
        pub reserved: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Out: index of the region at fault.
        pub error_index: u32,
        /// Out: pages that were pinned.
        pub pages: u64,
    }
}

wire_struct! {
    /// Argument of [`ADD_LUN`].
    pub struct AddLun(208) {
        /// LUN, less than [`MAX_LUNS`](crate::MAX_LUNS), free.
        pub lun: u32,
        /// An open block device. The module keeps the file; the caller may close its descriptor.
        pub fd: i32,
        /// [`lun_flags::READ_ONLY`](crate::stor::lun_flags::READ_ONLY),
        /// [`lun_flags::GATED`](crate::stor::lun_flags::GATED), [`add_flags`]. A device opened read-only must be
        /// attached so.
        pub flags: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Serial number that the guest is to see; the module only hands it back in `info`.
        pub serial: [u8; 40],
        /// World-wide name that the guest is to see, likewise.
        pub wwn: [u8; 16],
        /// With [`add_flags::CGROUP`] an open directory of cgroup v2, else zero. The module keeps the cgroup; the caller
        /// may close its descriptor.
        pub cgroup: i32,
        /// Zero.
        pub reserved: u32,
        /// Out: the LUN as the guest is to see it.
        pub info: crate::stor::LunInfo,
    }
}

/// Flags of an [`AddLun`], beside those of the LUN.
pub mod add_flags {
    /// The LUN's I/O belongs to the cgroup [`AddLun::cgroup`](super::AddLun::cgroup), not to that of the caller.
    pub const CGROUP: u32 = 1 << 31;
}

wire_struct! {
    /// Argument of [`REMOVE_LUN`].
    pub struct RemoveLun(16) {
        /// Which LUN.
        pub lun: u32,
        /// [`remove_flags`].
        pub flags: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Flags of a [`RemoveLun`].
pub mod remove_flags {
    /// Although requests are in flight: they end as [`Aborted`](crate::stor::Status::Aborted).
    pub const FORCE: u32 = 1 << 0;
}

wire_struct! {
    /// Argument of [`UPDATE_LUN`].
    pub struct UpdateLun(160) {
        /// Which LUN.
        pub lun: u32,
        /// What the LUN is to be from now on: of [`lun_flags`](crate::stor::lun_flags), `GATED` and `LOST`.
        pub flags: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Zero.
        pub reserved: [u32; 5],
        /// Out: the LUN as the guest is to see it.
        pub info: crate::stor::LunInfo,
    }
}

wire_struct! {
    /// Argument of [`SET_LIMITS`]. A rate of zero is no limit. What was not used of a rate adds up to the burst.
    pub struct SetLimits(48) {
        /// Which LUN.
        pub lun: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Requests a second.
        pub iops: u64,
        /// Requests at once, after a pause; zero for a tenth of a second's worth.
        pub iops_burst: u64,
        /// Bytes a second.
        pub bytes: u64,
        /// Bytes at once, after a pause; zero for a tenth of a second's worth.
        pub bytes_burst: u64,
        /// Zero.
        pub reserved: u64,
    }
}

wire_struct! {
    /// Argument of [`GET_LUN`]. Counters run from the LUN's ADD_LUN.
    pub struct LunStatus(512) {
        /// Which LUN.
        pub lun: u32,
        /// [`lun_flags`](crate::stor::lun_flags) as of now.
        pub flags: u32,
        /// Requests that the backing has.
        pub in_flight: u32,
        /// Requests that wait for the LUN's limits.
        pub held_back: u32,
        /// READs carried out.
        pub reads: u64,
        /// Their bytes.
        pub read_bytes: u64,
        /// WRITEs carried out.
        pub writes: u64,
        /// Their bytes.
        pub write_bytes: u64,
        /// FLUSHes carried out.
        pub flushes: u64,
        /// DISCARDs, SECURE_ERASEs and WRITE_ZEROES carried out.
        pub ranges: u64,
        /// Requests that had to wait for the LUN's limits.
        pub throttled: u64,
        /// Requests by how they ended, by [`Status`](crate::stor::Status).
        pub statuses: [u64; 16],
        /// How long requests took, of one in [`LATENCY_SAMPLE`]: in class *n* from 2ⁿ µs to less than 2ⁿ⁺¹ µs, in class
        /// 0 also those under 1 µs.
        pub latency: [u64; LATENCY_CLASSES],
        /// Zero.
        pub reserved: [u64; 7],
    }
}

/// One in so many requests of a queue has its latency taken.
pub const LATENCY_SAMPLE: u32 = 16;

wire_struct! {
    /// Argument of [`TASK`].
    pub struct Task(32) {
        /// One of [`pci::task`](crate::pci::task).
        pub kind: u32,
        /// Which LUN.
        pub lun: u32,
        /// Which queue; of a LUN_RESET and an OPEN_GATE, zero.
        pub queue: u32,
        /// For an ABORT, which tag.
        pub tag: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Out: how many requests it concerns, those included that wait for the LUN's limits.
        pub in_flight: u32,
        /// Zero.
        pub reserved: u64,
    }
}

wire_struct! {
    /// Argument of [`SET_POLL`].
    pub struct SetPoll(16) {
        /// Longest time in nanoseconds for which a worker without requests polls its ring before it asks for a doorbell
        /// and sleeps, at most [`MAX_POLL_NS`]. Within it the worker finds the best time by itself; zero is never.
        pub window_ns: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Zero.
        pub reserved: u64,
    }
}

/// Most that [`SetPoll::window_ns`] can be.
pub const MAX_POLL_NS: u32 = 10_000_000;

wire_struct! {
    /// Argument of [`SET_FEATURES`].
    pub struct SetFeatures(24) {
        /// ABI version in use, from 1 to [`ABI_VERSION`](crate::ABI_VERSION).
        pub version: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// [`features`](crate::features) in use, a subset of those on offer.
        pub features: u64,
        /// Zero.
        pub reserved: u64,
    }
}

wire_struct! {
    /// Argument of [`SET_QUEUE`].
    pub struct SetQueue(56) {
        /// Which queue, from 0.
        pub index: u32,
        /// Entries in each ring: a power of two from [`MIN_QUEUE_SIZE`](crate::MIN_QUEUE_SIZE) to
        /// [`MAX_QUEUE_SIZE`](crate::MAX_QUEUE_SIZE).
        pub size: u32,
        /// Guest-physical address of the submission ring.
        pub submissions: u64,
        /// Guest-physical address of the completion ring.
        pub completions: u64,
        /// Guest-physical address of the control block.
        pub control: u64,
        /// An eventfd that the doorbell signals.
        pub kick_fd: i32,
        /// An eventfd that raises the queue's interrupt.
        pub call_fd: i32,
        /// Zero.
        pub reserved: u64,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Zero.
        pub reserved1: u32,
    }
}

wire_struct! {
    /// Argument of [`START`].
    pub struct Start(16) {
        /// Number of queues; queues 0 to `queues - 1` must have been set.
        pub queues: u32,
        /// Zero.
        pub reserved: u32,
        /// Out: a [`SetupError`], zero on success.
        pub error: u32,
        /// Out: the queue at fault.
        pub error_index: u32,
    }
}

wire_struct! {
    /// Argument of [`GET_QUEUE`]. Counters run from the queue's START.
    pub struct QueueStatus(128) {
        /// Which queue.
        pub index: u32,
        /// [`pci::state::STOPPED`](crate::pci::state::STOPPED) or
        /// [`pci::state::RUNNING`](crate::pci::state::RUNNING).
        pub state: u32,
        /// Zero, or the [`Broken`](crate::ring::Broken) reason.
        pub broken: u32,
        /// Requests in flight.
        pub in_flight: u32,
        /// Requests taken from the ring.
        pub requests: u64,
        /// Bytes read by the guest.
        pub read_bytes: u64,
        /// Bytes written by the guest.
        pub write_bytes: u64,
        /// Wake-ups by the doorbell.
        pub doorbells: u64,
        /// Interrupts raised.
        pub interrupts: u64,
        /// Completions that needed no interrupt of their own.
        pub interrupts_suppressed: u64,
        /// Requests that ended in an error, all statuses but `Ok`.
        pub errors: u64,
        /// Position of the next submission entry that the device will take.
        pub submission: u32,
        /// Position of the next completion entry that it will post.
        pub completion: u32,
        /// Times that the worker polled before it slept.
        pub polls: u64,
        /// Of these, how often work came.
        pub polls_found: u64,
        /// Zero.
        pub reserved: [u64; 4],
    }
}
