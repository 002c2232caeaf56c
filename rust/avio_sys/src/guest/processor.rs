// SPDX-License-Identifier: GPL-2.0

//! The processor, and its clock.

/// Nanoseconds of a clock that does not go back. In any context but an NMI's.
#[inline]
pub fn now_ns() -> u64 {
    // SAFETY: By the function's word on contexts.
    let now = unsafe { avio_bindings::ktime_get() };
    now as u64
}

/// Whether nobody else wants the processor that the current thread has.
#[inline]
pub fn alone() -> bool {
    // SAFETY: No requirements.
    unsafe { avio_bindings::avio_alone() }
}
