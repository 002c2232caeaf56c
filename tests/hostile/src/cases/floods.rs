// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! One guest asks for as much as it can; the others must not notice, and the host's log must not fill.

use crate::backing::{linear, Mapped, NullBlk};
use crate::bystander::STALL;
use crate::guest::*;
use crate::kernel_log::logged;
use crate::run::{Env, Outcome, Test};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ring::{control, Submission};
use avio_abi::stor::Status;
use avio_core::ring::QueueMemory;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("r11_endless_doorbells", doorbells),
    ("r11_ring_refilled_as_fast_as_it_is_drained", refilled),
    (
        "r11_completions_do_not_starve_submissions",
        completions_beside_submissions,
    ),
    ("t1_a_flood_does_not_starve_others", starved),
    ("t1_a_flood_gets_no_more_than_its_queues_share", equals),
    ("t2_malformed_requests_do_not_fill_the_log", log),
    ("t2_failing_requests_do_not_fill_the_log", failures),
];

fn doorbells(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let until = Instant::now() + Duration::from_millis(1500);
    let mut kicks = 0u64;
    while Instant::now() < until {
        for _ in 0..1000 {
            guest.queue().kick()?;
        }
        kicks += 1000;
        let other = guest.works(1, kicks);
        other.context("the other queue under a flood of doorbells")?;
    }
    guest.works(0, 12)?;
    let broken = guest.adapter.queue(0)?.broken;
    ensure!(broken == 0, "doorbells alone broke the queue");
    Ok(Outcome::Pass(format!("{kicks} doorbells")))
}

/// Does `one` thing so often, and on until a flood has had something done as well: whoever is quick may come to its end within
/// one turn of its own.
fn repeat_beside(done: &AtomicU64, times: u64, one: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let before = done.load(Ordering::Relaxed);
    (0..)
        .take_while(|round| *round < times || done.load(Ordering::Relaxed) == before)
        .try_for_each(one)
}

/// Keeps a queue full: puts each request in again as soon as its answer is there. Returns when `stop` says so and all
/// is answered.
fn keep_full(
    queue: &mut Queue,
    entry: Submission,
    done: &AtomicU64,
    stop: impl Fn() -> bool,
) -> Result<()> {
    let entries = queue.view.size.entries() as u16;
    (0..entries).for_each(|tag| queue.push(&Submission { tag, ..entry }));
    queue.publish()?;
    let mut open = entries;
    while open > 0 {
        let tag = queue.completion()?.tag;
        done.fetch_add(1, Ordering::Relaxed);
        if stop() {
            open -= 1;
        } else {
            queue.push(&Submission { tag, ..entry });
            queue.publish()?;
        }
    }
    Ok(())
}

/// A guest that floods.
const FLOODING: Config<'_> = Config {
    queues: 4,
    size: 1024,
    ..PLAIN
};

/// A flood is under way that has had so many done. Its rings hold more than a worker's turn from the beginning.
const BEGUN: u64 = 64;

/// A guest of whose queues one floods.
const TWO_LARGE_QUEUES: Config<'_> = Config {
    queues: 2,
    ..FLOODING
};

/// Runs `work` while every queue of a guest with large rings is kept full of requests; how many the guest has had done
/// meanwhile. `work` is told how many that are so far.
fn beside_flood(
    env: &Env,
    entry: Submission,
    work: impl FnOnce(&AtomicU64) -> Result<()>,
) -> Result<u64> {
    let mut guest = Guest::start(env, &FLOODING)?;
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let meanwhile = std::thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        let floods: Vec<_> = guest
            .queues
            .iter_mut()
            .map(|queue| {
                let stop = || stop.load(Ordering::Relaxed);
                scope.spawn(move || keep_full(queue, entry, done, stop))
            })
            .collect();
        let under_way = wait_for("the flood", || Ok(done.load(Ordering::Relaxed) > BEGUN));
        let before = done.load(Ordering::Relaxed);
        let result = under_way.and_then(|()| work(done));
        let meanwhile = done.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.join().expect("flood")?;
        }
        result.map(|()| meanwhile)
    })?;
    guest.works(0, 220)?;
    Ok(meanwhile)
}

