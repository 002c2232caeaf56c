// SPDX-License-Identifier: GPL-2.0

//! Time, and what a thread may do with it.

use avio_bindings as bindings;

/// Nanoseconds of a clock that does not go back.
pub fn now_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::avio_now() }
}

/// Whether the calling thread may go on using its processor: nobody else wants it, and no signal waits.
pub fn alone() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::avio_alone() }
}

/// Lets others use the processor that wait for it.
pub fn step_aside() {
    // SAFETY: No requirements: no lock is held that others need.
    unsafe { bindings::avio_step_aside() }
}

/// Sleeps until `done`, for at most about `limit_ns`; whether it is done. Ends early when the process is killed.
pub fn wait_until(limit_ns: u64, mut done: impl FnMut() -> bool) -> bool {
    const NAP_NS: u64 = 200_000;
    let end = now_ns().saturating_add(limit_ns);
    loop {
        if done() {
            return true;
        }
        // SAFETY: We are in a system call; `done` has left the thread's state as it was.
        if now_ns() >= end || unsafe { bindings::avio_nap_killed(NAP_NS) } {
            return done();
        }
    }
}
