// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The floor: the same reads by io_uring, with no guest and no rings but the kernel's own.

#![allow(unsafe_code)]

use crate::sys::Mapping;
use crate::{Way, BLOCK, MAX_DEPTH};
use anyhow::{ensure, Context, Result};
use io_uring::{opcode, types, IoUring};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub struct Bare {
    // Declared first, so that the kernel is done with the memory before it goes.
    ring: IoUring,
    device: File,
    data: Mapping,
}

impl Bare {
    pub fn new(device: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(device);
        Ok(Self {
            ring: IoUring::new(MAX_DEPTH.into()).context("io_uring")?,
            device: file.with_context(|| device.display().to_string())?,
            data: Mapping::new(usize::from(MAX_DEPTH) * BLOCK as usize)?,
        })
    }
}

impl Way for Bare {
    fn push(&mut self, tag: u16, sector: u64) -> Result<()> {
        let data = self
            .data
            .pointer::<[u8; BLOCK as usize]>(usize::from(tag) * BLOCK as usize);
        let read = opcode::Read::new(types::Fd(self.device.as_raw_fd()), data.cast(), BLOCK)
            .offset(sector * 512)
            .build()
            .user_data(tag.into());
        // SAFETY: `data` lies whole inside the mapping, and the mapping and the file outlive the ring.
        unsafe { self.ring.submission().push(&read) }.context("a full ring")
    }

    fn publish(&mut self) -> Result<()> {
        // Done with the wait, in one system call.
        Ok(())
    }

    fn take(&mut self) -> Result<Option<u16>> {
        let Some(entry) = self.ring.completion().next() else {
            return Ok(None);
        };
        ensure!(
            entry.result() == BLOCK as i32,
            "a read ended with {}",
            entry.result()
        );
        Ok(Some(u16::try_from(entry.user_data())?))
    }

    fn arm(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn wait(&mut self) -> Result<()> {
        self.ring.submit_and_wait(1)?;
        Ok(())
    }
}
