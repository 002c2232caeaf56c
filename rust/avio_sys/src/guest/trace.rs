// SPDX-License-Identifier: GPL-2.0

//! Trace events of a request (`trace_guest.h`). Usable in any context.

use avio_abi::ring::{Completion, Submission};
use avio_bindings as bindings;
use core::ptr;
use kernel::device::Device;

fn raw(adapter: &Device) -> *const bindings::device {
    // A `Device` is a transparent wrapper of the C structure.
    ptr::from_ref(adapter).cast()
}

/// A request was put into the ring of this queue.
#[inline]
pub fn sent(adapter: &Device, queue: u32, entry: &Submission) {
    let (adapter, opcode, sector) = (raw(adapter), entry.opcode, entry.sector);
    // SAFETY: The device is there for as long as its reference.
    unsafe { bindings::avio_trace_sent(adapter, queue, entry.tag, entry.lun, opcode, sector) }
}

/// An answer was taken from the ring of this queue.
#[inline]
pub fn done(adapter: &Device, queue: u32, answer: &Completion) {
    let Completion { tag, status, bytes } = *answer;
    // SAFETY: The device is there for as long as its reference.
    unsafe { bindings::avio_trace_done(raw(adapter), queue, tag, status, bytes) }
}
