// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Task commands.

use super::*;

fn task(registers: &mut Registers<Recorder>, lun: u32, kind: u32) -> u32 {
    task_with(registers, lun, kind, 0x0002_0011)
}

fn task_with(registers: &mut Registers<Recorder>, lun: u32, kind: u32, request: u32) -> u32 {
    registers.write(reg::TASK_LUN, lun);
    registers.write(reg::TASK_REQUEST, request);
    registers.write(reg::TASK, kind);
    registers.read(reg::TASK_RESULT)
}

#[test]
fn tasks_reach_the_backend_if_they_were_negotiated() {
    let mut registers = ready();
    start(&mut registers);
    assert_eq!(task(&mut registers, 1, task::ABORT), task::REFUSED);
    assert_eq!(task(&mut registers, 1, task::LUN_RESET), task::REFUSED);
    assert_eq!(registers.backend.tasks, []);
    registers.write(reg::COMMAND, command::RESET);
    registers.write(reg::DRIVER_FEATURES, features::TASKS as u32);
    assert_eq!(task(&mut registers, 1, task::ABORT), 3);
    assert_eq!(task(&mut registers, 1, task::LUN_RESET), 3);
    assert_eq!(task(&mut registers, 2, task::LUN_RESET), task::REFUSED);
    assert_eq!(task(&mut registers, 1, 77), task::REFUSED);
    let abort = Task::Abort {
        lun: 1,
        queue: 2,
        tag: 0x11,
    };
    let resets = [1, 2].map(|lun| Task::LunReset { lun });
    assert_eq!(registers.backend.tasks, [abort, resets[0], resets[1]]);
}

#[test]
fn a_queue_is_stopped_and_started_if_that_was_negotiated() {
    let mut registers = ready();
    registers.write(reg::DRIVER_FEATURES, features::TASKS as u32);
    assert_eq!(task(&mut registers, 1, task::QUEUE_STOP), task::REFUSED);
    registers.write(reg::DRIVER_FEATURES, features::QUEUE_RESET as u32);
    assert_eq!(task(&mut registers, 7, task::QUEUE_STOP), 3);
    assert_eq!(task(&mut registers, 7, task::QUEUE_START), 3);
    assert_eq!(task(&mut registers, 1, task::ABORT), task::REFUSED);
    let queue = 2;
    let both = [Task::QueueStop { queue }, Task::QueueStart { queue }];
    assert_eq!(registers.backend.tasks, both);
}

#[test]
fn an_opened_gate_is_a_change_and_needs_no_feature() {
    let mut registers = registers();
    for lun in [1, 2] {
        registers.set_lun(lun, disk(lun_flags::GATED));
    }
    let changes = [1, 2].map(|lun| registers.lun(lun).changes);
    assert_eq!(task_with(&mut registers, 1, task::OPEN_GATE, changes[0]), 3);
    assert_eq!(registers.lun(1).flags, lun_flags::PRESENT);
    assert_eq!(registers.backend.announced, 3);
    assert_eq!(
        task_with(&mut registers, 2, task::OPEN_GATE, changes[1]),
        task::REFUSED
    );
    assert_ne!(registers.lun(2).flags & lun_flags::GATED, 0);
    assert_eq!(registers.backend.announced, 3);
}

#[test]
fn a_gate_is_not_opened_for_another_disk_than_the_guest_has_seen() {
    let mut registers = registers();
    registers.set_lun(1, disk(lun_flags::GATED));
    let seen = registers.lun(1).changes;
    registers.set_lun(1, LunInfo::default());
    registers.set_lun(1, disk(lun_flags::GATED));
    assert_eq!(
        task_with(&mut registers, 1, task::OPEN_GATE, seen),
        task::REFUSED
    );
    assert_eq!(registers.backend.tasks, []);
    assert_ne!(registers.lun(1).flags & lun_flags::GATED, 0);
}

#[test]
fn a_reset_in_the_middle_of_a_task_does_not_turn_it_to_another_lun() {
    let mut registers = ready();
    start(&mut registers);
    registers.write(reg::TASK_LUN, 1);
    registers.write(reg::TASK_REQUEST, 0);
    registers.write(reg::COMMAND, command::RESET);
    registers.write(reg::TASK, task::OPEN_GATE);
    let changes = registers.lun(1).changes;
    assert_eq!(
        registers.backend.tasks,
        [Task::OpenGate { lun: 1, changes }]
    );
}
