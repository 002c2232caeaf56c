// SPDX-License-Identifier: GPL-2.0

//! Completions: when they are taken, and what becomes of the requests that they are for.

use super::{Queue, Reader};
use crate::counters::{Event, QueueEvent};
use avio_abi::ring::{control, Completion};
use avio_abi::stor::Status;
use avio_core::ring::{is_there, QueueMemory};
use avio_sys::guest::request::{Batch, Command, Request};
use avio_sys::guest::trace;
use core::mem::replace;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// How often a request is sent again because the host lacked memory, because its LUN had changed, or because it was
/// aborted together with others.
const MEMORY_TRIES: u8 = 50;
const ATTENTION_TRIES: u8 = 50;
const ABORT_TRIES: u8 = 5;

/// Why the ring is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Cause {
    /// The device interrupted a processor, perhaps one that had nothing to do.
    Interrupt { idle: bool },
    /// Requests went in; if that took a doorbell, for so many nanoseconds.
    Submission { rang: Option<u64> },
    /// Something else.
    Look,
}

impl Queue {
    /// Where the first completion is that nobody has taken, if there is one.
    pub(super) fn untaken(&self) -> Option<u32> {
        // Our own word; if the device has changed it, we look in the wrong place, once.
        let position = self.raw().load_acquire(control::CQ_HEAD);
        is_there(self.raw(), self.shared.size, position).then_some(position)
    }

    /// Takes the completions that are there, and asks for an interrupt with a later one; how many there were.
    pub(crate) fn reap(&self, cause: Cause) -> u32 {
        // Dropped behind the lock, as it is declared before.
        let mut batch = Batch::new();
        let mut reader = self.reader.lock();
        let mut count = self.take_all(&mut reader, &mut batch);
        reader.taken = reader.taken.saturating_add(count);
        if let Cause::Interrupt { idle } = cause {
            let taken = replace(&mut reader.taken, 0);
            reader.coalescer.interrupted(taken, idle);
        }
        if let Cause::Submission { rang: Some(ns) } = cause {
            reader.linger.rang(ns);
        }
        // An interrupt was asked for when completions were taken last, so that only taking some calls for another.
        let armed = count == 0 && matches!(cause, Cause::Submission { .. });
        if !self.polled && !armed {
            count = count.saturating_add(self.arm(&mut reader, &mut batch));
        }
        self.counters.queue(QueueEvent::Completion, count.into());
        count
    }

    /// Asks for an interrupt with a later completion, and takes those that come until it has; how many there were.
    pub(super) fn arm(&self, reader: &mut Reader, batch: &mut Batch) -> u32 {
        let mut count: u32 = 0;
        let ahead = reader.coalescer.ahead();
        while reader.ring.arm_ahead(self.raw(), ahead) {
            count = count.saturating_add(self.take_all(reader, batch));
        }
        count
    }

    pub(super) fn take_all(&self, reader: &mut Reader, batch: &mut Batch) -> u32 {
        let mut count: u32 = 0;
        while let Some(completion) = reader.ring.take(self.raw()) {
            count = count.saturating_add(1);
            self.finish(completion, batch);
        }
        count
    }

    /// Ends the request that a completion is for.
    fn finish(&self, completion: Completion, batch: &mut Batch) {
        trace::done(&self.shared.device, self.index, &completion);
        let Some(request) = self.requests.take(completion.tag.into()) else {
            if self.reported_stray.xchg(1, Relaxed) == 0 {
                let (index, tag) = (self.index, completion.tag);
                dev_err!(
                    self.shared.device,
                    "queue {index}: a completion for tag {tag}, which is not in flight\n"
                );
            }
            return;
        };
        let (lun, command) = (request.disk(), request.command());
        self.counters
            .answered(lun, command, completion.bytes, completion.status);
        let merges = request.merges();
        if merges != 0 {
            self.counters.lun(lun, Event::Merge, merges);
        }
        let whole = match command {
            Command::Read | Command::Write { .. } => completion.bytes >= request.bytes(),
            _ => true,
        };
        match Status::from_u8(completion.status) {
            Some(Status::Ok) if whole => self.end(request, Ok(()), batch),
            status => {
                let (tries, error) = self.remedy(&request, status);
                match request.retry(tries) {
                    Ok(()) => self.counters.lun(lun, Event::Retry, 1),
                    Err(request) => self.end(request, Err(error), batch),
                }
            }
        }
    }

    /// What is done about a request that was not carried out, or not wholly: how often it is sent again, and the error that
    /// it ends with if that does not help.
    fn remedy(&self, request: &Request, status: Option<Status>) -> (u8, Error) {
        match status {
            Some(Status::Unsupported) => {
                // A backing may offer what it then cannot do, as a loop device over a file of some file systems.
                request.be_quiet();
                (0, EOPNOTSUPP)
            }
            Some(Status::NoSpace) => (0, ENOSPC),
            Some(Status::NoMemory) => (MEMORY_TRIES, EIO),
            Some(Status::Attention) => {
                self.shared.signals.scan();
                (ATTENTION_TRIES, EIO)
            }
            Some(Status::Replaced | Status::BadLun) => {
                self.shared.signals.scan();
                (0, EIO)
            }
            Some(Status::Aborted) => (ABORT_TRIES, ETIMEDOUT),
            _ => (0, EIO),
        }
    }

    /// Ends a request, and counts how long it took.
    fn end(&self, request: Request, result: Result, batch: &mut Batch) {
        if let Some(ns) = request.age(batch) {
            self.counters.took(request.disk(), ns);
        }
        request.complete(result, batch);
    }
}
