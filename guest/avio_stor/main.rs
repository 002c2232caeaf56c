// SPDX-License-Identifier: GPL-2.0

//! AVIO storage driver.

use kernel::prelude::*;

module! {
    type: AvioStor,
    name: "avio_stor",
    authors: ["The AVIO developers"],
    description: "AVIO storage driver for KVM guests",
    license: "GPL",
}

struct AvioStor;

impl kernel::Module for AvioStor {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
