// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A guest without a virtual machine: memory, rings, doorbells and interrupts, driven from here.

pub mod layout;
pub mod queue;
pub mod requests;

pub use layout::*;
pub use queue::Queue;
pub use requests::*;

use crate::adapter::Adapter;
use crate::run::Env;
use crate::sys::Mapping;
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::Region;
use avio_abi::ring::{Broken, Submission};
use avio_abi::stor::{LunInfo, Status};
use avio_abi::wire::Wire;
use avio_core::ring::RingSize;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait for anything that must come, also on a debug kernel and a slow machine: nothing that works waits so long.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait for something that must not come.
pub const SILENCE: Duration = Duration::from_millis(200);

/// Waits until a condition holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Before the look: who comes late looks once more.
        let late = Instant::now() >= until;
        if holds()? {
            return Ok(());
        }
        ensure!(!late, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Repeats a call for as long as it says EAGAIN: none waits longer than a second for what is in flight, which may take
/// longer where the worker or the device does not get to run.
pub fn until_done<T, E>(what: &str, mut call: impl FnMut() -> Result<T, E>) -> Result<()>
where
    E: std::error::Error + Into<Errno> + Copy + Send + Sync + 'static,
{
    wait_for(what, || match call() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.into(), Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error).context(what.to_owned()),
    })
}

/// What a guest is to have.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    pub queues: u32,
    pub size: u32,
    /// LUN numbers and flags; all are the same block device.
    pub luns: &'a [(u32, u32)],
    /// Which of the features on offer to take.
    pub features: u64,
    /// Whether its memory is in small pages, so that a long request has many pieces in the host.
    pub small_pages: bool,
}

/// One queue, LUN 0, all features.
pub const PLAIN: Config<'_> = Config {
    queues: 1,
    size: 8,
    luns: &[(0, 0)],
    features: u64::MAX,
    small_pages: false,
};
/// The same with two queues, so that one can be broken and the other is to go on.
pub const TWO_QUEUES: Config<'_> = Config { queues: 2, ..PLAIN };

/// A guest whose memory is in small pages.
pub const IN_PIECES: Config<'_> = Config {
    small_pages: true,
    ..PLAIN
};

/// A running guest.
pub struct Guest {
    pub adapter: Adapter,
    pub mapping: Arc<Mapping>,
    pub queues: Vec<Queue>,
    /// The LUN that was added last.
    pub lun: LunInfo,
    pub features: u64,
}

impl Guest {
    /// A guest on the block device that all tests share.
    pub fn simple(env: &Env) -> Result<Self> {
        Self::start(env, &PLAIN)
    }

    pub fn start(env: &Env, config: &Config<'_>) -> Result<Self> {
        Self::on(&env.device, config)
    }

    /// A guest on a block device of the test's own.
    pub fn on(device: &File, config: &Config<'_>) -> Result<Self> {
        let mut guest = Self::prepare(device, config)?;
        guest.set_up(config.queues, config.size)?;
        Ok(guest)
    }

    /// A guest with memory and LUNs, stopped.
    pub fn prepare(device: &File, config: &Config<'_>) -> Result<Self> {
        Self::prepare_on(Adapter::open().context("/dev/avio-stor")?, device, config)
    }

    /// The same on an adapter that is there already, stopped and without LUNs.
    pub fn prepare_on(adapter: Adapter, device: &File, config: &Config<'_>) -> Result<Self> {
        Self::with_memory(adapter, device, config, regions)
    }

    /// The same of a guest that has only as much memory as [`works`](Self::works) needs.
    pub fn prepare_small(device: &File, config: &Config<'_>) -> Result<Self> {
        Self::with_memory(Adapter::open()?, device, config, few_regions)
    }

    /// Whether one more guest works.
    pub fn one_more_works(env: &Env) -> Result<()> {
        let mut guest = Self::prepare_small(&env.device, &PLAIN)?;
        guest.set_up(PLAIN.queues, PLAIN.size)?;
        guest.works(0, 99)
    }

