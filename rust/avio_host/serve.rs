// SPDX-License-Identifier: GPL-2.0

//! What a queue's worker does: passes over the ring, polls, and sleeps. And what a virtual processor does in its place.

use crate::held::{Again, Held};
use crate::lun::Refused;
use crate::luns::Luns;
use crate::queue::{Queue, Shared};
use crate::submit::{Submitter, Turn};
use avio_abi::ioctl::LATENCY_SAMPLE;
use avio_abi::ring::{control, Broken, Submission};
use avio_abi::stor::Status;
use avio_core::poll::Poll;
use avio_core::ring::{QueueMemory, RingSize, SubmissionReader};
use avio_core::visits::Visits;
use avio_sys::host::{alone, now_ns, step_aside, Batch, More, Serve, Waker};
use core::mem::replace;
use kernel::prelude::*;
use kernel::processor::cpu_relax;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

/// Requests that a worker takes before it lets others run.
const BUDGET: u32 = 256;

/// How often the worker of a broken queue looks whether nothing is in flight any more.
const BROKEN_NS: u64 = 1_000_000;

/// What only the worker uses.
pub(crate) struct Reading {
    reader: SubmissionReader,
    submitter: Submitter,
    held: Held,
    poll: Poll,
    visits: Visits,
    /// The worker has let the guest run since its last pass.
    aside: bool,
    /// The worker has found by polling what its next pass takes.
    polled_for: bool,
    /// Whether the guest was told that the queue is broken.
    told: bool,
}

impl Serve for Queue {
    fn waker(&self) -> &Waker {
        &self.shared().waker
    }

    fn serve(&self, woken_ns: u64) -> More {
        let shared = self.shared();
        let mut reading = self.reading.lock();
        let polled_for = replace(&mut reading.polled_for, false);
        let Some(_pass) = shared.halt.enter() else {
            return More::No;
        };
        shared.rest.end();
        if woken_ns != 0 {
            reading.poll.woke(woken_ns);
        }
        self.listen(&mut reading);
        shared.visits_pay.store(false, Relaxed);
        if shared.is_stopped() {
            return More::No;
        }
        if shared.broken() == 0 {
            shared.counters.passes.add(1);
            let rang = !polled_for && reading.guest_waits(shared);
            let served = self.pass(&mut reading).and_then(|(more, requests)| {
                // The guest has had the processor, or the device takes its time.
                let sure = reading.aside || self.in_flight() != 0;
                reading.aside = false;
                reading.visits.worker_served(requests, rang, sure);
                reading.before_sleep(shared, more)
            });
            match served {
                Ok(more) => {
                    reading.say_who_serves(shared);
                    return more;
                }
                Err(reason) => shared.break_with(reason),
            }
        }
        if reading.told {
            return More::No;
        }
        if self.in_flight() != 0 {
            return More::In(BROKEN_NS);
        }
        reading.told = true;
        shared.tell_broken();
        More::No
    }

    fn rung(&self, by_vcpu: bool) -> bool {
        let shared = self.shared();
        shared.rung_by_vcpu.store(by_vcpu, Relaxed);
        shared.visits_pay.load(Relaxed)
    }

    fn visit(&self) -> bool {
        let shared = self.shared();
        let Some(mut reading) = self.reading.try_lock() else {
            return true;
        };
        let Some(_pass) = shared.halt.enter() else {
            return true;
        };
        if shared.knocked.load(Relaxed) || shared.is_stopped() || shared.broken() != 0 {
            return true;
        }
        shared.rest.end();
        shared.counters.visits.add(1);
        let rang = reading.guest_waits(shared);
        let served = self.pass(&mut reading).and_then(|(more, requests)| {
            reading.visits.ringer_served(requests, rang);
            let taken = reading.reader.position();
            reading.poll.served_elsewhere(taken);
            Ok(more == More::Yes || reading.reader.arm(&*shared.ring)?)
        });
        reading.say_who_serves(shared);
        match served {
            Ok(false) => {
                shared.rest();
                !reading.held.is_empty()
            }
            Ok(true) => true,
            Err(reason) => {
                shared.break_with(reason);
                true
            }
        }
    }
}

