// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A guest without a virtual machine: memory, rings, doorbells and interrupts, driven from here.
//!
//! Guest memory has a large region, a second one that goes on where the first ends but lies elsewhere in the host, a
//! hole, and a read-only region. Between them in the host lie canaries that no device may ever write.

use crate::adapter::Adapter;
use crate::sys::Mapping;
use crate::Env;
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::{region_flags, Region, SetQueue};
use avio_abi::ring::{control, segment_flags, Broken, Completion, Segment, Submission};
use avio_abi::stor::{opcode, LunInfo, Status};
use avio_abi::wire::Wire;
use avio_core::ring::{CompletionReader, QueueMemory, RingSize, SubmissionWriter};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for something that must not come.
pub const SILENCE: Duration = Duration::from_millis(200);

const MAPPING: usize = 8 << 20;
/// Guest address of the large region.
pub const RAM: u64 = 0x10_0000;
pub const RAM_SIZE: u64 = 4 << 20;
/// Guest address of the region that follows it: adjacent in the guest, not in the host.
pub const NEXT: u64 = RAM + RAM_SIZE;
pub const NEXT_SIZE: u64 = 1 << 20;
/// Guest address of the read-only region. Before and behind it there is nothing.
pub const ROM: u64 = 0x100_0000;
pub const ROM_SIZE: u64 = 0x1_0000;
/// Where tests put data: free from here to the end of the large region.
pub const DATA: u64 = RAM + 0x8_0000;
/// Where tests put segment lists.
pub const LIST: u64 = RAM + 0x7_0000;

const NEXT_OFFSET: usize = 6 << 20;
const ROM_OFFSET: usize = 7 << 20;
const CANARY: u64 = 0x6361_6e61_7279_2121;

/// The regions of a guest's memory.
pub fn regions(mapping: &Mapping) -> Vec<Region> {
    let region = |guest_addr, size, offset: usize, flags| Region {
        guest_addr,
        size,
        user_addr: mapping.user_addr() + offset as u64,
        flags,
        reserved: 0,
    };
    vec![
        region(ROM, ROM_SIZE, ROM_OFFSET, region_flags::READ_ONLY),
        region(RAM, RAM_SIZE, 0, 0),
        region(NEXT, NEXT_SIZE, NEXT_OFFSET, 0),
    ]
}

/// Where a guest address lies in the mapping.
fn offset(addr: u64) -> usize {
    let at = |start: u64, size: u64, offset: usize| {
        addr.checked_sub(start)
            .filter(|off| *off < size)
            .map(|off| offset + off as usize)
    };
    at(RAM, RAM_SIZE, 0)
        .or_else(|| at(NEXT, NEXT_SIZE, NEXT_OFFSET))
        .or_else(|| at(ROM, ROM_SIZE, ROM_OFFSET))
        .expect("an address of the guest")
}

/// The rings and control block of one queue.
pub struct QueueView {
    pub mapping: Arc<Mapping>,
    pub size: RingSize,
    pub submissions: u64,
    pub completions: u64,
    pub control: u64,
}

impl QueueView {
    fn new(mapping: Arc<Mapping>, index: u32, size: RingSize) -> Self {
        let base = RAM + u64::from(index) * 0x1_4000;
        Self {
            mapping,
            size,
            submissions: base,
            completions: base + 0x1_0000,
            control: base + 0x1_2000,
        }
    }

    /// Where a word of a submission entry lies in the mapping.
    pub fn submission_word(&self, slot: u32, word: usize) -> usize {
        offset(self.submissions) + (slot & (self.size.entries() - 1)) as usize * 64 + word * 8
    }

    fn completion(&self, slot: u32) -> usize {
        offset(self.completions) + (slot & (self.size.entries() - 1)) as usize * 8
    }
}

