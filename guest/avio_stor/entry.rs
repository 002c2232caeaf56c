// SPDX-License-Identifier: GPL-2.0

//! From a request of the block layer to a submission entry.

use crate::lists::Lists;
use avio_abi::ring::{segment_flags, Segment, Submission, INLINE_SEGMENTS};
use avio_abi::stor::{flags, opcode};
use avio_abi::wire::Wire;
use avio_abi::SECTOR_SIZE;
use avio_sys::guest::request::{Command, Request, Run};
use kernel::prelude::*;

/// The entry for a request. Its list, if it needs one, is written.
pub(crate) fn describe(request: &Request, lists: &Lists) -> Result<Submission> {
    let tag = u16::try_from(request.tag())?;
    let entry = |opcode, flags| Submission {
        opcode,
        flags,
        tag,
        lun: request.disk(),
        sector: request.sector(),
        ..Submission::ZERO
    };
    match request.command() {
        Command::Read => transfer(
            request,
            lists,
            entry(opcode::READ, 0),
            segment_flags::DEVICE_WRITES,
        ),
        Command::Write { fua } => {
            let flags = if fua { flags::FUA } else { 0 };
            transfer(request, lists, entry(opcode::WRITE, flags), 0)
        }
        Command::Flush => Ok(Submission {
            sector: 0,
            ..entry(opcode::FLUSH, 0)
        }),
        Command::Discard => Ok(range(request, entry(opcode::DISCARD, 0))),
        Command::SecureErase => Ok(range(request, entry(opcode::SECURE_ERASE, 0))),
        Command::WriteZeroes { keep } => {
            let flags = if keep { flags::KEEP } else { 0 };
            Ok(range(request, entry(opcode::WRITE_ZEROES, flags)))
        }
        Command::Other => Err(EOPNOTSUPP),
    }
}

/// With the number of sectors, for a command that moves no data.
fn range(request: &Request, mut entry: Submission) -> Submission {
    let [first, ..] = &mut entry.inline;
    first.addr = u64::from(request.bytes()) / SECTOR_SIZE;
    entry
}

/// With the segments of its data.
fn transfer(
    request: &Request,
    lists: &Lists,
    mut entry: Submission,
    direction: u32,
) -> Result<Submission> {
    let mut segments = request.runs().map(|Run { addr, len }| Segment {
        addr,
        len,
        flags: direction,
    });
    if request.max_runs() > INLINE_SEGMENTS {
        let (addr, count) = lists.fill(request.tag(), segments)?;
        let [first, ..] = &mut entry.inline;
        *first = Segment {
            addr,
            len: u32::from(count).wrapping_mul(Segment::SIZE as u32),
            flags: segment_flags::LIST,
        };
        entry.segments = count;
        return Ok(entry);
    }
    for (to, from) in entry.inline.iter_mut().zip(&mut segments) {
        *to = from;
        entry.segments = entry.segments.wrapping_add(1);
    }
    match segments.next() {
        None => Ok(entry),
        Some(_) => Err(EIO),
    }
}
