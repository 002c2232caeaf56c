// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The register window against a backend that writes down what it is told.

mod luns;
mod tasks;

use super::*;
use avio_abi::features;
use avio_abi::pci::queue;

#[derive(Default)]
struct Recorder {
    starts: Vec<(u32, u64, Vec<Queue>)>,
    stops: usize,
    slow: bool,
    tasks: Vec<Task>,
    announced: usize,
    refuse: Option<Refusal>,
}

impl Backend for Recorder {
    fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal> {
        self.starts.push((version, features, queues.to_vec()));
        self.refuse.map_or(Ok(()), Err)
    }
    fn stop(&mut self) -> Stop {
        self.stops += 1;
        if self.slow {
            Stop::Pending
        } else {
            Stop::Done
        }
    }
    fn task(&mut self, task: Task) -> Option<u32> {
        self.tasks.push(task);
        let known = matches!(
            task,
            Task::Abort { lun: 1, .. }
                | Task::LunReset { lun: 1 }
                | Task::OpenGate { lun: 1, .. }
                | Task::QueueStop { queue: 2 }
                | Task::QueueStart { queue: 2 }
        );
        known.then_some(3)
    }
    fn announce(&mut self) {
        self.announced += 1;
    }
}

fn registers() -> Registers<Recorder> {
    let offer = Offer {
        version: 1,
        features: features::FLUSH | features::FUA | features::SEGMENT_LIST | features::TASKS,
        max_queues: 4,
        max_queue_size: 128,
    };
    Registers::new(offer, Recorder::default())
}

fn set_queue(registers: &mut Registers<Recorder>, index: u64, size: u32) {
    let base = reg::QUEUES + index * reg::QUEUE_STRIDE;
    registers.write(base + queue::SUBMISSIONS, 0x1000);
    registers.write(base + queue::SUBMISSIONS + 4, 1);
    registers.write(base + queue::COMPLETIONS, 0x2000);
    registers.write(base + queue::CONTROL, 0x3000);
    registers.write(base + queue::SIZE, size);
}

fn ready() -> Registers<Recorder> {
    let mut registers = registers();
    registers.set_bus_master(true);
    set_up(&mut registers);
    registers
}

fn set_up(registers: &mut Registers<Recorder>) {
    registers.write(reg::DRIVER_VERSION, 1);
    registers.write(reg::DRIVER_FEATURES, 3);
    registers.write(reg::DRIVER_QUEUES, 2);
    set_queue(registers, 0, 64);
    set_queue(registers, 1, 128);
}

fn start(registers: &mut Registers<Recorder>) -> (u32, u32, u32) {
    registers.write(reg::COMMAND, command::START);
    (
        registers.read(reg::STATE),
        registers.read(reg::ERROR),
        registers.read(reg::ERROR_INDEX),
    )
}

fn disk(flags: u32) -> LunInfo {
    LunInfo {
        flags: lun_flags::PRESENT | flags,
        logical_block: 512,
        sectors: 8,
        ..LunInfo::default()
    }
}

#[test]
fn the_drivers_release_is_kept_until_it_resets() {
    let mut registers = ready();
    assert_eq!(registers.read(reg::DRIVER_RELEASE), 0);
    registers.write(reg::DRIVER_RELEASE, 9);
    assert_eq!(start(&mut registers).0, state::RUNNING);
    registers.write(reg::DRIVER_RELEASE, 10);
    assert_eq!(registers.read(reg::DRIVER_RELEASE), 9);
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.read(reg::DRIVER_RELEASE), 0);
}

#[test]
fn the_offer_is_readable_and_fixed() {
    let mut registers = registers();
    for offset in (0..0x20).step_by(4) {
        let before = registers.read(offset);
        registers.write(offset, !before);
        assert_eq!(registers.read(offset), before);
    }
    assert_eq!(registers.read(reg::MAGIC).to_le_bytes(), *b"AVIO");
    assert_eq!(registers.read(reg::DEVICE_FEATURES), 0x27);
    assert_eq!(registers.read(reg::MAX_QUEUES), 4);
    assert_eq!(registers.read(reg::MAX_QUEUE_SIZE), 128);
    assert_eq!(registers.read(reg::LUNS), 256);
    registers.write(reg::RELEASE, 7);
    assert_eq!(registers.read(reg::RELEASE), Release::CURRENT.0);
}

#[test]
fn start_hands_over_what_was_set() {
    let mut registers = ready();
    assert_eq!(start(&mut registers), (state::RUNNING, 0, 0));
    let (version, features, queues) = registers.backend.starts[0].clone();
    assert_eq!((version, features, queues.len()), (1, 3, 2));
    let expected = Queue {
        submissions: 0x1_0000_1000,
        completions: 0x2000,
        control: 0x3000,
        size: 128,
    };
    assert_eq!(queues[1], expected);
}

