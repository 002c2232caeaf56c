// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Queues whose interrupts ring doorbells, their own among them.

use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use anyhow::{ensure, Result};
use avio_abi::ioctl::SetQueue;
use avio_abi::stor::Status;

pub const TESTS: &[Test] = &[
    ("c2_interrupt_that_is_its_own_doorbell", |env| {
        circular(env, 1)
    }),
    ("c2_interrupts_that_are_each_others_doorbells", |env| {
        circular(env, 2)
    }),
];

/// Serves requests on so many queues, the interrupt of each of which is the doorbell of the next.
fn circular(env: &Env, queues: usize) -> Result<Outcome> {
    const ROUNDS: u64 = 100;
    let mut guest = Guest::prepare(&env.device, &PLAIN)?;
    guest.make_queues(queues as u32, 8)?;
    guest.adapter.set_features(1, guest.features)?;
    for (index, queue) in guest.queues.iter().enumerate() {
        let next = guest.queues[(index + 1) % queues].description();
        guest.adapter.set_queue(&SetQueue {
            call_fd: next.kick_fd,
            ..queue.description()
        })?;
    }
    guest.adapter.start(queues as u32)?;

    let len = guest.block();
    for round in 0..ROUNDS {
        guest.fill(DATA, 0, len, round);
        for index in 0..queues {
            for entry in [write(0, 0, &[(DATA, len)]), read(1, 0, &[(BACK, len)])] {
                let queue = &mut guest.queues[index];
                // Each completion raises the interrupt.
                let early = queue.collect.arm(&queue.view, 0);
                ensure!(!early, "a completion of nothing");
                queue.go(&[entry])?;
                let status = queue.look()?.status;
                ensure!(status == Status::Ok as u8, "status {status}");
            }
            guest.verify(BACK, 0, len, round)?;
        }
    }
    // Once all is answered, nobody rings any more.
    let doorbells = || -> Result<Vec<u64>> {
        let count = |index| Ok(guest.adapter.queue(index as u32)?.doorbells);
        (0..queues).map(count).collect()
    };
    wait_for("no doorbell rings any more", || {
        let before = doorbells()?;
        std::thread::sleep(SILENCE);
        Ok(doorbells()? == before)
    })?;
    for index in 0..queues as u32 {
        let interrupts = guest.adapter.queue(index)?.interrupts;
        // We look at the ring, and may have asked for the next one before the host sees that we wanted this one.
        ensure!(
            interrupts >= ROUNDS / 10,
            "queue {index} raised {interrupts} interrupts"
        );
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{:?} doorbells", doorbells()?)))
}
