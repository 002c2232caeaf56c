// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! One queue pair from the driver's side: rings in the guest's memory, doorbell and interrupt.

use super::layout::{offset, RAM};
use super::PATIENCE;
use crate::sys::Mapping;
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::SetQueue;
use avio_abi::ring::{control, Completion, Submission};
use avio_abi::stor::Status;
use avio_abi::wire::Wire;
use avio_core::ring::{CompletionReader, QueueMemory, RingSize, SubmissionWriter};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the rings and control block of one queue take.
pub const QUEUE_BYTES: u64 = 0x1_4000;

/// The rings and control block of one queue.
pub struct QueueView {
    mapping: Arc<Mapping>,
    pub size: RingSize,
    pub submissions: u64,
    pub completions: u64,
    pub control: u64,
}

impl QueueView {
    fn new(mapping: Arc<Mapping>, index: u32, size: RingSize) -> Self {
        let base = RAM + u64::from(index) * QUEUE_BYTES;
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
        offset(self.submissions + u64::from(self.size.slot(slot)) * 64) + word * 8
    }

    fn completion(&self, slot: u32) -> usize {
        offset(self.completions + u64::from(self.size.slot(slot)) * 8)
    }

    fn control_word(&self, word: usize) -> usize {
        offset(self.control + word as u64)
    }

    /// How many entries from the first on hold a completion of the first round.
    pub fn posted(&self) -> u32 {
        let there = |slot: &u32| Completion::decode(self.load_completion(*slot)).1;
        (0..self.size.entries()).filter(there).count() as u32
    }
}

impl QueueMemory for QueueView {
    fn load_acquire(&self, word: usize) -> u32 {
        let at = self.control_word(word);
        self.mapping.u32(at).load(Ordering::Acquire)
    }
    fn store_release(&self, word: usize, value: u32) {
        let at = self.control_word(word);
        self.mapping.u32(at).store(value, Ordering::Release);
    }
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        let at = |word| self.submission_word(slot, word);
        core::array::from_fn(|word| self.mapping.u64(at(word)).load(Ordering::Relaxed))
    }
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        for (word, value) in entry.iter().enumerate() {
            let at = self.submission_word(slot, word);
            self.mapping.u64(at).store(*value, Ordering::Relaxed);
        }
    }
    fn load_completion(&self, slot: u32) -> u64 {
        let at = self.completion(slot);
        self.mapping.u64(at).load(Ordering::Acquire)
    }
    fn store_completion(&self, slot: u32, entry: u64) {
        let at = self.completion(slot);
        self.mapping.u64(at).store(entry, Ordering::Release);
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
    /// Interrupts that were taken note of.
    interrupts: AtomicU64,
}

impl Queue {
    /// A fresh queue; its memory is to be zero.
    pub fn new(mapping: &Arc<Mapping>, index: u32, size: RingSize) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            index,
            view: QueueView::new(mapping.clone(), index, size),
            submit: SubmissionWriter::new(size),
            collect: CompletionReader::new(size),
            kick: EventFd::from_flags(flags)?,
            call: EventFd::from_flags(flags)?,
            interrupts: AtomicU64::new(0),
        })
    }

    /// Fresh rings in the same place.
    pub fn renew(&mut self) {
        let view = &self.view;
        let place = offset(view.submissions);
        view.mapping.write(place, &vec![0; QUEUE_BYTES as usize]);
        self.submit = SubmissionWriter::new(view.size);
        self.collect = CompletionReader::new(view.size);
        // Of another queue to the device.
        let _ = self.call.read();
        self.interrupts.store(0, Ordering::Relaxed);
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

    /// Hands requests over without waiting for them, and rings the doorbell in any case.
    pub fn go(&mut self, entries: &[Submission]) -> Result<()> {
        entries.iter().for_each(|entry| self.push(entry));
        self.publish()?;
        self.kick()
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
            let count = self.call.read().context("call eventfd")?;
            self.interrupts.fetch_add(count, Ordering::Relaxed);
        }
        Ok(came)
    }

    /// How many interrupts there were so far.
    pub fn interrupts(&self) -> Result<u64> {
        self.interrupt(Instant::now())?;
        Ok(self.interrupts.load(Ordering::Relaxed))
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

    /// The next completion by looking, for when no interrupt can be relied on.
    pub fn look(&mut self) -> Result<Completion> {
        let until = Instant::now() + PATIENCE;
        loop {
            // Before the look: who comes late looks once more.
            let late = Instant::now() >= until;
            if let Some(completion) = self.collect.take(&self.view) {
                return Ok(completion);
            }
            ensure!(!late, "no completion after {PATIENCE:?}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Takes the completions of what is in flight, each of which must come once; how they ended, in the order of
    /// `tags`.
    pub fn answers(&mut self, tags: &[u16]) -> Result<Vec<Status>> {
        let mut answers = vec![None; tags.len()];
        for _ in tags {
            let Completion { tag, status, bytes } = self.completion()?;
            let place = tags.iter().position(|wanted| *wanted == tag);
            let place = place.and_then(|place| answers.get_mut(place));
            let status = Status::from_u8(status).context("an unknown status")?;
            let empty = place.with_context(|| format!("completion of tag {tag}, not in flight"))?;
            ensure!(empty.is_none(), "a second completion of tag {tag}");
            let name = status.name();
            ensure!(
                status == Status::Ok || bytes == 0,
                "{name} with {bytes} bytes"
            );
            *empty = Some(status);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Publishes all of these at once and takes all completions; how they ended.
    pub fn all(&mut self, entries: &[Submission]) -> Result<Vec<Status>> {
        entries.iter().for_each(|entry| self.push(entry));
        self.publish()?;
        let tags: Vec<_> = entries.iter().map(|entry| entry.tag).collect();
        self.answers(&tags)
    }

    /// One request, from beginning to end.
    pub fn request(&mut self, entry: &Submission) -> Result<(Status, u32)> {
        self.push(entry);
        self.publish()?;
        let Completion { tag, status, bytes } = self.completion()?;
        ensure!(
            tag == entry.tag,
            "completion of tag {tag} for tag {}",
            entry.tag
        );
        let status = Status::from_u8(status).context("an unknown status")?;
        let name = status.name();
        ensure!(
            status == Status::Ok || bytes == 0,
            "{name} with {bytes} bytes"
        );
        Ok((status, bytes))
    }

    /// Demands that a request ends with this status.
    pub fn expect(&mut self, entry: &Submission, wanted: Status, what: &str) -> Result<()> {
        let (status, _) = self.request(entry).context(what.to_owned())?;
        let (found, wanted_name) = (status.name(), wanted.name());
        ensure!(
            status == wanted,
            "{what}: status {found} instead of {wanted_name}"
        );
        Ok(())
    }

    /// Demands that a request is carried out.
    pub fn ok(&mut self, entry: &Submission) -> Result<()> {
        let what = format!(
            "opcode {} at sector {} of LUN {}",
            entry.opcode, entry.sector, entry.lun
        );
        self.expect(entry, Status::Ok, &what)
    }

    /// The reason that the device has written into the control block.
    pub fn state(&self) -> u32 {
        self.view.load_acquire(control::STATE)
    }
}