fn refilled(env: &Env) -> Result<Outcome> {
    // What fails at once never leaves the worker, so that it is the worker that must give way.
    let failing = read(0, 0, &[]);
    let bystander = |_: &AtomicU64| (0..5).try_for_each(|_| env.bystander.goes_on());
    let meanwhile = beside_flood(env, failing, bystander)?;
    Ok(Outcome::Pass(format!(
        "{meanwhile} requests failed meanwhile"
    )))
}

fn completions_beside_submissions(env: &Env) -> Result<Outcome> {
    const REQUESTS: u64 = 200;
    let mut guest = Guest::start(env, &TWO_LARGE_QUEUES)?;
    let block = guest.block();
    let mut counts = Vec::new();
    // Completions from the worker itself, and from wherever a device is done.
    for entry in [read(0, 0, &[]), read(0, 0, &[(DATA, block)])] {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let (flooded, other) = guest.queues.split_at_mut(1);
        let meanwhile = std::thread::scope(|scope| {
            let (stop, done) = (&stop, &done);
            let flood = scope.spawn(|| {
                keep_full(&mut flooded[0], entry, done, || {
                    stop.load(Ordering::Relaxed)
                })
            });
            let under_way = wait_for("the flood", || Ok(done.load(Ordering::Relaxed) > BEGUN));
            let before = done.load(Ordering::Relaxed);
            let one = |round| {
                let sector = round % REQUESTS * u64::from(block) / 512;
                other[0].ok(&write(0, sector, &[(BACK, block)]))
            };
            let result = under_way.and_then(|()| repeat_beside(done, REQUESTS, one));
            let meanwhile = done.load(Ordering::Relaxed) - before;
            stop.store(true, Ordering::Relaxed);
            flood.join().expect("flood")?;
            result.map(|()| meanwhile)
        })?;
        counts.push(meanwhile);
    }
    guest.works(0, 222)?;
    guest.works(1, 223)?;
    Ok(Outcome::Pass(format!(
        "{counts:?} completions against {REQUESTS} submissions"
    )))
}

/// The longest wait that counts: others may have taken the processor from whoever waits, but not time and again.
fn longest<T: Ord + Copy>(mut waits: Vec<T>) -> T {
    const SPOILT: usize = 3;
    waits.sort_unstable();
    waits[waits.len() - SPOILT]
}

/// How long one small read of a guest's takes.
fn time_of_one(guest: &mut Guest) -> Result<Duration> {
    let began = Instant::now();
    guest.queue().ok(&read(0, 0, &[(DATA, 4096)]))?;
    Ok(began.elapsed())
}

/// The others must not starve. How many of the flood's requests are done meanwhile says nothing of that, as each wake-up of
/// the victim's may have to wait for a time slice of the flood's, and how much fits into one is a matter of the machine.
fn starved(env: &Env) -> Result<Outcome> {
    const REQUESTS: u64 = 200;
    let mut victim = Guest::simple(env)?;
    let large = [(DATA, 65536); 3];
    let floods = [
        ("small reads", read(0, 0, &[(DATA, 4096)])),
        ("large reads", read(0, 0, &large)),
        ("flushes", flush(0)),
    ];
    let alone = (0..REQUESTS).map(|_| time_of_one(&mut victim));
    let alone = longest(alone.collect::<Result<_>>()?);
    let mut counts = vec![format!("{alone:.0?} for one alone")];
    for (what, flood) in floods {
        let mut times = Vec::new();
        let one = |_| {
            times.push(time_of_one(&mut victim)?);
            Ok(())
        };
        let work = |done: &AtomicU64| repeat_beside(done, REQUESTS, one);
        let meanwhile = beside_flood(env, flood, work)?;
        let time = longest(times);
        let count = format!("{meanwhile} {what} against {REQUESTS}, {time:.0?} for one of these");
        ensure!(time < STALL, "{count}");
        counts.push(count);
    }
    Ok(Outcome::Pass(counts.join("; ")))
}

