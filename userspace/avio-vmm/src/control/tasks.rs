// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands that wait for a device to be opened. Their number is bounded by that of the threads that open devices.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::commands::{chain, text, Outcomes};
use super::Guest;
use crate::backing::Backing;
use crate::openers::Opening;

/// How long a device may take to be opened before its command is refused.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a command does with the open device. Others may have been carried out since it began.
pub type Finish = Box<dyn FnOnce(&Guest, Backing) -> Outcomes + Send>;

/// A command that waits.
pub struct Task {
    /// The device's path.
    pub path: PathBuf,
    /// Its opening.
    pub opening: Opening,
    /// The rest of the command.
    pub finish: Finish,
}

/// Those that wait, for whom, and until when.
pub struct Tasks {
    patience: Duration,
    waiting: Vec<(u64, Instant, Task)>,
}

impl Tasks {
    /// None. Each is to wait so long.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting: Vec::new(),
        }
    }

    /// One more, which this client waits for.
    pub fn add(&mut self, client: u64, task: Task) {
        let until = Instant::now() + self.patience;
        self.waiting.push((client, until, task));
    }

    /// How long until one has waited for long enough.
    pub fn pause(&self) -> Option<Duration> {
        let first = self.waiting.iter().map(|(_, until, _)| until).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// Goes on with those whose device is open, and gives up those that have waited for long enough; the answers, each with
    /// its client.
    pub fn answers(&mut self, guest: &Guest) -> Vec<(u64, String)> {
        let now = Instant::now();
        let mut answers = Vec::new();
        for (client, until, task) in std::mem::take(&mut self.waiting) {
            let outcome = match task.opening.take() {
                Some(opened) => opened
                    .map_err(chain)
                    .and_then(|backing| (task.finish)(guest, backing)),
                None if now >= until => Err(self.late(&task)),
                None => {
                    self.waiting.push((client, until, task));
                    continue;
                }
            };
            answers.push((client, text(outcome)));
        }
        answers
    }

    fn late(&self, task: &Task) -> String {
        format!(
            "disk {} has not answered for {} s, and nothing was changed; have it answer, or fail, and try again",
            task.path.display(),
            self.patience.as_secs_f32()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::commands::tests::{guest, now};
    use crate::control::commands::{answer, Reply};
    use crate::exit::Outcome;
    use crate::inventory::tests::lun;
    use crate::openers::tests::{openers, until, Fifo};
    use crate::openers::Openers;

    const LONG: Duration = Duration::from_secs(100);
    const STATUS: &str = r#"{"execute": "status"}"#;
    const QUIT: &str = r#"{"execute": "quit"}"#;

    fn line(command: &str, lun: u32, device: &Fifo) -> String {
        let arguments = serde_json::json!({"hba": "a", "lun": lun, "disk": device.disk()});
        serde_json::json!({"execute": command, "arguments": arguments}).to_string()
    }

    fn begun(guest: &Guest, openers: &Openers, line: &str) -> Task {
        match answer(guest, openers, line) {
            Reply::Later(task) => task,
            Reply::Now(text) => panic!("{line} has its answer: {text}"),
        }
    }

    fn insert(guest: &Guest, number: u32) {
        let lun = lun(number, "wwn 1", false);
        let mut inventory = guest.inventory.lock();
        inventory.adapters[0].luns.insert(number, lun);
    }

    fn first_answer(tasks: &mut Tasks, guest: &Guest) -> (u64, String) {
        until(|| tasks.answers(guest).pop())
    }

    #[test]
    fn a_device_that_hangs_holds_up_its_own_command_only() {
        let (guest, openers, hung) = (guest(), openers(), Fifo::new("add"));
        let mut tasks = Tasks::new(LONG);
        insert(&guest, 3);
        let add = line("add-lun", 4, &hung);
        tasks.add(1, begun(&guest, &openers, &add));
        assert!(tasks.answers(&guest).is_empty());
        assert!(now(&guest, &openers, STATUS).contains("return"));
        let again = now(&guest, &openers, &add);
        assert!(again.contains("being opened"), "{again}");
        let other = Fifo::new("replace");
        let replace = line("replace-lun", 3, &other);
        tasks.add(2, begun(&guest, &openers, &replace));
        assert_eq!(now(&guest, &openers, QUIT), r#"{"return":null}"#);
        assert_eq!(guest.exit.outcome(), Some(Outcome::Quit));
        assert!(tasks.answers(&guest).is_empty() && tasks.pause() > Some(LONG / 2));
        drop(tasks);
        hung.answers_in_vain();
        other.answers_in_vain();
    }

    #[test]
    fn who_has_waited_for_long_enough_is_refused() {
        let (guest, openers, hung) = (guest(), openers(), Fifo::new("patience"));
        let mut tasks = Tasks::new(Duration::from_millis(20));
        let add = line("add-lun", 4, &hung);
        tasks.add(7, begun(&guest, &openers, &add));
        let (client, text) = first_answer(&mut tasks, &guest);
        assert_eq!(client, 7);
        assert!(text.contains("has not answered for 0.02 s"), "{text}");
        assert!(tasks.pause().is_none());
        assert!(guest.inventory.lock().adapters[0].luns.is_empty());
        hung.answers_in_vain();
    }

    /// The answer to a command whose device answers when something else was done.
    fn answer_after(command: &str, number: u32, meanwhile: impl FnOnce(&Guest)) -> String {
        let (guest, openers, device) = (guest(), openers(), Fifo::new("meanwhile"));
        insert(&guest, 3);
        let mut tasks = Tasks::new(LONG);
        let line = line(command, number, &device);
        tasks.add(1, begun(&guest, &openers, &line));
        meanwhile(&guest);
        let _end = device.answers();
        first_answer(&mut tasks, &guest).1
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
}