impl QueueMemory for QueueView {
    fn load_acquire(&self, word: usize) -> u32 {
        self.mapping
            .u32(offset(self.control) + word)
            .load(Ordering::Acquire)
    }
    fn store_release(&self, word: usize, value: u32) {
        self.mapping
            .u32(offset(self.control) + word)
            .store(value, Ordering::Release);
    }
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        core::array::from_fn(|word| {
            self.mapping
                .u64(self.submission_word(slot, word))
                .load(Ordering::Relaxed)
        })
    }
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        for (word, value) in entry.iter().enumerate() {
            self.mapping
                .u64(self.submission_word(slot, word))
                .store(*value, Ordering::Relaxed);
        }
    }
    fn load_completion(&self, slot: u32) -> u64 {
        self.mapping
            .u64(self.completion(slot))
            .load(Ordering::Acquire)
    }
    fn store_completion(&self, slot: u32, entry: u64) {
        self.mapping
            .u64(self.completion(slot))
            .store(entry, Ordering::Release);
    }
}

/// One queue pair from the driver's side.
pub struct Queue {
    pub index: u32,
    pub view: QueueView,
    pub submit: SubmissionWriter,
    pub collect: CompletionReader,
    pub kick: EventFd,
    pub call: EventFd,
}

fn event() -> Result<EventFd> {
    Ok(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?)
}

impl Queue {
    fn new(mapping: &Arc<Mapping>, index: u32, size: RingSize) -> Result<Self> {
        Ok(Self {
            index,
            view: QueueView::new(mapping.clone(), index, size),
            submit: SubmissionWriter::new(size),
            collect: CompletionReader::new(size),
            kick: event()?,
            call: event()?,
        })
    }

    /// The argument of SET_QUEUE.
    pub fn description(&self) -> SetQueue {
        SetQueue {
            index: self.index,
            size: self.view.size.entries(),
            submissions: self.view.submissions,
            completions: self.view.completions,
            control: self.view.control,
            kick_fd: self.kick.as_fd().as_raw_fd(),
            call_fd: self.call.as_fd().as_raw_fd(),
            ..SetQueue::ZERO
        }
    }

    pub fn push(&mut self, entry: &Submission) {
        self.submit.push(&self.view, entry);
    }

    /// Publishes, and rings the doorbell if the device wants it.
    pub fn publish(&mut self) -> Result<()> {
        if self.submit.publish(&self.view) {
            self.kick()?;
        }
        Ok(())
    }

    /// Rings the doorbell whether the device wants it or not.
    pub fn kick(&self) -> Result<()> {
        self.kick.write(1).context("kick")?;
        Ok(())
    }

    /// Waits for the interrupt; whether it came in time.
    pub fn interrupt(&self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.call.as_fd(), PollFlags::POLLIN)];
        let came = poll(&mut fds, timeout).context("poll of the call eventfd")? > 0;
        if came {
            self.call.read().context("call eventfd")?;
        }
        Ok(came)
    }

    /// The next completion, by way of the interrupt.
    pub fn completion(&mut self) -> Result<Completion> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.collect.take(&self.view) {
                return Ok(completion);
            }
            if !self.collect.arm(&self.view, 0) && !self.interrupt(until)? {
                let hidden = self.collect.take(&self.view);
                bail!("no completion on queue {} within {PATIENCE:?}; an interrupt was lost: {hidden:?}", self.index);
            }
        }
    }

    /// One request, from beginning to end.
    pub fn request(&mut self, entry: &Submission) -> Result<(Status, u32)> {
        self.push(entry);
        self.publish()?;
        let completion = self.completion()?;
        ensure!(
            completion.tag == entry.tag,
            "completion of tag {} for tag {}",
            completion.tag,
            entry.tag
        );
        let status = Status::from_u8(completion.status).context("an unknown status")?;
        ensure!(
            status == Status::Ok || completion.bytes == 0,
            "{} with {} bytes",
            status.name(),
            completion.bytes
        );
        Ok((status, completion.bytes))
    }

    /// Demands that a request ends with this status.
    pub fn expect(&mut self, entry: &Submission, wanted: Status, what: &str) -> Result<()> {
        let (status, _) = self.request(entry).context(what.to_owned())?;
        ensure!(
            status == wanted,
            "{what}: status {} instead of {}",
            status.name(),
            wanted.name()
        );
        Ok(())
    }

    /// The reason that the device has written into the control block.
    pub fn state(&self) -> u32 {
        self.view.load_acquire(control::STATE)
    }
}

