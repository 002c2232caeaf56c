// SPDX-License-Identifier: GPL-2.0

//! avio_host: the host side of AVIO storage adapters.
//!
//! One open file of `/dev/avio-stor` is one adapter. This file only wires.
//!
//! - [`adapter`]: what one open file is.
//! - [`calls`]: how a call's argument comes in and goes out.
//! - [`state`]: an adapter's settings and what runs of it; with [`lun_calls`], [`stop`], [`tasks`] and [`status`] what
//!   the calls do.
//! - [`lun`], [`luns`]: the block devices behind an adapter.
//! - [`queue`]: a queue pair that runs, and how requests end.
//! - [`serve`], [`submit`], [`held`], [`halt`]: how its worker serves it.
//! - [`counters`]: what is counted, and how debugfs shows it.

#[deny(unsafe_code)]
mod adapter;
#[deny(unsafe_code)]
mod calls;
#[deny(unsafe_code)]
mod counters;
#[deny(unsafe_code)]
mod halt;
#[deny(unsafe_code)]
mod held;
#[deny(unsafe_code)]
mod lun;
#[deny(unsafe_code)]
mod lun_calls;
#[deny(unsafe_code)]
mod luns;
#[deny(unsafe_code)]
mod queue;
#[deny(unsafe_code)]
mod serve;
#[deny(unsafe_code)]
mod state;
#[deny(unsafe_code)]
mod status;
#[deny(unsafe_code)]
mod stop;
#[deny(unsafe_code)]
mod submit;
#[deny(unsafe_code)]
mod tasks;

use adapter::Adapter;
use avio_sys::host::{DebugRoot, VisitsEnd};
use kernel::miscdevice::{MiscDeviceOptions, MiscDeviceRegistration};
use kernel::prelude::*;

module! {
    type: AvioHost,
    name: "avio_host",
    authors: ["The AVIO developers"],
    description: "AVIO: accelerated virtual I/O for KVM guests, storage host",
    license: "GPL",
}

#[pin_data]
struct AvioHost {
    #[pin]
    device: MiscDeviceRegistration<Adapter>,
    debug: DebugRoot,
    end: VisitsEnd,
}

impl kernel::InPlaceModule for AvioHost {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            debug: DebugRoot::new(c"avio_host"),
            end: VisitsEnd,
            device <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"avio-stor" }),
        })
    }
}
