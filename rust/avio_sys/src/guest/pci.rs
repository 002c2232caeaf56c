// SPDX-License-Identifier: GPL-2.0

//! PCI IDs that the kernel crate cannot name.

use kernel::pci::{DeviceId, Vendor};

/// The ID of a function by vendor and device number, whatever its subsystem is.
pub const fn device_id(vendor: u16, device: u16) -> DeviceId {
    // SAFETY: `Vendor` is a transparent wrapper of `u16`, and says of its value no more than that it is a vendor ID.
    let vendor = unsafe { core::mem::transmute::<u16, Vendor>(vendor) };
    DeviceId::from_id(vendor, device as u32)
}