/// What a guest is to have.
pub struct Config<'a> {
    pub queues: u32,
    pub size: u32,
    /// LUN numbers and flags; all are the same block device.
    pub luns: &'a [(u32, u32)],
    pub features: u64,
}

/// A running guest.
pub struct Guest {
    pub adapter: Adapter,
    pub mapping: Arc<Mapping>,
    pub queues: Vec<Queue>,
    pub lun: LunInfo,
    pub features: u64,
}

impl Guest {
    /// A guest with one LUN, 0, one queue, and all features.
    pub fn simple(env: &Env) -> Result<Self> {
        Self::start(
            env,
            &Config {
                queues: 1,
                size: 8,
                luns: &[(0, 0)],
                features: u64::MAX,
            },
        )
    }

    pub fn start(env: &Env, config: &Config<'_>) -> Result<Self> {
        let mut guest = Self::prepare(env, config)?;
        guest.set_up(config.queues, config.size)?;
        Ok(guest)
    }

    /// A guest with memory and LUNs, stopped.
    pub fn prepare(env: &Env, config: &Config<'_>) -> Result<Self> {
        let adapter = Adapter::open().context("/dev/avio-stor")?;
        let mapping = Arc::new(Mapping::new(MAPPING)?);
        for at in (RAM_SIZE as usize..MAPPING).step_by(8) {
            mapping.u64(at).store(CANARY, Ordering::Relaxed);
        }
        let pages = adapter
            .set_memory(&regions(&mapping))
            .context("SET_MEMORY")?;
        let expected = (RAM_SIZE + NEXT_SIZE + ROM_SIZE) / avio_abi::PAGE_SIZE;
        ensure!(
            pages == expected,
            "{pages} pages were pinned instead of {expected}"
        );
        let features = config.features & adapter.info()?.features;
        let mut lun = LunInfo::ZERO;
        for (number, flags) in config.luns {
            lun = adapter
                .add_lun(*number, env.device.as_raw_fd(), *flags)
                .context("ADD_LUN")?;
        }
        Ok(Self {
            adapter,
            mapping,
            queues: Vec::new(),
            lun,
            features,
        })
    }

    /// Features, fresh queues, START.
    pub fn set_up(&mut self, queues: u32, size: u32) -> Result<()> {
        self.adapter
            .set_features(1, self.features)
            .context("SET_FEATURES")?;
        self.make_queues(queues, size)?;
        for queue in &self.queues {
            self.adapter
                .set_queue(&queue.description())
                .context("SET_QUEUE")?;
        }
        self.adapter.start(queues).context("START")?;
        Ok(())
    }

    /// Fresh queues on this side only, in zeroed memory.
    pub fn make_queues(&mut self, queues: u32, size: u32) -> Result<()> {
        let size = RingSize::new(size).context("ring size")?;
        ensure!(queues <= 4, "rings of so many queues do not fit");
        self.mapping
            .write(offset(RAM), &vec![0; queues as usize * 0x1_4000]);
        self.queues = (0..queues)
            .map(|index| Queue::new(&self.mapping, index, size))
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// RESET and all over again.
    pub fn restart(&mut self) -> Result<()> {
        self.adapter.stop().context("STOP")?;
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
            ensure!(
                found == part,
                "wrong data at sector {} (memory {addr:#x} + {} sectors)",
                sector + index as u64,
                index
            );
        }
        Ok(())
    }

    /// Demands that nothing outside the table of memory, and nothing read-only, was written.
    pub fn canaries(&self) -> Result<()> {
        let next = NEXT_OFFSET..NEXT_OFFSET + NEXT_SIZE as usize;
        for at in (RAM_SIZE as usize..MAPPING)
            .step_by(8)
            .filter(|at| !next.contains(at))
        {
            let found = self.mapping.u64(at).load(Ordering::Relaxed);
            ensure!(
                found == CANARY,
                "memory that is not the device's was written, at offset {at:#x}: {found:#x}"
            );
        }
        Ok(())
    }

