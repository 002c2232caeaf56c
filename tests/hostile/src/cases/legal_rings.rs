// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Odd but legal use of rings, tags and interrupts, which must work.

use crate::adapter::Adapter;
use crate::backing::NullBlk;
use crate::counts;
use crate::guest::queue::QueueView;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::stor::Status;
use avio_core::ring::{is_there, RingSize};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("legal_tags_in_any_order", tags),
    ("legal_full_ring", full_ring),
    ("legal_rings_wrap", wrap),
    ("legal_smallest_and_largest_ring", ring_sizes),
    ("legal_coalesced_interrupts", coalesced),
    ("legal_interrupts_before_the_device_rests", before_rest),
    ("legal_several_queues", queues),
    ("legal_as_many_queues_as_there_can_be", most_queues),
    ("legal_rings_cross_regions", crossing),
];

/// Blocks that [`laid_down`] lays down.
const BLOCKS: u32 = 64;

/// A guest with a ring of this size, on a disk that holds what [`batch`] reads.
fn laid_down(env: &Env, size: u32) -> Result<Guest> {
    let mut guest = Guest::start(env, &Config { size, ..PLAIN })?;
    let len = BLOCKS * guest.block();
    guest.store(0, 0, len, 85)?;
    Ok(guest)
}

/// All at once, reads of one block each, of different blocks to different pages, verified.
fn batch(guest: &mut Guest, tags: &[u16]) -> Result<()> {
    let block = guest.block();
    let step = u64::from(block) / 512;
    let place = |index: usize| DATA + index as u64 * 4096;
    let sector = |index: usize| index as u64 % u64::from(BLOCKS) * step;
    let reads: Vec<_> = tags
        .iter()
        .enumerate()
        .map(|(index, tag)| read(*tag, sector(index), &[(place(index), block)]))
        .collect();
    let answers = guest.queue().all(&reads)?;
    let right = answers.iter().all(|status| *status == Status::Ok);
    ensure!(right, "{answers:?}");
    (0..tags.len()).try_for_each(|index| guest.verify(place(index), sector(index), block, 85))
}

fn tags(env: &Env) -> Result<Outcome> {
    let mut guest = laid_down(env, 8)?;
    let (short, long) = ([7, 0, 6, 1], [7, 6, 5, 4, 3, 2, 1, 0]);
    for order in [&short[..], &[3], &[5, 4, 3, 2, 1, 0], &[2, 7], &long] {
        batch(&mut guest, order)?;
    }
    pass()
}

fn full_ring(env: &Env) -> Result<Outcome> {
    let mut guest = laid_down(env, 64)?;
    let tags: Vec<u16> = (0..64).collect();
    (0..10).try_for_each(|_| batch(&mut guest, &tags))?;
    pass()
}

fn wrap(env: &Env) -> Result<Outcome> {
    for size in [2, 4, 8] {
        let mut guest = laid_down(env, size)?;
        for round in 0..40u32 {
            let tag = |index| ((index + round) % size) as u16;
            let tags: Vec<u16> = (0..=round % size).map(tag).collect();
            let done = batch(&mut guest, &tags);
            done.with_context(|| format!("ring of {size}, round {round}"))?;
        }
    }
    pass()
}

fn ring_sizes(env: &Env) -> Result<Outcome> {
    let largest = Adapter::open()?.info()?.max_queue_size;
    for size in [2, largest] {
        let mut guest = laid_down(env, size)?;
        // Tags from the upper end.
        let tags: Vec<u16> = (0..size as u16).rev().take(300).collect();
        (0..8).try_for_each(|_| batch(&mut guest, &tags))?;
    }
    Ok(Outcome::Pass(format!("2 and {largest}")))
}

fn coalesced(env: &Env) -> Result<Outcome> {
    let mut guest = laid_down(env, 8)?;
    for round in 0..200u32 {
        let count = round % 8 + 1;
        let queue = guest.queue();
        (0..count).for_each(|tag| queue.push(&read(tag as u16, 0, &[(DATA, 4096)])));
        queue.publish()?;
        let mut left = count;
        while left > 0 {
            // One interrupt, with the last of them.
            if !queue.collect.arm(&queue.view, left - 1) {
                let came = queue.interrupt(Instant::now() + PATIENCE)?;
                ensure!(
                    came,
                    "round {round}: no interrupt, {left} of {count} to come"
                );
            }
            while let Some(completion) = queue.collect.take(&queue.view) {
                let status = completion.status;
                ensure!(status == Status::Ok as u8, "status {status}");
                left -= 1;
            }
        }
    }
    let status = guest.adapter.queue(0)?;
    let (requests, interrupts) = (status.requests, status.interrupts);
    Ok(Outcome::Pass(format!(
        "{requests} requests, {interrupts} interrupts"
    )))
}