impl Queue {
    /// Takes what there is; whether there may be more, and how many requests there were.
    fn pass(&self, reading: &mut Reading) -> Result<(More, u32), Broken> {
        let shared = self.shared();
        let before = reading.reader.position();
        let more = reading.pass(shared, &mut self.bios.batch());
        let after = reading.reader.position();
        reading.reader.publish_head(&*shared.ring);
        shared.position.store(after, Relaxed);
        Ok((more?, after.wrapping_sub(before)))
    }
}

impl Reading {
    pub(crate) fn new(size: RingSize, luns: Arc<Luns>, poll_ns: u32) -> Result<Self> {
        Ok(Self {
            reader: SubmissionReader::new(size),
            submitter: Submitter::new(luns)?,
            held: Held::new(size.entries())?,
            poll: Poll::new(poll_ns),
            visits: Visits::new(),
            aside: false,
            polled_for: false,
            told: false,
        })
    }

    /// A call has changed something: perhaps the LUNs, the polling window, limits, or what is condemned.
    pub(crate) fn look_again(&mut self, luns: Option<Arc<Luns>>, poll_ns: u32) {
        if let Some(luns) = luns {
            self.submitter.luns = luns;
        }
        self.poll.set_most(poll_ns);
        self.held.look_again();
    }

    /// Whether the guest has taken the completions of all that it has sent before.
    fn guest_waits(&self, shared: &Shared) -> bool {
        shared.ring.load_acquire(control::CQ_HEAD) == self.reader.position()
    }

    /// Whether who rings next is to serve.
    fn visits_pay(&self, shared: &Shared) -> bool {
        self.poll.on() && self.visits.pay() && shared.rung_by_vcpu.load(Relaxed)
    }

    fn say_who_serves(&self, shared: &Shared) {
        shared.visits_pay.store(self.visits_pay(shared), Relaxed);
    }

    /// Takes what there is. A single request goes to the device straight away, more of them together.
    fn pass(&mut self, shared: &Shared, batch: &mut Batch<'_, Shared>) -> Result<More, Broken> {
        if self.reader.pending(&*shared.ring)? <= 1 && self.held.is_empty() {
            self.take_all(shared, batch)
        } else {
            batch.plugged(|batch| self.take_all(shared, batch))
        }
    }

    /// Takes requests until there are no more, or the budget is used up.
    fn take_all(&mut self, shared: &Shared, batch: &mut Batch<'_, Shared>) -> Result<More, Broken> {
        if !self.held.is_empty() && self.held.due() <= now_ns() {
            self.retry_held(shared, batch);
        }
        for _ in 0..BUDGET {
            let Some(entry) = self.reader.take(&*shared.ring, || shared.writer.posted())? else {
                return Ok(More::No);
            };
            if self.poll.dry() {
                self.poll.work_came(now_ns());
            }
            self.carry_out(shared, batch, &entry)?;
        }
        Ok(More::Yes)
    }

