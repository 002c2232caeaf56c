// SPDX-License-Identifier: GPL-2.0

//! avio_stor: the guest's driver for AVIO storage adapters.
//!
//! Each LUN of an adapter is a native multi-queue block device, `avioa` and on. All LUNs share the adapter's queue
//! pairs, one to a processor. Nothing is copied: the device gets the addresses of the pages of each request.
//!
//! - [`adapter`]: what happens at probe and removal.
//! - [`registers`]: the register window; [`tasks`]: the task registers.
//! - [`link`]: starting and stopping the device.
//! - [`controller`]: what happens in contexts that may sleep; [`signals`]: how others have it happen.
//! - [`luns`]: disks, kept as the LUNs are; [`lun`]: from a LUN's description to a disk's limits.
//! - [`burial`]: how disks go.
//! - [`usage`]: which LUNs are open, and the gate before those that were replaced.
//! - [`queue`]: the data path, and what goes wrong with it; [`entry`]: from a request to a ring entry; [`lists`]: memory for large requests.
//! - [`counters`]: what is counted.
//! - [`control`]: the administrator's calls to `/dev/gvsdN`.
//!
//! There is no shutdown handler, which the kernel crate's PCI drivers cannot have. At a kexec the PCI core clears Bus
//! Master of all functions, which is a RESET for ours (`docs/abi.md`, 2.6); otherwise the machine goes off, and its
//! device with it.

#[deny(unsafe_code)]
mod adapter;
#[deny(unsafe_code)]
mod burial;
#[deny(unsafe_code)]
mod control;
#[deny(unsafe_code)]
mod controller;
#[deny(unsafe_code)]
mod counters;
#[deny(unsafe_code)]
mod entry;
#[deny(unsafe_code)]
mod link;
#[deny(unsafe_code)]
mod lists;
#[deny(unsafe_code)]
mod lun;
#[deny(unsafe_code)]
mod luns;
#[deny(unsafe_code)]
mod queue;
#[deny(unsafe_code)]
mod registers;
#[deny(unsafe_code)]
mod signals;
#[deny(unsafe_code)]
mod tasks;
#[deny(unsafe_code)]
mod usage;

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
        let options = adapter::Options {
            queues: module_parameters::queues.value(),
            polled: module_parameters::poll_queues.value(),
            coalesce: module_parameters::coalesce.value() != 0,
        };
        adapter::Adapter::new(device, &options)
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
            description: "Most queue pairs with interrupts to use for each adapter (0: one for each processor)",
        },
        poll_queues: u32 {
            default: 0,
            description: "Queue pairs to use for polled I/O, beside those with interrupts",
        },
        coalesce: u32 {
            default: 1,
            description: "Let one interrupt stand for several requests, and a lone one do without if it is answered soon (0: never)",
        },
    },
}
