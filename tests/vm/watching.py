# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what an administrator sees and does from outside and inside while a guest runs: debugfs, polling, and task
commands by hand. Steps of storage.py."""

import json
import re

from backings import dm, linear, null_blk, remove_null_blk, standing_still
from common import BIN, COUNTERS, case, check, equal, sh, wait_for
from machine import SOCKET


def shown(line):
    """What debugfs shows of the one adapter in a line, by name; numbers as such."""
    text = next(COUNTERS.iterdir()).read_text(encoding="ascii")
    words = next(found.split()[1:] for found in text.splitlines() if found.split()[0] == line)
    values = dict(word.split("=") for word in words)
    return {name: int(value) if value.isdigit() else value for name, value in values.items()}


def sampled(lun):
    """Requests of a LUN whose time was taken."""
    classes = shown(lun).get("latency_us", "")
    return sum(int(count) for count in re.findall(r":(\d+)", classes))


def debugfs(guest, control):
    """A LUN's line counts what was done to it, and tells how long that took."""
    with case("storage:debugfs-counts-a-LUN's-requests"):
        disk = guest.disk_of(1)
        before, taken = shown("lun1"), sampled("lun1")
        # Many small ones, of which the times of some are taken, and one flush.
        guest.do(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=256 oflag=direct && dd if=/dev/{disk} of=/dev/null bs=4k count=256 iflag=direct")
        after = shown("lun1")
        grown = {name: after[name] - before[name] for name in ("reads", "read_bytes", "writes", "write_bytes", "status_ok")}
        equal(grown, {"reads": 256, "read_bytes": 1 << 20, "writes": 256, "write_bytes": 1 << 20, "status_ok": 512}, "what was counted")
        equal((after["in_flight"], after["held_back"], after["throttled"]), (0, 0, 0), "requests that wait")
        equal(after["sectors"], 64 << 11, "capacity")
        check(sampled("lun1") > taken, f"no request's time was taken: {after}")
        lun = next(lun for lun in control("stats")[0]["luns"] if lun["lun"] == 1)
        equal((lun["reads"], lun["writes"]), (after["reads"], after["writes"]), "reads and writes by the control socket")


def polling(guest, control):
    """A worker polls if it may, and finds work so; and never if it may not."""

    def polls():
        queues = [shown(f"queue{number}") for number in range(2)]
        return sum(queue["polls"] for queue in queues), sum(queue["polls_found"] for queue in queues)

    def window(nanoseconds):
        sh(BIN / "avio-ctl", "--control", SOCKET, "set-poll", nanoseconds)

    read = f"dd if=/dev/{guest.disk_of(1)} of=/dev/null bs=4k count=256 iflag=direct"
    with case("storage:set-poll"):
        window(0)
        guest.do(read)
        before = polls()
        guest.do(read)
        equal(polls(), before, "polls, and those that found work, of workers that may not")
        equal([shown(f"queue{number}")["window_ns"] for number in range(2)], [0, 0], "how long workers poll that may not")
        window(1000000)
        guest.do(f"beside {guest.disk_of(0)}")
        wait_for(lambda: all(now > then for now, then in zip(polls(), before)), 60, f"polls that find work; {polls()} after {before}")
        guest.do("end_beside")
        told = sum(queue["polls"] for queue in control("stats")[0]["queues"])
        check(told > before[0], f"the control socket tells of {told} polls")


def aborted(guest, control):
    """A request that stalls is aborted by hand: it ends as aborted when its backing lets go of it, and comes again."""
    with case("storage:abort-of-a-stalled-request"):
        path = dm("stalled", linear(null_blk("under-stalled", 16)))
        control("add-lun", disk={"path": path}, lun=20)
        guest.wait_disks(3)
        disk = guest.disk_of(20)

        def statuses():
            return next(lun for lun in control("stats")[0]["luns"] if lun["lun"] == 20)["statuses"]

        with standing_still("stalled"):
            guest.do("dd if=/dev/urandom of=/tmp/data bs=4k count=1")
            guest.do(f"(dd if=/tmp/data of=/dev/{disk} bs=4k oflag=direct; echo $? >/tmp/stalled) </dev/null >/dev/null 2>&1 &")
            request = guest.do(f"until stalled {disk}; do sleep 0.1; done").strip()
            queue, tag = request.split(":")
            abort = f"gvsdmgr -f --json task_mgmt -D /dev/gvsd0 -q lun=/dev/{disk} -t abort -r"
            for which, left in ((f"{queue}:{int(tag) ^ 1}", 0), (request, 1)):
                equal(json.loads(guest.do(f"{abort} {which}"))["still_in_flight"], left, f"requests left by an abort of {which}")
            equal(guest.do("ls /tmp/stalled 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
        guest.do("until [ -s /tmp/stalled ]; do sleep 0.1; done; grep -qx 0 /tmp/stalled")
        equal(statuses().get("aborted"), 1, "requests of the LUN that ended as aborted")
        guest.do(f"dd if=/dev/{disk} of=/tmp/found bs=4k count=1 iflag=direct && cmp /tmp/data /tmp/found")
        control("remove-lun", lun=20)
        guest.wait_disks(2)
        sh("dmsetup", "remove", "--retry", "stalled")
        remove_null_blk("under-stalled")
