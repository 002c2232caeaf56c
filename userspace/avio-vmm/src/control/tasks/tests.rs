// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands against devices that answer late or never.

use super::*;
use crate::control::commands::tests::{guest, now};
use crate::control::commands::{answer, Reply};
use crate::exit::Outcome;
use crate::inventory::tests::lun;
use crate::openers::tests::{openers, until, Fifo, SLOW};
use crate::openers::{Openers, THREADS};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);
const PATIENT: Patience = Patience {
    open: LONG,
    written: LONG,
};
const STATUS: &str = r#"{"execute": "status"}"#;
const QUIT: &str = r#"{"execute": "quit"}"#;

fn line(command: &str, lun: u32, device: &Fifo) -> String {
    let arguments = serde_json::json!({"hba": "a", "lun": lun, "disk": device.disk()});
    serde_json::json!({"execute": command, "arguments": arguments}).to_string()
}

fn begun(guest: &Guest, openers: &Openers, line: &str) -> Task {
    match answer(guest, openers, line) {
        Reply::Later(task) => *task,
        Reply::Now(text) => panic!("{line} has its answer: {text}"),
    }
}

fn insert(guest: &Guest, number: u32) {
    let lun = lun(number, "wwn 1", false);
    let mut inventory = guest.inventory.lock();
    inventory.adapters[0].luns.insert(number, lun);
}

fn first_answer(tasks: &mut Tasks, guest: &Guest, openers: &Openers) -> (u64, String) {
    until(|| tasks.answers(guest, openers).pop())
}

#[test]
fn a_device_that_hangs_holds_up_its_own_command_only() {
    let (guest, openers, hung) = (guest(), openers(), Fifo::new("add"));
    let mut tasks = Tasks::new(PATIENT);
    insert(&guest, 3);
    let add = line("add-lun", 4, &hung);
    tasks.add(1, begun(&guest, &openers, &add));
    assert!(tasks.answers(&guest, &openers).is_empty());
    assert!(now(&guest, &openers, STATUS).contains("return"));
    let other = Fifo::new("replace");
    let replace = line("replace-lun", 3, &other);
    tasks.add(2, begun(&guest, &openers, &replace));
    assert_eq!(now(&guest, &openers, QUIT), r#"{"return":null}"#);
    assert_eq!(guest.exit.outcome(), Some(Outcome::Quit));
    assert!(tasks.answers(&guest, &openers).is_empty() && tasks.pause() > Some(LONG / 2));
    drop(tasks);
    hung.answers_in_vain();
    other.answers_in_vain();
}

#[test]
fn who_has_waited_for_long_enough_is_refused() {
    let (guest, openers, hung) = (guest(), openers(), Fifo::new("patience"));
    let mut tasks = Tasks::new(Patience {
        open: SHORT,
        ..PATIENT
    });
    let add = line("add-lun", 4, &hung);
    tasks.add(7, begun(&guest, &openers, &add));
    let (client, text) = first_answer(&mut tasks, &guest, &openers);
    assert_eq!(client, 7);
    assert!(text.contains("has not answered for 0.02 s"), "{text}");
    tasks.add(8, begun(&guest, &openers, &add));
    let (_, text) = first_answer(&mut tasks, &guest, &openers);
    assert!(
        text.contains("being opened or written back already"),
        "{text}"
    );
    assert!(tasks.pause().is_none());
    assert!(guest.inventory.lock().adapters[0].luns.is_empty());
    hung.answers_in_vain();
}

#[test]
fn to_be_written_back_may_take_longer() {
    let (guest, openers, slow) = (guest(), openers(), Fifo::new(&format!("written-{SLOW}")));
    insert(&guest, 3);
    let patience = |written| Patience {
        open: SHORT,
        written,
    };
    let answer = |patience, ends: bool| {
        let mut tasks = Tasks::new(patience);
        let replace = line("replace-lun", 3, &slow);
        tasks.add(1, begun(&guest, &openers, &replace));
        insert(&guest, 3);
        let end = slow.answers();
        let task = &tasks.waiting[0].2;
        until(|| task.is_open().then_some(()));
        std::thread::sleep(2 * SHORT);
        let end = (!ends).then_some(end);
        let answer = first_answer(&mut tasks, &guest, &openers).1;
        drop(end);
        answer
    };
    let text = answer(patience(LONG), true);
    assert!(text.contains("removed or exchanged"), "{text}");
    let text = answer(patience(3 * SHORT), false);
    assert!(text.contains("not written back to it in 0.06 s"), "{text}");
}

#[test]
fn more_than_there_are_threads_wait_for_their_turn() {
    let (guest, openers) = (guest(), openers());
    let mut tasks = Tasks::new(PATIENT);
    let new = |n| Fifo::new(&format!("turn{n}"));
    let devices: Vec<Fifo> = (0..2 * THREADS).map(new).collect();
    for device in &devices {
        tasks.add(1, begun(&guest, &openers, &line("add-lun", 4, device)));
    }
    insert(&guest, 4);
    std::thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| device.answers());
        }
        let mut answers = Vec::new();
        until(|| {
            answers.extend(tasks.answers(&guest, &openers));
            (answers.len() == devices.len()).then_some(())
        });
        for (_, text) in answers {
            assert!(text.contains("LUN 4 is taken"), "{text}");
        }
    });
}

