# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a LUN's limit of bytes, and what outlasts a reset of the guest: limits, and which disk is where. Steps of
storage.py."""

import time
from pathlib import Path

from backings import null_blk, remove_null_blk
from common import case, check, equal
from machine import guest_sum, host_sum, lun_of
from watching import shown


def bytes_read(device):
    """Bytes that were read from a device."""
    return int(Path(f"/sys/class/block/{Path(device).name}/stat").read_text(encoding="ascii").split()[2]) << 9


def limited_bytes(guest, control):
    """A LUN whose bytes are limited moves no more of them than it may."""
    with case("storage:limits-of-bytes"):
        # So little that any guest wants more.
        rate, burst = 128 << 10, 32 << 10
        path = null_blk("narrow", 32)
        disk = guest.new_disk(control, 13, path, limits={"bytes": rate, "bytes-burst": burst})
        load = f"fio --name=n --filename=/dev/{disk} --rw=randread --bs=16k --size=8m --iodepth=8 --direct=1 --ioengine=libaio --time_based --runtime=3"
        begun, before = time.monotonic(), bytes_read(path)
        guest.do(f"{load} --output=/tmp/n")
        done = bytes_read(path) - before
        elapsed = time.monotonic() - begun
        check(done <= burst + rate * elapsed, f"{done} bytes in {elapsed:.1f} s at {rate} a second and a burst of {burst}")
        check(done > burst, f"only {done} bytes: the burst and no more")
        guest.remove_disk(control, 13, disk)
        remove_null_blk("narrow")


def over_a_reset(guest, control):
    """Adds a disk with limits to a guest; a function that sees, after its reset, that all its disks are where they were, and
    that the limits hold."""
    number, limits, path = 8, {"iops": 100, "iops-burst": 1}, null_blk("stays", 16)
    told = guest.pattern_on(guest.new_disk(control, number, path, serial="STAYS", limits=limits))

    def places():
        line = "for d in $(disks); do echo $(readlink -f /sys/block/$d/device) $(cat /sys/block/$d/lun /sys/block/$d/size /sys/block/$d/serial); done"
        return sorted(guest.do(line).splitlines())

    before = places()
    check(any(f" {number} {16 << 11} STAYS" in line for line in before), f"the disk that was added is not among {before}")

    def same():
        equal(places(), before, "PCI address, LUN, capacity and serial number of each disk after a reset")
        disk = guest.disk_of(number)
        equal((guest_sum(guest, disk), host_sum(path)), (told, told), "checksum of the pattern in the guest, and on the host")
        shown_limits = {name: value for name, value in lun_of(control, number)["limits"].items() if value}
        equal(shown_limits, limits, "limits after a reset")
        held = shown(f"lun{number}")["throttled"]
        # All at once, for a slow guest's would not come faster than they may, one after the other.
        at_once = "--rw=randread --bs=4k --size=8m --io_size=32k --iodepth=8 --iodepth_batch=8 --direct=1 --ioengine=libaio"
        guest.do(f"fio --name=o --filename=/dev/{disk} {at_once} --output=/tmp/o")
        check(shown(f"lun{number}")["throttled"] > held, "no request had to wait for its LUN's limits after a reset")
        guest.remove_disk(control, number, disk)
        remove_null_blk("stays")

    return same
