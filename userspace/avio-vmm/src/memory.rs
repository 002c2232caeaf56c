// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Guest memory: a memfd, mapped shared, below and above the hole that ends at 4 GiB, and KVM's slots for it.
//!
//! One of the two files with `unsafe` (`backend/call.rs` is the other).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::fcntl::{fallocate, FallocateFlags};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{madvise, MmapAdvise};
use vm_memory::{FileOffset, GuestAddress, GuestMemory as _, GuestMemoryRegion, MmapRegion};

use crate::layout::{HIGH_RAM, LOW_RAM_END, MIB};

/// Guest memory as this VMM has it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A run of guest memory and where it is mapped here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// First guest-physical address.
    pub guest_addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where it is mapped in this process.
    pub user_addr: u64,
}

/// Why guest memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memfd.
    #[error("cannot create {mib} MiB of guest memory")]
    Create {
        /// How much.
        mib: u64,
        /// Why.
        source: io::Error,
    },
    /// Not enough huge pages.
    #[error("{0} huge pages of 2 MiB are needed and fewer are free; write a number to /proc/sys/vm/nr_hugepages")]
    HugePages(u64),
    /// An odd size with huge pages.
    #[error("with --huge-pages the memory must be a multiple of 2 MiB, not {0} MiB")]
    OddSize(u64),
    /// Mapping it.
    #[error("cannot map guest memory")]
    Map(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// KVM refused a slot.
    #[error("KVM refuses guest memory at {0:#x}")]
    Slot(u64, #[source] kvm_ioctls::Error),
}

/// Where `size` bytes of RAM lie: address and length of each run.
pub fn ranges(size: u64) -> Vec<(GuestAddress, u64)> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![(GuestAddress(0), low)];
    if size > low {
        ranges.push((HIGH_RAM, size - low));
    }
    ranges
}

/// Makes `mib` MiB of guest memory.
pub fn create(mib: u64, huge_pages: bool) -> Result<GuestMemory, Error> {
    if huge_pages && mib % 2 != 0 {
        return Err(Error::OddSize(mib));
    }
    let file = backing_file(mib, huge_pages)?;
    let mut offset = 0;
    let mut files = Vec::new();
    for (address, size) in ranges(mib * MIB) {
        let part = file
            .try_clone()
            .map_err(|source| Error::Create { mib, source })?;
        files.push((address, size as usize, Some(FileOffset::new(part, offset))));
        offset += size;
    }
    let memory = GuestMemory::from_ranges_with_files(files).map_err(|e| Error::Map(Box::new(e)))?;
    if !huge_pages {
        want_huge_pages(&memory);
    }
    Ok(memory)
}

/// Asks for transparent huge pages: fewer faults, shorter page walks of the guest, longer runs to pin. It is up to the
/// kernel (`shmem_enabled` in /sys/kernel/mm/transparent_hugepage), which has them only where there is room.
fn want_huge_pages(memory: &GuestMemory) {
    for region in memory.iter() {
        let mapping: &MmapRegion<()> = region;
        let Some(start) = NonNull::new(mapping.as_ptr()) else {
            continue;
        };
        // SAFETY: The range is a mapping that `memory` owns, and the advice changes nothing that it holds.
        let advised = unsafe { madvise(start.cast(), mapping.size(), MmapAdvise::MADV_HUGEPAGE) };
        if let Err(error) = advised {
            tracing::debug!("no transparent huge pages for the guest's memory: {error}");
        }
    }
}

fn backing_file(mib: u64, huge_pages: bool) -> Result<File, Error> {
    let failed = |e: nix::Error| Error::Create {
        mib,
        source: e.into(),
    };
    let mut flags = MFdFlags::MFD_CLOEXEC;
    if huge_pages {
        flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    }
    let file = File::from(memfd_create("guest", flags).map_err(failed)?);
    file.set_len(mib * MIB)
        .map_err(|source| Error::Create { mib, source })?;
    if huge_pages {
        // Taken now: a huge page that is missing later would kill the VMM with SIGBUS in the middle of the run.
        let bytes = i64::try_from(mib * MIB).map_err(|_| Error::HugePages(mib / 2))?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(nix::Error::ENOSPC | nix::Error::ENOMEM) => return Err(Error::HugePages(mib / 2)),
            other => other.map_err(failed)?,
        }
    }
    Ok(file)
}

/// Each run of guest memory and where it is mapped here.
pub fn slots(memory: &GuestMemory) -> Vec<Slot> {
    memory
        .iter()
        .map(|region| {
            let mapping: &MmapRegion<()> = region;
            Slot {
                guest_addr: region.start_addr().0,
                size: region.len(),
                user_addr: mapping.as_ptr() as u64,
            }
        })
        .collect()
}

/// Gives the memory to KVM. The caller keeps `memory` alive as long as the VM.
pub fn register(vm: &VmFd, memory: &GuestMemory) -> Result<(), Error> {
    for (number, slot) in (0..).zip(slots(memory)) {
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: slot.guest_addr,
            memory_size: slot.size,
            userspace_addr: slot.user_addr,
        };
        // SAFETY: `slots` gives mappings that `memory` owns, with their true lengths, and they do not overlap. The
        // guest may write them at any time; this process reaches them through vm-memory's volatile accesses only.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|e| Error::Slot(slot.guest_addr, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_range() {
        assert_eq!(ranges(512 * MIB), [(GuestAddress(0), 512 * MIB)]);
        assert_eq!(ranges(3072 * MIB), [(GuestAddress(0), 3072 * MIB)]);
    }

    #[test]
    fn large_memory_leaves_the_hole_free() {
        let ranges = ranges(5000 * MIB);
        assert_eq!(
            ranges,
            [
                (GuestAddress(0), 3072 * MIB),
                (GuestAddress(4096 * MIB), 1928 * MIB)
            ]
        );
    }

    #[test]
    fn slots_cover_all_memory_with_real_addresses() {
        let memory = create(64, false).unwrap();
        let slots = slots(&memory);
        assert_eq!(slots.len(), 1);
        assert_eq!((slots[0].guest_addr, slots[0].size), (0, 64 * MIB));
        assert_eq!(slots[0].user_addr % 4096, 0);
        assert_ne!(slots[0].user_addr, 0);
    }

    #[test]
    fn an_odd_size_cannot_be_huge_pages() {
        assert!(matches!(create(65, true), Err(Error::OddSize(65))));
    }
}
