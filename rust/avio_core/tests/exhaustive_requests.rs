// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Every case of small size: requests at every boundary of a LUN against whole numbers, and cuts into bios.

#![cfg(not(loom))]

use avio_abi::stor::{lun_flags, LunInfo, Status};
use avio_abi::wire::Wire;
use avio_abi::{MAX_QUEUE_SIZE, MIN_QUEUE_SIZE};
use avio_core::cut::{bio_part, Piece};
use avio_core::request::{Command, Layout, Request};
use avio_core::ring::RingSize;

#[test]
fn r1_every_position_has_its_slot_inside_the_ring() {
    let mut legal = 0;
    for entries in 0..=2 * MAX_QUEUE_SIZE {
        let right =
            entries.is_power_of_two() && (MIN_QUEUE_SIZE..=MAX_QUEUE_SIZE).contains(&entries);
        let size = RingSize::new(entries);
        assert_eq!(size.is_some(), right, "{entries}");
        let Some(size) = size else { continue };
        legal += 1;
        for start in [0, 1 << 31, 0u32.wrapping_sub(3 * entries)] {
            for position in (0..4 * entries).map(|more| start.wrapping_add(more)) {
                assert!(size.slot(position) < entries);
                let next = position.wrapping_add(1);
                let wraps = size.slot(next) == 0;
                assert!(wraps || size.slot(next) == size.slot(position) + 1);
                let turned = size.phase(next) != size.phase(position);
                assert_eq!(turned, wraps, "the phase turns with the round");
            }
        }
    }
    assert_eq!(legal, 10);
}

/// Numbers of sectors at which something may go wrong.
fn boundaries(capacity: u64) -> Vec<u64> {
    let mut all = vec![0, 1, 7, 8, 9, 1 << 32, 1 << 54, 1 << 55, 1 << 63];
    for edge in [capacity, u64::from(u32::MAX), u64::MAX] {
        for by in [1, 2, 8, 9] {
            all.extend([edge.wrapping_sub(by), edge.wrapping_add(by)]);
        }
        all.push(edge);
    }
    all
}

#[test]
fn s1_s5_every_range_is_accepted_exactly_when_it_is_inside_and_whole() {
    let mut accepted = 0;
    for capacity in [1, 8, 1000, 1 << 40, u64::MAX / 512, u64::MAX] {
        for logical_block in [512, 1024, 4096] {
            for most in [0, 1, 8, u32::MAX] {
                let lun = LunInfo {
                    flags: lun_flags::PRESENT,
                    logical_block,
                    sectors: capacity,
                    max_discard: most,
                    ..LunInfo::ZERO
                };
                let block = u64::from(logical_block) / 512;
                for sector in boundaries(capacity) {
                    for sectors in boundaries(capacity) {
                        let request = Request {
                            command: Command::Discard,
                            lun: 0,
                            sector,
                            layout: Layout::Range(sectors),
                        };
                        let end = u128::from(sector) + u128::from(sectors);
                        let whole = sector % block == 0 && sectors % block == 0;
                        let right = (1..=u64::from(most)).contains(&sectors)
                            && whole
                            && end <= u128::from(capacity);
                        let wanted = match (most, right) {
                            (0, _) => Err(Status::Unsupported),
                            (_, true) => Ok(sectors as u32),
                            (_, false) => Err(Status::OutOfRange),
                        };
                        let found = request.check(0, &lun);
                        assert_eq!(found, wanted, "{sector:#x} + {sectors:#x} of {capacity:#x}");
                        accepted += u32::from(right);
                    }
                }
            }
        }
    }
    assert!(accepted > 1000, "{accepted} were accepted");
}

#[test]
fn s6_every_cut_of_few_pieces_is_whole_blocks_and_loses_nothing() {
    let lens = [512u32, 1024, 3584, 4096, 4608];
    let mut cuts = 0;
    for count in 1..=5u32 {
        for choice in 0..5u32.pow(count) {
            let len = |index: u32| lens[(choice / 5u32.pow(index) % 5) as usize];
            let piece = |index| Piece {
                frame: u64::from(index) * 16,
                offset: 512,
                len: len(index),
            };
            let pieces: Vec<_> = (0..count).map(piece).collect();
            let total: u32 = pieces.iter().map(|piece| piece.len).sum();
            for block in [512, 1024, 4096]
                .into_iter()
                .filter(|block| total % block == 0)
            {
                for most in 1..=5 {
                    let Some((used, excess)) = bio_part(&pieces, most, block) else {
                        // Not even one block fits into so many pieces.
                        let room: u32 = pieces[..most].iter().map(|piece| piece.len).sum();
                        assert!(room < block, "{pieces:?}, at most {most}");
                        continue;
                    };
                    assert!((1..=most).contains(&used) && used <= pieces.len());
                    let last = pieces[used - 1];
                    assert!(excess < last.len, "the last piece is used");
                    let sum: u32 = pieces[..used].iter().map(|piece| piece.len).sum();
                    assert_eq!((sum - excess) % block, 0, "{pieces:?}, at most {most}");
                    let rest = last.tail(last.len - excess);
                    assert_eq!(rest.len, excess);
                    let at = |piece: Piece| piece.frame * 4096 + u64::from(piece.offset);
                    assert_eq!(at(rest), at(last) + u64::from(last.len - excess));
                    cuts += 1;
                }
            }
        }
    }
    assert!(cuts > 10_000, "{cuts} cuts");
}
