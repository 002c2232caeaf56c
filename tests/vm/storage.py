# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: LUNs that change under a guest's load, and every kind of backing behind them. One guest stays up through
most of it and is told what to do. Arguments: the guest's initramfs; `brief` for a guest whose kernel is slow."""

import hashlib
import os
import sys
import time
from pathlib import Path

from backings import dm, linear, loop, lvm, null_blk, nvme_connect, nvme_disconnect, nvme_tcp, partitions, remove_null_blk, scsi_disk, standing_still, write
from common import case, check, equal, finish, insert, modprobe, module_users, remove, sh, wait_for
from gates import mounted, unheard, while_off
from lifecycle import crash_dump, kexec, quiesced, root_on_a_lun, udev_rules
from machine import Machine, host_sum, requests_of
from watching import aborted, debugfs, polling

INITRD, BRIEF = sys.argv[1], sys.argv[2:] == ["brief"]


def hot_add(guest, control):
    """A disk comes without any I/O of the guest's, and works, while its neighbour is busy."""
    path = null_blk("added", 32)
    with case("storage:hot-add-under-load"):
        guest.do(f"beside {guest.disk_of(0)}")
        control("add-lun", disk={"path": path}, lun=7)
        guest.wait_disks(3)
        disk = guest.disk_of(7)
        told = guest.pattern_on(disk)
        equal(host_sum(path), told, f"checksum on {path}")
        guest.do("end_beside")
    with case("storage:add-refusals"):
        control.refuses("add-lun", "in use", "taken", disk={"path": null_blk("other", 16)}, lun=7)
        control.refuses("add-lun", "already", "busy", "claimed", disk={"path": path})
        control.refuses("add-lun", "255", disk={"path": "/dev/other"}, lun=256)
        control.refuses("add-lun", "/dev/nothing", disk={"path": "/dev/nothing"})
        remove_null_blk("other")


def at_work(guest, disk):
    """Wait until a disk has requests in flight: what is begun in the background may take its time."""
    guest.do(f"until grep -q '[1-9]' /sys/block/{disk}/inflight; do sleep 0.05; done")


def hot_remove(guest, control):
    """A disk in use stays, unless it is taken by force: then its I/O ends in errors, and its neighbour's does not."""
    disk = guest.disk_of(7)
    with case("storage:remove-refused-in-use"):
        guest.do(f"sleep 1000 </dev/{disk} & echo $! >/tmp/holder")
        guest.do("sleep 0.5")
        control.refuses("remove-lun", "guest uses", lun=7)
        guest.do("kill $(cat /tmp/holder)")
    with case("storage:S7-S9-forced-removal-under-load"):
        guest.do(f"beside {guest.disk_of(0)}")
        guest.do(f"(fio --name=doomed --filename=/dev/{disk} --rw=randrw --bs=4k --size=16m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=600 >/tmp/doomed 2>&1; echo ended >>/tmp/doomed) </dev/null &")
        at_work(guest, disk)
        control("remove-lun", lun=7, force=True)
        guest.do("until grep -q '^ended' /tmp/doomed; do sleep 0.1; done; grep -qi error /tmp/doomed")
        guest.wait_disks(2)
        guest.do("end_beside")
    remove_null_blk("added")


def resize(guest, control):
    """A backing grows, and shrinks again; the guest's disk does, with no I/O needed."""
    with case("storage:resize"):
        device, file = loop(16, "grows")
        control("add-lun", disk={"path": device}, lun=9)
        guest.wait_disks(3)
        disk = guest.disk_of(9)
        equal(guest.do(f"attribute {disk} size").strip(), str(16 << 11), "capacity before")
        os.truncate(file, 24 << 20)
        sh("losetup", "-c", device)
        guest.do(f"until_is {24 << 11} attribute {disk} size")
        guest.do(f"edges {disk}")
        os.truncate(file, 20 << 20)
        sh("losetup", "-c", device)
        guest.do(f"until_is {20 << 11} attribute {disk} size")
        guest.do(f"edges {disk}")
        control("remove-lun", lun=9)
        guest.wait_disks(2)
        sh("losetup", "-d", device)


