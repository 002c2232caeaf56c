// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What becomes of the backing devices, and the guest's knowledge of them. All goes by how things are now, so that no
//! message that is lost or late can mislead.

use std::collections::{BTreeMap, BTreeSet};

use avio_abi::pci::state;

use super::Guest;
use crate::backend;
use crate::backing::{Backing, Facts, Look, Mark};
use crate::hba::Hba;
use crate::inventory::{self, Inventory, Lun, Place};
use crate::openers::{self, For, Openers, Opening, Outcome};

/// Why the guest could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module's reason.
    #[error(transparent)]
    Module(#[from] backend::Error),
    /// What the guest knows could not be written down.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// What came back cannot be the LUN.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
}

/// Looks at the backings of some LUNs, and tells the guest what is new.
pub fn look(guest: &Guest, which: impl Fn(&Lun) -> bool) {
    let mut inventory = guest.inventory.lock();
    for place in places(&inventory, |lun| !lun.lost && which(lun)) {
        report(look_at(guest, &mut inventory, place));
    }
}

/// Looks at the partitions that were resized. Where nobody can be told now, all are looked at later.
pub fn look_at_partitions(guest: &Guest) {
    let mut inventory = guest.inventory.lock();
    for place in places(&inventory, |lun| !lun.lost && lun.backing.is_resized()) {
        if can_be_told(guest, place) {
            report(look_at(guest, &mut inventory, place));
        }
    }
}

/// Looks at one LUN's backing, and has the module do so, which sees more than sysfs tells. If the module cannot be told,
/// since it is stopping, nothing is noted either, and the next look finds the same.
pub fn look_at(guest: &Guest, inventory: &mut Inventory, place: Place) -> Result<(), Error> {
    let (hba, Some(lun)) = (&guest.hbas[place.0], lun_at(inventory, place)) else {
        return Ok(());
    };
    match lun.backing.look() {
        Look::Here(facts) => here(hba, inventory, place, facts),
        Look::Gone if !lun.lost => {
            if hba.has(place.1) {
                hba.update(place.1, true, None)?;
            }
            lun.lost = true;
            tracing::warn!(
                "{} is gone; LUN {} waits for it",
                lun.disk.path.display(),
                place.1
            );
            Ok(())
        }
        Look::Gone => Ok(()),
    }
}

/// The search for what came in the place of lost devices: each has an opening at most, which may take as long as it likes.
#[derive(Default)]
pub struct Search {
    openings: BTreeMap<Place, (Option<Mark>, Opening)>,
    /// Those that have had their turn.
    tried: BTreeSet<Place>,
    /// Those that wait for another opening of their disk, and have their turn behind it.
    barred: BTreeSet<Place>,
}

impl Search {
    /// Looks whether lost devices have come back themselves; those that have not get another turn when each has had one.
    pub fn look(&mut self, guest: &Guest) {
        let mut inventory = guest.inventory.lock();
        let mut lost = places(&inventory, |lun| lun.lost);
        lost.retain(|place| can_be_told(guest, *place));
        for place in &lost {
            report(look_at(guest, &mut inventory, *place));
        }
        self.next_round(&lost);
    }

    /// There are fewer threads than there may be lost devices: those that could not have one go before the others. Nobody
    /// waits for those that hang.
    fn next_round(&mut self, lost: &[Place]) {
        let had = |place| {
            let waits = self.openings.contains_key(place) || self.barred.contains(place);
            waits || self.tried.contains(place)
        };
        if lost.iter().all(had) {
            self.tried.clear();
        }
    }

    /// Opens what is there in the place of lost devices, and takes up what is open. Of an adapter that cannot be told now, at
    /// another time.
    pub fn go_on(&mut self, guest: &Guest, openers: &Openers) {
        let mut inventory = guest.inventory.lock();
        self.forget_found(&inventory);
        for place in places(&inventory, |lun| lun.lost) {
            if !can_be_told(guest, place) {
                self.close_ended(place);
                continue;
            }
            match self.openings.get(&place).map(|(_, opening)| opening.take()) {
                None => self.begin(guest, &inventory, openers, place),
                Some(None) => {}
                Some(Some(outcome)) => {
                    self.openings.remove(&place);
                    report(found(guest, &mut inventory, place, outcome));
                }
            }
        }
    }

    /// Closes a device that nobody can be told of now: its claim would keep others from it. It is opened again.
    fn close_ended(&mut self, place: Place) {
        let opening = self.openings.get(&place).map(|(_, opening)| opening);
        if opening.and_then(Opening::take).is_some() {
            self.openings.remove(&place);
            self.tried.remove(&place);
        }
    }

    /// Gives up what is opened for LUNs that are lost no more, or are others.
    fn forget_found(&mut self, inventory: &Inventory) {
        let lost = places(inventory, |lun| lun.lost);
        self.openings
            .retain(|place, (mark, _)| lost.contains(place) && inventory.mark(*place) == *mark);
    }

    fn begin(&mut self, guest: &Guest, inventory: &Inventory, openers: &Openers, place: Place) {
        let Some(lun) = inventory.adapters[place.0].luns.get(&place.1) else {
            return;
        };
        self.barred.remove(&place);
        if self.tried.contains(&place) {
            return;
        }
        // If it is there itself, and only the module has it no more, it has to be written back first.
        let missing = guest.hbas.get(place.0).is_some_and(|hba| !hba.has(place.1));
        let open = match missing.then(|| lun.backing.look()) {
            Some(Look::Here(facts)) => Some(Backing {
                facts,
                ..lun.backing.clone()
            }),
            _ => None,
        };
        match openers.begin(inventory, &lun.disk, open.as_ref(), For::Lost) {
            Ok(opening) => {
                let mark = Some(lun.backing.mark());
                self.openings.insert(place, (mark, opening));
            }
            // When others have ended.
            Err(openers::Error::Full(..)) => return,
            Err(openers::Error::Opening(_)) => {
                self.barred.insert(place);
                return;
            }
            Err(error) => tracing::trace!("{}", crate::error_chain(&error)),
        }
        self.tried.insert(place);
    }
}

