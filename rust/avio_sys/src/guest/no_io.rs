// SPDX-License-Identifier: GPL-2.0

//! Allocations that wait for no block device.

use core::ffi::c_uint;
use core::marker::PhantomData;

/// While this lives, no allocation of the current thread writes anything out to get memory: for code without which I/O
/// cannot go on. They may be nested.
pub struct NoIo {
    before: c_uint,
    /// It is this thread's.
    _thread: PhantomData<*mut ()>,
}

impl NoIo {
    /// From now on.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            // SAFETY: Changes a flag of the current thread only.
            before: unsafe { avio_bindings::avio_noio_save() },
            _thread: PhantomData,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: In the same thread, as this cannot be sent to another, with what the call at the beginning returned.
        unsafe { avio_bindings::avio_noio_restore(self.before) };
    }
}
