// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A request together with all on which it depends whether it is accepted, and as a fuzzer's bytes.

use super::bytes::Bytes;
use avio_abi::ring::{Segment, Submission, MAX_REQUEST_BYTES, MAX_SEGMENTS, SUBMISSION_SIZE};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::wire::Wire;
use avio_core::memory::Run;

/// What a driver asks for, and of whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub lun: LunInfo,
    /// The features that were negotiated.
    pub offered: u64,
    /// Guest memory.
    pub runs: Vec<Run>,
    pub entry: Submission,
    /// The segments where the entry says that its list is.
    pub list: Vec<Segment>,
}

const FLAGS: [u32; 2] = [
    lun_flags::PRESENT,
    lun_flags::PRESENT | lun_flags::READ_ONLY,
];
/// What a LUN of a case can have. What takes no request at all, or none of a kind, is last.
pub const BLOCKS: [u32; 3] = [512, 1024, 4096];
pub const SECTORS: [u64; 6] = [8, 2048, 1 << 40, u64::MAX / 512, u64::MAX, 0];
pub const MAX_BYTES: [u32; 3] = [4096, 65536, MAX_REQUEST_BYTES];
pub const MAX_RANGE: [u32; 3] = [8, u32::MAX, 0];
const GAPS: [u64; 3] = [0, 1, 7];
const WRITABLE: [bool; 3] = [true, true, false];

impl Case {
    /// A case out of a fuzzer's bytes.
    pub fn from_bytes(data: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(data);
        let lun = lun(&mut bytes)?;
        let offered = u64::from(bytes.u8()?);
        let runs = runs(&mut bytes)?;
        let entry = Submission::from_bytes(&bytes.take::<SUBMISSION_SIZE>()?);
        let mut list = Vec::new();
        while let Some((segment, rest)) = Segment::take(bytes.0) {
            bytes.0 = rest;
            list.push(segment);
        }
        Some(Self {
            lun,
            offered,
            runs,
            entry,
            list,
        })
    }

    /// The bytes of which [`from_bytes`](Self::from_bytes) makes this case, if there are any.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let Self { lun, runs, .. } = self;
        let mut data = vec![
            index(&BLOCKS, lun.logical_block)?,
            index(&FLAGS, lun.flags)?,
            index(&SECTORS, lun.sectors)?,
            index(&MAX_BYTES, lun.max_bytes)?,
            index(&[lun.logical_block, 4096], lun.segment_align)?,
            index(&MAX_RANGE, lun.max_discard)?,
            index(&MAX_RANGE, lun.max_secure_erase)?,
            index(&MAX_RANGE, lun.max_write_zeroes)?,
            u8::try_from(self.offered).ok()?,
            runs.len() as u8,
        ];
        let mut next = 0;
        for run in runs {
            data.push(index(&GAPS, run.guest_page.checked_sub(next)?)?);
            data.push(u8::try_from(run.pages - 1).ok()?);
            data.push(index(&WRITABLE, run.writable)?);
            next = run.guest_page + run.pages;
        }
        data.extend(self.entry.to_bytes());
        data.extend(self.list.iter().flat_map(Segment::to_bytes));
        (Self::from_bytes(&data)? == *self).then_some(data)
    }
}

/// Where a value is among these.
fn index<T: PartialEq>(values: &[T], value: T) -> Option<u8> {
    let index = values.iter().position(|other| *other == value)?;
    Some(index as u8)
}

fn lun(bytes: &mut Bytes<'_>) -> Option<LunInfo> {
    let logical_block = bytes.one_of(&BLOCKS)?;
    Some(LunInfo {
        logical_block,
        flags: bytes.one_of(&FLAGS)?,
        sectors: bytes.one_of(&SECTORS)?,
        max_bytes: bytes.one_of(&MAX_BYTES)?,
        segment_align: bytes.one_of(&[logical_block, 4096])?,
        max_discard: bytes.one_of(&MAX_RANGE)?,
        max_secure_erase: bytes.one_of(&MAX_RANGE)?,
        max_write_zeroes: bytes.one_of(&MAX_RANGE)?,
        max_segments: MAX_SEGMENTS,
        ..LunInfo::ZERO
    })
}

/// Runs in order, with holes or without; each in host memory of its own.
fn runs(bytes: &mut Bytes<'_>) -> Option<Vec<Run>> {
    let (mut runs, mut next) = (Vec::new(), 0);
    for index in 0..u64::from(bytes.u8()? % 5) {
        let guest_page = next + bytes.one_of(&GAPS)?;
        let pages = 1 + u64::from(bytes.u8()?);
        let writable = bytes.one_of(&WRITABLE)?;
        next = guest_page + pages;
        runs.push(Run {
            guest_page,
            frame: index << 20,
            pages,
            writable,
        });
    }
    Some(runs)
}
