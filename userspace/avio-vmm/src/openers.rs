// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Threads that open devices while the guest runs. A device may keep such a thread for as long as it likes, and keeps nobody
//! else. All are there from the start, so that none of the guest's threads has to be allowed to make one; they outlive the
//! guest's resets.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use avio_control::Disk;

use crate::backing::{self, Backing, Number};
use crate::inventory::{self, Inventory};
use crate::seccomp::{self, Filter};
use crate::signal::Signal;

/// Devices that can be opened at once, those that never answer among them.
pub const THREADS: usize = 8;
/// So many of them lost devices, which nobody asks for: commands are to find a thread, too.
const FOR_LOST: usize = THREADS / 2;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A command.
    Command,
    /// A LUN whose device is lost.
    Lost,
}

/// Why there are no threads.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// They cannot be had.
    #[error("cannot start a thread that opens devices")]
    Thread(#[source] io::Error),
    /// They cannot be confined.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
}

/// Why a device is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device.
    #[error(transparent)]
    Backing(#[from] backing::Error),
    /// It cannot be another LUN.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// It is being opened.
    #[error("disk {0}, or a partition of the same disk, is being opened or written back already; try again when that has ended")]
    Opening(PathBuf),
    /// All threads wait.
    #[error("disk {0} cannot be opened: {1} others are being opened and have not answered yet; have one of them answer or fail")]
    Full(PathBuf, usize),
}

impl Error {
    /// Whether it is another matter when another opening has ended.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Opening(_) | Self::Full(..))
    }
}

/// What an opening comes to.
pub type Outcome = Result<Backing, backing::Error>;

/// How devices are found and opened.
#[derive(Clone, Copy)]
pub struct Ways {
    /// The number of the device at a path, which the device is not asked for.
    pub number: fn(&Path) -> Result<Number, backing::Error>,
    /// The number of the disk that it is a partition of.
    pub whole: fn(Number) -> Number,
    /// Opens a device, which may wait for it.
    pub open: fn(&Disk, Number) -> Outcome,
    /// Has the page cache written back to it, which may, too.
    pub write_back: fn(&Backing, &Path),
}

impl Ways {
    /// Those of block devices. The module refuses one of which the page cache has something to write.
    pub const BLOCK: Self = Self {
        number: backing::number,
        whole: backing::whole_disk,
        open: Backing::open,
        write_back: Backing::write_back,
    };
}

/// The threads.
pub struct Openers {
    ways: Ways,
    jobs: Sender<Job>,
    crew: Arc<Crew>,
}

/// What they have in common.
struct Crew {
    busy: Mutex<Vec<Busy>>,
    done: Signal,
}

/// What a thread has to do with.
struct Busy {
    number: Number,
    /// Of the whole disk until the device is open: the kernel has claims of one disk's partitions wait for each other.
    claims: Number,
    what_for: For,
}

struct Job {
    disk: Disk,
    number: Number,
    /// If it is open already.
    open: Option<Backing>,
    slot: Arc<Mutex<Slot>>,
}

/// Where an outcome is left.
enum Slot {
    Awaited {
        /// The device is open, and is written back.
        open: bool,
    },
    Ended(Outcome),
    GivenUp,
}

/// An opening that was begun. When it is dropped before its end, the outcome is dropped by the thread that gets it.
pub struct Opening(Arc<Mutex<Slot>>);

impl Opening {
    /// The outcome, if there is one by now; once.
    pub fn take(&self) -> Option<Outcome> {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::GivenUp) {
            Slot::Ended(outcome) => Some(outcome),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Whether the device has been opened, and is written back, or all has ended since somebody looked for the outcome.
    pub fn is_open(&self) -> bool {
        matches!(
            *lock(&self.0),
            Slot::Awaited { open: true } | Slot::Ended(_)
        )
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        *lock(&self.0) = Slot::GivenUp;
    }
}

impl Openers {
    /// Starts the threads, each confined by this filter.
    pub fn start(filter: &Filter, ways: Ways) -> Result<Self, StartError> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let crew = Arc::new(Crew {
            busy: Mutex::default(),
            done: Signal::new().map_err(StartError::Thread)?,
        });
        let (ready, started) = channel();
        for number in 0..THREADS {
            let (filter, ready) = (filter.clone(), ready.clone());
            let (receiver, crew) = (receiver.clone(), crew.clone());
            let body = move || {
                let confined = filter.apply();
                let goes_on = confined.is_ok();
                let _ = ready.send(confined);
                drop(ready);
                if goes_on {
                    crew.work(&receiver, ways);
                }
            };
            let builder = thread::Builder::new().name(format!("opener{number}"));
            builder.spawn(body).map_err(StartError::Thread)?;
        }
        drop(ready);
        started.iter().collect::<Result<(), _>>()?;
        Ok(Self { ways, jobs, crew })
    }

