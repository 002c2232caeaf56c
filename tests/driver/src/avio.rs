// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! AVIO's rings, as a guest's driver has them. Reads go to the first queue.

use crate::sys::{self, Mapping};
use crate::{Way, BLOCK, MAX_DEPTH};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::{self, AddLun, Region, SetFeatures, SetMemory, SetQueue, SetupError, Start};
use avio_abi::ring::{segment_flags, Segment, Submission, COMPLETION_SIZE, SUBMISSION_SIZE};
use avio_abi::stor::{lun_flags, opcode, Status};
use avio_abi::wire::Wire;
use avio_core::ring::{CompletionReader, QueueMemory, RingSize, SubmissionWriter};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{fence, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Guest address of the first byte of memory.
const RAM: u64 = 0x10_0000;
/// Where things lie in a queue's part of memory.
const COMPLETIONS: usize = 0x4000;
const CONTROL: usize = 0x6000;
const QUEUE_SIZE: usize = 0x8000;
/// Where data lies: behind as many queues as an adapter can have.
const DATA: usize = avio_abi::MAX_QUEUES as usize * QUEUE_SIZE;

/// An adapter that runs.
pub struct Avio {
    // Declared first: when it is closed nothing uses the memory any more.
    _adapter: File,
    rings: Rings,
    writer: SubmissionWriter,
    reader: CompletionReader,
    kick: EventFd,
    call: EventFd,
}

impl Avio {
    /// An adapter with the device as its LUN 0, read-only, and with this many queues.
    pub fn new(device: &Path, queues: u32) -> Result<Self> {
        let open = |path: &Path, write| {
            File::options()
                .read(true)
                .write(write)
                .open(path)
                .with_context(|| path.display().to_string())
        };
        let (adapter, disk) = (
            open(Path::new("/dev/avio-stor"), true)?,
            open(device, false)?,
        );
        let size = RingSize::new(MAX_DEPTH.into()).context("ring size")?;
        let mapping = Mapping::new(DATA + usize::from(MAX_DEPTH) * BLOCK as usize)?;
        let region = Region {
            guest_addr: RAM,
            size: mapping.len(),
            user_addr: mapping.user_addr(),
            ..Region::ZERO
        };
        let regions = region.to_bytes();
        let memory = SetMemory {
            regions: regions.as_ptr() as u64,
            count: 1,
            ..SetMemory::ZERO
        };
        call(
            &adapter,
            ioctl::SET_MEMORY,
            "SET_MEMORY",
            memory,
            |memory| memory.error,
        )?;
        let lun = AddLun {
            fd: disk.as_raw_fd(),
            flags: lun_flags::READ_ONLY,
            ..AddLun::ZERO
        };
        call(&adapter, ioctl::ADD_LUN, "ADD_LUN", lun, |lun| lun.error)?;
        let features = SetFeatures {
            version: 1,
            ..SetFeatures::ZERO
        };
        call(
            &adapter,
            ioctl::SET_FEATURES,
            "SET_FEATURES",
            features,
            |features| features.error,
        )?;
        let eventfd = || EventFd::new(libc::EFD_CLOEXEC);
        let (kick, call_back) = (eventfd()?, eventfd()?);
        for index in 0..queues {
            let base = RAM + u64::from(index) * QUEUE_SIZE as u64;
            let queue = SetQueue {
                index,
                size: size.entries(),
                submissions: base,
                completions: base + COMPLETIONS as u64,
                control: base + CONTROL as u64,
                kick_fd: kick.as_raw_fd(),
                call_fd: call_back.as_raw_fd(),
                ..SetQueue::ZERO
            };
            call(&adapter, ioctl::SET_QUEUE, "SET_QUEUE", queue, |queue| {
                queue.error
            })?;
        }
        call(
            &adapter,
            ioctl::START,
            "START",
            Start {
                queues,
                ..Start::ZERO
            },
            |start| start.error,
        )?;
        Ok(Self {
            _adapter: adapter,
            rings: Rings { mapping, size },
            writer: SubmissionWriter::new(size),
            reader: CompletionReader::new(size),
            kick,
            call: call_back,
        })
    }
}

/// An ioctl; if it is refused, the reason.
fn call<T: Wire>(
    file: &File,
    request: u32,
    name: &str,
    argument: T,
    error: fn(&T) -> u32,
) -> Result<()> {
    let mut bytes = vec![0; T::SIZE];
    argument.put(&mut bytes);
    let result = sys::ioctl(file, request, &mut bytes);
    let number = T::take(&bytes).map_or(0, |(answer, _)| error(&answer));
    match SetupError::from_u32(number) {
        Some(reason) => bail!("{name}: {}", reason.text()),
        None => result.context(name.to_owned()),
    }
}

impl Way for Avio {
    fn push(&mut self, tag: u16, sector: u64) -> Result<()> {
        let addr = RAM + DATA as u64 + u64::from(tag) * u64::from(BLOCK);
        let data = Segment {
            addr,
            len: BLOCK,
            flags: segment_flags::DEVICE_WRITES,
        };
        let read = Submission {
            opcode: opcode::READ,
            tag,
            segments: 1,
            sector,
            inline: [data, Segment::ZERO, Segment::ZERO],
            ..Submission::ZERO
        };
        self.writer.push(&self.rings, &read);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        if self.writer.publish(&self.rings) {
            self.kick.write(1)?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<u16>> {
        let Some(completion) = self.reader.take(&self.rings) else {
            return Ok(None);
        };
        let status = Status::from_u8(completion.status);
        ensure!(
            status == Some(Status::Ok),
            "a read ended with {}",
            status.map_or("no known status", Status::name)
        );
        Ok(Some(completion.tag))
    }

    fn arm(&mut self) -> Result<bool> {
        Ok(self.reader.arm(&self.rings, 0))
    }

    fn wait(&mut self) -> Result<()> {
        self.call.read()?;
        Ok(())
    }
}

/// The first queue's memory.
struct Rings {
    mapping: Mapping,
    size: RingSize,
}

impl Rings {
    fn submission(&self, slot: u32, word: usize) -> usize {
        self.size.slot(slot) as usize * SUBMISSION_SIZE + word * 8
    }

    fn completion(&self, slot: u32) -> usize {
        COMPLETIONS + self.size.slot(slot) as usize * COMPLETION_SIZE
    }
}

impl QueueMemory for Rings {
    fn load_acquire(&self, word: usize) -> u32 {
        self.mapping.u32(CONTROL + word).load(Ordering::Acquire)
    }
    fn store_release(&self, word: usize, value: u32) {
        self.mapping
            .u32(CONTROL + word)
            .store(value, Ordering::Release);
    }
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        core::array::from_fn(|word| {
            self.mapping
                .u64(self.submission(slot, word))
                .load(Ordering::Relaxed)
        })
    }
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        for (word, value) in entry.iter().enumerate() {
            self.mapping
                .u64(self.submission(slot, word))
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