    /// Writes a few blocks and reads them back, on a queue of this guest.
    pub fn works(&mut self, queue: usize, seed: u64) -> Result<()> {
        let len = 8 * self.block();
        let (from, to) = (DATA, DATA + 0x1_0000);
        self.fill(from, 0, len, seed);
        let queue = &mut self.queues[queue];
        queue.expect(&write(0, 0, &[(from, len)]), Status::Ok, "a plain write")?;
        queue.expect(&read(1, 0, &[(to, len)]), Status::Ok, "a plain read")?;
        self.verify(to, 0, len, seed)
    }

    /// Demands that a queue is broken for this reason, said in both places, and that it raised its interrupt.
    pub fn broken(&mut self, index: usize, wanted: Broken) -> Result<()> {
        let queue = &mut self.queues[index];
        let until = Instant::now() + PATIENCE;
        while queue.state() == 0 {
            ensure!(
                Instant::now() < until,
                "the queue is not broken after {PATIENCE:?}; wanted {}",
                wanted.name()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let name = |reason| Broken::from_u32(reason).map_or("unknown", Broken::name);
        ensure!(
            queue.state() == wanted as u32,
            "broken for {} instead of {}",
            name(queue.state()),
            wanted.name()
        );
        ensure!(
            queue.interrupt(until)?,
            "no interrupt told of the broken queue"
        );
        let status = self.adapter.queue(index as u32).context("GET_QUEUE")?;
        ensure!(
            status.broken == wanted as u32,
            "GET_QUEUE says {}, not {}",
            name(status.broken),
            wanted.name()
        );
        Ok(())
    }
}

fn transfer(opcode: u8, flags: u32, tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    let mut inline = [Segment::ZERO; 3];
    for (slot, (addr, len)) in inline.iter_mut().zip(segments) {
        *slot = Segment {
            addr: *addr,
            len: *len,
            flags,
        };
    }
    Submission {
        opcode,
        flags: 0,
        tag,
        lun: 0,
        segments: segments.len() as u16,
        sector,
        inline,
    }
}

/// A READ of LUN 0 with inline segments.
pub fn read(tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    transfer(
        opcode::READ,
        segment_flags::DEVICE_WRITES,
        tag,
        sector,
        segments,
    )
}

/// A WRITE to LUN 0 with inline segments.
pub fn write(tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    transfer(opcode::WRITE, 0, tag, sector, segments)
}

/// A FLUSH of LUN 0.
pub fn flush(tag: u16) -> Submission {
    transfer(opcode::FLUSH, 0, tag, 0, &[])
}

/// The same request with its segments in a list at `addr`, which is written here.
pub fn with_list(
    guest: &Guest,
    mut entry: Submission,
    addr: u64,
    segments: &[(u64, u32)],
) -> Submission {
    let flags = if entry.opcode == opcode::READ {
        segment_flags::DEVICE_WRITES
    } else {
        0
    };
    for (index, (data, len)) in segments.iter().enumerate() {
        let bytes = Segment {
            addr: *data,
            len: *len,
            flags,
        }
        .to_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            guest.write_memory(addr + (index * Segment::SIZE + at) as u64, &[*byte]);
        }
    }
    let list = Segment {
        addr,
        len: (segments.len() * Segment::SIZE) as u32,
        flags: segment_flags::LIST,
    };
    entry.segments = segments.len() as u16;
    entry.inline = [list, Segment::ZERO, Segment::ZERO];
    entry
}

/// What a disk of this seed has from `sector` on.
pub fn pattern(sector: u64, len: u32, seed: u64) -> Vec<u8> {
    let mix = |word: u64| {
        let mut x = word.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    (0..u64::from(len) / 8)
        .flat_map(|word| mix(sector * 64 + word).to_le_bytes())
        .collect()
}
