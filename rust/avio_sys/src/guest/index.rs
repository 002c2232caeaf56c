// SPDX-License-Identifier: GPL-2.0

//! Numbers for disks and adapters, from which their names are made.

use kernel::error::to_result;
use kernel::prelude::*;

/// What is numbered. The values are those of the shim.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Disks.
    Disk = 0,
    /// Adapters.
    Adapter = 1,
}

/// A number that no other of its kind has.
///
/// # Invariants
///
/// The number came from the shim's allocator and is not in use elsewhere.
pub struct Index(Kind, u32);

impl Index {
    /// The lowest free number.
    pub fn new(kind: Kind) -> Result<Self> {
        // SAFETY: The allocators are initialised statically, one for each kind.
        let index = unsafe { avio_bindings::avio_index_get(kind as u32) };
        to_result(index)?;
        // INVARIANT: Just allocated. Not negative, as it is no error.
        Ok(Self(kind, index as u32))
    }

    /// The number.
    pub fn get(&self) -> u32 {
        self.1
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the number was allocated, and it is given back once.
        unsafe { avio_bindings::avio_index_put(self.0 as u32, self.1) };
    }
}
