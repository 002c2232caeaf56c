// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The threads against FIFOs, which wait for whoever is at the other end.

use super::*;
use crate::inventory::tests::{inventory, lun};
use std::fs::{metadata, remove_file, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;

/// A device that does not answer before it is told to: to open a FIFO takes somebody at the other end.
pub struct Fifo(PathBuf);

impl Fifo {
    pub fn new(name: &str) -> Self {
        let name = format!("avio-fifo-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Self(path)
    }

    pub fn disk(&self) -> Disk {
        Disk {
            path: self.0.clone(),
            ..Disk::default()
        }
    }

    /// Answers, once it is being opened; the other end.
    pub fn answers(&self) -> File {
        let mut way = File::options();
        way.write(true).custom_flags(libc::O_NONBLOCK);
        until(|| way.open(&self.0).ok())
    }

    /// Answers, and sees whoever has opened it close it.
    pub fn answers_in_vain(&self) {
        let mut end = self.answers();
        until(|| end.write_all(b"x").err());
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = remove_file(&self.0);
    }
}

/// The end of a device's name that is written back as long as somebody has its other end.
pub const SLOW: &str = "slow";

/// Openers of such devices.
pub fn openers() -> Openers {
    openers_of(|number| number)
}

fn openers_of(whole: fn(Number) -> Number) -> Openers {
    let ways = Ways {
        number: |path| {
            let minor = metadata(path).unwrap().ino() as u32;
            Ok(Number { major: 1, minor })
        },
        whole,
        open: |disk, number| {
            Ok(Backing {
                file: Arc::new(File::open(&disk.path).unwrap()),
                number,
                facts: lun(0, "wwn 7", false).backing.facts,
            })
        },
        write_back: |backing, path| {
            if path.to_string_lossy().ends_with(SLOW) {
                let _ = io::copy(&mut &*backing.file, &mut io::sink());
            }
        },
    };
    Openers::start(&Filter::of_opener(false).unwrap(), ways).unwrap()
}

/// Waits until there is something.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        // Before the look: who comes late looks once more.
        let late = Instant::now() >= end;
        if let Some(found) = look() {
            return found;
        }
        assert!(!late, "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}

fn begin(openers: &Openers, device: &Fifo, what_for: For) -> Result<Opening, Error> {
    openers.begin(&inventory(), &device.disk(), None, what_for)
}

#[test]
fn a_device_that_hangs_keeps_no_other() {
    let (openers, hung, well) = (openers(), Fifo::new("hung"), Fifo::new("well"));
    let first = begin(&openers, &hung, For::Command).unwrap();
    let second = begin(&openers, &well, For::Command).unwrap();
    let _end = well.answers();
    assert!(until(|| second.take()).is_ok());
    assert!(second.take().is_none() && first.take().is_none());
    until(|| openers.done().event().read().ok());
    drop(first);
    hung.answers_in_vain();
}

#[test]
fn what_comes_too_late_is_closed() {
    let (openers, device) = (openers(), Fifo::new("late"));
    drop(begin(&openers, &device, For::Command).unwrap());
    let again = begin(&openers, &device, For::Command).err().unwrap();
    assert!(again.to_string().contains("being opened"), "{again}");
    device.answers_in_vain();
    drop(until(|| begin(&openers, &device, For::Command).ok()));
    device.answers_in_vain();
}

#[test]
fn so_many_can_hang_and_commands_find_a_thread() {
    let openers = openers();
    let new = |n| Fifo::new(&format!("many{n}"));
    let devices: Vec<Fifo> = (0..=THREADS).map(new).collect();
    let (last, others) = devices.split_last().unwrap();
    for (n, device) in others.iter().enumerate() {
        let begins = |what_for| begin(&openers, device, what_for).is_ok();
        assert_eq!(begins(For::Lost), n < FOR_LOST, "{n}");
        assert_eq!(begins(For::Command), n >= FOR_LOST, "{n}");
    }
    let refused = begin(&openers, last, For::Command).err().unwrap();
    assert!(refused.to_string().contains("8 others"), "{refused}");
    let (one, others) = others.split_first().unwrap();
    one.answers_in_vain();
    drop(until(|| begin(&openers, last, For::Command).ok()));
    others.iter().for_each(Fifo::answers_in_vain);
    last.answers_in_vain();
}

#[test]
fn commands_leave_threads_to_lost_devices() {
    let openers = openers();
    let new = |n| Fifo::new(&format!("left{n}"));
    let devices: Vec<Fifo> = (0..THREADS).map(new).collect();
    for (n, device) in devices.iter().enumerate() {
        let what_for = if n < FOR_LOST {
            For::Command
        } else {
            For::Lost
        };
        drop(begin(&openers, device, what_for).unwrap());
    }
    devices.iter().for_each(Fifo::answers_in_vain);
}

#[test]
fn partitions_of_a_disk_are_opened_one_after_the_other() {
    let openers = openers_of(|_| Number { major: 1, minor: 0 });
    let (first, second) = (Fifo::new(&format!("part-{SLOW}")), Fifo::new("beside"));
    let _first = begin(&openers, &first, For::Command).unwrap();
    let refused = begin(&openers, &second, For::Command).err().unwrap();
    assert!(refused.to_string().contains("partition"), "{refused}");
    let _end = first.answers();
    // The first is still to be written back.
    drop(until(|| begin(&openers, &second, For::Command).ok()));
    second.answers_in_vain();
    assert!(begin(&openers, &first, For::Command).is_err());
}

#[test]
fn what_is_open_is_only_written_back() {
    let (openers, device) = (openers(), Fifo::new("open"));
    let open = lun(5, "wwn 5", false).backing;
    let opening = openers.begin(&inventory(), &device.disk(), Some(&open), For::Lost);
    let opening = opening.unwrap();
    until(|| matches!(*lock(&opening.0), Slot::Ended(_)).then_some(()));
    assert!(opening.is_open());
    let written = opening.take().unwrap().unwrap();
    assert!(written.mark() == open.mark());
}

#[test]
fn what_is_open_is_so_before_a_thread_has_it() {
    let (mut openers, device) = (openers(), Fifo::new("before"));
    let (jobs, _nobody_has_them) = channel();
    openers.jobs = jobs;
    let open = lun(5, "wwn 5", false).backing;
    let begin = |open| openers.begin(&inventory(), &device.disk(), open, For::Command);
    assert!(begin(Some(&open)).unwrap().is_open());
    assert!(!begin(None).unwrap().is_open());
}

#[test]
fn a_confined_thread_may_do_what_it_takes() {
    let ways = Ways {
        number: |_| Ok(Number { major: 1, minor: 3 }),
        whole: |number| number,
        open: |disk, number| {
            // What is asked of a device and of sysfs, and is not reached without one.
            let file = Arc::new(File::open(&disk.path).unwrap());
            let facts = lun(0, "wwn 7", false).backing.facts;
            let backing = Backing {
                file,
                number,
                facts,
            };
            backing.write_back(&disk.path);
            let _ = (backing.look(), std::fs::canonicalize("/proc/self"));
            let _ = std::fs::read_to_string("/proc/self/stat");
            let node = File::open(&disk.path).unwrap();
            let _ = Flock::lock(node, FlockArg::LockSharedNonblock);
            std::thread::sleep(Duration::from_millis(1));
            drop(backing);
            (Ways::BLOCK.open)(disk, number)
        },
        write_back: Ways::BLOCK.write_back,
    };
    let openers = Openers::start(&Filter::of_opener(true).unwrap(), ways).unwrap();
    let null = Disk {
        path: "/dev/null".into(),
        ..Disk::default()
    };
    let opening = openers
        .begin(&inventory(), &null, None, For::Command)
        .unwrap();
    let outcome = until(|| opening.take());
    assert!(matches!(outcome, Err(backing::Error::Unknown(_))));
}
