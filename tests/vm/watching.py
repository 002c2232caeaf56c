# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what an administrator sees and sets from outside while a guest runs: debugfs, and polling. Steps of
storage.py."""

import contextlib
import os
import re
from pathlib import Path

from backings import dm, null_blk, remove_dm, remove_null_blk
from common import BIN, COUNTERS, TRACING, case, check, equal, sh, wait_for
from machine import SOCKET, lun_stats, told


def shown(line):
    """What debugfs shows of the one adapter in a line, by name; numbers as such."""
    text = next(COUNTERS.iterdir()).read_text(encoding="ascii")
    words = next(found.split()[1:] for found in text.splitlines() if found.split()[0] == line)
    values = dict(word.split("=") for word in words)
    return {name: int(value) if value.isdigit() else value for name, value in values.items()}


def sampled(line):
    """Requests of a LUN or of the adapter whose time was taken."""
    classes = shown(line).get("latency_us", "")
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
        check(sampled("adapter") >= sampled("lun1"), f"the adapter's latency lacks its LUNs': {shown('adapter')}")
        lun = lun_stats(control, 1)
        equal((lun["reads"], lun["writes"]), (after["reads"], after["writes"]), "reads and writes by the control socket")


def both_sides(guest, control):
    """The guest and the host count the same: of a LUN, by debugfs, the control socket and gvsdmgr, and of the adapter."""
    with case("storage:both-sides-count-the-same"):
        half = 8 << 11
        disk = guest.new_disk(control, 21, dm("half", f"0 {half} linear {null_blk('whole', 16)} 0", f"{half} {half} error"))
        guest.looked_through(control, 21, disk)
        guest.do(f"gvsdmgr clear_stat -D /dev/gvsd0 && gvsdmgr clear_stat -D /dev/gvsd0 -q lun=/dev/{disk}")
        before, all_before = shown("lun21"), shown("adapter")
        guest.do(f"dd if=/dev/zero of=/dev/{disk} bs=8k count=5 oflag=direct && dd if=/dev/{disk} of=/dev/null bs=4k count=7 iflag=direct")
        guest.do(f"for n in 1 2 3; do ! dd if=/dev/{disk} of=/dev/null bs=4k skip={half // 8 + 1} count=1 iflag=direct || exit 1; done; sync /dev/{disk}")
        after, all_after = shown("lun21"), shown("adapter")
        whole, [seen] = told(guest, "get_stat"), told(guest, "get_stat", f"/dev/{disk}")
        socket = lun_stats(control, 21)
        names = ("reads", "read_bytes", "writes", "write_bytes")
        equal({name: seen[name] for name in names}, {"reads": 10, "read_bytes": 7 << 12, "writes": 5, "write_bytes": 5 << 13}, "what the guest counted")
        host = {name: after[name] - before[name] for name in names}
        # What failed was answered, but not carried out.
        equal({**host, "reads": host["reads"] + 3}, {name: seen[name] for name in names}, "what the host counted, and the guest")
        equal({name: socket[name.replace("_", "-")] for name in names}, {name: after[name] for name in names}, "what the control socket tells, and debugfs")
        equal(seen["errors"], {"io_error": 3}, "errors in the guest")
        equal(after["status_io_error"] - before.get("status_io_error", 0), 3, "errors on the host")
        equal(sum(seen["latency_us"].values()), 15 + seen["flushes"], "requests whose time the guest took")
        adapter = whole["adapter"]
        equal(adapter["interrupts"] + adapter["interrupts_coalesced"], adapter["completions"], "interrupts and completions")
        equal(adapter["doorbells"], all_after["doorbells"] - all_before["doorbells"], "doorbells that were rung, and that came")
        guest.remove_disk(control, 21, disk)
        remove_dm("half")
        remove_null_blk("whole")


EVENT = re.compile(r"(\d+): (avio_\w+): .*queue=(\d+) tag=(\d+)(?: lun=(\d+) (\w+))?")


def events(text, clock=0):
    """The trace events of requests in a trace: time, queue and tag, name, and LUN and command where it has them."""
    found = (match.groups() for match in map(EVENT.search, text.splitlines()) if match)
    return [(int(time) + clock, (int(queue), int(tag)), name, lun, command) for time, name, queue, tag, lun, command in found]


@contextlib.contextmanager
def traced_host():
    """Has this kernel write down what becomes of requests, by the processor's own clock."""
    settings = {"events/avio_host/enable": ("1", "0"), "trace_clock": ("x86-tsc", "local")}
    for name, (value, _) in reversed(settings.items()):
        (TRACING / name).write_text(value, encoding="ascii")
    try:
        yield
    finally:
        for name, (_, value) in settings.items():
            (TRACING / name).write_text(value, encoding="ascii")