    fn carry_out(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_, Shared>,
        entry: &Submission,
    ) -> Result<(), Broken> {
        let tag = shared.tag(entry.tag).ok_or(Broken::TagRange)?;
        if !tag.in_flight.claim(entry.lun) {
            return Err(Broken::TagInFlight);
        }
        shared.origin.taken(entry);
        shared.counters.requests.add(1);
        let sampled = self.reader.position() % LATENCY_SAMPLE == 0;
        tag.started
            .store(if sampled { now_ns() } else { 0 }, Relaxed);
        let held = shared.held(u32::from(entry.lun));
        let turn = match held {
            Some(held) if held.load(Relaxed) != 0 => Turn::Behind,
            _ => Turn::Own,
        };
        match self.submitter.submit(shared, batch, entry, turn) {
            Ok(()) => {}
            Err(Refused::With(status)) => self.submitter.end(shared, entry, status),
            Err(Refused::Until(time)) => {
                self.submitter.count_throttled(shared, entry);
                if !self.held.hold(entry, time) {
                    self.submitter.end(shared, entry, Status::NoMemory);
                } else if let Some(held) = held {
                    held.add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Looks at what is held back.
    fn retry_held(&mut self, shared: &Shared, batch: &mut Batch<'_, Shared>) {
        let submitter = &mut self.submitter;
        self.held.retry(|entry, behind| {
            let tag = shared.tag(entry.tag);
            let result = match tag {
                Some(tag) if tag.in_flight.condemned() => Err(Status::Aborted.into()),
                // Looking at more than the first of a LUN would be in vain.
                _ if behind => Err(Refused::Until(u64::MAX)),
                _ => submitter.submit(shared, batch, entry, Turn::Held),
            };
            match result {
                Err(Refused::Until(time)) => return Again::Until(time),
                Err(Refused::With(status)) => {
                    if let Some(held) = shared.held(u32::from(entry.lun)) {
                        held.fetch_sub(1, Relaxed);
                    }
                    submitter.end(shared, entry, status);
                }
                Ok(()) => {}
            }
            Again::Gone
        });
    }

    /// What to do after a pass: polls, asks for a doorbell, and says how long to sleep.
    fn before_sleep(&mut self, shared: &Shared, more: More) -> Result<More, Broken> {
        if more != More::No || self.poll_ring(shared)? || self.reader.arm(&*shared.ring)? {
            return Ok(More::Yes);
        }
        shared.rest();
        if self.held.is_empty() {
            return Ok(More::No);
        }
        Ok(match self.held.due().saturating_sub(now_ns()) {
            0 => More::Yes,
            wait => More::In(wait),
        })
    }

    /// Lets others have the processor for a moment, if that is worth while: the guest may be among them. Whether there is
    /// a request then.
    fn step_aside(&mut self, shared: &Shared) -> Result<bool, Broken> {
        let begun = now_ns();
        if !self.poll.may_step_aside(begun) {
            return Ok(false);
        }
        step_aside();
        let found = self.reader.pending(&*shared.ring)?;
        let now = now_ns();
        shared.counters.asides.add(1);
        shared.counters.asides_found.add((found != 0).into());
        self.aside = true;
        self.poll
            .stepped_aside(now, now.saturating_sub(begun), found);
        Ok(found != 0)
    }

    /// Polls for as long as the policy says; whether there is a request.
    fn poll_ring(&mut self, shared: &Shared) -> Result<bool, Broken> {
        shared.counters.wake_up_ns.set(self.poll.wake_up());
        shared.counters.window_ns.set(self.poll.window());
        if !self.poll.on() {
            return Ok(false);
        }
        if !alone() {
            return Ok(!self.visits_pay(shared) && self.step_aside(shared)?);
        }
        let mut now = now_ns();
        let end = self.poll.ran_dry(now, self.reader.position());
        let end = end.min(self.held.due());
        if now >= end {
            return Ok(false);
        }
        shared.counters.polls.add(1);
        let tell = now.saturating_add(self.poll.patience().into());
        let mut told = None;
        while now < end && alone() && !shared.knocked.load(Relaxed) && !shared.halted() {
            if self.reader.pending(&*shared.ring)? != 0 {
                shared.counters.polls_found.add(1);
                self.polled_for = true;
                return Ok(true);
            }
            cpu_relax();
            now = now_ns();
            // What comes behind that is told as well.
            let posted = shared.writer.posted();
            if now >= tell && told != Some(posted) {
                told = Some(posted);
                shared.rest();
            }
        }
        Ok(false)
    }
}
