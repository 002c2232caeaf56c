# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a backing that becomes able to do other things than before: the guest's disk goes on, with all that is open
on it. And one that no guest's disk can be. A step of storage.py."""

from pathlib import Path

from backings import dm, dm_reload, linear, null_blk, remove_dm, remove_null_blk, sectors, write
from common import case


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
        guest.do(f"beside {disk}")
        for mode in ("write through", "write back"):
            write(Path("/sys/block/cache/queue/write_cache"), mode)
            # The kernel tells nobody of that.
            control("rescan-lun", lun=20)
            guest.do(f"for t in $(seq 200); do [ \"$(attribute {disk} queue/write_cache)\" = '{mode}' ] && exit; sleep 0.1; done; exit 1")
        guest.do("end_beside")
        guest.remove_disk(control, 20, disk)
        remove_null_blk("cache")
    with case("storage:zones-are-refused"):
        control.refuses("add-lun", "zones", disk={"path": null_blk("zoned", 32, zoned=1, zone_size=8)}, lun=20)
        remove_null_blk("zoned")
