// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The device's end of a ring against whatever a driver does.

#![no_main]

#[path = "../../../rust/avio_core/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::attack::fuzz_ring(data);
});