def traced(guest, control):
    """The trace events of guest and host, on one clock, follow each request there and back."""
    with case("storage:trace-of-both-sides"):
        disk = guest.disk_of(1)
        with traced_host():
            guest.do(f"mount -t tracefs tracefs {TRACING} 2>/dev/null; cd {TRACING} && echo x86-tsc >trace_clock && echo 1 >events/avio_stor/enable")
            guest.do(f"dd if=/dev/{disk} of=/dev/null bs=4k count=24 iflag=direct; dd if=/dev/zero of=/dev/{disk} bs=4k count=8 oflag=direct")
            # Another clock empties the trace.
            inside = guest.do(f"cd {TRACING} && echo 0 >events/avio_stor/enable && cat trace && echo local >trace_clock")
            outside = (TRACING / "trace").read_text(encoding="ascii")
        [offset] = Path("/sys/kernel/debug/kvm").glob("*/vcpu0/tsc-offset")
        requests = {}
        for event in sorted([*events(inside, -int(offset.read_text(encoding="ascii"))), *events(outside)], key=lambda event: event[0]):
            requests.setdefault(event[1], []).append(event[2:])
        for request in requests.values():
            # sent, taken, submitted, answered, done; the host's events began before the guest's and ended behind them.
            way = "".join({"avio_submitted": "b"}.get(name, name[5]) for name, *_ in request)
            check(re.fullmatch("[tba]*d?(stbad)*s?[tba]*", way), f"the ways of the requests of a tag are {way}")
            for (name, *sent), (_, *taken) in zip(request, request[1:]):
                check(name != "avio_sent" or sent == taken, f"LUN and command {sent} were sent, {taken} were taken")
        sent = [command for request in requests.values() for name, lun, command in request if (name, lun) == ("avio_sent", "1")]
        equal((sent.count("READ") >= 24, sent.count("WRITE")), (True, 8), "whether all reads and writes are there")


@contextlib.contextmanager
def placed(guest, workers):
    """Has the guest's processors on one of the host's, and the workers `apart` from it or `beside`: who shares a processor
    does not poll."""
    everywhere = os.sched_getaffinity(0)
    one, other = sorted(everywhere)[:2]
    threads = [int(path.name) for path in Path(f"/proc/{guest.process.pid}/task").iterdir()]
    # Some may have ended since.
    ended = contextlib.suppress(FileNotFoundError, ProcessLookupError)
    for thread in threads:
        with ended:
            name = Path(f"/proc/{thread}/comm").read_text(encoding="ascii")
            away = workers == "apart" and name.startswith("avio-stor-q")
            os.sched_setaffinity(thread, {other} if away else {one})
    try:
        yield
    finally:
        for thread in threads:
            with ended:
                os.sched_setaffinity(thread, everywhere)


def polling(guest, control):
    """A worker polls if it may, and finds work so; and never if it may not. The same of virtual processors that serve
    themselves."""

    def counted(name):
        return sum(shown(f"queue{number}")[name] for number in range(2))

    def polls():
        return counted("polls"), counted("polls_found")

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
        window(10000000)
        with placed(guest, "apart"):
            # Deep, for the window is the longer the more requests come at once.
            fio = f"fio --name=deep --filename=/dev/{guest.disk_of(0)} --rw=randread --bs=4k --size=8m --iodepth=32 --direct=1"
            guest.do(f"{fio} --ioengine=libaio --time_based --runtime=600 </dev/null >/tmp/deep 2>&1 & echo $! >/tmp/deep.pid")
            wait_for(lambda: all(now > then for now, then in zip(polls(), before)), 60, "polls that find work")
            guest.do("kill $(cat /tmp/deep.pid); while pidof fio; do sleep 0.1; done")
        told = sum(queue["polls"] for queue in control("stats")[0]["queues"])
        check(told > before[0], f"the control socket tells of {told} polls")
    with case("storage:who-rings-serves"), placed(guest, "beside"):
        before = counted("visits")

        def visited():
            guest.do(read)
            return counted("visits") > before + 100

        wait_for(visited, 60, "virtual processors that serve themselves, for one request at a time")
        guest.do(f"dd if=/dev/urandom of=/tmp/random bs=4k count=64; dd if=/tmp/random of=/dev/{guest.disk_of(1)} bs=4k oflag=direct")
        guest.do(f"dd if=/dev/{guest.disk_of(1)} bs=4k count=64 iflag=direct | cmp - /tmp/random")
        window(0)
        guest.do(read)
        before = counted("visits")
        guest.do(read)
        equal(counted("visits"), before, "visits without a policy")
        window(10000000)