/// A guest that asks for as much as one queue of the flood gets as much: to the kernel the workers are equals.
fn equals(env: &Env) -> Result<Outcome> {
    const REQUESTS: u64 = 5000;
    // Many time slices.
    const SPAN: Duration = Duration::from_secs(1);
    // Processors need not have the same number of workers.
    const MOST: u64 = 3;
    // Somebody else may want a processor all that time.
    const TRIES: u32 = 3;
    let full = Config {
        queues: 1,
        ..FLOODING
    };
    let mut victim = Guest::start(env, &full)?;
    let (entry, queues) = (read(0, 0, &[(DATA, 4096)]), u64::from(FLOODING.queues));
    let mut counts = Vec::new();
    for _ in 0..TRIES {
        let done = AtomicU64::new(0);
        let work = |_: &AtomicU64| {
            let began = Instant::now();
            let enough = || done.load(Ordering::Relaxed) >= REQUESTS && began.elapsed() >= SPAN;
            keep_full(victim.queue(), entry, &done, enough)
        };
        let meanwhile = beside_flood(env, entry, work)?;
        let own = done.into_inner();
        counts.push(format!(
            "{meanwhile} on {queues} queues of the flood against {own}"
        ));
        if meanwhile <= MOST * queues * own {
            return Ok(Outcome::Pass(counts.join("; ")));
        }
    }
    bail!("{}", counts.join("; "))
}

fn log(env: &Env) -> Result<Outcome> {
    const MOST: usize = 20;
    let mut guest = Guest::simple(env)?;
    let bad = [
        read(0, 0, &[]),
        read(0, u64::MAX, &[(DATA, 4096)]),
        read(0, 0, &[(0, 4096)]),
        read(0, 0, &[(DATA, 4096)]).on(77),
        read(0, 0, &[(DATA, 1)]),
        flush(0).flagged(0xff),
        list(4, 0, 64),
        list(300, 0, 64),
    ];
    let tagged = |(tag, entry)| Submission { tag, ..entry };
    let bad: Vec<_> = (0..).zip(bad).map(tagged).collect();
    let mut lines = logged(|| {
        for _ in 0..500 {
            guest.queue().all(&bad)?;
        }
        for _ in 0..50 {
            guest
                .queue()
                .view
                .store_release(control::SQ_TAIL, 0x8000_0000);
            guest.queue().kick()?;
            guest.broken(0, avio_abi::ring::Broken::SubmissionIndex)?;
            guest.restart()?;
        }
        let adapter = &guest.adapter;
        for _ in 0..200 {
            let refused = [
                adapter.start(1).is_err(),
                adapter.set_memory(&[]).is_err(),
                adapter.add_lun(0, -1, 0).is_err(),
                adapter.remove_lun(7, 0).is_err(),
            ];
            ensure!(refused == [true; 4], "a bad call was accepted: {refused:?}");
        }
        Ok(())
    })?;
    at_most(5 * MOST, &lines).context("of all lines")?;
    // Others may have more to say.
    lines.retain(|line| line.contains("avio"));
    let count = at_most(MOST, &lines)?;
    guest.works(0, 221)?;
    Ok(Outcome::Pass(count))
}

fn at_most(most: usize, lines: &[String]) -> Result<String> {
    let (first, count) = (lines.first().map_or("", String::as_str), lines.len());
    let first = first.trim();
    ensure!(
        count <= most,
        "{count} lines in the kernel's log, the first: {first}"
    );
    Ok(format!("{count} lines in the kernel's log"))
}

/// What the block layer says of each is its own; that it says little of many is what counts.
fn failures(_env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 500;
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let half = NullBlk::SECTORS / 2;
    // Neither the guest nor the module knows of this.
    device.load(&linear(&disk, half))?;
    let tags: Vec<u16> = (0..8).collect();
    let past = |request: fn(u16, u64, &[(u64, u32)]) -> Submission| {
        let at = |tag: &u16| request(*tag, half + 64 * u64::from(*tag), &[(DATA, 4096)]);
        tags.iter().map(at).collect::<Vec<_>>()
    };
    let (reads, writes) = (past(read), past(write));
    let began = Instant::now();
    let lines = logged(|| {
        for _ in 0..ROUNDS / 2 {
            for entries in [&reads, &writes] {
                let answers = guest.queue().all(entries)?;
                ensure!(answers == [Status::IoError; 8], "{answers:?}");
            }
        }
        Ok(())
    })?;
    // The block layer lets through ten of a kind, and a line that tells of the others, in five seconds.
    let spans = began.elapsed().as_secs() as usize / 5;
    let count = at_most(ROUNDS / 10 + 11 * spans, &lines)?;
    guest.works(0, 224)?;
    Ok(Outcome::Pass(format!(
        "{count} for {} requests",
        8 * ROUNDS
    )))
}
