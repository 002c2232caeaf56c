// SPDX-License-Identifier: GPL-2.0

//! One request, from its entry to the block layer.

use crate::counters::{Kind, LunCounters};
use crate::lun::{heed, Lun, Refused};
use crate::luns::Luns;
use crate::queue::Shared;
use avio_abi::ring::{Segment, Submission, MAX_SEGMENTS};
use avio_abi::stor::Status;
use avio_abi::wire::Wire;
use avio_core::request::{Command, Layout, Request};
use avio_core::segments::Segments;
use avio_sys::host::{Batch, Op};
use kernel::alloc::KVVec;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

/// Where a request stands among those of its LUN that are held back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There are none.
    Own,
    /// It is behind them: it is checked, and waits as well.
    Behind,
    /// It is the first of them.
    Held,
}

/// What a worker needs to carry out requests.
pub(crate) struct Submitter {
    pub(crate) luns: Arc<Luns>,
    /// A private copy of a request's segment list.
    list: KVVec<u8>,
}

impl Submitter {
    pub(crate) fn new(luns: Arc<Luns>) -> Result<Self> {
        let list = KVVec::zeroed(MAX_SEGMENTS as usize * Segment::SIZE, GFP_KERNEL_ACCOUNT)?;
        Ok(Self { luns, list })
    }

    fn counters(&self, shared: &Shared, entry: &Submission) -> Option<&LunCounters> {
        self.luns
            .get(u32::from(entry.lun))?
            .disk
            .lane(shared.number)
    }

    /// Ends a request that never reached the block layer.
    pub(crate) fn end(&self, shared: &Shared, entry: &Submission, status: Status) {
        if let Some(counters) = self.counters(shared, entry) {
            counters.ended(status);
        }
        shared.complete(entry.tag, status, 0);
    }

    /// Counts a request that has to wait.
    pub(crate) fn count_throttled(&self, shared: &Shared, entry: &Submission) {
        if let Some(counters) = self.counters(shared, entry) {
            counters.throttled.add(1);
        }
    }

    /// Submits the request of an entry whose tag was claimed, in the order of checks that abi.md 6.4 gives.
    pub(crate) fn submit(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_, Shared>,
        entry: &Submission,
        turn: Turn,
    ) -> Result<(), Refused> {
        let request = Request::parse(entry, shared.features)?;
        let lun = self
            .luns
            .get(u32::from(request.lun))
            .ok_or(Status::BadLun)?;
        // It counts as in flight before the flags are read: see `Disk::enter`.
        let entered = lun.disk.enter(shared.number).ok_or(Status::IoError)?;
        let heed = lun.disk.heed();
        if heed != 0 {
            lun.disk.may_go_on(heed)?;
        }
        let bytes = gather(&mut self.list, batch, &request, lun, entry)?;
        let sectors = request.check(bytes, &lun.info)?;
        if turn == Turn::Behind {
            return Err(Refused::Until(u64::MAX));
        }
        if heed & heed::LIMITED != 0 {
            lun.disk.within_limits(bytes)?;
        }
        let (op, kind) = op_of(request.command, sectors);
        if let Some(tag) = shared.tag(entry.tag) {
            tag.bytes.store(bytes, Relaxed);
            tag.kind.store(kind as u32, Relaxed);
        }
        // It may have ended before `submit` returns, and is not to count as held back then.
        let held = shared.held(u32::from(entry.lun));
        let held = held.filter(|_| turn == Turn::Held);
        held.inspect(|held| {
            held.fetch_sub(1, Relaxed);
        });
        shared.origin.submitted(entry.tag, bytes);
        batch
            .submit(u32::from(entry.tag), entered, op, request.sector)
            .map_err(|_| {
                held.inspect(|held| held.add(1, Relaxed));
                Status::IoError.into()
            })
    }
}

/// What the block layer is to do.
fn op_of(command: Command, sectors: u32) -> (Op, Kind) {
    match command {
        Command::Read => (Op::Read, Kind::Read),
        Command::Write { fua } => (Op::Write { fua }, Kind::Write),
        Command::Flush => (Op::Flush, Kind::Flush),
        Command::Discard => (Op::Discard(sectors), Kind::Range),
        Command::SecureErase => (Op::SecureErase(sectors), Kind::Range),
        Command::WriteZeroes { keep } => (Op::WriteZeroes { sectors, keep }, Kind::Range),
    }
}

/// Translates all segments of a request and returns their length. A list is copied to `list` first.
fn gather(
    list: &mut [u8],
    batch: &mut Batch<'_, Shared>,
    request: &Request,
    lun: &Lun,
    entry: &Submission,
) -> Result<u32, Status> {
    let mut segments = Segments::new(request.command, &lun.info);
    let mut add = |batch: &mut Batch<'_, Shared>, segment: &Segment| {
        let (addr, len) = segments.add(segment)?;
        batch
            .gather(addr, len, request.command.access())
            .map_err(|_| Status::BadAddress)
    };
    batch.clear();
    match request.layout {
        Layout::Range(_) => {}
        Layout::Inline(count) => {
            for segment in entry.inline.iter().take(count) {
                add(batch, segment)?;
            }
        }
        Layout::List { addr, bytes, .. } => {
            let list = list.get_mut(..bytes as usize).ok_or(Status::BadSegments)?;
            batch
                .memory()
                .copy_from_guest(addr, list)
                .map_err(|_| Status::BadAddress)?;
            let mut rest: &[u8] = list;
            while let Some((segment, behind)) = Segment::take(rest) {
                add(batch, &segment)?;
                rest = behind;
            }
        }
    }
    Ok(segments.bytes())
}
