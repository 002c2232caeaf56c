// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A thread that resets SCSI disks when the guest resets their LUNs. A reset may take a minute, and no virtual processor
//! is to wait for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::call;
use crate::inventory::{Place, Shared};

/// Resets that may wait; of more the guest has no use.
const WAITING: usize = 16;

/// How long a LUN's disk is left alone after a reset: a guest is neither to keep it in reset for ever, nor to fill the
/// host's log.
const PAUSE: Duration = Duration::from_secs(10);

/// Which LUNs' disks may be reset. It outlives the guest's own resets, as does a reset that is under way.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<Place, Turn>>);

/// How it stands with a LUN that was reset before.
enum Turn {
    /// Its reset waits or is under way.
    Taken,
    /// When it ended.
    Ended(Instant),
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a LUN's turn, if there is one now.
    fn take(&self, place: Place, now: Instant) -> bool {
        let mut turns = self.lock();
        let free = match turns.get(&place) {
            None => true,
            Some(Turn::Taken) => false,
            Some(Turn::Ended(then)) => now.saturating_duration_since(*then) >= PAUSE,
        };
        if free {
            turns.insert(place, Turn::Taken);
        }
        free
    }

    /// The reset has ended.
    fn end(&self, place: Place, now: Instant) {
        self.lock().insert(place, Turn::Ended(now));
    }

    /// There was no reset.
    fn give_back(&self, place: Place) {
        self.lock().remove(&place);
    }
}

/// Asks for resets of an adapter's LUNs.
#[derive(Clone)]
pub struct Resets {
    adapter: usize,
    turns: Arc<Turns>,
    sender: SyncSender<Place>,
}

/// What was asked for.
pub struct Asked {
    turns: Arc<Turns>,
    receiver: Receiver<Place>,
}

/// A way to ask, for adapter 0, and what was asked that way.
pub fn channel(turns: &Arc<Turns>) -> (Resets, Asked) {
    let (sender, receiver) = sync_channel(WAITING);
    let resets = Resets {
        adapter: 0,
        turns: turns.clone(),
        sender,
    };
    let turns = turns.clone();
    (resets, Asked { turns, receiver })
}

impl Resets {
    /// The same for another adapter.
    pub fn of(&self, adapter: usize) -> Self {
        Self {
            adapter,
            ..self.clone()
        }
    }

    /// Asks for a reset of a LUN's backing, unless it is not its turn or too many wait. Does not wait itself.
    pub fn ask(&self, lun: u32) {
        let place = (self.adapter, lun);
        if !self.turns.take(place, Instant::now()) {
            tracing::debug!(?place, "no SCSI reset: one waits, or was lately");
        } else if self.sender.try_send(place).is_err() {
            self.turns.give_back(place);
            tracing::debug!(?place, "no SCSI reset: too many wait");
        }
    }
}

/// Carries out what is asked for until nobody can ask any more.
pub fn run(asked: &Asked, inventory: &Shared) {
    for place in &asked.receiver {
        let (adapter, lun) = place;
        let disk = {
            let inventory = inventory.lock();
            let found = inventory
                .adapters
                .get(adapter)
                .and_then(|a| a.luns.get(&lun));
            let scsi = found.filter(|lun| lun.backing.facts.scsi);
            scsi.map(|lun| lun.backing.file.clone())
        };
        let Some(disk) = disk else {
            asked.turns.give_back(place);
            continue;
        };
        match call::scsi_reset(&disk) {
            Ok(()) => tracing::debug!(adapter, lun, "SCSI disk is reset"),
            Err(error) => tracing::debug!(adapter, lun, %error, "SCSI disk cannot be reset"),
        }
        asked.turns.end(place, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUN: Place = (0, 3);

    #[test]
    fn a_lun_has_one_turn_at_a_time() {
        let (turns, begun) = (Turns::default(), Instant::now());
        assert!(turns.take(LUN, begun));
        assert!(!turns.take(LUN, begun), "one waits");
        assert!(!turns.take(LUN, begun + 100 * PAUSE), "and still does");
        assert!(turns.take((0, 4), begun), "another LUN");
        assert!(turns.take((1, 3), begun), "another adapter");
    }

    #[test]
    fn between_two_turns_is_a_pause() {
        let (turns, begun) = (Turns::default(), Instant::now());
        assert!(turns.take(LUN, begun));
        let ended = begun + 7 * PAUSE;
        turns.end(LUN, ended);
        assert!(!turns.take(LUN, ended));
        assert!(!turns.take(LUN, ended + PAUSE - Duration::from_nanos(1)));
        assert!(!turns.take(LUN, begun), "time seems to go backwards");
        assert!(turns.take(LUN, ended + PAUSE));
        assert!(!turns.take(LUN, ended + 2 * PAUSE), "it is taken again");
    }

    #[test]
    fn what_was_no_reset_needs_no_pause() {
        let (turns, now) = (Turns::default(), Instant::now());
        assert!(turns.take(LUN, now));
        turns.give_back(LUN);
        assert!(turns.take(LUN, now));
    }

    #[test]
    fn of_what_a_guest_asks_each_lun_waits_once() {
        let turns = Arc::default();
        let (resets, asked) = channel(&turns);
        let other = resets.of(1);
        for _ in 0..3 {
            resets.ask(5);
            other.ask(5);
        }
        let waiting = || asked.receiver.try_iter().collect::<Vec<_>>();
        assert_eq!(waiting(), [(0, 5), (1, 5)]);
        channel(&turns).0.ask(5);
        resets.ask(5);
        assert!(waiting().is_empty(), "the next machine has the same turns");
    }

    #[test]
    fn who_finds_too_many_waiting_may_ask_again() {
        let (resets, asked) = channel(&Arc::default());
        let waiting = || asked.receiver.try_iter().count();
        let more = WAITING as u32 + 1;
        (0..more).for_each(|lun| resets.ask(lun));
        assert_eq!(waiting(), WAITING);
        (0..more).for_each(|lun| resets.ask(lun));
        assert_eq!(waiting(), 1);
    }
}
