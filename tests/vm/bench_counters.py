# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what the benchmark counts on the host, over the same window for every way of I/O. One guest runs at a
time, so that the sums that the kernel keeps over all guests are that guest's."""

import contextlib
import os
import time
from pathlib import Path

from common import COUNTERS, TRACING, counters, sh

KVM = Path("/sys/kernel/debug/kvm")
# KVM calls it for each guest access that is bound to an eventfd, and so for each doorbell that does not go to the VMM.
IOEVENTFD = "ioeventfd_write"
# What avio_host counts of its queues that is of use for each I/O (docs/vmm.md, 7).
MODULE = ("doorbells", "interrupts", "passes", "polls", "polls_found", "asides", "asides_found", "visits")


@contextlib.contextmanager
def doorbell_probe():
    """Has the kernel count the calls of IOEVENTFD; the trace itself stays off."""
    if not (TRACING / "kprobe_events").exists():
        sh("mount", "-t", "tracefs", "tracefs", TRACING)
    (TRACING / "tracing_on").write_text("0", encoding="ascii")
    (TRACING / "kprobe_events").write_text(f"p:avio_bench/doorbell {IOEVENTFD}", encoding="ascii")
    enable = TRACING / "events/avio_bench/doorbell/enable"
    enable.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        enable.write_text("0", encoding="ascii")
        (TRACING / "kprobe_events").write_text("", encoding="ascii")


def ioeventfds():
    """How often the probe was hit."""
    name, hits, _misses = (TRACING / "kprobe_profile").read_text(encoding="ascii").split()
    assert name == "doorbell"
    return int(hits)


def sectors(devices):
    """Sectors that block devices have read and written (Documentation/block/stat.rst)."""
    fields = (Path(f"/sys/block/{name}/stat").read_text(encoding="ascii").split() for name in devices)
    return sum(int(field[2]) + int(field[6]) for field in fields)


def processor_ticks():
    """Processor time of the whole machine, as the kernel samples it: all but idle, the part of it that ran guest code,
    and idle (proc(5), /proc/stat)."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    user, nice, system, idle, iowait, irq, softirq, _steal, guest, _guest_nice = map(int, line.split()[1:])
    return user + nice + system + irq + softirq, guest, idle + iowait


def kvm():
    """KVM's own counters, those that are plain numbers."""
    found = {}
    for path in KVM.iterdir():
        if path.is_file():
            text = path.read_text(encoding="ascii", errors="replace").strip()
            if text.isdigit():
                found[path.name] = int(text)
    return found


def sample(devices):
    """All counters, now."""
    busy, guest, idle = processor_ticks()
    return {
        "time": time.monotonic(),
        "sectors": sectors(devices),
        "busy": busy / os.sysconf("SC_CLK_TCK"),
        "guest": guest / os.sysconf("SC_CLK_TCK"),
        "idle": idle / os.sysconf("SC_CLK_TCK"),
        "ioeventfds": ioeventfds(),
        "kvm": kvm(),
        "module": counters()[0] if COUNTERS.exists() else {},
    }


def per_io(before, after, block, guest):
    """What came of a window, for each I/O of `block` bytes. A doorbell is any access to the device with which the guest
    calls for the host: one bound to an eventfd, or one that the VMM emulates."""
    spent = {name: after[name] - before[name] for name in before if name not in ("kvm", "module")}
    ios = max(spent["sectors"] * 512 / block, 1)
    row = {"iops": ios / spent["time"], "elapsed": spent["time"], "cpu_host_us": (spent["busy"] - spent["guest"]) * 1e6 / ios}
    row["idle"] = spent["idle"] / (spent["busy"] + spent["idle"])
    if guest:
        exits = {name: after["kvm"][name] - value for name, value in before["kvm"].items() if name in after["kvm"]}
        row["cpu_guest_us"] = spent["guest"] * 1e6 / ios
        row["exits"] = exits["exits"] / ios
        row["doorbells"] = (spent["ioeventfds"] + exits["mmio_exits"] + exits["io_exits"]) / ios
        row["kvm"] = {name: round(count / ios, 4) for name, count in sorted(exits.items()) if count / ios >= 0.001}
    if all(name in found["module"] for found in (before, after) for name in MODULE):
        row["module"] = {name: (after["module"][name] - before["module"][name]) / ios for name in MODULE}
    return row
