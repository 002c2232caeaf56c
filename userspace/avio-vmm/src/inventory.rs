// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What is attached to the guest's adapters: the claims on the devices, and what the guest knows of them. It outlives
//! the guest's resets.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avio_control::Disk;

use crate::backing::{self, Backing, Facts, Look, Mark, Number};
use crate::cgroups::{self, Cgroups};
use crate::plan;
use crate::resets::Turns;
use crate::state::{self, State};

/// Why disks cannot be attached together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device.
    #[error(transparent)]
    Backing(#[from] backing::Error),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroups::Error),
    /// A weight, and no cgroups.
    #[error("a weight needs cgroups; start avio-vmm with --cgroup")]
    NoCgroups,
    /// The state file.
    #[error(transparent)]
    State(#[from] state::Error),
    /// One device twice.
    #[error(
        "disk {0} is already LUN {1} of adapter {2}; if the guest is to have it twice, say shared with both"
    )]
    SameDevice(PathBuf, u32, String),
}

/// Where a LUN is: index of the adapter, number.
pub type Place = (usize, u32);

/// A LUN.
pub struct Lun {
    /// What was asked for.
    pub disk: Disk,
    /// The device.
    pub backing: Backing,
    /// The directory of its cgroup, if the guest has cgroups.
    pub cgroup: Option<Arc<File>>,
    /// The device is gone, and may come back.
    pub lost: bool,
}

/// An adapter.
pub struct Adapter {
    /// Its ID.
    pub id: String,
    /// Its queue pairs.
    pub queues: u32,
    /// Its weight among the adapters.
    pub weight: Option<u32>,
    /// Features that it does without.
    pub without: u64,
    /// How long the module's workers poll, if somebody has said.
    pub poll_ns: Option<u32>,
    /// Its LUNs.
    pub luns: BTreeMap<u32, Lun>,
}

/// All adapters.
pub struct Inventory {
    /// In the order of their PCI addresses.
    pub adapters: Vec<Adapter>,
    /// Those of the adapters and LUNs, if there are any.
    pub cgroups: Option<Arc<Cgroups>>,
    /// Which backings the guest knows.
    pub state: State,
    /// Which LUNs' disks may be reset.
    pub turns: Arc<Turns>,
}

