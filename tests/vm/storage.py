# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: LUNs that change under a guest's load, and every kind of backing behind them. One guest stays up through
most of it and is told what to do. Arguments: the guest's initramfs; `brief` for a guest whose kernel is slow."""

import hashlib
import os
import sys
import time

from access import read_only, shared
from backings import loop, null_blk, remove_null_blk
from changing import other_limits
from common import case, check, equal, finish, insert, module_users, remove, sh, wait_for
from gates import another_returns, image_while_off, mounted, unheard, while_off
from hanging import aborted, added_while_stuck, failed_flush, mute_when_added, removed_while_stuck, stuck
from lifecycle import crash_dump, kexec, quiesced, root_on_a_lun, udev_rules
from limits import limited_bytes, over_a_reset
from machine import Machine, host_sum, lun_of, requests_at_rest, requests_of, told
from managed import managed
from power import power_cut
from real_disks import lost_and_back, scsi, volume
from sizes import large
from watching import both_sides, debugfs, polling, traced

INITRD, BRIEF = sys.argv[1], sys.argv[2:] == ["brief"]


def hot_add(guest, control):
    """A disk comes without any I/O of the guest's, and works, while its neighbour is busy."""
    path = null_blk("added", 32)
    with case("storage:hot-add-under-load"):
        guest.do(f"beside {guest.disk_of(0)}")
        disk = guest.new_disk(control, 7, path)
        told = guest.pattern_on(disk)
        equal(host_sum(path), told, f"checksum on {path}")
        guest.do("end_beside")
    with case("storage:add-and-remove-again-and-again-under-load"):
        guest.do(f"beside {guest.disk_of(0)}")
        for _ in range(4 if BRIEF else 10):
            guest.remove_disk(control, 7, disk)
            disk = guest.new_disk(control, 7, path)
            guest.do(f"dd if=/dev/{disk} of=/dev/null bs=64k count=4 iflag=direct")
        guest.do("end_beside")
    with case("storage:add-refusals"):
        control.refuses("add-lun", "in use", "taken", disk={"path": null_blk("other", 16)}, lun=7)
        control.refuses("add-lun", "already", "busy", "claimed", disk={"path": path})
        control.refuses("add-lun", "255", disk={"path": "/dev/other"}, lun=256)
        control.refuses("add-lun", "/dev/nothing", disk={"path": "/dev/nothing"})
        remove_null_blk("other")


def hot_remove(guest, control):
    """A disk in use stays, unless it is taken by force: then its I/O ends in errors, and its neighbour's does not."""
    disk = guest.disk_of(7)
    with case("storage:remove-refused-in-use"):
        guest.do(f"sleep 1000 </dev/{disk} & echo $! >/tmp/holder")
        wait_for(lambda: lun_of(control, 7)["in-use"], 20, "the disk to be open")
        control.refuses("remove-lun", "guest uses", lun=7)
        guest.do("kill $(cat /tmp/holder)")
    with case("storage:S7-S9-forced-removal-under-load"):
        guest.do(f"beside {guest.disk_of(0)}")
        guest.do(f"(fio --name=doomed --filename=/dev/{disk} --rw=randrw --bs=4k --size=16m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=600 >/tmp/doomed 2>&1; echo ended >>/tmp/doomed) </dev/null &")
        guest.at_work(disk)
        control("remove-lun", lun=7, force=True)
        guest.do("until grep -q '^ended' /tmp/doomed; do sleep 0.1; done; grep -qi error /tmp/doomed")
        guest.gone(disk)
        guest.do("end_beside")
    remove_null_blk("added")


def resize(guest, control):
    """A backing grows, and shrinks again; the guest's disk does, with no I/O needed, and I/O goes on."""
    with case("storage:resize"):
        device, file = loop(16, "grows")
        disk = guest.new_disk(control, 9, device)
        equal(guest.do(f"attribute {disk} size").strip(), str(16 << 11), "capacity before")
        guest.do(f"beside {disk}")
        os.truncate(file, 24 << 20)
        sh("losetup", "-c", device)
        guest.do(f"until_is {24 << 11} attribute {disk} size")
        guest.do("end_beside")
        guest.do(f"edges {disk} && beside {disk}")
        os.truncate(file, 20 << 20)
        sh("losetup", "-c", device)
        guest.do(f"until_is {20 << 11} attribute {disk} size")
        guest.do("end_beside")
        guest.do(f"edges {disk}")
        guest.remove_disk(control, 9, disk)
        sh("losetup", "-d", device)


