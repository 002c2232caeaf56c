// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtio block device of a program's, by vhost-user. A chain is header, data and status (virtio 1.3, 5.2.6).

use crate::sys::{self, Mapping};
use crate::vring::{Vring, AVAIL, ENTRIES, RAM, SIZE, USED};
use crate::{Way, BLOCK, MAX_DEPTH};
use anyhow::{ensure, Context, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;
use vhost::vhost_user::Frontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// Where each tag's header and status lie, and its data.
const HEADERS: usize = SIZE;
const HEADER: usize = 0x20;
const STATUS: usize = 0x18;
const DATA: usize = 0x1_0000;

const HEADER_LEN: u32 = 16;
/// In a header: the sector.
const SECTOR: usize = 8;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// A device that runs.
pub struct VhostUserBlk {
    // Declared first: when it is closed nothing uses the memory any more.
    _backend: Frontend,
    memory: Mapping,
    ring: Vring,
    kick: EventFd,
    call: EventFd,
}

impl VhostUserBlk {
    pub fn new(socket: &Path) -> Result<Self> {
        let memory = Mapping::new(DATA + usize::from(MAX_DEPTH) * BLOCK as usize)?;
        let (kick, call) = (
            EventFd::new(libc::EFD_CLOEXEC)?,
            EventFd::new(libc::EFD_CLOEXEC)?,
        );
        let backend = Frontend::connect(socket, 1).with_context(|| socket.display().to_string())?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: RAM,
            memory_size: memory.len(),
            userspace_addr: memory.user_addr(),
            mmap_offset: 0,
            mmap_handle: memory.raw_fd(),
        };
        let rings = VringConfigData {
            queue_max_size: ENTRIES as u16,
            queue_size: ENTRIES as u16,
            flags: 0,
            desc_table_addr: memory.user_addr(),
            used_ring_addr: memory.user_addr() + USED as u64,
            avail_ring_addr: memory.user_addr() + AVAIL as u64,
            log_addr: None,
        };
        let ring = Vring::new(0);
        for tag in 0..MAX_DEPTH {
            let (header, data) = (
                HEADERS + usize::from(tag) * HEADER,
                DATA + usize::from(tag) * BLOCK as usize,
            );
            // A header of zeroes is a read.
            ring.chain(
                &memory,
                tag,
                [
                    (header, HEADER_LEN, false),
                    (data, BLOCK, true),
                    (header + STATUS, 1, true),
                ],
            );
        }
        backend.set_owner()?;
        backend.get_features()?;
        backend.set_features(VERSION_1 | EVENT_IDX)?;
        backend.set_mem_table(&[region])?;
        backend.set_vring_num(0, ENTRIES as u16)?;
        backend.set_vring_base(0, 0)?;
        backend.set_vring_addr(0, &rings)?;
        backend.set_vring_call(0, &call)?;
        backend.set_vring_kick(0, &kick)?;
        Ok(Self {
            _backend: backend,
            memory,
            ring,
            kick,
            call,
        })
    }
}

impl Way for VhostUserBlk {
    fn push(&mut self, tag: u16, sector: u64) -> Result<()> {
        let header = HEADERS + usize::from(tag) * HEADER;
        self.memory
            .u64(header + SECTOR)
            .store(sector, Ordering::Relaxed);
        self.ring.push(&self.memory, tag);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        if self.ring.publish(&self.memory) {
            self.kick.write(1)?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<u16>> {
        let Some(tag) = self.ring.take(&self.memory)? else {
            return Ok(None);
        };
        let status = self
            .memory
            .u8(HEADERS + usize::from(tag) * HEADER + STATUS)
            .load(Ordering::Relaxed);
        ensure!(status == 0, "a read ended with status {status}");
        Ok(Some(tag))
    }

    fn arm(&mut self) -> Result<bool> {
        Ok(self.ring.arm(&self.memory))
    }

    fn wait(&mut self) -> Result<()> {
        // QEMU makes the descriptors that it is given non-blocking, and with them ours.
        while let Err(error) = self.call.read() {
            ensure!(error.kind() == ErrorKind::WouldBlock, "{error}");
            sys::set_blocking(&self.call)?;
        }
        Ok(())
    }
}