/// Asks as far ahead as can be, of a device whose worker sleeps when the only completion comes: it interrupts all the same. But
/// not whom it need not tell.
fn before_rest(_: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[("irqmode", "2"), ("completion_nsec", "20000000")])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    guest.adapter.set_poll(0)?;
    let (adapter, queue) = (&guest.adapter, &mut guest.queues[0]);
    let one = read(0, 0, &[(DATA, 4096)]);
    for round in 0..20 {
        queue.push(&one);
        queue.publish()?;
        while queue.collect.take(&queue.view).is_none() {
            if !queue.collect.arm_ahead(&queue.view, PLAIN.size) {
                let came = queue.interrupt(Instant::now() + PATIENCE)?;
                ensure!(came, "round {round}: no interrupt before it rests");
            }
        }
    }
    // Who looks before it asks leaves its interrupt.
    let at_rest = |queue: &Queue| {
        wait_for("nothing in flight", || Ok(adapter.queue(0)?.in_flight == 0))?;
        counts::looks(0, || queue.kick())?;
        queue.interrupts()
    };
    for round in 0..3 {
        let before = at_rest(queue)?;
        queue.collect.disarm(&queue.view);
        queue.push(&one);
        queue.publish()?;
        let position = queue.collect.position();
        wait_for("the completion", || {
            Ok(is_there(&queue.view, queue.view.size, position))
        })?;
        let after = at_rest(queue)?;
        let what = "an interrupt that nobody asked for";
        ensure!(after == before, "round {round}: {what}");
        let there = queue.collect.arm_ahead(&queue.view, PLAIN.size);
        ensure!(there, "round {round}: what is there is not seen");
        ensure!(queue.collect.take(&queue.view).is_some(), "nothing to take");
    }
    pass()
}

fn queues(env: &Env) -> Result<Outcome> {
    let queues = Adapter::open()?.info()?.max_queues.min(4);
    let mut guest = Guest::start(env, &Config { queues, ..PLAIN })?;
    for round in 0..10 {
        let mut each = (0..queues as usize).rev();
        each.try_for_each(|queue| guest.works(queue, round))?;
    }
    for queue in 0..queues {
        let requests = guest.adapter.queue(queue)?.requests;
        ensure!(
            requests == 20,
            "queue {queue} counts {requests} requests instead of 20"
        );
    }
    Ok(Outcome::Pass(format!("{queues} queues")))
}

fn most_queues(env: &Env) -> Result<Outcome> {
    let guest = Guest::prepare(&env.device, &PLAIN)?;
    let most = guest.adapter.info()?.max_queues;
    let size = RingSize::new(2).context("ring size")?;
    let queue = |index| Queue::new(&guest.mapping, index, size);
    let mut queues = (0..most).map(queue).collect::<Result<Vec<_>>>()?;
    guest.adapter.set_features(1, guest.features)?;
    for queue in &queues {
        guest.adapter.set_queue(&queue.description())?;
    }
    guest.adapter.start(most)?;
    // The rings lie where other guests have their data; these have theirs in the other region.
    let block = guest.block();
    let step = u64::from(block);
    for round in 0..4 {
        let there = |queue: &Queue| (NEXT + 2 * step * u64::from(queue.index), block);
        let back = |queue: &Queue| (there(queue).0 + step, block);
        let sector = |queue: &Queue| u64::from(queue.index) * step / 512;
        for queue in &mut queues {
            guest.fill(there(queue).0, sector(queue), block, round);
            queue.go(&[write(0, sector(queue), &[there(queue)])])?;
        }
        for queue in &mut queues {
            let answers = queue.answers(&[0])?;
            ensure!(answers == [Status::Ok], "{answers:?}");
            queue.go(&[read(1, sector(queue), &[back(queue)])])?;
        }
        for queue in &mut queues {
            let answers = queue.answers(&[1])?;
            ensure!(answers == [Status::Ok], "{answers:?}");
            guest.verify(back(queue).0, sector(queue), block, round)?;
        }
    }
    for queue in &queues {
        let requests = guest.adapter.queue(queue.index)?.requests;
        let index = queue.index;
        ensure!(requests == 8, "queue {index} counts {requests} requests");
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{most} queues")))
}

fn crossing(env: &Env) -> Result<Outcome> {
    type Move = fn(&mut QueueView);
    // Half of one of them lies in either region.
    let places: [(&str, Move); 3] = [
        ("submissions", |view| view.submissions = NEXT - 32 * 64),
        ("completions", |view| view.completions = NEXT - 32 * 8),
        ("control", |view| view.control = NEXT - 64),
    ];
    for (what, place) in places {
        let mut guest = Guest::prepare(&env.device, &PLAIN)?;
        guest.make_queues(1, 64)?;
        place(&mut guest.queue().view);
        guest.adapter.set_features(1, guest.features)?;
        let description = guest.queue().description();
        guest.adapter.set_queue(&description).context(what)?;
        guest.adapter.start(1).context(what)?;
        let len = BLOCKS * guest.block();
        guest.store(0, 0, len, 85).context(what)?;
        let tags: Vec<u16> = (0..64).collect();
        (0..4)
            .try_for_each(|_| batch(&mut guest, &tags))
            .context(what)?;
        guest.canaries().context(what)?;
    }
    pass()
}
