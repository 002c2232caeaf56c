// SPDX-License-Identifier: GPL-2.0

//! The module's directory in debugfs, where every adapter has a file.

use kernel::debugfs::Dir;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};

kernel::sync::global_lock! {
    // SAFETY: Used only once `READY` says that `install` has initialised it.
    unsafe(uninit) static ROOT: Mutex<Option<Dir>> = None;
}

/// 0 before the lock was initialised, 1 while it is, 2 after.
static READY: Atomic<u32> = Atomic::new(0);

/// The directory. It goes when this is dropped.
pub struct DebugRoot(());

impl DebugRoot {
    /// Makes the directory; once in the life of the module.
    ///
    /// # Errors
    ///
    /// `EBUSY` the second time.
    pub fn install(name: &CStr) -> Result<Self> {
        READY.cmpxchg(0, 1, Full).map_err(|_| EBUSY)?;
        // SAFETY: Only one caller, once, can have moved `READY` on from 0.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Dir::new(name));
        READY.store(2, Release);
        Ok(Self(()))
    }

    /// The directory, while there is one.
    pub fn dir() -> Option<Dir> {
        if READY.load(Acquire) == 2 {
            ROOT.lock().clone()
        } else {
            None
        }
    }
}

impl Drop for DebugRoot {
    fn drop(&mut self) {
        *ROOT.lock() = None;
    }
}