    /// Raised when an opening has ended.
    pub fn done(&self) -> &Signal {
        &self.crew.done
    }

    /// Begins to open a disk that is not attached yet, if there is a thread for it. If it is `open`, it only has the page
    /// cache written back once more.
    pub fn begin(
        &self,
        inventory: &Inventory,
        disk: &Disk,
        open: Option<&Backing>,
        what_for: For,
    ) -> Result<Opening, Error> {
        let (busy, path) = (&self.crew.busy, &disk.path);
        // First, as the way to a device may lead through what hangs, too.
        if is_full(&lock(busy), what_for) {
            return Err(Error::Full(path.clone(), lock(busy).len()));
        }
        let number = match open {
            Some(backing) => backing.number,
            None => (self.ways.number)(path)?,
        };
        inventory.check(disk, number)?;
        let claims = match open {
            Some(_) => number,
            None => (self.ways.whole)(number),
        };
        let mut busy = lock(busy);
        let bars = |other: &Busy| other.number == number || other.claims == claims;
        if busy.iter().any(bars) {
            return Err(Error::Opening(path.clone()));
        }
        let open_already = open.is_some();
        let slot = Arc::new(Mutex::new(Slot::Awaited { open: open_already }));
        let job = Job {
            disk: disk.clone(),
            number,
            open: open.cloned(),
            slot: slot.clone(),
        };
        if self.jobs.send(job).is_err() {
            return Err(Error::Full(path.clone(), busy.len()));
        }
        busy.push(Busy {
            number,
            claims,
            what_for,
        });
        Ok(Opening(slot))
    }
}

/// Whether there is no thread.
fn is_full(busy: &[Busy], what_for: For) -> bool {
    let of_lost = busy.iter().filter(|busy| busy.what_for == For::Lost);
    busy.len() >= THREADS || what_for == For::Lost && of_lost.count() >= FOR_LOST
}

impl Job {
    /// The device is open. Whether anybody wants it still.
    fn is_awaited(&self) -> bool {
        match &mut *lock(&self.slot) {
            Slot::Awaited { open } => {
                *open = true;
                true
            }
            _ => false,
        }
    }
}

impl Crew {
    /// Opens what there is to open until nobody can ask any more.
    fn work(&self, jobs: &Mutex<Receiver<Job>>, ways: Ways) {
        loop {
            // Who waits here has the lock; the others wait for that.
            let Ok(mut job) = lock(jobs).recv() else {
                return;
            };
            let open = job.open.take().map(Ok);
            let outcome = open.unwrap_or_else(|| (ways.open)(&job.disk, job.number));
            self.release_claims(&job);
            if let (Ok(backing), true) = (&outcome, job.is_awaited()) {
                (ways.write_back)(backing, &job.disk.path);
            }
            self.end(&job, outcome);
            self.done.raise();
        }
    }

    /// The device is open, or is not going to be: the other partitions of its disk need not wait any more.
    fn release_claims(&self, job: &Job) {
        let mut busy = lock(&self.busy);
        let of_job = busy.iter_mut().filter(|busy| busy.number == job.number);
        of_job.for_each(|busy| busy.claims = busy.number);
        self.done.raise();
    }

    /// Leaves an outcome to who awaits it. If nobody does, the device is closed before it can be opened again.
    fn end(&self, job: &Job, outcome: Outcome) {
        let mut busy = lock(&self.busy);
        let mut slot = lock(&job.slot);
        if matches!(*slot, Slot::Awaited { .. }) {
            *slot = Slot::Ended(outcome);
        } else {
            drop((slot, busy));
            tracing::debug!(path = %job.disk.path.display(), "nobody waits for the disk any more");
            drop(outcome);
            busy = lock(&self.busy);
        }
        busy.retain(|busy| busy.number != job.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub mod tests;
