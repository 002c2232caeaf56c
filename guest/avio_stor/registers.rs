// SPDX-License-Identifier: GPL-2.0

//! The register window of an adapter. Set-up uses it in process context; the doorbell is rung from anywhere.

use avio_abi::pci::{reg, BAR, BAR_SIZE};
use kernel::device::Bound;
use kernel::io::Io;
use kernel::pci;
use kernel::prelude::*;

/// The mapped BAR. Reads give all ones, and writes do nothing, once the device is gone.
pub(crate) struct Registers(pci::DevresBar<{ BAR_SIZE as usize }>);

impl Registers {
    /// Maps the BAR of a device whose memory is enabled.
    pub(crate) fn new(device: &pci::Device<Bound>) -> Result<Self> {
        let bar = device.iomap_region_sized::<{ BAR_SIZE as usize }>(BAR.into(), c"avio_stor")?;
        if device.resource_len(BAR.into())? < BAR_SIZE {
            return Err(ENODEV);
        }
        Ok(Self(bar.into_devres()?))
    }

    /// Reads a register.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        self.0
            .try_access_with(|bar| bar.try_read32(offset as usize).unwrap_or(u32::MAX))
            .unwrap_or(u32::MAX)
    }

    /// Whether the device is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.read(reg::MAGIC) == u32::MAX
    }

    /// Reads a pair of registers, low half first.
    pub(crate) fn read_pair(&self, offset: u64) -> u64 {
        u64::from(self.read(offset)) | u64::from(self.read(offset.wrapping_add(4))) << 32
    }

    /// Writes a register.
    pub(crate) fn write(&self, offset: u64, value: u32) {
        self.0
            .try_access_with(|bar| bar.try_write32(value, offset as usize));
    }

    /// Writes a pair of registers, low half first.
    pub(crate) fn write_pair(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset.wrapping_add(4), (value >> 32) as u32);
    }

    /// Rings the doorbell of a queue.
    pub(crate) fn ring(&self, queue: u32) {
        self.write(
            reg::DOORBELLS.wrapping_add(reg::DOORBELL_STRIDE.wrapping_mul(queue.into())),
            0,
        );
    }
}