def gate(guest, control):
    """S12: another device behind a LUN: not one byte of it is touched until somebody in the guest says so."""
    with case("storage:S12-replacement-gate"):
        old, new = null_blk("old", 16), null_blk("new", 24)
        control("add-lun", disk={"path": old}, lun=11)
        guest.wait_disks(3)
        disk = guest.disk_of(11)
        guest.do(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        before, since = requests_of(new), guest.log_length()
        control("replace-lun", lun=11, disk={"path": new})
        guest.logged(since, "LUN 11", f"{24 << 11} sectors", "replace_dsk")
        guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        guest.refuses(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 conv=fsync")
        equal(requests_of(new), before, "I/Os on the new backing before the guest agreed")
    with case("storage:S12-gate-survives-a-reboot-under-load"):
        kept = guest.pattern_on(guest.disk_of(0))
        guest.do(f"beside {guest.disk_of(1)}; sleep 1")
        guest.last_word("reboot -f")
        wait_for(lambda: guest.starts() == 2, 90, "the guest's second start")
        equal(host_sum("/dev/first"), kept, "checksum of what was flushed before the reboot")
        guest.do(f"verified {guest.disk_of(1)} 16 4m")
        disk = guest.disk_of(11)
        guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        equal(requests_of(new), before, "I/Os on the new backing before the guest agreed")
    with case("storage:replace_dsk-opens-the-gate"):
        guest.do(f"gvsdmgr -f replace_dsk -D /dev/gvsd0 -q lun=/dev/{disk}")
        told = guest.pattern_on(disk)
        equal(host_sum(new), told, f"checksum on {new}")
        control("remove-lun", lun=11)
        guest.wait_disks(2)
        remove_null_blk("old")
        remove_null_blk("new")


def ranges(guest, control):
    """DISCARD and WRITE ZEROES reach the backing; zeroes are zero."""
    with case("storage:discard-and-write-zeroes"):
        device, file = loop(16, "ranges")
        control("add-lun", disk={"path": device}, lun=12)
        guest.wait_disks(3)
        disk = guest.disk_of(12)
        guest.do(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=8 oflag=direct conv=fsync")
        full = os.stat(file).st_blocks
        guest.do(f"/usr/sbin/blkdiscard -o 4M -l 2M /dev/{disk}")
        wait_for(lambda: os.stat(file).st_blocks <= full - (2 << 11), 20, "the file behind to get a hole")
        guest.do(f"/usr/sbin/blkdiscard -z -o 1M -l 1M /dev/{disk}")
        zeroes = hashlib.sha256(bytes(1 << 20)).hexdigest()
        equal(host_sum(device), zeroes, "checksum of what was zeroed")
        guest.refuses(f"/usr/sbin/blkdiscard -o 32M -l 1M /dev/{disk}")
        control("remove-lun", lun=12)
        guest.wait_disks(2)
        sh("losetup", "-d", device)


def limits(guest, control):
    """A LUN that is limited does no more than it may; its neighbour does more."""
    with case("storage:limits"):
        rate, burst = 200, 50
        path = null_blk("slow", 32)
        control("add-lun", lun=13, disk={"path": path, "limits": {"iops": rate, "iops-burst": burst}})
        guest.wait_disks(3)
        slow, quick = guest.disk_of(13), guest.disk_of(1)
        fio = "fio --name=l --filename=/dev/{} --rw=randread --bs=4k --size=8m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=5 --output=/tmp/l{}"
        begun, before = time.monotonic(), (requests_of(path), requests_of("/dev/second"))
        guest.do(f"{fio.format(quick, 1)} & {fio.format(slow, 2)}; wait")
        done = requests_of(path) - before[0]
        elapsed = time.monotonic() - begun
        check(done <= burst + rate * elapsed, f"{done} requests in {elapsed:.1f} s at {rate} a second and a burst of {burst}")
        check(done > burst, f"only {done} requests: the burst and no more")
        beside = requests_of("/dev/second") - before[1]
        check(beside > done, f"the unlimited neighbour did {beside}, the limited LUN {done}")
        control("set-limits", lun=13, limits={})
        control("remove-lun", lun=13)
        guest.wait_disks(2)
        remove_null_blk("slow")


def stuck(guest, control):
    """A backing that does not answer holds up itself only; it can be taken away, and the guest goes on."""
    with case("storage:a-stuck-backing-holds-up-no-other"):
        null_blk("under", 16)
        path = dm("stuck", linear("/dev/under"))
        control("add-lun", disk={"path": path}, lun=14)
        guest.wait_disks(3)
        disk = guest.disk_of(14)
        with standing_still("stuck"):
            guest.do(f"(dd if=/dev/zero of=/dev/{disk} bs=4k count=4 oflag=direct; echo $? >/tmp/stuck) </dev/null >/dev/null 2>&1 &")
            guest.do(f"beside {guest.disk_of(0)}; sleep 2; end_beside")
            control.refuses("remove-lun", "guest uses", "in flight", lun=14)
        guest.do("until [ -s /tmp/stuck ]; do sleep 0.1; done; grep -qx 0 /tmp/stuck")
        control("remove-lun", lun=14)
        guest.wait_disks(2)
        wait_for(lambda: "Open count:        0" in sh("dmsetup", "info", "stuck"), 20, "the module to let go of it")
        sh("dmsetup", "remove", "stuck")
        remove_null_blk("under")


def added_while_stuck(guest, control):
    """A LUN comes whose backing hangs: it has a disk, and others come and go meanwhile. Its partitions come when the
    backing answers."""
    with case("storage:a-backing-that-hangs-when-it-is-added-holds-up-no-other"):
        partitions(null_blk("tardy", 64))
        path, quick = dm("hung", linear("/dev/tardy")), null_blk("quick", 16)
        with standing_still("hung"):
            control("add-lun", disk={"path": path}, lun=21)
            wait_for(lambda: guest.disk_of(21), 20, "the disk of the backing that hangs")
            disk = guest.disk_of(21)
            control("add-lun", disk={"path": quick}, lun=22)
            wait_for(lambda: guest.disk_of(22), 20, "the disk that is added behind it")
            other = guest.disk_of(22)
            guest.do(f"verified {other} 16 1m")
            control("remove-lun", lun=22)
            gone(guest, other)
            equal(guest.do(f"ls -d /sys/block/{disk}/{disk}* 2>/dev/null; :"), "", "partitions before the backing answers")
        guest.do(f"until [ -b /dev/{disk}1 ] && [ -b /dev/{disk}2 ]; do sleep 0.1; done")
        wait_for(lambda: not control("status")["adapters"][0]["luns"][-1]["in-use"], 20, "the guest to let go of it")
        control("remove-lun", lun=21)
        gone(guest, disk)
        sh("dmsetup", "remove", "--retry", "hung")
        remove_null_blk("tardy")
        remove_null_blk("quick")


def volume(guest, control):
    """A logical volume of LVM's: it grows under load, and has a snapshot taken of it, which keeps what was there."""
    with case("storage:lvm"):
        modprobe("dm_snapshot")
        disk, path = null_blk("physical", 128), "/dev/mapper/group-db"
        lvm("pvcreate", disk)
        lvm("vgcreate", "group", disk)
        lvm("lvcreate", "--name", "db", "--size", "32m", "group")
        control("add-lun", disk={"path": path}, lun=23)
        guest.wait_disks(3)
        name = guest.disk_of(23)
        kept = guest.pattern_on(name)
        guest.do(f"beside {guest.disk_of(0)}")
        lvm("lvextend", "--size", "48m", "group/db")
        guest.do(f"until_is {48 << 11} attribute {name} size")
        lvm("lvcreate", "--snapshot", "--name", "before", "--size", "32m", "group/db")
        guest.do(f"dd if=/dev/zero of=/dev/{name} bs=1M seek=1 count=1 oflag=direct; edges {name}")
        equal(host_sum("/dev/mapper/group-before"), kept, "checksum of the pattern in the snapshot")
        check(host_sum(path) != kept, "the guest's write has not reached the volume")
        refused = lvm("lvremove", "--yes", "group/db", check_code=False)
        check("in use" in refused, f"a volume that a guest has was not kept: {refused}")
        guest.do("end_beside")
        control("remove-lun", lun=23)
        gone(guest, name)
        wait_for(lambda: "Open count:        0" in sh("dmsetup", "info", "group-db"), 20, "the module to let go of it")
        lvm("vgremove", "--yes", "group")
        remove_null_blk("physical")


def lost_and_back(guest, control):
    """A backing that vanishes is told to the guest with no I/O needed, and so is its return."""

    def scsi_again():
        Path(f"/sys/class/scsi_host/{place.parent.parent.name}/scan").write_text("- - -", encoding="ascii")
        wait_for((place / "block").is_dir, 20, "the disk's return")
        return scsi_disk()[1]

    with case("storage:S2-loss-and-return"):
        modprobe("scsi_debug", "dev_size_mb=16", "delay=0")
        place, path = scsi_disk()
        loss(guest, control, path, lambda: (place / "delete").write_text("1", encoding="ascii"), scsi_again)
    with case("storage:S2-loss-and-return-over-nvme-tcp"):
        path = nvme_tcp(null_blk("remote", 16))
        loss(guest, control, path, nvme_disconnect, nvme_connect)
        nvme_disconnect()


def loss(guest, control, path, lose, again):
    """One disk is lost, and comes again, by another path perhaps, which `again` tells."""
    link = Path("/tmp/by-id")
    link.symlink_to(path)
    control("add-lun", disk={"path": str(link)}, lun=15)
    guest.wait_disks(3)
    disk = guest.disk_of(15)
    guest.do(f"leave_pattern {disk}")
    since = guest.log_length()
    lose()
    guest.logged(since, "LUN 15", "lost")
    guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct")
    since = guest.log_length()
    # The VMM has the old device open, so that its name may be taken; here we are udev.
    fresh = again()
    link.unlink()
    link.symlink_to(fresh)
    control("rescan-lun", lun=15)
    guest.logged(since, "LUN 15", "back")
    guest.do(f"dd if=/dev/{disk} bs=64k skip=16 count=16 iflag=direct | cmp - /tmp/pattern")
    control("remove-lun", lun=15)
    guest.wait_disks(2)
    link.unlink()


def gone(guest, disk):
    """Wait until the guest has no such disk any more."""
    guest.do(f"until [ ! -e /sys/block/{disk} ]; do sleep 0.1; done")


def scsi(guest, control):
    """The guest sees which SCSI disk it has, and what it does to the LUN reaches that disk and no other."""
    (place, path), errors = scsi_disk(), Path("/sys/kernel/debug/scsi_debug")
    serial, wwn = ((place / name).read_text(encoding="ascii").strip() for name in ("serial", "wwid"))

    def resets(what):
        return sh("dmesg").count(f"doing {what} reset")

    with case("storage:serial-number-and-name-are-the-disks-own"):
        control("add-lun", lun=18, disk={"path": path})
        guest.wait_disks(3)
        disk = guest.disk_of(18)
        check(serial and wwn.startswith("naa."), f"the disk has serial number {serial!r} and name {wwn!r}")
        equal(guest.do(f"attribute {disk} serial").strip(), serial, "serial number")
        equal(guest.do(f"attribute {disk} wwid").strip(), wwn.replace("naa.", "0x"), "world-wide name")
    with case("storage:reset-of-a-lun-reaches-its-disk-only"):
        # It says what it resets, and no reset of the device is successful.
        write("/sys/bus/pseudo/drivers/scsi_debug/opts", "0x2000")
        write(errors / place.name / "error", "4 1 0xff")
        reset, begun = f"gvsdmgr -f task_mgmt -D /dev/gvsd0 -q lun=/dev/{disk} -t reset", time.monotonic()
        guest.do(reset)
        wait_for(lambda: resets("device"), 20, "the disk's reset")
        guest.do(f"for n in $(seq 10); do {reset} || exit 1; done; dd if=/dev/{disk} of=/dev/null bs=4k count=16 iflag=direct")
        done, elapsed = resets("device"), time.monotonic() - begun
        check(done <= 1 + elapsed / 10, f"{done} resets of the disk in {elapsed:.1f} s")
        equal([resets(what) for what in ("target", "bus", "host")], [0, 0, 0], "resets of target, bus and host")
        write(errors / place.name / "error", "- 4 0xff")
        write("/sys/bus/pseudo/drivers/scsi_debug/opts", "0")
        control("remove-lun", lun=18)
        gone(guest, disk)
    with case("storage:resize-of-a-partition"):
        sh("sh", "-c", f"printf 'label: gpt\n,4M\n' | sfdisk -q {path}")
        wait_for(Path(f"{path}1").exists, 20, "the partition")
        control("add-lun", lun=19, disk={"path": f"{path}1"})
        guest.wait_disks(3)
        disk = guest.disk_of(19)
        equal(guest.do(f"attribute {disk} serial").strip(), f"{serial}-part1", "serial number")
        equal(guest.do(f"attribute {disk} size").strip(), str(4 << 11), "capacity before")
        sh("sh", "-c", f"printf ',8M\\n' | sfdisk -q --no-reread --no-tell-kernel -N 1 {path}")
        sh("partx", "--update", "--nr", 1, path)
        control("rescan-lun", lun=19)
        guest.do(f"until_is {8 << 11} attribute {disk} size")
        control("remove-lun", lun=19)
        gone(guest, disk)
        sh("sfdisk", "--delete", "-q", path)


def unbound(guest):
    """The driver leaves under load, and comes back."""
    with case("storage:driver-leaves-under-load"):
        disk = guest.disk_of(1)
        address = guest.do("basename $(ls -d /sys/bus/pci/drivers/avio_stor/0000:*)").strip()
        guest.do(f"fio --name=u --filename=/dev/{disk} --rw=randrw --bs=4k --size=16m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=600 </dev/null >/tmp/u 2>&1 &")
        at_work(guest, disk)
        guest.do(f"echo {address} > /sys/bus/pci/drivers/avio_stor/unbind")
        guest.do("while pidof fio; do sleep 0.1; done; [ -z \"$(disks)\" ]")
        guest.do(f"echo {address} > /sys/bus/pci/drivers/avio_stor/bind; wait_disks 2")
        guest.do(f"verified {guest.disk_of(1)} 16 4m")


def main():
    """One guest, told what to do."""
    with case("storage:guest"):
        insert()
        disks = [f"path={null_blk('first')},lun=0,serial=FIRST", f"path={null_blk('second')},lun=1"]
        guest = Machine(disks, INITRD, cpus=2)
        guest.ready()
        control = guest.control()
    if BRIEF:
        steps = [hot_add, hot_remove, gate, aborted, stuck, added_while_stuck, quiesced]
    else:
        steps = [hot_add, hot_remove, resize, gate, mounted, unheard, ranges, limits, debugfs, polling, aborted, stuck]
        steps += [added_while_stuck, volume, lost_and_back, scsi, quiesced]
    for step in steps:
        step(guest, control)
    unbound(guest)
    if not BRIEF:
        udev_rules(guest, control)
        kexec(guest, control, INITRD)
    with case("storage:guest-ends"):
        guest.last_word("poweroff -f")
        guest.wait(60)
    if not BRIEF:
        crash_dump(INITRD)
        root_on_a_lun(INITRD)
        while_off(INITRD)
    with case("storage:module-remove"):
        wait_for(lambda: module_users() == 0, 20, "the last guest's end")
        remove()
    finish()


main()
