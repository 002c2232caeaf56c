// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The host bridge at 00:00.0: there because software expects one, and without function.

use super::config::{ConfigSpace, Identity};
use super::Function;

/// Red Hat's ID for a generic PCIe host bridge.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    class: 0x06_00_00,
};

/// The bridge.
pub struct HostBridge(ConfigSpace);

impl HostBridge {
    /// A host bridge.
    pub fn new() -> Self {
        Self(ConfigSpace::new(IDENTITY))
    }
}

impl Function for HostBridge {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn claims(&self, _address: u64) -> Option<u64> {
        None
    }

    fn read_bar(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write_bar(&mut self, _offset: u64, _data: &[u8]) {}
}