/// Whether an adapter takes changes of its LUNs now.
fn can_be_told(guest: &Guest, place: Place) -> bool {
    let hba = &guest.hbas[place.0];
    !hba.is_quiesced() && hba.registers().state() != state::STOPPING
}

/// What was opened in the place of a lost device.
fn found(
    guest: &Guest,
    inventory: &mut Inventory,
    place: Place,
    outcome: Outcome,
) -> Result<(), Error> {
    let Some(disk) = lun_at(inventory, place).map(|lun| lun.disk.clone()) else {
        return Ok(());
    };
    match outcome {
        Ok(backing) if backing.facts.sectors != 0 => {
            let found = inventory.adopt(place, disk, backing)?;
            come_back(&guest.hbas[place.0], inventory, place, found)?;
        }
        Ok(_) => {}
        Err(error) => tracing::trace!("{}", crate::error_chain(&error)),
    }
    Ok(())
}

/// Whether any device is lost, or is a partition, of which the kernel does not tell all.
pub fn any_untold(guest: &Guest) -> bool {
    let untold = |lun: &Lun| lun.lost || lun.backing.facts.partition;
    !places(&guest.inventory.lock(), untold).is_empty()
}

/// The guest knows every backing that it may use.
pub fn remember_gates(guest: &Guest) {
    let mut inventory = guest.inventory.lock();
    for place in places(&inventory, |_| true) {
        let Some(lun) = inventory.adapters[place.0].luns.get(&place.1) else {
            continue;
        };
        if inventory.is_foreign(place.0, place.1, lun) && guest.hbas[place.0].is_open(place.1) {
            let identity = lun.backing.facts.identity.text.clone();
            know(&mut inventory, place, &identity);
        }
    }
}

/// A device is there, and may be new in some way. If the module has it no more, the search has it written back, and attached.
fn here(hba: &Hba, inventory: &mut Inventory, place: Place, facts: Facts) -> Result<(), Error> {
    if !hba.has(place.1) {
        if let Some(lun) = lun_at(inventory, place) {
            lun.lost = true;
        }
        return Ok(());
    }
    let adapter = &mut inventory.adapters[place.0];
    let known = inventory.state.known(&adapter.id, place.1);
    let Some(lun) = adapter.luns.get_mut(&place.1) else {
        return Ok(());
    };
    let before = &lun.backing.facts;
    let was_known = known == Some(&before.identity.text);
    let another_medium = facts.sequence != before.sequence;
    let foreign = known != Some(&facts.identity.text) || !facts.identity.own;
    if another_medium && foreign {
        inventory.doubt(place, &facts)?;
    }
    let Some(lun) = lun_at(inventory, place) else {
        return Ok(());
    };
    let before = std::mem::replace(&mut lun.backing.facts, facts.clone());
    let told = hba.update(place.1, false, another_medium.then_some(foreign));
    if let Err(error) = told {
        lun.backing.facts = before;
        return Err(error.into());
    }
    lun.lost = false;
    // The same disk, which only looks different: it has another size, or its image another name.
    if !another_medium && was_known {
        know(inventory, place, &facts.identity.text);
    }
    Ok(())
}

/// A device is there under the name of a lost one, or the lost one itself.
fn come_back(hba: &Hba, inventory: &mut Inventory, place: Place, found: Lun) -> Result<(), Error> {
    let foreign = inventory.is_another(place, &found);
    if foreign {
        inventory.doubt(place, &found.backing.facts)?;
    }
    if hba.has(place.1) {
        hba.replace(place.1, None, &found, foreign, true)?;
    } else {
        hba.attach(place.1, &found, foreign)?;
    }
    tracing::warn!(
        "{} is back{}",
        found.disk.path.display(),
        if foreign {
            " as another disk; the LUN's gate is closed"
        } else {
            ""
        }
    );
    if !foreign {
        know(inventory, place, &found.backing.facts.identity.text);
    }
    inventory.adapters[place.0].luns.insert(place.1, found);
    Ok(())
}

/// From now on the guest knows this one.
pub fn know(inventory: &mut Inventory, place: Place, identity: &str) {
    let id = inventory.adapters[place.0].id.clone();
    if let Err(error) = inventory.state.know(&id, place.1, identity) {
        tracing::warn!("{}", crate::error_chain(&error));
    }
}

fn places(inventory: &Inventory, which: impl Fn(&Lun) -> bool) -> Vec<Place> {
    let mut places = Vec::new();
    for (index, adapter) in inventory.adapters.iter().enumerate() {
        let some = adapter.luns.iter().filter(|(_, lun)| which(lun));
        places.extend(some.map(|(number, _)| (index, *number)));
    }
    places
}

fn lun_at(inventory: &mut Inventory, place: Place) -> Option<&mut Lun> {
    inventory.adapters.get_mut(place.0)?.luns.get_mut(&place.1)
}

fn report(result: Result<(), Error>) {
    match result {
        // Somebody keeps writing to it; it is tried again.
        Err(Error::Module(error)) if error.is_dirty() => {
            tracing::debug!("{}", crate::error_chain(&error));
        }
        Err(error) => tracing::warn!("{}", crate::error_chain(&error)),
        Ok(()) => {}
    }
}

#[cfg(test)]
mod tests;
