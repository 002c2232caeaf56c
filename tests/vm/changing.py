# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a backing that becomes able to do other things than before: the guest's disk goes on, with all that is open
on it. And one that no guest's disk can be. A step of storage.py."""

from pathlib import Path

from backings import dm, dm_reload, linear, null_blk, remove_dm, remove_null_blk, sectors, write
from common import case, check, wait_for
from machine import lun_stats


def behind_each_other(*devices):
    """Table lines that put devices behind each other."""
    at, lines = 0, []
    for device in devices:
        lines.append(f"{at} {sectors(device)} linear {device} 0")
        at += sectors(device)
    return lines


def other_limits(guest, control):
    """Capacity, discards and the cache of a backing change under a guest's load."""
    with case("storage:limits-change-under-load"):
        first, second = (null_blk(name, 16, discard=1) for name in ("discards", "discards-too"))
        without = null_blk("keeps", 16)
        disk = guest.new_disk(control, 20, dm("changes", linear(first)))
        most = f"attribute {disk} queue/discard_max_bytes"
        guest.do(f"[ $({most}) -gt 0 ] && beside {disk}")
        dm_reload("changes", *behind_each_other(first, without))
        guest.do(f"until_is {32 << 11} attribute {disk} size && until_is 0 {most}")
        dm_reload("changes", *behind_each_other(first, second))
        guest.do(f"until [ $({most}) -gt 0 ]; do sleep 0.1; done; end_beside")
        guest.do(f"/usr/sbin/blkdiscard -o 17M -l 1M /dev/{disk}")
        guest.remove_disk(control, 20, disk)
        remove_dm("changes")
        for name in ("discards", "discards-too", "keeps"):
            remove_null_blk(name)
    with case("storage:cache-is-switched-under-load"):
        disk = guest.new_disk(control, 20, null_blk("cache", 16, cache_size=4))

        def switch(mode):
            write(Path("/sys/block/cache/queue/write_cache"), mode)
            # The kernel tells nobody of that.
            control("rescan-lun", lun=20)
            guest.do(f"until_is '{mode}' attribute {disk} queue/write_cache")

        guest.do(f"beside {disk}")
        switch("write through")
        guest.do("end_beside")
        # Who holds it open may have looked whether to flush: it is another disk now, by the same name.
        guest.do(f"exec 7</dev/{disk}; (dd bs=4k count=1 <&7 >/tmp/before; until [ -e /tmp/switched ]; do sleep 0.1; done; dd bs=4k skip=64 count=1 <&7 >/tmp/behind; echo >/tmp/held) >/dev/null 2>&1 & exec 7<&-")
        guest.do("until [ -s /tmp/before ]; do sleep 0.1; done")
        switch("write back")
        guest.do("touch /tmp/switched; until [ -s /tmp/held ]; do sleep 0.1; done; [ ! -s /tmp/behind ]")
        guest.do(f"verified {disk} 16 1m")
        guest.remove_disk(control, 20, disk)
        remove_null_blk("cache")
    with case("storage:limits-change-while-somebody-else-changes-them"):
        discards, keeps = null_blk("discards", 16, discard=1), null_blk("keeps", 16)
        disk = guest.new_disk(control, 20, dm("changes", linear(discards)))
        guest.looked_through(control, 20, disk)
        # All but the first of the requests wait until there are no limits: how slow the machine is then does not matter.
        control("set-limits", lun=20, limits={"bytes": 1, "bytes-burst": 4096})
        guest.in_background(f"fio --name=w --filename=/dev/{disk} --rw=write --bs=4k --size=256k --iodepth=16 --direct=1 --ioengine=libaio", "written")
        guest.at_work(disk)
        # It has the limits' lock until no request is left, which its LUN's limits put off.
        guest.in_background(f"sh -c 'echo $$ >/tmp/setter; echo 1 >/sys/block/{disk}/queue/rotational'", "set")
        guest.do("until grep -q '^State:.D' /proc/$(cat /tmp/setter)/status; do [ ! -e /tmp/set ] || exit 1; sleep 0.1; done")
        dm_reload("changes", *behind_each_other(discards, keeps))
        guest.do(f"until_is {32 << 11} attribute {disk} size; [ ! -e /tmp/set ] && [ ! -e /tmp/written ]")
        control("set-limits", lun=20, limits={})
        guest.do("until [ -s /tmp/set ] && [ -s /tmp/written ]; do sleep 0.1; done; [ \"$(sort -u /tmp/set /tmp/written)\" = 0 ]")
        guest.do(f"until_is 0 attribute {disk} queue/discard_max_bytes; [ $(attribute {disk} queue/rotational) = 1 ]")
        guest.remove_disk(control, 20, disk)
        remove_dm("changes")
        remove_null_blk("discards")
        remove_null_blk("keeps")
    with case("storage:zones-are-refused"):
        zoned, kept = {"path": null_blk("zoned", 32, zoned=1, zone_size=8)}, null_blk("kept", 16)
        control.refuses("add-lun", "zones", disk=zoned, lun=20)
        # The disk that would have gone stays as it is, also to who has it open.
        disk = guest.new_disk(control, 20, kept)
        guest.do(f"beside {disk}")
        guest.at_work(disk)
        wait_for(lambda: lun_stats(control, 20)["writes"], 20, "a write")
        since = lun_stats(control, 20)["writes"]
        control.refuses("replace-lun", "zones", disk=zoned, lun=20, force=True)
        now = lun_stats(control, 20)["writes"]
        check(now >= since, f"{since} writes were counted before and {now} after: it was taken away in between")
        guest.do(f"end_beside; verified {disk} 8 1m")
        guest.remove_disk(control, 20, disk)
        remove_null_blk("zoned")
        remove_null_blk("kept")