/// The inventory as threads share it. While the guest runs, nobody waits for a device to be opened or written back with its
/// lock; for what else may wait see docs/vmm.md, 4. No vCPU thread takes it.
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
    /// Opens and claims all disks of the plan, and makes what cgroups they need.
    pub fn open(
        plan: Vec<plan::Adapter>,
        state: State,
        cgroups: Option<Arc<Cgroups>>,
    ) -> Result<Self, Error> {
        let mut inventory = Self {
            adapters: Vec::with_capacity(plan.len()),
            cgroups,
            state,
            turns: Arc::default(),
        };
        for adapter in plan {
            if let Some(cgroups) = &inventory.cgroups {
                cgroups.make_adapter(&adapter.id, adapter.weight)?;
            }
            inventory.adapters.push(Adapter {
                id: adapter.id,
                queues: adapter.queues,
                weight: adapter.weight,
                without: adapter.without,
                poll_ns: None,
                luns: BTreeMap::new(),
            });
            let index = inventory.adapters.len() - 1;
            for (number, disk) in adapter.disks {
                let lun = inventory.open_disk((index, number), disk)?;
                inventory.meet(index, number, &lun);
                inventory.adapters[index].luns.insert(number, lun);
            }
        }
        inventory.state.write()?;
        Ok(inventory)
    }

    /// Opens a disk that is not attached yet, to be the LUN in this place.
    fn open_disk(&self, place: Place, disk: Disk) -> Result<Lun, Error> {
        let number = backing::number(&disk.path)?;
        self.check(&disk, number)?;
        let backing = Backing::open(&disk, number)?;
        self.make(place, disk, backing)
    }

    /// Whether the device of this number can be one more LUN.
    pub fn check(&self, disk: &Disk, number: Number) -> Result<(), Error> {
        if let Some((adapter, lun)) = self.taken(number, disk.shared) {
            let path = disk.path.clone();
            return Err(Error::SameDevice(path, lun, adapter.id.clone()));
        }
        if disk.weight.is_some() && self.cgroups.is_none() {
            return Err(Error::NoCgroups);
        }
        Ok(())
    }

    /// Makes an open disk what is to be the LUN in this place. Since it was begun to open, others may have come, and what was
    /// told of the disk went to nobody, so that it is looked at once more.
    pub fn adopt(&self, place: Place, disk: Disk, backing: Backing) -> Result<Lun, Error> {
        self.check(&disk, backing.number)?;
        match backing.look() {
            Look::Here(facts) => self.make(place, disk, Backing { facts, ..backing }),
            Look::Gone => Err(backing::Error::Gone(disk.path).into()),
        }
    }

    fn make(&self, place: Place, disk: Disk, backing: Backing) -> Result<Lun, Error> {
        let id = &self.adapters[place.0].id;
        let make = |cgroups: &Arc<Cgroups>| cgroups.make_lun(id, place.1, disk.weight);
        let cgroup = self.cgroups.as_ref().map(make).transpose()?;
        Ok(Lun {
            backing,
            cgroup,
            disk,
            lost: false,
        })
    }

    /// A LUN was not exchanged, or is no more: its cgroup is as the LUN is that is now there.
    pub fn settle_cgroup(&self, place: Place) {
        let Some(cgroups) = &self.cgroups else { return };
        let adapter = &self.adapters[place.0];
        match adapter.luns.get(&place.1) {
            Some(lun) => {
                let result = cgroups.weigh_lun(&adapter.id, place.1, lun.disk.weight);
                if let Err(error) = result {
                    tracing::warn!("{}", crate::error_chain(&error));
                }
            }
            None => cgroups.remove_lun(&adapter.id, place.1),
        }
    }

    /// Sets the weight of a LUN, or of an adapter.
    pub fn weigh(&mut self, index: usize, lun: Option<u32>, weight: u32) -> Result<(), Error> {
        let cgroups = self.cgroups.as_ref().ok_or(Error::NoCgroups)?;
        let adapter = &mut self.adapters[index];
        match lun {
            None => {
                cgroups.weigh_adapter(&adapter.id, Some(weight))?;
                adapter.weight = Some(weight);
            }
            Some(number) => {
                cgroups.weigh_lun(&adapter.id, number, Some(weight))?;
                if let Some(lun) = adapter.luns.get_mut(&number) {
                    lun.disk.weight = Some(weight);
                }
            }
        }
        Ok(())
    }

    /// The mark of a LUN's backing.
    pub fn mark(&self, place: Place) -> Option<Mark> {
        let lun = self.adapters.get(place.0)?.luns.get(&place.1)?;
        Some(lun.backing.mark())
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

    /// The guest gets a LUN: remembers its backing, if none is remembered for this place, and whether that was so. The
    /// caller writes the state.
    pub fn meet(&mut self, adapter: usize, number: u32, lun: &Lun) -> bool {
        let id = &self.adapters[adapter].id;
        let new = self.state.known(id, number).is_none();
        if new {
            self.state
                .note(id, number, &lun.backing.facts.identity.text);
        }
        new
    }

    /// Whether the guest last knew another backing as this LUN.
    pub fn is_foreign(&self, adapter: usize, number: u32, lun: &Lun) -> bool {
        let known = self.state.known(&self.adapters[adapter].id, number);
        known.is_some_and(|known| known != lun.backing.facts.identity.text)
    }

    /// The same for what takes the place of a LUN's backing: one without a name of its own is another as soon as it is
    /// another device. The backing itself is what it was, even if it looks different: it has another size, or its image
    /// another name.
    pub fn is_another(&self, place: Place, new: &Lun) -> bool {
        let facts = &new.backing.facts;
        let old = self.adapters[place.0].luns.get(&place.1);
        let same = old.filter(|old| old.backing.facts.sequence == facts.sequence);
        match same {
            Some(old) if old.backing.mark() == new.backing.mark() => {
                self.is_foreign(place.0, place.1, old)
            }
            _ => {
                let nameless = !facts.identity.own && same.is_none();
                nameless || self.is_foreign(place.0, place.1, new)
            }
        }
    }

    /// The guest does not know what a LUN's backing is going to be, until it says so, even if nothing but that tells it
    /// from what it knew. Whether the state had to be told.
    pub fn doubt(&mut self, place: Place, facts: &Facts) -> Result<bool, state::Error> {
        let (id, text) = (&self.adapters[place.0].id, &facts.identity.text);
        if self.state.known(id, place.1) != Some(text) {
            return Ok(false);
        }
        let another = format!("another than {text}");
        self.state.know(id, place.1, &another).map(|()| true)
    }
}

#[cfg(test)]
pub mod tests;