    fn with_memory(
        adapter: Adapter,
        device: &File,
        config: &Config<'_>,
        regions: fn(&Mapping) -> Vec<Region>,
    ) -> Result<Self> {
        let map = if config.small_pages {
            Mapping::of_small_pages
        } else {
            Mapping::new
        };
        let mapping = Arc::new(map(MAPPING)?);
        lay_canaries(&mapping);
        let table = regions(&mapping);
        let pages = adapter.set_memory(&table).context("SET_MEMORY")?;
        let expected = table.iter().map(|r| r.size).sum::<u64>() / avio_abi::PAGE_SIZE;
        ensure!(
            pages == expected,
            "{pages} pages were pinned instead of {expected}"
        );
        let mut guest = Self {
            features: config.features & adapter.info()?.features,
            adapter,
            mapping,
            queues: Vec::new(),
            lun: LunInfo::ZERO,
        };
        for (number, flags) in config.luns {
            let fd = device.as_raw_fd();
            guest.lun = guest
                .adapter
                .add_lun(*number, fd, *flags)
                .context("ADD_LUN")?;
        }
        Ok(guest)
    }

    /// Features, fresh queues, START.
    pub fn set_up(&mut self, queues: u32, size: u32) -> Result<()> {
        let features = self.adapter.set_features(1, self.features);
        features.context("SET_FEATURES")?;
        self.make_queues(queues, size)?;
        for queue in &self.queues {
            let set = self.adapter.set_queue(&queue.description());
            set.context("SET_QUEUE")?;
        }
        self.adapter.start(queues).context("START")?;
        Ok(())
    }

    /// Fresh queues on this side only, in zeroed memory.
    pub fn make_queues(&mut self, queues: u32, size: u32) -> Result<()> {
        let size = RingSize::new(size).context("ring size")?;
        ensure!(queues <= 4, "rings of so many queues do not fit");
        let bytes = queues as usize * queue::QUEUE_BYTES as usize;
        self.write_memory(RAM, &vec![0; bytes]);
        let queue = |index| Queue::new(&self.mapping, index, size);
        self.queues = (0..queues).map(queue).collect::<Result<_>>()?;
        Ok(())
    }

    /// Waits until so many requests of the first queue are in flight.
    pub fn wait_in_flight(&self, count: u32) -> Result<()> {
        wait_for(&format!("{count} in flight"), || {
            Ok(self.adapter.queue(0)?.in_flight == count)
        })
    }

    /// STOP, however long it takes.
    pub fn stop(&self) -> Result<()> {
        until_done("STOP", || self.adapter.stop())
    }

    /// QUIESCE, however long it takes.
    pub fn quiesce(&self) -> Result<()> {
        until_done("QUIESCE", || self.adapter.quiesce())
    }

    /// SET_MEMORY, however long it takes.
    pub fn set_memory(&self, table: &[Region]) -> Result<()> {
        until_done("SET_MEMORY", || self.adapter.set_memory(table))
    }

