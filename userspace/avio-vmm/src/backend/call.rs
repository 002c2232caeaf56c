// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Ioctls: to the module, and two to block devices. And one other call that nobody has a safe name for.
//!
//! One of the two files with `unsafe` (`memory.rs` is the other).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use avio_abi::wire::Wire;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ref};

/// Reads the sequence number of a disk: every disk, and every medium in it, has one of its own.
pub const BLKGETDISKSEQ: u32 = 0x8008_1280;
/// Resets a SCSI device.
pub const SG_SCSI_RESET: u32 = 0x2284;
const SG_SCSI_RESET_DEVICE: i32 = 1;
/// Without it the kernel goes on to the target, the bus and the host if the device does not take its reset, and with
/// them to other guests' disks.
const SG_SCSI_RESET_NO_ESCALATE: i32 = 0x100;

/// Calls the module with `arg`, and puts the answer there, also when it fails.
pub fn exchange<T: Wire>(module: &File, request: u32, arg: &mut T) -> io::Result<()> {
    let mut bytes = vec![0; T::SIZE];
    let _ = arg.put(&mut bytes);
    let result = call(module, request, &mut bytes);
    if let Some((answer, _)) = T::take(&bytes) {
        *arg = answer;
    }
    result
}

/// Calls the module without an argument.
pub fn command(module: &File, request: u32) -> io::Result<()> {
    call(module, request, &mut [])
}

/// The one way into the module. `request` must encode the argument's length, or zero.
fn call(module: &File, request: u32, arg: &mut [u8]) -> io::Result<()> {
    assert_eq!((request >> 16 & 0x3fff) as usize, arg.len());
    // SAFETY: the module reads and writes as many bytes at most as the request encodes, and `arg` has them. Of the
    // addresses inside an argument, `Stor::set_memory` alone passes any: those of its table, which lives through the
    // call, and those of guest memory, which is mapped shared and reached by volatile accesses only.
    let result = unsafe { ioctl_with_mut_ptr(module, u64::from(request), arg.as_mut_ptr()) };
    checked(result)
}

/// The sequence number of the disk that an open block device is or is part of.
pub fn disk_sequence(disk: &File) -> io::Result<u64> {
    let mut sequence = 0u64;
    // SAFETY: the call writes eight bytes, which `sequence` has.
    let result = unsafe { ioctl_with_mut_ref(disk, u64::from(BLKGETDISKSEQ), &mut sequence) };
    checked(result).map(|()| sequence)
}

/// Resets a SCSI disk and nothing beside it, which may take long.
pub fn scsi_reset(disk: &File) -> io::Result<()> {
    let what = SG_SCSI_RESET_DEVICE | SG_SCSI_RESET_NO_ESCALATE;
    // SAFETY: the call reads an int and writes no memory of ours.
    let result = unsafe { ioctl_with_ref(disk, u64::from(SG_SCSI_RESET), &what) };
    checked(result)
}

/// Has the page cache write back what it has of a file, and waits for that. Unlike fsync it flushes no cache of the
/// device's own.
pub fn write_back(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call is given no memory.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    checked(result)
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_kernel() {
        use vmm_sys_util::ioctl::{ioctl_expr, _IOC_READ};
        assert_eq!(
            u64::from(BLKGETDISKSEQ),
            ioctl_expr(_IOC_READ, 0x12, 128, 8)
        );
    }

    #[test]
    fn what_is_no_disk_has_no_sequence_and_no_reset() {
        let null = File::open("/dev/null").unwrap();
        assert!(disk_sequence(&null).is_err());
        assert!(scsi_reset(&null).is_err());
    }

    #[test]
    fn a_file_is_written_back_and_a_pipe_is_not() {
        assert!(write_back(&File::open("/proc/self/exe").unwrap()).is_ok());
        assert!(write_back(&File::open("/dev/null").unwrap()).is_err());
    }
}
