// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Parsing, checking and translation of whatever a driver asks for.

#![no_main]

#[path = "../../../rust/avio_core/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::accept::fuzz_request(data);
});
