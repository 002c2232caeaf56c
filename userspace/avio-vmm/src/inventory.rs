// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What is attached to the guest's adapters: the claims on the devices, and what the guest knows of them. It outlives
//! the guest's resets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avio_control::Disk;

use crate::backing::{self, Backing, Number};
use crate::plan;
use crate::state::{self, State};

/// Why disks cannot be attached together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device.
    #[error(transparent)]
    Backing(#[from] backing::Error),
    /// The state file.
    #[error(transparent)]
    State(#[from] state::Error),
    /// One device twice.
    #[error(
        "disk {0} is already LUN {1} of adapter {2}; if the guest is to have it twice, say shared with both"
    )]
    SameDevice(PathBuf, u32, String),
}

/// A LUN.
pub struct Lun {
    /// What was asked for.
    pub disk: Disk,
    /// The device.
    pub backing: Backing,
    /// The device is gone, and may come back.
    pub lost: bool,
}

/// An adapter.
pub struct Adapter {
    /// Its ID.
    pub id: String,
    /// Its queue pairs.
    pub queues: u32,
    /// How long the module's workers poll, if somebody has said.
    pub poll_ns: Option<u32>,
    /// Its LUNs.
    pub luns: BTreeMap<u32, Lun>,
}

/// All adapters.
pub struct Inventory {
    /// In the order of their PCI addresses.
    pub adapters: Vec<Adapter>,
    /// Which backings the guest knows.
    pub state: State,
}

/// The inventory as threads share it. Its lock may be held while a device is opened; no vCPU thread takes it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Inventory>>);

impl Shared {
    /// Shares it.
    pub fn new(inventory: Inventory) -> Self {
        Self(Arc::new(Mutex::new(inventory)))
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, Inventory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lun {
    /// Serial number that the guest is to see.
    pub fn serial(&self) -> &str {
        let own = &self.backing.facts.serial;
        self.disk.serial.as_ref().unwrap_or(own)
    }
}

impl Inventory {
    /// Opens and claims all disks of the plan.
    pub fn open(plan: Vec<plan::Adapter>, state: State) -> Result<Self, Error> {
        let mut inventory = Self {
            adapters: Vec::with_capacity(plan.len()),
            state,
        };
        for adapter in plan {
            inventory.adapters.push(Adapter {
                id: adapter.id,
                queues: adapter.queues,
                poll_ns: None,
                luns: BTreeMap::new(),
            });
            let index = inventory.adapters.len() - 1;
            for (number, disk) in adapter.disks {
                let lun = inventory.open_disk(disk)?;
                inventory.meet(index, number, &lun);
                inventory.adapters[index].luns.insert(number, lun);
            }
        }
        inventory.state.write()?;
        Ok(inventory)
    }

    /// Opens a disk that is not attached yet.
    pub fn open_disk(&self, disk: Disk) -> Result<Lun, Error> {
        let number = backing::number(&disk.path)?;
        if let Some((adapter, lun)) = self.taken(number, disk.shared) {
            return Err(Error::SameDevice(disk.path, lun, adapter.id.clone()));
        }
        Ok(Lun {
            backing: Backing::open(&disk)?,
            disk,
            lost: false,
        })
    }

    /// Where a device is attached already, if that excludes this use of it.
    fn taken(&self, number: Number, shared: bool) -> Option<(&Adapter, u32)> {
        let excludes = |lun: &Lun| {
            let same = lun.backing.number == number && !lun.lost;
            same && !(shared && lun.disk.shared)
        };
        self.adapters.iter().find_map(|adapter| {
            let (lun, _) = adapter.luns.iter().find(|(_, lun)| excludes(lun))?;
            Some((adapter, *lun))
        })
    }

    /// The guest gets a LUN: remembers its backing, if none is remembered for this place. The caller writes the state.
    pub fn meet(&mut self, adapter: usize, number: u32, lun: &Lun) {
        let id = &self.adapters[adapter].id;
        if self.state.known(id, number).is_none() {
            self.state
                .note(id, number, &lun.backing.facts.identity.text);
        }
    }

    /// Whether the guest last knew another backing as this LUN.
    pub fn is_foreign(&self, adapter: usize, number: u32, lun: &Lun) -> bool {
        let known = self.state.known(&self.adapters[adapter].id, number);
        known.is_some_and(|known| known != lun.backing.facts.identity.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::{Facts, Identity};
    use std::fs::File;

    fn lun(minor: u32, identity: &str, shared: bool) -> Lun {
        let facts = Facts {
            identity: Identity {
                text: identity.into(),
                own: true,
            },
            serial: "OWN".into(),
            wwn: [0; 16],
            scsi: false,
            sequence: 1,
            sectors: 8,
        };
        let disk = Disk {
            path: "/dev/x".into(),
            shared,
            ..Disk::default()
        };
        Lun {
            disk,
            backing: Backing {
                file: Arc::new(File::open("/dev/null").unwrap()),
                number: Number { major: 7, minor },
                facts,
            },
            lost: false,
        }
    }

    fn inventory() -> Inventory {
        let adapter = plan::Adapter {
            id: "a".into(),
            queues: 1,
            disks: BTreeMap::new(),
        };
        Inventory::open(vec![adapter], State::volatile()).unwrap()
    }

    #[test]
    fn s12_a_disk_is_foreign_where_the_guest_knows_another() {
        let mut inventory = inventory();
        let (first, second) = (lun(0, "wwn 1", false), lun(1, "wwn 2", false));
        assert!(!inventory.is_foreign(0, 4, &first), "the guest knows none");
        inventory.meet(0, 4, &first);
        inventory.meet(0, 4, &second);
        assert!(!inventory.is_foreign(0, 4, &first));
        assert!(inventory.is_foreign(0, 4, &second));
        assert!(!inventory.is_foreign(0, 5, &second), "another place");
    }

    #[test]
    fn s9_one_device_twice_is_found_unless_both_are_shared() {
        let mut inventory = inventory();
        let luns = &mut inventory.adapters[0].luns;
        luns.insert(3, lun(0, "x", false));
        luns.insert(4, lun(1, "y", true));
        let found = |minor, shared| {
            let number = Number { major: 7, minor };
            inventory.taken(number, shared).map(|(_, number)| number)
        };
        assert_eq!(found(0, true), Some(3));
        assert_eq!(found(1, false), Some(4));
        assert_eq!(found(1, true), None);
        assert_eq!(found(2, false), None);
    }

    #[test]
    fn a_serial_number_that_was_given_hides_the_devices_own() {
        let mut lun = lun(0, "x", false);
        assert_eq!(lun.serial(), "OWN");
        lun.disk.serial = Some("GIVEN".into());
        assert_eq!(lun.serial(), "GIVEN");
    }
}