def gate(guest, control):
    """S12: another device behind a LUN: not one byte of it is touched until somebody in the guest says so."""
    with case("storage:S12-replacement-gate"):
        old, new = null_blk("old", 16), null_blk("new", 24)
        disk = guest.new_disk(control, 11, old)
        guest.do(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        before, since = requests_at_rest(new), guest.log_length()
        control("replace-lun", lun=11, disk={"path": new, "serial": "ANOTHER"})
        guest.logged(since, "/dev/gvsd0", "LUN 11", f"{24 << 11} sectors", "serial ANOTHER", "replace_dsk")
        guest.refuses(f": </dev/{disk}")
        guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        guest.refuses(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 conv=fsync")
        equal(requests_of(new), before, "I/Os on the new backing before the guest agreed")
    with case("storage:S12-gate-survives-a-reboot-under-load"):
        kept, same = guest.pattern_on(guest.disk_of(0)), over_a_reset(guest, control)
        guest.do(f"beside {guest.disk_of(1)}")
        guest.last_word("reboot -f")
        wait_for(lambda: guest.starts() == 2, 90, "the guest's second start")
        equal(host_sum("/dev/first"), kept, "checksum of what was flushed before the reboot")
        guest.do(f"verified {guest.disk_of(1)} 16 4m")
        disk = guest.disk_of(11)
        for what in (lambda: None, lambda: control("rescan-lun", lun=11), lambda: rebind(guest)):
            what()
            guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
            equal(requests_of(new), before, "I/Os on the new backing before the guest agreed")
    with case("storage:disks-and-limits-outlast-a-reset"):
        same()
    with case("storage:replace_dsk-opens-the-gate"):
        guest.do(f"gvsdmgr -f replace_dsk -D /dev/gvsd0 -q lun=/dev/{disk}")
        told = guest.pattern_on(disk)
        equal(host_sum(new), told, f"checksum on {new}")
        guest.remove_disk(control, 11, disk)
        remove_null_blk("old")
        remove_null_blk("new")


def ranges(guest, control):
    """DISCARD and WRITE ZEROES reach the backing; zeroes are zero."""
    with case("storage:discard-and-write-zeroes"):
        device, file = loop(16, "ranges")
        disk = guest.new_disk(control, 12, device)
        guest.do(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=8 oflag=direct conv=fsync")
        full = os.stat(file).st_blocks
        guest.do(f"/usr/sbin/blkdiscard -o 4M -l 2M /dev/{disk}")
        wait_for(lambda: os.stat(file).st_blocks <= full - (2 << 11), 20, "the file behind to get a hole")
        guest.do(f"/usr/sbin/blkdiscard -z -o 1M -l 1M /dev/{disk}")
        zeroes = hashlib.sha256(bytes(1 << 20)).hexdigest()
        equal(host_sum(device), zeroes, "checksum of what was zeroed")
        guest.refuses(f"/usr/sbin/blkdiscard -o 32M -l 1M /dev/{disk}")
        guest.remove_disk(control, 12, disk)
        sh("losetup", "-d", device)


def limits(guest, control):
    """A LUN that is limited does no more than it may; its neighbour does more."""
    with case("storage:limits"):
        # So few that any guest wants more.
        rate, burst = 20, 5
        path = null_blk("slow", 32)
        slow = guest.new_disk(control, 13, path, limits={"iops": rate, "iops-burst": burst})
        quick = guest.disk_of(1)
        fio = "fio --name=l --filename=/dev/{} --rw=randread --bs=4k --size=8m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=5 --output=/tmp/l{}"
        begun, before = time.monotonic(), (requests_of(path), requests_of("/dev/second"))
        guest.do(f"{fio.format(quick, 1)} & {fio.format(slow, 2)}; wait")
        done = requests_of(path) - before[0]
        elapsed = time.monotonic() - begun
        check(done <= burst + rate * elapsed, f"{done} requests in {elapsed:.1f} s at {rate} a second and a burst of {burst}")
        check(done > burst, f"only {done} requests: the burst and no more")
        beside = requests_of("/dev/second") - before[1]
        check(beside > done, f"the unlimited neighbour did {beside}, the limited LUN {done}")
    with case("storage:limits-outlast-time-outs"):
        # A request waits for several times as long as it may take.
        control("set-limits", lun=13, limits={"iops": 3, "iops-burst": 1})
        guest.do(f"echo 1000 >/sys/block/{slow}/queue/io_timeout")
        load = f"fio --name=w --filename=/dev/{slow} --rw=randwrite --bs=4k --size=64k --iodepth=16 --direct=1 --ioengine=libaio --output=/tmp/w"
        guest.do(load, 120)
        [seen] = told(guest, "get_stat", f"/dev/{slow}")
        check(seen["timeouts"] > 0, f"no time ran out: {seen}")
        control("set-limits", lun=13, limits={})
        guest.remove_disk(control, 13, slow)
        remove_null_blk("slow")


def rebind(guest, meanwhile="true"):
    """Has the driver let go of the adapter, a command done, and the driver take it again."""
    address = guest.do("basename $(ls -d /sys/bus/pci/drivers/avio_stor/0000:*)").strip()
    driver, count = "/sys/bus/pci/drivers/avio_stor", len(guest.do("disks").split())
    guest.do(f"echo {address} >{driver}/unbind && {meanwhile} && echo {address} >{driver}/bind && wait_disks {count}")


def unbound(guest):
    """The driver leaves under load, and comes back."""
    with case("storage:driver-leaves-under-load"):
        disk = guest.disk_of(1)
        guest.do(f"fio --name=u --filename=/dev/{disk} --rw=randrw --bs=4k --size=16m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=600 </dev/null >/tmp/u 2>&1 &")
        guest.at_work(disk)
        rebind(guest, '{ while pidof fio; do sleep 0.1; done; [ -z "$(disks)" ]; }')
        guest.do(f"verified {guest.disk_of(1)} 16 4m")


def started_badly(guest, control):
    """T2: a guest has its adapter started over and over in a way that is refused; the VMM says so once, and goes on."""
    with case("storage:T2-refused-starts-do-not-fill-the-log"):
        said = lambda: sum("the guest's adapter does not start" in line for line in guest.lines)
        before, address = said(), guest.do("told get_info 'Hardware Path'").strip()
        rebind(guest, f"{{ start_badly {address} 10; echo $? >/tmp/refused; }}")
        equal(guest.do("cat /tmp/refused").strip(), "0", "exit code of the starts")
        equal(control("status")["adapters"][0]["state"], "running", "the adapter's state")
        check(said() <= before + 1, f"{said() - before} lines of the VMM's about 10 starts")
        check(said(), "the VMM has said nothing of starts that it refused")


def main():
    """One guest, told what to do."""
    with case("storage:guest"):
        insert()
        disks = [f"path={null_blk('first')},lun=0,serial=FIRST", f"path={null_blk('second')},lun=1"]
        guest = Machine(disks, INITRD, cpus=2)
        guest.ready()
        control = guest.control()
    if BRIEF:
        steps = [hot_add, hot_remove, gate, failed_flush, aborted, stuck, removed_while_stuck, added_while_stuck, quiesced]
    else:
        steps = [hot_add, hot_remove, resize, other_limits, gate, managed, mounted, another_returns, unheard, ranges, large, read_only]
        steps += [limits, limited_bytes, debugfs, both_sides, traced, polling, failed_flush, power_cut, aborted, stuck, removed_while_stuck]
        steps += [added_while_stuck, mute_when_added, volume, lost_and_back, scsi, quiesced]
    for step in steps:
        step(guest, control)
    unbound(guest)
    if not BRIEF:
        started_badly(guest, control)
        shared(guest, control, INITRD)
        udev_rules(guest, control)
        kexec(guest, control, INITRD)
    with case("storage:guest-ends"):
        guest.last_word("poweroff -f")
        guest.wait(60)
    if not BRIEF:
        crash_dump(INITRD)
        root_on_a_lun(INITRD)
        while_off(INITRD)
        image_while_off(INITRD)
    with case("storage:module-remove"):
        wait_for(lambda: module_users() == 0, 20, "the last guest's end")
        remove()
    finish()


main()
