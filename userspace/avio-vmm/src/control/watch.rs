// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What becomes of the backing devices, and the guest's knowledge of them. All goes by how things are now, so that no
//! message that is lost or late can mislead.

use super::Guest;
use crate::backend;
use crate::backing::{Facts, Look};
use crate::hba::Hba;
use crate::inventory::{Inventory, Lun, Place};
use avio_abi::pci::state;

/// Why the guest could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module's reason.
    #[error(transparent)]
    Module(#[from] backend::Error),
    /// What the guest knows could not be written down.
    #[error(transparent)]
    State(#[from] crate::state::Error),
}

/// Looks at the backings of some LUNs, and tells the guest what is new.
pub fn look(guest: &Guest, which: impl Fn(&Lun) -> bool) {
    let mut inventory = guest.inventory.lock();
    for place in places(&inventory, |lun| !lun.lost && which(lun)) {
        report(look_at(guest, &mut inventory, place));
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

/// Looks whether lost devices have come back: the device itself, or another in its place. Of an adapter that cannot be
/// told now, at another time.
pub fn look_for_lost(guest: &Guest) {
    let mut inventory = guest.inventory.lock();
    for place in places(&inventory, |lun| lun.lost) {
        let hba = &guest.hbas[place.0];
        if hba.is_quiesced() || hba.registers().state() == state::STOPPING {
            continue;
        }
        report(look_at(guest, &mut inventory, place));
        let Some(lun) = lun_at(&mut inventory, place).filter(|lun| lun.lost) else {
            continue;
        };
        let disk = lun.disk.clone();
        match inventory.open_disk(place, disk) {
            Ok(found) if found.backing.facts.sectors != 0 => {
                report(come_back(hba, &mut inventory, place, found));
            }
            Ok(_) => {}
            Err(error) => tracing::trace!("{}", crate::error_chain(&error)),
        }
    }
}

/// Whether any device is lost.
pub fn any_lost(guest: &Guest) -> bool {
    !places(&guest.inventory.lock(), |lun| lun.lost).is_empty()
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

/// A device is there, and may be new in some way.
fn here(hba: &Hba, inventory: &mut Inventory, place: Place, facts: Facts) -> Result<(), Error> {
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
    let told = if hba.has(place.1) {
        hba.update(place.1, false, another_medium.then_some(foreign))
    } else {
        let gated = if another_medium { foreign } else { !was_known };
        hba.attach(place.1, lun, gated)
    };
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

/// Another device is there under the name of a lost one.
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
    if let Err(error) = result {
        tracing::warn!("{}", crate::error_chain(&error));
    }
}
