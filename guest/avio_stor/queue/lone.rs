// SPDX-License-Identifier: GPL-2.0

//! A request that is sent while no other is in flight: its completion may be looked for before an interrupt is asked for.
//!
//! The device answers while it has the doorbell, or soon, if it is quick. So the ring asks for no interrupt from before the
//! request is shown to the device until its completion was looked for as long as [`Linger`](avio_core::linger::Linger) says.
//! Whoever sends something else meanwhile asks for one at once, as we may be kept from our processor.

use super::{Cause, Queue, Writer};
use crate::counters::QueueEvent;
use avio_abi::ring::control;
use avio_core::ring::{is_there, QueueMemory};
use avio_sys::guest::processor::{alone, now_ns};
use avio_sys::guest::request::Batch;
use kernel::processor::cpu_relax;
use kernel::sync::atomic::{Full, Relaxed};

/// From before a lone request is shown to the device until an interrupt is asked for.
pub(super) struct Lone {
    /// Of its completion.
    position: u32,
    /// How long to look for that, in nanoseconds.
    limit: u32,
}

impl Queue {
    /// Before requests are shown to the device: if it is one, nothing else is in flight, and it is to be waited for, asks for
    /// no interrupt. `waits` is whether the caller can wait.
    pub(super) fn begin_lone(&self, writer: &mut Writer, waits: bool) -> Option<Lone> {
        if !self.shared.coalesce || self.polled {
            return None;
        }
        // Our own word; if the device has changed it, an interrupt comes a little late.
        let position = self.raw().load_acquire(control::CQ_HEAD);
        let lone = writer.ring.position().wrapping_sub(position) == 1;
        if !writer.alone.sends(lone) || !waits {
            return None;
        }
        let mut reader = self.reader.lock();
        let limit = reader.linger.limit(now_ns())?;
        self.quiet.store(1, Relaxed);
        reader.ring.disarm(self.raw());
        Some(Lone { position, limit })
    }

    /// Behind requests that were shown to the device, by somebody who cannot wait: has an interrupt asked for if somebody else
    /// has seen to it that there is none. Not twice for one wait: who is told of a completion here may submit something.
    pub(super) fn end_quiet(&self) {
        if self.quiet.load(Relaxed) != 0 && self.quiet.xchg(0, Full) != 0 {
            self.reap(Cause::Look);
        }
    }

    /// Looks for the completion of the request, takes what is there, and asks for an interrupt with what comes later. Ringing
    /// for it has taken `rang`, if that was needed.
    pub(super) fn end_lone(&self, lone: Lone, rang: Option<u64>) {
        let Lone { position, limit } = lone;
        let there = || is_there(self.raw(), self.shared.size, position);
        let begun = now_ns();
        let end = begun.saturating_add(limit.into());
        let (mut now, mut found) = (begun, there());
        while !found && now < end && alone() {
            cpu_relax();
            found = there();
            now = now_ns();
        }
        // Dropped behind the lock, as it is declared before.
        let mut batch = Batch::new();
        let mut reader = self.reader.lock();
        if let Some(ns) = rang {
            reader.linger.rang(ns);
        }
        let count = self.take_all(&mut reader, &mut batch);
        let ns = now.saturating_sub(begun);
        reader.linger.looked(now, ns, limit, count != 0);
        self.quiet.store(0, Relaxed);
        let late = self.arm(&mut reader, &mut batch);
        // The interrupt that was asked for now has brought nothing yet.
        reader.taken = 0;
        drop(reader);
        self.counters.queue(QueueEvent::Poll, 1);
        self.counters
            .queue(QueueEvent::PollFound, u64::from(count != 0));
        let count = count.saturating_add(late);
        self.counters.queue(QueueEvent::Completion, count.into());
    }
}
