# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: who may do what to a disk: a LUN that is for reading only, and a disk that two guests have. Steps of
storage.py."""

from backings import null_blk, remove_null_blk
from common import Shell, case, check, claimable, equal, no_guest, sh, wait_for
from gates import filled
from machine import guest_sum, host_sum, lun_of

MIB = 1 << 20


def read_only(guest, control):
    """A disk that could be written to is given to a guest for reading only."""
    with case("storage:read-only-although-the-backing-is-not"):
        path = filled("for-reading", 4)
        whole = host_sum(path, 0, 4 * MIB)
        disk = guest.new_disk(control, 28, path, readonly=True)
        check("read-only" in lun_of(control, 28)["flags"], "the VMM tells nothing of it")
        equal(guest.do(f"attribute {disk} ro").strip(), "1", "the guest's read-only flag")
        zeroes = f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1"
        writable = f"blockdev --setrw /dev/{disk}; {zeroes} oflag=direct"
        for write in (f"{zeroes} oflag=direct", f"{zeroes} conv=fsync", f"/usr/sbin/blkdiscard -z /dev/{disk}", writable):
            guest.refuses(write)
        found = (guest_sum(guest, disk, 0, 4 * MIB), host_sum(path, 0, 4 * MIB))
        equal(found, (whole, whole), "checksums of the disk in the guest, and on the host")
        guest.remove_disk(control, 28, disk)
        remove_null_blk("for-reading")


def shared(guest, control, initrd):
    """Two VMMs have the same disk, as both say that it is shared: the guest of each reads what the other's has written. One
    that does not say so gets no disk that others share, and no sharer gets its disk."""
    with case("storage:a-disk-that-two-VMMs-share"):
        path = null_blk("common", 16)
        disk = guest.new_disk(control, 29, path, shared=True)
        with Shell([f"path={path},shared"], initrd, memory=256) as second:
            second.ready()
            no_guest(initrd, f"path={path}", path, "shares it")
            theirs = second.do("disk 1").strip()
            told = guest.pattern_on(disk)
            equal(guest_sum(second, theirs), told, "checksum of what the first guest wrote")
            second.do("dd if=/dev/urandom of=/tmp/random bs=64k count=16")
            second.do(f"dd if=/tmp/random of=/dev/{theirs} bs=64k seek=64 oflag=direct")
            told = second.do("sha256sum </tmp/random").split()[0]
            equal(guest_sum(guest, disk, 4 * MIB), told, "checksum of what the second guest wrote")
        guest.do(f"verified {disk} 16 1m")
        no_guest(initrd, f"path={path}", path, "shares it")
        guest.remove_disk(control, 29, disk)
        wait_for(lambda: claimable(path), 20, "the last sharer to let go of the disk")
    with case("storage:a-disk-that-was-shared-is-claimed"):
        disk = guest.new_disk(control, 29, path)
        no_guest(initrd, f"path={path},shared", path, "cannot be shared")
        # Nothing keeps udev from looking at it.
        sh("flock", "--nonblock", "--shared", path, "true")
        guest.remove_disk(control, 29, disk)
        remove_null_blk("common")
