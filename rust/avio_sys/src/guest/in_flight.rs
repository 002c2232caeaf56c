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

/// A place for a request.
struct Slot {
    /// Null if there is none.
    request: Atomic<*mut avio_bindings::request>,
    /// The [`disk`](Request::disk) of the request, or of the last one.
    disk: Atomic<u32>,
}

/// The requests in flight of one hardware queue, by tag.
///
/// # Invariants
///
/// A slot's request is null, or what [`Request::into_raw`] returned, and the slot is the only one to hold it.
pub struct InFlight(KVec<Slot>);

impl InFlight {
    /// A table for tags less than `depth`.
    pub fn new(depth: u32) -> Result<Self> {
        let mut slots = KVec::with_capacity(depth as usize, GFP_KERNEL)?;
        for _ in 0..depth {
            let slot = Slot {
                request: Atomic::new(null_mut()),
                disk: Atomic::new(0),
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        Ok(Self(slots))
    }

    /// Puts a request in; gives it back if the table has no free slot for its tag.
    #[inline]
    pub fn insert(&self, request: Request) -> Result<(), Request> {
        match self.0.get(request.tag() as usize) {
            Some(slot) if slot.request.load(Relaxed).is_null() => {
                slot.disk.store(request.disk().into(), Relaxed);
                // INVARIANT: The slot was null, and nobody else puts in a request with this tag as it is in flight.
                // Release: pairs with the exchange in `take`.
                slot.request.store(request.into_raw(), Release);
                Ok(())
            }
            _ => Err(request),
        }
    }

    /// Whether a request with this tag is in the table, at this moment.
    pub fn contains(&self, tag: u32) -> bool {
        self.0
            .get(tag as usize)
            .is_some_and(|slot| !slot.request.load(Relaxed).is_null())
    }

    /// How many requests of a disk, or of all, are in the table, more or less at this moment.
    pub fn count(&self, disk: Option<u16>) -> u64 {
        let asked = |slot: &&Slot| {
            disk.is_none_or(|disk| slot.disk.load(Relaxed) == disk.into())
                && !slot.request.load(Relaxed).is_null()
        };
        self.0.iter().filter(asked).count() as u64
    }

    /// Takes out the request with this tag, if there is one.
    #[inline]
    pub fn take(&self, tag: u32) -> Option<Request> {
        let slot = self.0.get(tag as usize)?;
        let request = NonNull::new(slot.request.xchg(null_mut(), Acquire))?;
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
