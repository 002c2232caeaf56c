// SPDX-License-Identifier: GPL-2.0

//! The requests that a device has.
//!
//! A driver gets a [`Request`] from the block layer, puts it into the [`InFlight`] table of its hardware queue when
//! the device is told of it, and takes it out by its tag when the device has answered. The device's word alone brings
//! no request into being: a tag that the table does not hold gives nothing, so a stray completion ends nothing twice.

use super::request::Request;
use core::ptr::{null_mut, NonNull};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};

/// The requests in flight of one hardware queue, by tag.
///
/// # Invariants
///
/// A slot is null or holds what [`Request::into_raw`] returned, and is the only one to hold it.
pub struct InFlight(KVec<Atomic<*mut avio_bindings::request>>);

impl InFlight {
    /// A table for tags less than `depth`.
    pub fn new(depth: u32) -> Result<Self> {
        let mut slots = KVec::with_capacity(depth as usize, GFP_KERNEL)?;
        for _ in 0..depth {
            slots.push(Atomic::new(null_mut()), GFP_KERNEL)?;
        }
        Ok(Self(slots))
    }

    /// Puts a request in; gives it back if the table has no free slot for its tag.
    #[inline]
    pub fn insert(&self, request: Request) -> Result<(), Request> {
        match self.0.get(request.tag() as usize) {
            Some(slot) if slot.load(Relaxed).is_null() => {
                // INVARIANT: The slot was null, and nobody else puts in a request with this tag as it is in flight.
                // Release: pairs with the exchange in `take`.
                slot.store(request.into_raw(), Release);
                Ok(())
            }
            _ => Err(request),
        }
    }

    /// Whether a request with this tag is in the table, at this moment.
    pub fn contains(&self, tag: u32) -> bool {
        self.0
            .get(tag as usize)
            .is_some_and(|slot| !slot.load(Relaxed).is_null())
    }

    /// Takes out the request with this tag, if there is one.
    #[inline]
    pub fn take(&self, tag: u32) -> Option<Request> {
        let slot = self.0.get(tag as usize)?;
        let request = NonNull::new(slot.xchg(null_mut(), Acquire))?;
        // SAFETY: By the type invariant it is a request that was put in, and only one taker gets what was in the slot.
        Some(unsafe { Request::from_raw(request) })
    }

    /// Takes out all requests, one after the other.
    pub fn drain(&self) -> impl Iterator<Item = Request> + '_ {
        (0..self.0.len() as u32).filter_map(|tag| self.take(tag))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Ends them as errors. A disk that still exists would keep the table alive, so there should be none.
        self.drain().for_each(drop);
    }
}
