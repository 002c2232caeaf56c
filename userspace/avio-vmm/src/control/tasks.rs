// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands that wait for a device to be opened, or for a thread that opens it.

use std::time::{Duration, Instant};

use avio_control::Disk;
use serde_json::Value;

use super::commands::{chain, text, Outcomes, Refusal};
use super::Guest;
use crate::backing::Backing;
use crate::inventory::Inventory;
use crate::openers::{self, For, Openers, Opening};

/// How long a device may take before its command is refused.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Until it is open.
    pub open: Duration,
    /// Until it is written back, too, which takes long if the page cache has much of it.
    pub written: Duration,
}

/// That of the control socket.
pub const PATIENCE: Patience = Patience {
    open: Duration::from_secs(10),
    written: Duration::from_secs(600),
};

/// Most commands that wait.
const MOST: usize = 64;
/// How often one more write-back is tried for a device that somebody else keeps writing through the page cache.
const WRITE_BACKS: u32 = 3;

/// What a command does with the open device. Others may have been carried out since it began.
pub type Finish = Box<dyn Fn(&Guest, Backing) -> Result<Value, Refusal> + Send>;

/// A command that waits.
pub struct Task {
    disk: Disk,
    /// None as long as there is no thread for it, or another opening of the same device has not ended.
    opening: Option<Opening>,
    /// The device, if it is open and only has to be written back.
    dirty: Option<Backing>,
    write_backs: u32,
    finish: Finish,
}

impl Task {
    /// A command that has a disk opened first; an error if waiting is of no use.
    pub fn new(
        inventory: &Inventory,
        openers: &Openers,
        disk: &Disk,
        finish: Finish,
    ) -> Result<Self, openers::Error> {
        let mut task = Self {
            disk: disk.clone(),
            opening: None,
            dirty: None,
            write_backs: 0,
            finish,
        };
        match task.begin(inventory, openers) {
            Err(error) if !error.passes() => Err(error),
            _ => Ok(task),
        }
    }

    /// Begins to open the disk, unless that is done.
    fn begin(&mut self, inventory: &Inventory, openers: &Openers) -> Result<(), openers::Error> {
        if self.opening.is_none() {
            let open = self.dirty.as_ref();
            self.opening = Some(openers.begin(inventory, &self.disk, open, For::Command)?);
            self.dirty = None;
        }
        Ok(())
    }

    /// Whether the device is open, and only has to be written back.
    fn is_open(&self) -> bool {
        self.dirty.is_some() || self.opening.as_ref().is_some_and(Opening::is_open)
    }

    /// Has the device written back once more, if that is worth while.
    fn may_write_back(&mut self, backing: Backing) -> bool {
        self.write_backs += 1;
        self.opening = None;
        self.dirty = Some(backing);
        self.write_backs <= WRITE_BACKS
    }
}

/// Those that wait, for whom, and since when.
pub struct Tasks {
    patience: Patience,
    waiting: Vec<(u64, Instant, Task)>,
}

impl Tasks {
    /// None. Each is to wait so long.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            waiting: Vec::new(),
        }
    }

    /// One more, which this client waits for. If they are too many, the answer.
    pub fn add(&mut self, client: u64, task: Task) -> Option<String> {
        if self.waiting.len() >= MOST {
            let path = task.disk.path.display();
            let refusal = format!("disk {path} cannot be opened: {MOST} commands wait for disks already; try again when one has ended");
            return Some(text(Err(refusal)));
        }
        self.waiting.push((client, Instant::now(), task));
        None
    }

    /// How long until one has waited for long enough.
    pub fn pause(&self) -> Option<Duration> {
        let ends = self
            .waiting
            .iter()
            .map(|(_, since, task)| *since + self.patience_with(task));
        Some(ends.min()?.saturating_duration_since(Instant::now()))
    }

    fn patience_with(&self, task: &Task) -> Duration {
        match task.is_open() {
            true => self.patience.written,
            false => self.patience.open,
        }
    }

    /// Goes on with those whose device is open, and gives up those that have waited for long enough; the answers, each with
    /// its client.
    pub fn answers(&mut self, guest: &Guest, openers: &Openers) -> Vec<(u64, String)> {
        let mut answers = Vec::new();
        for (client, since, mut task) in std::mem::take(&mut self.waiting) {
            match self.go_on(guest, openers, &mut task, since) {
                Some(outcome) => answers.push((client, text(outcome))),
                None => self.waiting.push((client, since, task)),
            }
        }
        answers
    }

    /// Goes on with one; what it comes to, if it ends.
    fn go_on(
        &self,
        guest: &Guest,
        openers: &Openers,
        task: &mut Task,
        since: Instant,
    ) -> Option<Outcomes> {
        let late = |task: &Task| since.elapsed() >= self.patience_with(task);
        let begun = task.begin(&guest.inventory.lock(), openers);
        if let Err(error) = begun {
            return (late(task) || !error.passes()).then(|| Err(chain(error)));
        }
        let backing = match task.opening.as_ref()?.take() {
            Some(Ok(backing)) => backing,
            Some(Err(error)) => return Some(Err(chain(error))),
            None => return late(task).then(|| Err(self.refusal(task))),
        };
        match (task.finish)(guest, backing.clone()) {
            Err(refusal) if refusal.dirty && task.may_write_back(backing) => {
                self.go_on(guest, openers, task, since)
            }
            result => Some(result.map_err(|refusal| refusal.text)),
        }
    }

    fn refusal(&self, task: &Task) -> String {
        let (path, seconds) = (
            task.disk.path.display(),
            self.patience_with(task).as_secs_f32(),
        );
        if task.is_open() {
            return format!(
                "what the host's page cache has of disk {path} was not written back to it in {seconds} s, and nothing was \
                 changed; try again when that has ended"
            );
        }
        format!(
            "disk {path} has not answered for {seconds} s, and nothing was changed; have it answer, or fail, and try again"
        )
    }
}

#[cfg(test)]
mod tests;
