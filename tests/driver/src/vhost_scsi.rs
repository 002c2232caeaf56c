// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The kernel's vhost-scsi. A chain is header, response and data (virtio 1.3, 5.6.6).

use crate::sys::{self, Mapping};
use crate::vring::{Vring, AVAIL, ENTRIES, RAM, SIZE, USED};
use crate::{Way, BLOCK, MAX_DEPTH};
use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use vmm_sys_util::eventfd::EventFd;

/// Those for control and for events stay empty; the last carries requests.
const QUEUES: u32 = 3;
const REQUESTS: usize = 2;
/// Where each tag's header and response lie, and its data.
const HEADERS: usize = 0x1_0000;
const HEADER: usize = 0x100;
const RESPONSE: usize = 0x80;
const DATA: usize = 0x2_0000;

const HEADER_LEN: u32 = 51;
const RESPONSE_LEN: u32 = 108;
/// In a header: the command, and in that the address of the block.
const CDB: usize = 19;
const LBA: usize = CDB + 2;
/// In a response: the SCSI status, and what the host has to say.
const STATUS: usize = 10;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

const fn vhost(nr: u32, size: u32) -> u32 {
    (1 << 30) | (size << 16) | (0xaf << 8) | nr
}
const SET_OWNER: u32 = 0xaf01;
const SET_FEATURES: u32 = vhost(0x00, 8);
const SET_MEM_TABLE: u32 = vhost(0x03, 8);
const SET_VRING_NUM: u32 = vhost(0x10, 8);
const SET_VRING_ADDR: u32 = vhost(0x11, 40);
const SET_VRING_BASE: u32 = vhost(0x12, 8);
const SET_VRING_KICK: u32 = vhost(0x20, 8);
const SET_VRING_CALL: u32 = vhost(0x21, 8);
const SET_ENDPOINT: u32 = vhost(0x40, 232);

/// An adapter that runs.
pub struct VhostScsi {
    // Declared first: when it is closed nothing uses the memory any more.
    _adapter: File,
    memory: Mapping,
    ring: Vring,
    kick: EventFd,
    call: EventFd,
}

impl VhostScsi {
    pub fn new(wwpn: &str) -> Result<Self> {
        let path = "/dev/vhost-scsi";
        let adapter = File::options()
            .read(true)
            .write(true)
            .open(path)
            .context(path)?;
        let memory = Mapping::new(DATA + usize::from(MAX_DEPTH) * BLOCK as usize)?;
        let eventfd = || EventFd::new(libc::EFD_CLOEXEC);
        let (kick, call) = (eventfd()?, eventfd()?);
        let set = |request, argument: &[u64]| {
            let mut bytes: Vec<u8> = argument
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            sys::ioctl(&adapter, request, &mut bytes)
                .with_context(|| format!("vhost call {request:#x}"))
        };
        let pair = |first: u32, second: u32| u64::from(first) | (u64::from(second) << 32);
        set(SET_OWNER, &[0])?;
        set(SET_FEATURES, &[VERSION_1 | EVENT_IDX])?;
        set(
            SET_MEM_TABLE,
            &[1, RAM, memory.len(), memory.user_addr(), 0],
        )?;
        for index in 0..QUEUES {
            let base = memory.user_addr() + u64::from(index) * SIZE as u64;
            set(SET_VRING_NUM, &[pair(index, ENTRIES as u32)])?;
            set(SET_VRING_BASE, &[pair(index, 0)])?;
            set(
                SET_VRING_ADDR,
                &[
                    index.into(),
                    base,
                    base + USED as u64,
                    base + AVAIL as u64,
                    0,
                ],
            )?;
            set(SET_VRING_KICK, &[pair(index, kick.as_raw_fd() as u32)])?;
            set(SET_VRING_CALL, &[pair(index, call.as_raw_fd() as u32)])?;
        }
        let mut endpoint = [0; 232];
        endpoint[..4].copy_from_slice(&1u32.to_le_bytes());
        ensure!(
            wwpn.len() < 224,
            "a target's name of {} characters",
            wwpn.len()
        );
        endpoint[4..4 + wwpn.len()].copy_from_slice(wwpn.as_bytes());
        sys::ioctl(&adapter, SET_ENDPOINT, &mut endpoint)
            .with_context(|| format!("no target {wwpn}"))?;
        let ring = Vring::new(REQUESTS * SIZE);
        let mut way = Self {
            _adapter: adapter,
            memory,
            ring,
            kick,
            call,
        };
        (0..MAX_DEPTH).for_each(|tag| way.prepare(tag));
        way.first()?;
        Ok(way)
    }

    /// Makes a tag's chain and header.
    fn prepare(&self, tag: u16) {
        let (header, data) = (
            HEADERS + usize::from(tag) * HEADER,
            DATA + usize::from(tag) * BLOCK as usize,
        );
        let links = [
            (header, HEADER_LEN, false),
            (header + RESPONSE, RESPONSE_LEN, true),
            (data, BLOCK, true),
        ];
        self.ring.chain(&self.memory, tag, links);
        // Target 1, LUN 0, flat addressing; READ(10) of 8 blocks of 512 bytes.
        let bytes = [
            (0, 1),
            (1, 1),
            (2, 0x40),
            (CDB, 0x28),
            (CDB + 8, (BLOCK / 512) as u8),
        ];
        for (at, byte) in bytes {
            self.memory.u8(header + at).store(byte, Ordering::Relaxed);
        }
    }

    /// The first commands only fetch the news that the target has started.
    fn first(&mut self) -> Result<()> {
        for _ in 0..8 {
            self.push(0, 0)?;
            self.publish()?;
            if !self.arm()? {
                self.wait()?;
            }
            if self.take().is_ok() {
                return Ok(());
            }
        }
        self.take()
            .map(drop)
            .context("the target refuses every read")
    }
}

impl Way for VhostScsi {
    fn push(&mut self, tag: u16, sector: u64) -> Result<()> {
        let header = HEADERS + usize::from(tag) * HEADER;
        for (at, byte) in u32::try_from(sector)?.to_be_bytes().into_iter().enumerate() {
            self.memory
                .u8(header + LBA + at)
                .store(byte, Ordering::Relaxed);
        }
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
        let response = HEADERS + usize::from(tag) * HEADER + RESPONSE;
        let status = self.memory.u16(response + STATUS).load(Ordering::Relaxed);
        ensure!(
            status == 0,
            "a read ended with status and response {status:#06x}"
        );
        Ok(Some(tag))
    }

    fn arm(&mut self) -> Result<bool> {
        Ok(self.ring.arm(&self.memory))
    }

    fn wait(&mut self) -> Result<()> {
        self.call.read()?;
        Ok(())
    }
}
