# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: another disk behind a LUN, while the guest has the old one mounted and while it is off: not one byte of it is
read or written before somebody in the guest says so. And changes that the guest hears of by no interrupt. Steps of
storage.py."""

import os
from pathlib import Path

from backings import linear, loop, null_blk, remove_dm, remove_null_blk
from common import case, check, claimable, equal, sh, wait_for
from machine import Machine, guest_sum, host_sum, lun_of, requests_at_rest, requests_of

MIB = 1 << 20


def filled(name, mib):
    """A memory disk full of random bytes; its path."""
    path = null_blk(name, mib)
    sh("dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={mib}", "oflag=direct")
    return path


def gated(guest, number):
    """Whether the gate of a LUN of the one adapter is closed."""
    return "gated" in lun_of(guest.control(), number)["flags"]


def untouched(path, mib):
    """What tells whether a disk was touched: how many requests it had, and all that is on it."""
    whole = host_sum(path, 0, mib * MIB)
    before = requests_at_rest(path)

    def same(when):
        equal(requests_of(path), before, f"number of requests to the new backing {when}")
        equal(host_sum(path, 0, mib * MIB), whole, f"checksum of the new backing {when}")

    return same


def refused(guest, disk):
    """The guest can neither read nor write a disk."""
    guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct")
    guest.refuses(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct")
    guest.refuses(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 conv=fsync")


def accept(guest, disk, path, mib):
    """Have the gate opened; the disk works, and nothing but what is written to it now reaches the backing."""
    parts = ((0, MIB), (2 * MIB, (mib - 2) * MIB))
    before = [host_sum(path, *part) for part in parts]
    guest.do(f"gvsdmgr -f replace_dsk -D /dev/gvsd0 -q lun=/dev/{disk}")
    told = guest.pattern_on(disk)
    equal(host_sum(path), told, f"checksum of the pattern on {path}")
    equal([host_sum(path, *part) for part in parts], before, f"checksums of what is beside the pattern on {path}")


def mounted(guest, control):
    """S12: a file system that is mounted and written to loses its backing to another: all its I/O fails, and none of it
    reaches the new one, not even when the gate is open and the mount still there."""
    mib = 32
    old, new = null_blk("below-files", mib), filled("foreign", mib)
    with case("storage:S12-replacement-under-a-mounted-file-system"):
        disk = guest.new_disk(control, 18, old)
        guest.do(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && echo kept >/mnt/kept && sync")
        fio = "fio --name=m --filename=/mnt/file --rw=randrw --bs=4k --size=4m --iodepth=8 --direct=1 --ioengine=libaio --fsync=32"
        guest.in_background(f"{fio} --time_based --runtime=600", "direct")
        buffered = "dd if=/dev/urandom of=/mnt/cached bs=64k count=16 conv=notrunc,fsync"
        guest.do(f"(while {buffered}; do :; done; echo ended >/tmp/cached) </dev/null >/dev/null 2>&1 &")
        since = requests_of(old)
        wait_for(lambda: requests_of(old) > since + 200, 30, "I/O of the file system")
        same = untouched(new, mib)
        control("replace-lun", lun=18, disk={"path": new}, force=True)
        guest.do("until [ -s /tmp/direct ] && [ -s /tmp/cached ]; do sleep 0.1; done; ! grep -qx 0 /tmp/direct")
        guest.refuses("dd if=/mnt/file of=/dev/null bs=4k count=1 iflag=direct")
        guest.refuses("dd if=/dev/zero of=/mnt/more bs=4k count=1 conv=fsync")
        refused(guest, disk)
        same("under a mounted file system")
    with case("storage:S12-gate-opened-beside-a-stale-mount"):
        accept(guest, disk, new, mib)
        same = untouched(new, mib)
        guest.refuses("dd if=/mnt/file of=/dev/null bs=4k count=1 iflag=direct")
        guest.refuses("dd if=/dev/zero of=/mnt/more bs=4k count=1 conv=fsync")
        guest.do("umount /mnt")
        same("when the stale file system was unmounted")
        guest.remove_disk(control, 18, disk)
        remove_null_blk("below-files")
        remove_null_blk("foreign")


def another_returns(guest, control):
    """S12: the path of a disk that was lost comes to name another disk. The VMM takes that for a return, and for no more."""
    mib, link = 16, Path("/tmp/by-id")
    with case("storage:S12-a-lost-disk-comes-back-as-another"):
        other = filled("stranger", mib)
        link.symlink_to(null_blk("vanishing", mib))
        disk = guest.new_disk(control, 15, str(link))
        guest.pattern_on(disk)
        since = guest.log_length()
        remove_null_blk("vanishing")
        guest.logged(since, "LUN 15", "lost")
        same = untouched(other, mib)
        link.unlink()
        link.symlink_to(other)
        guest.logged(since, "LUN 15", "replace_dsk")
        check(gated(guest, 15), "the gate is open")
        refused(guest, disk)
        same("in the place of a lost one")
        accept(guest, disk, other, mib)
        check(not gated(guest, 15), "the gate is still closed")
        guest.remove_disk(control, 15, disk)
        remove_null_blk("stranger")
        link.unlink()
    with case("storage:S12-a-nameless-disk-comes-back-under-the-same-number"):
        path = filled("nameless", mib)
        disk, number = guest.new_disk(control, 15, path), os.stat(path).st_rdev
        guest.pattern_on(disk)
        since = guest.log_length()
        remove_null_blk("nameless")
        guest.logged(since, "LUN 15", "lost")
        null_blk("nameless", mib)
        equal(os.stat(path).st_rdev, number, "number of the disk that took the place")
        guest.logged(since, "LUN 15", "replace_dsk")
        check(gated(guest, 15), "the gate is open")
        same = untouched(path, mib)
        refused(guest, disk)
        same("under the number of a lost one")
        accept(guest, disk, path, mib)
        check(not gated(guest, 15), "the gate is still closed")
        guest.remove_disk(control, 15, disk)
        remove_null_blk("nameless")


def behind(name, uuid, device):
    """Puts a device behind a name; its path."""
    sh("dmsetup", "create", name, "--noudevsync", "--uuid", uuid, "--table", linear(device))
    sh("dmsetup", "mknodes", name)
    return f"/dev/mapper/{name}"


def while_off(initrd):
    """S12: a disk that is exchanged while its guest's VMM is off, behind the same path and LUN, is caught at the next
    start, by what the state file remembers: the disk that the guest last agreed to, over any number of starts, and
    however the others came."""
    mib, number = 16, 40
    with case("storage:S12-exchange-while-the-VMM-is-off"):
        own, other, third = filled("own", mib), filled("others", mib), filled("third", mib)
        path = behind("exchanged", "AVIO-own", own)
        with Machine([f"path={path},lun={number}"], initrd) as guest:
            guest.ready()
            check(not gated(guest, number), "the gate is closed at the first start")
            told = guest.pattern_on(guest.disk_of(number))
        equal(host_sum(own), told, f"checksum on {own}")
        remove_dm("exchanged")
        behind("exchanged", "AVIO-other", other)
        kept, same = untouched(own, mib), untouched(other, mib)
        with Machine([f"path={path},lun={number}"], initrd) as guest:
            guest.ready()
            check(gated(guest, number), "the gate is open")
            refused(guest, guest.disk_of(number))
            equal(guest.control()("replace-lun", lun=number, disk={"path": third}), {"gated": True}, "the answer")
        same("by a guest that knew another disk")
        same, same_third = untouched(other, mib), untouched(third, mib)
    with case("storage:S12-a-closed-gate-outlasts-the-VMM"):
        with Machine([f"path={third},lun={number}"], initrd) as guest:
            guest.ready()
            control, disk = guest.control(), guest.disk_of(number)
            check(gated(guest, number), "the gate is open to a disk that nobody has agreed to")
            refused(guest, disk)
            same_third("by a guest that knew another disk")
            kept("while others were in its place")
            original = behind("original", "AVIO-own", own)
            equal(control("replace-lun", lun=number, disk={"path": original}), {"gated": False}, "the answer of the guest's own disk")
            guest.do(f"until_is ONLINE told get_info State lun={number}")
            equal(guest_sum(guest, guest.disk_of(number)), told, "checksum of the guest's own disk")
            equal(control("replace-lun", lun=number, disk={"path": path}), {"gated": True}, "the answer of another disk")
            guest.do(f"until_is REPLACED told get_info State lun={number}")
            refused(guest, guest.disk_of(number))
            same("when the guest's own disk was replaced")
            accept(guest, guest.disk_of(number), other, mib)
            check(not gated(guest, number), "the gate is still closed")
        for name in ("exchanged", "original"):
            remove_dm(name)
        for name in ("own", "others", "third"):
            remove_null_blk(name)


def image_while_off(initrd):
    """S12: another image file gets the path of the one behind a loop device, while the guest's VMM is off. The device and its
    path are what they were. The same file is the same disk behind whatever loop device."""
    mib, number = 16, 41
    with case("storage:S12-an-image-file-is-exchanged-while-the-VMM-is-off"):
        device, file = loop(mib, "image")

        def again():
            wait_for(lambda: claimable(device), 20, f"the last user of {device} to let go of it")
            sh("losetup", "-d", device)
            wait_for(lambda: not Path(f"/sys/block/{Path(device).name}/loop").exists(), 20, f"{device} to be free")

        with Machine([f"path={device},lun={number}"], initrd) as guest:
            guest.ready()
            told = guest.pattern_on(guest.disk_of(number))
        again()
        sh("losetup", device, file)
        with Machine([f"path={device},lun={number}"], initrd) as guest:
            guest.ready()
            check(not gated(guest, number), "the gate is closed to the same file")
            equal(guest_sum(guest, guest.disk_of(number)), told, "checksum of the pattern")
        again()
        other = file.with_name("image.new")
        other.write_bytes(os.urandom(mib * MIB))
        other.rename(file)
        sh("losetup", device, file)
        same = untouched(device, mib)
        with Machine([f"path={device},lun={number}"], initrd) as guest:
            guest.ready()
            check(gated(guest, number), "the gate is open to another file")
            refused(guest, guest.disk_of(number))
        same("by a guest that knew another file")
        again()


def unheard(guest, control):
    """The interrupt that tells of changes is masked: then the answer to the next request does."""
    with case("storage:changes-are-seen-without-an-interrupt"):
        device, file = loop(16, "unheard")
        disk = guest.new_disk(control, 19, device)
        exchanged, other = guest.new_disk(control, 25, null_blk("seen", 16)), null_blk("unseen", 16)
        for number, name in ((19, disk), (25, exchanged)):
            guest.looked_through(control, number, name)
        address = guest.do("told get_info 'Hardware Path'").strip()
        read = f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct"
        guest.do(f"mask_changes {address} 1")
        os.truncate(file, 24 * MIB)
        sh("losetup", "-c", device)
        wait_for(lambda: lun_of(control, 19)["sectors"] == 24 << 11, 20, "the VMM to tell of the new capacity")
        equal(guest.do(f"attribute {disk} size").strip(), str(16 << 11), "capacity before any request")
        guest.do(read)
        guest.do(f"until_is {24 << 11} attribute {disk} size")
        control("remove-lun", lun=19)
        equal(len(guest.do("disks").split()), 4, "number of disks before any request")
        control.refuses("add-lun", "has not let go", "LUN 19", disk={"path": other}, lun=19)
        guest.refuses(read)
        guest.gone(disk)
        before, since = requests_at_rest(other), guest.log_length()
        control("replace-lun", lun=25, disk={"path": other})
        guest.refuses(f"dd if=/dev/{exchanged} of=/dev/null bs=4k count=1 iflag=direct")
        guest.logged(since, "LUN 25", "replace_dsk")
        equal(requests_of(other), before, "I/Os on a backing that the guest has not heard of")
        guest.do(f"mask_changes {address} 0")
        guest.remove_disk(control, 25, exchanged)
        for name in ("seen", "unseen"):
            remove_null_blk(name)
        sh("losetup", "-d", device)
