# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: backings that do not answer for a while, and one that fails. Steps of storage.py."""

import json
import os

from backings import dm, dm_reload, linear, loop, null_blk, openings, partitions, remove_dm, remove_null_blk, standing_still
from common import case, equal, modprobe, sh, wait_for
from control import Control
from machine import SOCKET, lun_stats


def aborted(guest, control):
    """A request that stalls is aborted by hand: it stays in flight until its backing lets go of it, and is done if that has
    carried it out."""
    with case("storage:abort-of-a-stalled-request"):
        path = dm("stalled", linear(null_blk("under-stalled", 16)))
        disk = guest.new_disk(control, 20, path)

        def statuses():
            return lun_stats(control, 20)["statuses"]

        with standing_still("stalled"):
            guest.do("dd if=/dev/urandom of=/tmp/data bs=4k count=1")
            guest.in_background(f"dd if=/tmp/data of=/dev/{disk} bs=4k oflag=direct", "stalled")
            request = guest.do(f"until stalled {disk}; do sleep 0.1; done").strip()
            queue, tag = request.split(":")
            abort = f"gvsdmgr -f --json task_mgmt -D /dev/gvsd0 -q lun=/dev/{disk} -t abort -r"
            for which, left in ((f"{queue}:{int(tag) ^ 1}", 0), (request, 1)):
                equal(json.loads(guest.do(f"{abort} {which}"))["still_in_flight"], left, f"requests left by an abort of {which}")
            equal(guest.do("ls /tmp/stalled 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
        guest.do("until [ -s /tmp/stalled ]; do sleep 0.1; done; grep -qx 0 /tmp/stalled")
        equal(statuses().get("aborted", 0), 0, "requests of the LUN that ended as aborted")
        guest.do(f"dd if=/dev/{disk} of=/tmp/found bs=4k count=1 iflag=direct && cmp /tmp/data /tmp/found")
        guest.remove_disk(control, 20, disk)
        remove_dm("stalled")
        remove_null_blk("under-stalled")


def stuck(guest, control):
    """A backing that does not answer holds up itself only; it can be taken away, and the guest goes on."""
    with case("storage:a-stuck-backing-holds-up-no-other"):
        null_blk("under", 16)
        path = dm("stuck", linear("/dev/under"))
        disk = guest.new_disk(control, 14, path)
        with standing_still("stuck"):
            guest.in_background(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=4 oflag=direct", "stuck")
            guest.do(f"beside {guest.disk_of(0)}; sleep 2; end_beside")
            control.refuses("remove-lun", "guest uses", "in flight", lun=14)
        guest.do("until [ -s /tmp/stuck ]; do sleep 0.1; done; grep -qx 0 /tmp/stuck")
        guest.remove_disk(control, 14, disk)
        remove_dm("stuck")
        remove_null_blk("under")


def removed_while_stuck(guest, control):
    """A LUN whose backing hangs is not exchanged as long as it has a request. It can be taken away by force, and another
    comes meanwhile. What it was asked ends with an error, but not before the backing lets go of the data."""
    with case("storage:forced-removal-of-a-stuck-LUN"):
        path, fresh = dm("given-up", linear(null_blk("under-given-up", 16))), null_blk("fresh", 16)
        disk = guest.new_disk(control, 26, path)
        guest.do(f"beside {guest.disk_of(0)}")
        with standing_still("given-up"):
            guest.in_background(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct", "given-up")
            guest.do(f"until stalled {disk}; do sleep 0.1; done")
            control.refuses("replace-lun", "in flight", lun=26, disk={"path": fresh})
            control("remove-lun", lun=26, force=True)
            other = guest.new_disk(control, 27, fresh)
            guest.do(f"verified {other} 16 1m")
            equal(guest.do("cat /tmp/given-up 2>/dev/null; :"), "", "the end of a write that its backing still has")
        guest.do("until [ -s /tmp/given-up ]; do sleep 0.1; done; grep -qvx 0 /tmp/given-up")
        guest.gone(disk)
        guest.do("end_beside")
        # Its backing becomes free with nothing else being asked for.
        remove_dm("given-up")
        guest.remove_disk(control, 27, other)
        for name in ("under-given-up", "fresh"):
            remove_null_blk(name)


def failed_flush(guest, control):
    """A flush that the backing fails is an error for the program that asked for it, and the next is as good as its
    backing."""
    with case("storage:a-failed-flush-reaches-the-program"):
        below = null_blk("below-flush", 16, cache_size=4)
        well, failing = linear(below), f"0 {16 << 11} flakey {below} 0 0 3600 1 error_writes"
        disk = guest.new_disk(control, 24, dm("flushed", well))
        flush = f"dd if=/dev/null of=/dev/{disk} conv=fsync"
        durable = f"fio --name=d --filename=/dev/{disk} --rw=write --bs=4k --size=4k --sync=1 --direct=1 --ioengine=psync --output=/tmp/d"
        guest.do(f"{flush} && {durable}")
        modprobe("dm_flakey")
        dm_reload("flushed", failing)
        guest.refuses(flush)
        guest.refuses(durable)
        dm_reload("flushed", well)
        guest.do(f"{flush} && {durable}")
        guest.remove_disk(control, 24, disk)
        remove_dm("flushed")
        remove_null_blk("below-flush")


def added_while_stuck(guest, control):
    """A LUN comes whose backing hangs: it has a disk, and others come and go meanwhile. Its partitions come when the
    backing answers."""
    with case("storage:a-backing-that-hangs-when-it-is-added-holds-up-no-other"):
        partitions(null_blk("tardy", 64))
        path, quick = dm("hung", linear("/dev/tardy")), null_blk("quick", 16)
        with standing_still("hung"):
            disk = guest.new_disk(control, 21, path)
            other = guest.new_disk(control, 22, quick)
            guest.do(f"verified {other} 16 1m")
            guest.remove_disk(control, 22, other)
            equal(guest.do(f"ls -d /sys/block/{disk}/{disk}* 2>/dev/null; :"), "", "partitions before the backing answers")
        guest.do(f"until [ -b /dev/{disk}1 ] && [ -b /dev/{disk}2 ]; do sleep 0.1; done")
        guest.remove_disk(control, 21, disk)
        remove_dm("hung")
        remove_null_blk("tardy")
        remove_null_blk("quick")


def mute_when_added(guest, control):
    """A device that does not take what the host's page cache has of it, which add-lun waits for, holds up no other command
    but one for the same device, and no news of another one. The command is carried out when the device answers."""
    with case("storage:a-device-that-does-not-answer-add-lun-holds-up-no-other"):
        path, quick = dm("mute", linear(null_blk("under-mute", 16))), null_blk("quick", 16)
        device, file = loop(16, "grows-beside")
        grows, asking, second = guest.new_disk(control, 31, device), Control(SOCKET), Control(SOCKET)
        with open(path, "r+b", buffering=0) as writer, standing_still("mute"):
            writer.write(b"m" * 4096)
            asking.begin("add-lun", lun=30, disk={"path": path})
            wait_for(lambda: openings("mute") > 1, 10, "the device to be open")
            second.begin("add-lun", lun=33, disk={"path": path})
            equal([lun["lun"] for lun in control("status")["adapters"][0]["luns"] if lun["lun"] >= 30], [31], "the LUNs meanwhile")
            os.truncate(file, 24 << 20)
            sh("losetup", "-c", device)
            guest.do(f"until_is {24 << 11} attribute {grows} size")
            other = guest.new_disk(control, 32, quick)
            guest.do(f"verified {other} 8 1m")
            # After ten seconds; the first may take longer, as its device has been opened.
            second.is_refused("add-lun", "being opened")
        equal(asking.answer()["lun"], 30, "the LUN whose device answers again")
        wait_for(lambda: guest.disk_of(30), 20, "the disk of LUN 30")
        disk = guest.disk_of(30)
        guest.do(f"verified {disk} 8 1m")
        for number, name in ((30, disk), (31, grows), (32, other)):
            guest.remove_disk(control, number, name)
        remove_dm("mute")
        sh("losetup", "-d", device)
        for name in ("under-mute", "quick"):
            remove_null_blk(name)