#[test]
fn r13_queue_registers_do_not_change_while_running() {
    let mut registers = ready();
    start(&mut registers);
    set_queue(&mut registers, 0, 2);
    assert_eq!(registers.read(reg::QUEUES + queue::SIZE), 64);
}

#[test]
fn r14_features_do_not_change_while_running() {
    let mut registers = ready();
    start(&mut registers);
    registers.write(reg::DRIVER_FEATURES, 0);
    registers.write(reg::DRIVER_QUEUES, 4);
    assert_eq!(registers.read(reg::DRIVER_FEATURES), 3);
    assert_eq!(registers.read(reg::DRIVER_QUEUES), 2);
    assert_eq!(start(&mut registers).0, state::RUNNING);
    let starts = registers.backend.starts.len();
    assert_eq!(starts, 1, "a second START does nothing");
}

#[test]
fn reset_stops_and_forgets() {
    let mut registers = ready();
    start(&mut registers);
    registers.write(reg::LUNS_IN_USE + 4, 5);
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.backend.stops, 1);
    assert_eq!(registers.read(reg::STATE), state::STOPPED);
    assert_eq!(registers.read(reg::QUEUES + queue::SIZE), 0);
    assert_eq!(registers.read(reg::DRIVER_VERSION), 0);
    assert_eq!(registers.read(reg::LUNS_IN_USE + 4), 0);
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.backend.stops, 1, "nothing to stop");
}

#[test]
fn a_slow_stop_is_stopping_until_somebody_says_otherwise() {
    let mut registers = ready();
    registers.stopped();
    registers.backend.slow = true;
    start(&mut registers);
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.read(reg::STATE), state::STOPPING);
    registers.write(reg::DRIVER_VERSION, 1);
    assert_eq!(registers.read(reg::DRIVER_VERSION), 0, "not stopped yet");
    assert_eq!(start(&mut registers).0, state::STOPPING);
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.backend.stops, 1, "no processor waits again");
    registers.stopped();
    assert_eq!(registers.read(reg::STATE), state::STOPPED);
}

#[test]
fn stopped_changes_no_other_state() {
    let mut registers = ready();
    start(&mut registers);
    registers.stopped();
    assert_eq!(registers.read(reg::STATE), state::RUNNING);
}

#[test]
fn switching_bus_master_off_is_a_reset() {
    let mut registers = registers();
    set_up(&mut registers);
    registers.set_bus_master(false);
    assert_eq!(registers.read(reg::DRIVER_QUEUES), 2, "it was off before");
    registers.set_bus_master(true);
    start(&mut registers);
    registers.set_bus_master(true);
    assert_eq!(registers.read(reg::STATE), state::RUNNING);
    registers.set_bus_master(false);
    assert_eq!(registers.backend.stops, 1);
    assert_eq!(registers.read(reg::STATE), state::STOPPED);
    assert_eq!(registers.read(reg::DRIVER_QUEUES), 0);
    registers.set_bus_master(false);
    assert_eq!(registers.backend.stops, 1, "nothing to stop");
}

#[test]
fn start_without_bus_master_is_refused() {
    let mut registers = ready();
    registers.set_bus_master(false);
    set_up(&mut registers);
    let refused = (state::FAILED, SetupError::NoBusMaster as u32, 0);
    assert_eq!(start(&mut registers), refused);
    assert!(registers.backend.starts.is_empty());
    registers.set_bus_master(true);
    registers.write(reg::COMMAND, command::RESET);
    set_up(&mut registers);
    assert_eq!(start(&mut registers), (state::RUNNING, 0, 0));
}

#[test]
fn a_refusal_by_the_host_reaches_the_guest_and_reset_clears_it() {
    let mut registers = ready();
    registers.backend.refuse = Some(Refusal {
        error: Some(SetupError::QueueAddress),
        queue: 1,
    });
    assert_eq!(
        start(&mut registers),
        (state::FAILED, SetupError::QueueAddress as u32, 1)
    );
    registers.write(reg::COMMAND, command::START);
    let starts = registers.backend.starts.len();
    assert_eq!(starts, 1, "only RESET leads out of FAILED");
    registers.write(reg::COMMAND, command::RESET);
    assert_eq!(registers.read(reg::ERROR), 0);
    assert_eq!(registers.read(reg::STATE), state::STOPPED);
    assert_eq!(registers.backend.stops, 1, "half-made queues are forgotten");
}

#[test]
fn a_refusal_without_a_reason_has_number_zero() {
    let mut registers = ready();
    registers.backend.refuse = Some(Refusal {
        error: None,
        queue: 0,
    });
    assert_eq!(start(&mut registers), (state::FAILED, 0, 0));
}
