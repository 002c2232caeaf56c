// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Who else may have a disk.
//!
//! The kernel's own claim (O_EXCL) keeps apart mounts, what is made of other devices, and guests that do not share. It
//! knows no sharers. So each of those has a shared lock (flock) on the disk's node for as long as it has that open, the
//! module included, and claims the disk for a moment to see that nobody else does. Who does not share has the claim, and
//! takes an exclusive lock for a moment to see that nobody shares.
//!
//! Both leave their mark first and look for the other's then. Whoever leaves it last looks when both are there, and is
//! refused. So of two that start in any order at least one is; both, if neither gives up before the other has looked.
//!
//! The claim is the device's, and a disk's excludes those of its partitions. A lock is of the node's inode, and not of the
//! device's (`locks_lock_file_wait` in the kernel): it is found through every link to the node, but neither through another
//! node of the device (of mknod, or in another file system) nor between a disk and its partitions. A mount asks for no lock.

// nix has a newer lock, which ends when it is dropped. The module may have the file for longer than we.
#![allow(deprecated)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{flock, FlockArg};

/// How long a mark is looked at that may be one of a moment: another start's, or that of udev, which has a shared lock while
/// it probes.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Whether nobody shares a disk that is claimed. The lock is not kept, as udev leaves the disk alone meanwhile.
pub fn is_unshared(disk: &File) -> io::Result<bool> {
    let unshared = comes_true(|| lock(disk, FlockArg::LockExclusiveNonblock))?;
    flock(disk.as_raw_fd(), FlockArg::Unlock)?;
    Ok(unshared)
}

/// Shares a disk until its file is closed by all who have it. `claim` claims it for a moment. Whether nobody has it for
/// himself.
pub fn share(disk: &File, claim: impl Fn() -> io::Result<()>) -> io::Result<bool> {
    let locked = comes_true(|| lock(disk, FlockArg::LockSharedNonblock))?;
    Ok(locked && comes_true(|| unless(Errno::EBUSY, claim()))?)
}

fn lock(disk: &File, how: FlockArg) -> io::Result<bool> {
    let result = flock(disk.as_raw_fd(), how);
    unless(Errno::EWOULDBLOCK, result.map_err(io::Error::from))
}

/// Whether it succeeds; no error if it fails for this reason.
fn unless(reason: Errno, result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(reason as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

fn comes_true(condition: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    loop {
        // Who comes late looks once more.
        let late = Instant::now() > end;
        if condition()? {
            return Ok(true);
        }
        if late {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::path::PathBuf;

    /// A file in the place of a disk's node, which two can open.
    struct Node(PathBuf);

    impl Node {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("avio-{}-{name}", std::process::id()));
            std::fs::write(&path, "").unwrap();
            Self(path)
        }

        fn open(&self) -> File {
            File::open(&self.0).unwrap()
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap();
        }
    }

    fn busy() -> io::Error {
        io::Error::from_raw_os_error(libc::EBUSY)
    }

    #[test]
    fn a_disk_is_shared_until_the_last_sharer_has_closed_it() {
        let node = Node::new("shared");
        let (first, second, alone) = (node.open(), node.open(), node.open());
        assert!(share(&first, || Ok(())).unwrap() && share(&second, || Ok(())).unwrap());
        drop(first);
        assert!(!is_unshared(&alone).unwrap());
        // As the module has it.
        let module = second.try_clone().unwrap();
        drop(second);
        assert!(!is_unshared(&alone).unwrap());
        drop(module);
        assert!(is_unshared(&alone).unwrap());
        assert!(
            share(&node.open(), || Ok(())).unwrap(),
            "the look leaves no lock"
        );
    }

    #[test]
    fn who_finds_a_claim_or_an_exclusive_lock_does_not_share() {
        let node = Node::new("claimed");
        assert!(!share(&node.open(), || Err(busy())).unwrap());
        let locked = node.open();
        assert!(lock(&locked, FlockArg::LockExclusiveNonblock).unwrap());
        assert!(!share(&node.open(), || Ok(())).unwrap());
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        drop(locked);
        assert!(share(&node.open(), denied).is_err());
    }

    #[test]
    fn the_lock_is_there_before_the_claim_is_looked_for() {
        let node = Node::new("order");
        let look = || match lock(&node.open(), FlockArg::LockExclusiveNonblock)? {
            true => Ok(()),
            false => Err(busy()),
        };
        assert!(!share(&node.open(), look).unwrap());
    }

    #[test]
    fn what_is_there_for_a_moment_is_waited_for() {
        let node = Node::new("moment");
        let tries = Cell::new(0);
        let third = || {
            tries.set(tries.get() + 1);
            (tries.get() == 3).then_some(()).ok_or_else(busy)
        };
        assert!(share(&node.open(), third).unwrap());
        let probing = node.open();
        assert!(lock(&probing, FlockArg::LockSharedNonblock).unwrap());
        let until = std::thread::spawn(move || {
            std::thread::sleep(3 * PAUSE);
            drop(probing);
        });
        assert!(is_unshared(&node.open()).unwrap());
        until.join().unwrap();
    }
}
