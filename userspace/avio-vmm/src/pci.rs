// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! PCI bus 0: which function an access is for. vCPU threads run it; the guest is not trusted.
//!
//! Configuration space is reached through ports 0xcf8 to 0xcff and through the memory-mapped window (ECAM); memory
//! BARs through [`Root::read_memory`] and [`Root::write_memory`]. Each function has its own lock; no two are ever
//! held together.

pub mod config;
pub mod host_bridge;
pub mod msix;

use std::sync::{Mutex, PoisonError};

/// First of the configuration ports.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// Last of the configuration ports.
pub const CONFIG_END: u16 = 0xcff;
const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;

/// A PCI function.
pub trait Function: Send {
    /// Reads configuration space.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);
    /// Writes configuration space.
    fn write_config(&mut self, offset: u16, data: &[u8]);
    /// Where in its BAR a memory address lies, if it is the function's.
    fn claims(&self, address: u64) -> Option<u64>;
    /// Reads from its BAR.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]);
    /// Writes to its BAR.
    fn write_bar(&mut self, offset: u64, data: &[u8]);
}

/// Bus 0. The function at index N is function 0 of device N.
pub struct Root {
    functions: Vec<Mutex<Box<dyn Function>>>,
    address: Mutex<u32>,
}

impl Root {
    /// A bus with these functions, the host bridge first.
    pub fn new(functions: Vec<Box<dyn Function>>) -> Self {
        Self {
            functions: functions.into_iter().map(Mutex::new).collect(),
            address: Mutex::new(0),
        }
    }

    /// Reads a configuration port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if port == CONFIG_ADDRESS && data.len() == 4 {
            data.copy_from_slice(&address.to_le_bytes());
        } else if let Some((ecam, len)) = data_port_target(port, address, data.len()) {
            self.read_config(ecam, &mut data[..len]);
        }
    }

    /// Writes a configuration port.
    pub fn write_port(&self, port: u16, data: &[u8]) {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if port == CONFIG_ADDRESS {
            if let Ok(bytes) = data.try_into() {
                *address = u32::from_le_bytes(bytes);
            }
        } else if let Some((ecam, len)) = data_port_target(port, *address, data.len()) {
            self.write_config(ecam, &data[..len]);
        }
    }

    /// Reads configuration space at an offset into the memory-mapped window.
    pub fn read_config(&self, ecam: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((function, offset)) = self.decode(ecam) {
            function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read_config(offset, data);
        }
    }

    /// Writes configuration space at an offset into the memory-mapped window.
    pub fn write_config(&self, ecam: u64, data: &[u8]) {
        if let Some((function, offset)) = self.decode(ecam) {
            function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_config(offset, data);
        }
    }

    /// Reads memory; all ones where no BAR is.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        for function in &self.functions {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(offset) = function.claims(address) {
                return function.read_bar(offset, data);
            }
        }
        tracing::trace!(address, "read where nothing is");
    }

    /// Writes memory; no effect where no BAR is.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        for function in &self.functions {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(offset) = function.claims(address) {
                return function.write_bar(offset, data);
            }
        }
        tracing::trace!(address, "write where nothing is");
    }

    /// The function and register at bus (bits 20 and up), device (15), function (12), register (0).
    fn decode(&self, ecam: u64) -> Option<(&Mutex<Box<dyn Function>>, u16)> {
        if ecam >> 20 != 0 || (ecam >> 12) & 7 != 0 {
            return None;
        }
        let device = usize::try_from((ecam >> 15) & 0x1f).ok()?;
        Some((self.functions.get(device)?, (ecam & 0xfff) as u16))
    }
}

/// What an access to the data port reaches: an offset as in the memory-mapped window, and its length.
fn data_port_target(port: u16, address: u32, len: usize) -> Option<(u64, usize)> {
    let within = port.checked_sub(CONFIG_DATA)?;
    if address & CONFIG_ENABLE == 0 {
        return None;
    }
    let bus_device_function = u64::from((address >> 8) & 0xffff);
    let register = u64::from(address & 0xfc) + u64::from(within);
    Some((
        bus_device_function << 12 | register,
        len.min(4 - usize::from(within & 3)),
    ))
}

#[cfg(test)]
mod tests {
    use super::host_bridge::HostBridge;
    use super::*;

    fn root() -> Root {
        Root::new(vec![Box::new(HostBridge::new())])
    }

    fn identity_by_port(root: &Root, address: u32) -> u32 {
        root.write_port(CONFIG_ADDRESS, &address.to_le_bytes());
        let mut data = [0; 4];
        root.read_port(CONFIG_DATA, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn ports_and_window_show_the_same() {
        let root = root();
        let mut data = [0; 4];
        root.read_config(0, &mut data);
        assert_eq!(
            identity_by_port(&root, CONFIG_ENABLE),
            u32::from_le_bytes(data)
        );
        assert_ne!(u32::from_le_bytes(data), u32::MAX);
    }

    #[test]
    fn parts_of_the_data_port_reach_parts_of_a_register() {
        let root = root();
        let whole = identity_by_port(&root, CONFIG_ENABLE).to_le_bytes();
        let mut half = [0; 2];
        root.read_port(CONFIG_DATA + 2, &mut half);
        assert_eq!(half, whole[2..]);
    }

    #[test]
    fn nothing_reads_as_all_ones() {
        let root = root();
        assert_eq!(identity_by_port(&root, 0), u32::MAX, "not enabled");
        assert_eq!(
            identity_by_port(&root, CONFIG_ENABLE | 1 << 11),
            u32::MAX,
            "no such device"
        );
        assert_eq!(
            identity_by_port(&root, CONFIG_ENABLE | 1 << 8),
            u32::MAX,
            "no such function"
        );
        assert_eq!(
            identity_by_port(&root, CONFIG_ENABLE | 1 << 16),
            u32::MAX,
            "no such bus"
        );
        let mut data = [0; 8];
        root.read_memory(0xc000_0000, &mut data);
        assert_eq!(data, [0xff; 8]);
    }

    #[test]
    fn accesses_of_odd_sizes_do_no_harm() {
        let root = root();
        root.write_port(CONFIG_ADDRESS, &CONFIG_ENABLE.to_le_bytes());
        root.write_port(CONFIG_ADDRESS, &[0]);
        let mut data = [0; 4];
        root.read_port(CONFIG_DATA + 3, &mut data);
        root.read_config(0xfff, &mut data);
        root.read_config(0xffd, &mut data);
        root.write_config(0xfff, &data);
    }
}
