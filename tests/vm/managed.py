# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what gvsdmgr tells a program, and what it asks a person. Steps of storage.py."""

import json

from backings import null_blk, remove_null_blk, sectors
from common import case, check, equal
from gates import filled, gated, refused, untouched
from machine import told

NUMBER = 29


def managed(guest, control):
    """What it tells is what the host has, and what was done; a disk that replaces another is not taken into use before
    somebody has said yes."""
    path, mib = null_blk("managed", 24), 16
    disk = guest.new_disk(control, NUMBER, path, serial="MANAGED")
    guest.looked_through(control, NUMBER, disk)
    with case("storage:gvsdmgr-tells-programs"):
        described(guest, disk, path)
        counted(guest, disk)
    with case("storage:replace_dsk-asks-first"):
        other = filled("asked-about", mib)
        same = untouched(other, mib)
        control("replace-lun", lun=NUMBER, disk={"path": other, "serial": "ANOTHER"})
        guest.do(f"until_is REPLACED told get_info State lun={NUMBER}")
        accept = f"gvsdmgr --json replace_dsk -D /dev/gvsd0 -q lun={NUMBER}"
        for answer in ("echo n", "echo", "echo perhaps", ":"):
            said = guest.refuses(f"{answer} | {accept}")
            check('"ANOTHER"' in said and "nothing was done" in said, f"after `{answer}` it said {said}")
            check(gated(guest, NUMBER), f"`{answer}` has opened the gate")
        refused(guest, guest.disk_of(NUMBER))
        same("before anybody agreed")
        third = filled("exchanged-meanwhile", mib)
        same_third = untouched(third, mib)
        guest.in_background(f"(until [ -e /tmp/yes ]; do sleep 0.1; done; echo y) | {accept} >/tmp/said 2>&1", "agreed")
        guest.do("until grep -q ANOTHER /tmp/said; do sleep 0.1; done")
        control("replace-lun", lun=NUMBER, disk={"path": third, "serial": "THIRD"})
        guest.do(f"until_is THIRD attribute {disk} serial")
        guest.do("touch /tmp/yes; until [ -s /tmp/agreed ]; do sleep 0.1; done; ! grep -qx 0 /tmp/agreed && grep -q 'replaced in turn' /tmp/said")
        refused(guest, guest.disk_of(NUMBER))
        same_third("although somebody agreed to another")
        control("replace-lun", lun=NUMBER, disk={"path": other, "serial": "ANOTHER"})
        guest.do(f"until_is ANOTHER attribute {disk} serial")
        answer = json.loads(guest.do(f"echo y | {accept} 2>/dev/null"))
        equal(answer, {"result": "the new disk is in use", "still_in_flight": 0}, "the answer to a yes")
        guest.do(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct")
        guest.remove_disk(control, NUMBER, disk)
        remove_null_blk("asked-about")
        remove_null_blk("exchanged-meanwhile")
        remove_null_blk("managed")


def described(guest, disk, path):
    """The adapter, and a LUN that is a disk on this path."""
    adapter = told(guest, "get_info")
    equal((adapter["state"], adapter["max_io_size"]), ("ONLINE", 4 << 20), "state of the adapter, and its largest request")
    equal(adapter["luns"], len(guest.do("disks").split()), "number of LUNs")
    wanted = {
        "lun": NUMBER,
        "device_file": f"/dev/{disk}",
        "state": "ONLINE",
        "capacity_bytes": sectors(path) << 9,
        "serial": "MANAGED",
        "read_only": False,
        "max_io_size": int(guest.do(f"attribute {disk} queue/max_hw_sectors_kb")) << 10,
    }
    [lun] = told(guest, "get_info", f"/dev/{disk}")
    equal({name: lun[name] for name in wanted}, wanted, "what get_info tells of the LUN")


def counted(guest, disk):
    """What is counted for a LUN and for the adapter, and counted anew."""
    read = f"dd if=/dev/{disk} of=/dev/null bs=64k count=4 iflag=direct"
    equal(told(guest, "clear_stat")["result"], "statistics cleared", "the answer to clear_stat")
    adapter = told(guest, "get_stat")
    numbers = ("reads", "read_bytes", "writes", "write_bytes", "flushes", "errors", "retries", "latency_us", "in_flight")
    check(not any(adapter[name] for name in numbers), f"counters that were cleared: {adapter}")
    check(not any(adapter["adapter"].values()), f"counters of the queues that were cleared: {adapter}")
    guest.do(f"{read} && dd if=/dev/{guest.disk_of(0)} of=/dev/null bs=64k count=4 iflag=direct")
    adapter, [lun] = told(guest, "get_stat"), told(guest, "get_stat", f"/dev/{disk}")
    equal([of["reads"] for of in (adapter, lun)], [8, 4], "reads of the adapter and of the LUN")
    equal([of["read_bytes"] for of in (adapter, lun)], [8 << 16, 4 << 16], "bytes read of the adapter and of the LUN")
    equal(adapter["adapter"]["completions"], 8, "completions")
