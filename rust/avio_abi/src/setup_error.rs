// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What is wrong with a call of [`ioctl`](crate::ioctl).

/// Why a set-up call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SetupError {
    /// A reserved field or unknown flag is not zero.
    Reserved = 1,
    /// The adapter runs; STOP first.
    Running = 2,
    /// More regions than [`MAX_REGIONS`](crate::MAX_REGIONS).
    TooManyRegions = 3,
    /// An address or size that is zero, not a multiple of the page size, or beyond what a processor can address.
    RegionBounds = 4,
    /// Two regions share guest addresses.
    RegionOverlap = 5,
    /// Memory that cannot be pinned: unmapped, a device's, or a file's on disk.
    RegionUnpinnable = 6,
    /// RLIMIT_MEMLOCK does not allow this much.
    MemoryLimit = 7,
    /// The host lacks memory.
    NoMemory = 8,
    /// No such LUN number.
    LunRange = 9,
    /// The LUN number is taken.
    LunBusy = 10,
    /// Not an open block device.
    NotBlockDevice = 11,
    /// A device that is open for reading only must be attached read-only.
    DeviceReadOnly = 12,
    /// A device whose logical block size or capacity cannot be offered.
    DeviceUnsuitable = 13,
    /// A version or feature that the device does not offer.
    Features = 14,
    /// No such queue.
    QueueRange = 15,
    /// A ring size that is not a power of two within the limits.
    QueueSize = 16,
    /// A ring or control block that is unaligned, or outside writable guest memory.
    QueueAddress = 17,
    /// A descriptor that is not an eventfd.
    NotEventfd = 18,
    /// START before features and every queue were set.
    NotConfigured = 19,
    /// No memory table was set.
    NoMemoryTable = 20,
    /// A worker thread could not be made.
    NoWorker = 21,
    /// The LUN has requests in flight.
    LunInFlight = 22,
    /// There is no such LUN.
    LunAbsent = 23,
    /// A rate or time beyond what can be set.
    LimitRange = 24,
    /// No such task, queue or tag.
    TaskRange = 25,
    /// The adapter is being stopped, or is quiesced.
    Stopping = 26,
    /// A backing did not give back what it has in time; nothing has changed.
    Stuck = 27,
    /// Not an open directory of cgroup v2.
    NotCgroup = 28,
    /// A cgroup that the caller may not write to.
    CgroupDenied = 29,
    /// A cgroup without the io controller.
    CgroupWithoutIo = 30,
    /// START while Bus Master is off; of the VMM, no call has it.
    NoBusMaster = 31,
    /// The host's page cache has something of the device that is yet to be written.
    DeviceDirty = 32,
}

impl SetupError {
    /// Every error, in the order of their numbers.
    pub const ALL: [Self; 32] = [
        Self::Reserved,
        Self::Running,
        Self::TooManyRegions,
        Self::RegionBounds,
        Self::RegionOverlap,
        Self::RegionUnpinnable,
        Self::MemoryLimit,
        Self::NoMemory,
        Self::LunRange,
        Self::LunBusy,
        Self::NotBlockDevice,
        Self::DeviceReadOnly,
        Self::DeviceUnsuitable,
        Self::Features,
        Self::QueueRange,
        Self::QueueSize,
        Self::QueueAddress,
        Self::NotEventfd,
        Self::NotConfigured,
        Self::NoMemoryTable,
        Self::NoWorker,
        Self::LunInFlight,
        Self::LunAbsent,
        Self::LimitRange,
        Self::TaskRange,
        Self::Stopping,
        Self::Stuck,
        Self::NotCgroup,
        Self::CgroupDenied,
        Self::CgroupWithoutIo,
        Self::NoBusMaster,
        Self::DeviceDirty,
    ];

    /// The error with this number.
    pub fn from_u32(error: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|e| *e as u32 == error)
    }

    /// What was wrong and what would be right.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Reserved => "a reserved field or unknown flag is set; it must be zero",
            Self::Running => "the adapter is running; stop it first",
            Self::TooManyRegions => "too many memory regions; at most 256",
            Self::RegionBounds => {
                "a memory region is empty, not page-aligned, or wraps; use whole 4096-byte pages"
            }
            Self::RegionOverlap => "two memory regions overlap in guest addresses",
            Self::RegionUnpinnable => {
                "memory that cannot be pinned; use anonymous memory, memfd, or huge pages"
            }
            Self::MemoryLimit => {
                "RLIMIT_MEMLOCK is too low for this much guest memory; raise it (ulimit -l)"
            }
            Self::NoMemory => "the host has not enough free memory",
            Self::LunRange => "LUN number out of range; use 0 to 255",
            Self::LunBusy => "LUN number already in use",
            Self::NotBlockDevice => {
                "not an open block device; for a file, attach a loop device over it"
            }
            Self::DeviceReadOnly => {
                "the block device is open read-only; attach it read-only or open it for writing"
            }
            Self::DeviceUnsuitable => {
                "the block device has no capacity, a logical block size over 4096 bytes, or zones that must be written in order"
            }
            Self::Features => "version or features that this host does not offer",
            Self::QueueRange => "queue number out of range; use 0 to 63",
            Self::QueueSize => "ring size must be a power of two from 2 to 1024",
            Self::QueueAddress => "a ring is not 64-byte aligned or not in writable guest memory",
            Self::NotEventfd => "the kick and call descriptors must be eventfds",
            Self::NotConfigured => "features and every queue must be set before start",
            Self::NoMemoryTable => "no guest memory was set",
            Self::NoWorker => "a worker thread could not be created",
            Self::LunInFlight => "the LUN has requests in flight; wait, or remove it by force",
            Self::LunAbsent => "no such LUN",
            Self::LimitRange => "a limit out of range; polls last at most 1000000 ns",
            Self::TaskRange => "no such task, queue or tag",
            Self::Stuck => "a backing device does not give back what it has; try again",
            Self::NotCgroup => "not a cgroup; give an open directory of cgroup v2",
            Self::CgroupDenied => {
                "the caller may not write to the cgroup; have it delegated to the caller's user"
            }
            Self::CgroupWithoutIo => {
                "the cgroup has no io controller; write +io to cgroup.subtree_control of its parent"
            }
            Self::NoBusMaster => {
                "Bus Master is off in the PCI command register; set it before START"
            }
            Self::DeviceDirty => {
                "the host's page cache has something of the block device; write it back first (fsync)"
            }
            Self::Stopping => "the adapter is stopping or quiesced; finish that first",
        }
    }
}
