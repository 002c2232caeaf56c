// SPDX-License-Identifier: GPL-2.0

//! avio_stor: the guest's driver for AVIO storage adapters.
//!
//! Each LUN of an adapter is a native multi-queue block device, `avioa` and on. All LUNs share the adapter's queue
//! pairs, one to a processor. Nothing is copied: the device gets the addresses of the pages of each request.
//!
//! - [`adapter`]: what happens at probe and removal.
//! - [`registers`]: the register window.
//! - [`lun`]: from a LUN's description to a disk.
//! - [`queue`]: the data path.
//! - [`lists`]: memory for the segments of large requests.
//!
//! There is no shutdown handler, which the kernel crate's PCI drivers cannot have. None is needed: a device that has
//! no requests in flight writes to the guest's memory only when its doorbell rings, and probe begins with a reset.

#[deny(unsafe_code)]
mod adapter;
#[deny(unsafe_code)]
mod lists;
#[deny(unsafe_code)]
mod lun;
#[deny(unsafe_code)]
mod queue;
#[deny(unsafe_code)]
mod registers;

use avio_abi::pci::{DEVICE_STOR, VENDOR_ID};
use kernel::device::Core;
use kernel::pci;
use kernel::prelude::*;

struct AvioStor;

kernel::pci_device_table!(
    PCI_TABLE,
    <AvioStor as pci::Driver>::IdInfo,
    [(avio_sys::guest::pci::device_id(VENDOR_ID, DEVICE_STOR), ())]
);

impl pci::Driver for AvioStor {
    type IdInfo = ();
    type Data<'bound> = adapter::Adapter<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        device.enable_device_mem()?;
        device.set_master();
        adapter::Adapter::new(device, module_parameters::queues.value())
    }
}

kernel::module_pci_driver! {
    type: AvioStor,
    name: "avio_stor",
    authors: ["The AVIO developers"],
    description: "AVIO storage driver for KVM guests",
    license: "GPL",
    params: {
        queues: u32 {
            default: 0,
            description: "Most queue pairs to use for each adapter (0: one for each processor)",
        },
    },
}