#[test]
fn two_commands_for_one_device_go_one_after_the_other() {
    let (guest, openers, device) = (guest(), openers(), Fifo::new("twice"));
    let mut tasks = Tasks::new(PATIENT);
    for client in [1, 2] {
        let add = line("add-lun", 4, &device);
        tasks.add(client, begun(&guest, &openers, &add));
    }
    insert(&guest, 4);
    for client in [1, 2] {
        drop(device.answers());
        let (answered, text) = first_answer(&mut tasks, &guest, &openers);
        assert!(text.contains("LUN 4 is taken"), "{text}");
        assert_eq!(answered, client);
        assert!(tasks.answers(&guest, &openers).is_empty());
    }
}

#[test]
fn so_many_wait_at_most() {
    let (guest, openers, hung) = (guest(), openers(), Fifo::new("most"));
    let mut tasks = Tasks::new(PATIENT);
    let add = line("add-lun", 4, &hung);
    for _ in 0..MOST {
        assert!(tasks.add(1, begun(&guest, &openers, &add)).is_none());
    }
    let refused = tasks.add(2, begun(&guest, &openers, &add)).unwrap();
    assert!(refused.contains("64 commands wait"), "{refused}");
    drop(tasks);
    hung.answers_in_vain();
}

/// A command whose device is dirty so many times.
fn begun_dirty(guest: &Guest, openers: &Openers, device: &Fifo, times: u32) -> Task {
    let finished = AtomicU32::new(0);
    let finish = move |_: &Guest, _| match finished.fetch_add(1, Relaxed) {
        n if n < times => Err(Refusal {
            text: "it is dirty".into(),
            dirty: true,
        }),
        _ => Ok(Value::Null),
    };
    let inventory = guest.inventory.lock();
    Task::new(&inventory, openers, &device.disk(), Box::new(finish)).unwrap()
}

#[test]
fn a_device_that_is_dirty_again_is_written_back_again() {
    let (guest, openers) = (guest(), openers());
    for (dirty, words) in [(3, "return"), (4, "is dirty")] {
        let (device, mut tasks) = (Fifo::new("dirty"), Tasks::new(PATIENT));
        tasks.add(1, begun_dirty(&guest, &openers, &device, dirty));
        drop(device.answers());
        let (_, text) = first_answer(&mut tasks, &guest, &openers);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_device_that_is_open_has_the_longer_time_for_each_write_back() {
    let (guest, openers, slow) = (guest(), openers(), Fifo::new(&format!("again-{SLOW}")));
    let mut tasks = Tasks::new(Patience {
        open: SHORT,
        ..PATIENT
    });
    tasks.add(1, begun_dirty(&guest, &openers, &slow, WRITE_BACKS));
    let end = slow.answers();
    std::thread::sleep(2 * SHORT);
    drop(end);
    until(|| tasks.waiting[0].2.is_open().then_some(()));
    let (_, text) = first_answer(&mut tasks, &guest, &openers);
    assert!(text.contains("return"), "{text}");
}

/// The answer to a command whose device answers when something else was done.
fn answer_after(command: &str, number: u32, meanwhile: impl FnOnce(&Guest)) -> String {
    let (guest, openers, device) = (guest(), openers(), Fifo::new("meanwhile"));
    insert(&guest, 3);
    let mut tasks = Tasks::new(PATIENT);
    let line = line(command, number, &device);
    tasks.add(1, begun(&guest, &openers, &line));
    meanwhile(&guest);
    let _end = device.answers();
    first_answer(&mut tasks, &guest, &openers).1
}

#[test]
fn what_was_changed_meanwhile_is_seen() {
    let text = answer_after("add-lun", 4, |guest| insert(guest, 4));
    assert!(text.contains("LUN 4 is taken"), "{text}");
    let text = answer_after("replace-lun", 3, |guest| insert(guest, 3));
    assert!(text.contains("removed or exchanged"), "{text}");
    let text = answer_after("replace-lun", 3, |guest| {
        guest.inventory.lock().adapters[0].luns.remove(&3);
    });
    assert!(text.contains("removed or exchanged"), "{text}");
}
