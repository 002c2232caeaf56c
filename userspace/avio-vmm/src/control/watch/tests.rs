// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The search against devices that answer late or never.

use super::*;
use crate::control::commands::tests::guest;
use crate::inventory::tests::{inventory, lun};
use crate::openers::tests::{openers, until, Fifo};
use std::io::Write;

const LUN: Place = (0, 4);

fn lost(device: &Fifo) -> Lun {
    let mut lost = lun(1, "wwn 1", false);
    lost.disk = device.disk();
    lost.lost = true;
    lost
}

fn losing(device: &Fifo) -> Inventory {
    let mut inventory = inventory();
    inventory.adapters[0].luns.insert(LUN.1, lost(device));
    inventory
}

#[test]
fn what_comes_in_the_place_of_a_lost_device_is_opened_once() {
    let (device, openers) = (Fifo::new("lost"), openers());
    let (mut search, inventory) = (Search::default(), losing(&device));
    for _ in 0..2 {
        search.begin(&guest(), &inventory, &openers, LUN);
        search.forget_found(&inventory);
        assert_eq!(search.openings.len(), 1);
    }
    let again = openers.begin(&inventory, &device.disk(), None, For::Command);
    assert!(matches!(again, Err(openers::Error::Opening(_))));
    drop(search);
    device.answers_in_vain();
}

#[test]
fn each_lost_device_gets_its_turn() {
    let (openers, mut inventory, mut search) = (openers(), inventory(), Search::default());
    let new = |n| Fifo::new(&format!("round{n}"));
    let devices: Vec<Fifo> = (0..8).map(new).collect();
    for (number, device) in (0..).zip(&devices) {
        inventory.adapters[0].luns.insert(number, lost(device));
    }
    let all = places(&inventory, |_| true);
    for round in [&devices[..4], &devices[4..], &devices[..4]] {
        all.iter()
            .for_each(|place| search.begin(&guest(), &inventory, &openers, *place));
        round.iter().for_each(|device| drop(device.answers()));
        for place in std::mem::take(&mut search.openings).into_values() {
            assert!(until(|| place.1.take()).is_ok());
        }
        search.next_round(&all);
    }
}

#[test]
fn one_that_hangs_keeps_no_other_from_its_turns() {
    let (openers, mut search) = (openers(), Search::default());
    let [hung, well] = ["turns-hung", "turns-well"].map(Fifo::new);
    let (beside, last) = ((0, 5), (0, 6));
    let mut inventory = losing(&hung);
    for ((_, number), device) in [(beside, &hung), (last, &well)] {
        inventory.adapters[0].luns.insert(number, lost(device));
    }
    search.begin(&guest(), &inventory, &openers, LUN);
    for _ in 0..3 {
        for place in [beside, last] {
            search.begin(&guest(), &inventory, &openers, place);
        }
        drop(well.answers());
        assert!(until(|| search.openings[&last].1.take()).is_ok());
        search.openings.remove(&last);
        search.next_round(&[LUN, beside, last]);
    }
    drop(search);
    hung.answers_in_vain();
}

#[test]
fn one_that_waits_for_another_opening_has_its_turn_behind_it() {
    let (device, openers) = (Fifo::new("behind"), openers());
    let (mut search, mut inventory) = (Search::default(), losing(&device));
    let behind = (0, 5);
    inventory.adapters[0].luns.insert(5, lost(&device));
    for place in [LUN, behind] {
        search.begin(&guest(), &inventory, &openers, place);
    }
    assert!(!search.openings.contains_key(&behind));
    drop(device.answers());
    assert!(until(|| search.openings[&LUN].1.take()).is_ok());
    search.openings.remove(&LUN);
    search.begin(&guest(), &inventory, &openers, behind);
    assert!(search.openings.contains_key(&behind));
    drop(search);
    device.answers_in_vain();
}

#[test]
fn what_nobody_can_be_told_of_is_closed_and_opened_again() {
    let (device, openers) = (Fifo::new("untold"), openers());
    let (mut search, inventory) = (Search::default(), losing(&device));
    for _ in 0..2 {
        search.begin(&guest(), &inventory, &openers, LUN);
        let mut end = device.answers();
        until(|| {
            search.close_ended(LUN);
            search.openings.is_empty().then_some(())
        });
        assert!(end.write_all(b"x").is_err());
    }
}

#[test]
fn what_is_lost_no_more_is_not_looked_for() {
    for exchanged in [false, true] {
        let (device, openers) = (Fifo::new("found"), openers());
        let (mut search, mut inventory) = (Search::default(), losing(&device));
        search.begin(&guest(), &inventory, &openers, LUN);
        let mut now = lun(2, "wwn 2", false);
        now.lost = true;
        match exchanged {
            true => drop(inventory.adapters[0].luns.insert(LUN.1, now)),
            false => lun_at(&mut inventory, LUN).unwrap().lost = false,
        }
        search.forget_found(&inventory);
        assert!(search.openings.is_empty());
        device.answers_in_vain();
    }
}

#[test]
fn of_partitions_and_lost_devices_the_kernel_does_not_tell_all() {
    for (lost, partition) in [(false, false), (true, false), (false, true)] {
        let (guest, mut lun) = (guest(), lun(1, "wwn 1", false));
        (lun.lost, lun.backing.facts.partition) = (lost, partition);
        guest.inventory.lock().adapters[0].luns.insert(LUN.1, lun);
        assert_eq!(any_untold(&guest), lost || partition);
    }
}