    /// RESET and all over again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let size = self.queues[0].view.size.entries();
        self.set_up(self.queues.len() as u32, size)
    }

    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queues[0]
    }

    /// The unit in which segments and sectors of tests are counted: legal whatever the device is.
    pub fn block(&self) -> u32 {
        self.lun.logical_block.max(self.lun.segment_align)
    }

    pub fn write_memory(&self, addr: u64, bytes: &[u8]) {
        self.mapping.write(offset(addr), bytes);
    }

    pub fn read_memory(&self, addr: u64, len: u32) -> Vec<u8> {
        self.mapping.read(offset(addr), len as usize)
    }

    /// Fills guest memory with what a disk of this seed has from `sector` on. May cross into the next region.
    pub fn fill(&self, addr: u64, sector: u64, len: u32, seed: u64) {
        for (index, part) in pattern(sector, len, seed).chunks(512).enumerate() {
            self.write_memory(addr + 512 * index as u64, part);
        }
    }

    /// Demands that guest memory holds what a disk of this seed has from `sector` on.
    pub fn verify(&self, addr: u64, sector: u64, len: u32, seed: u64) -> Result<()> {
        for (index, part) in pattern(sector, len, seed).chunks(512).enumerate() {
            let found = self.read_memory(addr + 512 * index as u64, 512);
            let at = sector + index as u64;
            ensure!(
                found == part,
                "wrong data at sector {at} (memory {addr:#x} + {index} sectors)"
            );
        }
        Ok(())
    }

    /// Demands that nothing outside the table of memory, and nothing read-only, was written.
    pub fn canaries(&self) -> Result<()> {
        check_canaries(&self.mapping)
    }

    /// Writes what a disk of this seed has there, by the first queue.
    pub fn store(&mut self, lun: u32, sector: u64, len: u32, seed: u64) -> Result<()> {
        self.fill(DATA, sector, len, seed);
        self.queue().ok(&write(0, sector, &[(DATA, len)]).on(lun))
    }

    /// Demands that a LUN holds what a disk of this seed has there, by the first queue.
    pub fn holds(&mut self, lun: u32, sector: u64, len: u32, seed: u64) -> Result<()> {
        self.queue().ok(&read(1, sector, &[(BACK, len)]).on(lun))?;
        self.verify(BACK, sector, len, seed)
    }

    /// Writes a few blocks and reads them back, on a queue of this guest.
    pub fn works(&mut self, queue: usize, seed: u64) -> Result<()> {
        let len = 8 * self.block();
        self.fill(DATA, 0, len, seed);
        let queue = &mut self.queues[queue];
        queue.expect(&write(0, 0, &[(DATA, len)]), Status::Ok, "a plain write")?;
        queue.expect(&read(1, 0, &[(NEAR, len)]), Status::Ok, "a plain read")?;
        self.verify(NEAR, 0, len, seed)
    }

    /// Requests that must end in these statuses, each followed by one that works.
    pub fn refuses<T: AsRef<str>>(&mut self, cases: &[(T, Submission, Status)]) -> Result<String> {
        let before = self.adapter.queue(0)?.errors;
        for (what, entry, status) in cases {
            let what = what.as_ref();
            self.queue().expect(entry, *status, what)?;
            let after = read(0, 0, &[(DATA, self.block())]);
            self.queue().ok(&after).context(format!("after {what}"))?;
        }
        // The last completion is visible a moment before it is counted.
        let wanted = before + cases.len() as u64;
        wait_for("the count of errors", || {
            Ok(self.adapter.queue(0)?.errors == wanted)
        })?;
        self.works(0, 30)?;
        self.canaries()?;
        Ok(format!("{} requests refused", cases.len()))
    }

    /// Demands that a queue is broken for this reason, said in both places, and that it raised its interrupt.
    pub fn broken(&mut self, index: usize, wanted: Broken) -> Result<()> {
        let queue = &mut self.queues[index];
        wait_for("the queue is broken", || Ok(queue.state() != 0)).context(wanted.name())?;
        let name = |reason| Broken::from_u32(reason).map_or("unknown", Broken::name);
        let said = queue.state();
        ensure!(
            said == wanted as u32,
            "broken for {} instead of {}",
            name(said),
            wanted.name()
        );
        // The device counts those for completions, which may not have been taken note of yet, and not this one.
        let status = self.adapter.queue(index as u32)?;
        wait_for("an interrupt tells of the broken queue", || {
            Ok(queue.interrupts()? > status.interrupts)
        })?;
        let counted = status.broken;
        let counted_name = name(counted);
        ensure!(
            counted == wanted as u32,
            "GET_QUEUE says {counted_name}, not {}",
            wanted.name()
        );
        Ok(())
    }
}
