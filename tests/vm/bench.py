# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the same loads on null_blk by every way of I/O, one after the other. Arguments: the guests' initramfs,
`quick`, `full` or `count`, the seconds of a window, and the ways to measure (all, if none is named). `count` is for a VM
with one processor that takes one virtual nanosecond for each instruction: it adds how many an I/O takes.

A line `BENCH {…}` for each cell, `BENCH-FAILED {…}` for a guest that could not go on; `BENCH-RUN {…}` before them tells
what is to come."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from bench_counters import doorbell_probe, per_io, sample, sectors
from bench_ways import WAYS
from common import Failure, host_a_guest, modprobe, wait_for

BARE = "bare host"
MANY_LUNS = 128
WARM_UP = 1  # seconds, from the first I/Os on
# What fio needs at its end; a window that reaches into it is an error.
MARGIN = 1.5
PROFILED = 0.005  # seconds
# What each load is for fio, but for block size and depth. The guest has the same in guest/bench.sh.
FIO = ["--name=bench", "--direct=1", "--ioengine=libaio", "--randrepeat=1", "--norandommap", "--invalidate=0"]
FIO += ["--disk_util=0", "--eta=never", "--time_based"]
LOADS = {
    "randread": ["--rw=randread"],
    "randwrite": ["--rw=randwrite"],
    "mix": ["--rw=randrw", "--rwmixread=70"],
    "read": ["--rw=read"],
}


@dataclass(frozen=True)
class Cell:
    """One measurement of a way: a load at a depth for each job."""

    load: str
    block: int
    depth: int

    def name(self):
        """As the guest is told it."""
        return f"{self.load}:{self.block}:{self.depth}"


@dataclass(frozen=True)
class Boot:
    """One guest, and what it measures. Jobs are as many as processors and queues."""

    way: str
    queues: int
    luns: int
    cells: tuple


QUICK = (Cell("randread", 4096, 1), Cell("randread", 4096, 32))
RANDOM = [(load, block) for load in ("randread", "randwrite", "mix") for block in (4096, 8192)]
KINDS = [*RANDOM, ("read", 131072)]
FULL = tuple(Cell(load, block, depth) for load, block in KINDS for depth in (1, 4, 32, 128))
# As many in flight as there are LUNs.
BUSY = Cell("randread", 4096, MANY_LUNS)
FULL_BUSY = tuple(Cell(load, block, MANY_LUNS) for load, block in KINDS)
# QEMU's mptsas1068 and AHCI do not take as many disks, and its virtio-blk takes a PCI function for each.
TAKE_MANY = (BARE, "AVIO", "vhost-scsi")


def plan(selection, ways):
    """What is measured: of all but the full selection only what the targets need."""
    boots = []
    for way in ways:
        takes_many = way in TAKE_MANY
        if selection == "full":
            boots += [Boot(way, queues, 1, FULL) for queues in (1, 2)]
            boots += [Boot(way, queues, MANY_LUNS, FULL_BUSY) for queues in (1, 2) if takes_many]
            continue
        boots.append(Boot(way, 1, 1, QUICK + ((BUSY,) if takes_many else ())))
        if selection == "quick" and way == "AVIO":
            boots.append(Boot(way, 2, 1, QUICK))
        if takes_many:
            boots.append(Boot(way, 1, MANY_LUNS, (BUSY,)))
    return boots


def devices(luns):
    """The devices of a guest with so many LUNs."""
    return ["nullb0"] if luns == 1 else [f"nullb{number}" for number in range(1, luns + 1)]


def measure(boot, cell, seconds, ended):
    """Wait until the load is steady and count over a window; the row. `ended` tells whether the load is over."""
    names = devices(boot.luns)
    before = sectors(names)
    wait_for(lambda: ended() or sectors(names) > before + 100 * cell.block // 512, 60, f"the first I/Os of {cell.name()}")
    time.sleep(WARM_UP)
    first = sample(names)
    time.sleep(seconds)
    last = sample(names)
    if ended():
        raise Failure(f"{boot.way}, {cell.name()}: the load ended before its window")
    row = {"way": boot.way, "queues": boot.queues, "luns": boot.luns, **asdict(cell)}
    return row | per_io(first, last, cell.block, guest=boot.way != BARE)


def symbols(guest):
    """Tell where modules' functions lie, as /proc/kallsyms has them."""
    with open("/proc/kallsyms", encoding="ascii") as lines:
        for line in lines:
            if line.endswith("]\n"):
                print(f"BENCH-SYMBOL host {line}", end="", flush=True)
    mark = "GUEST-SYMBOL "
    for line in list(guest.lines):
        if line.startswith(mark):
            print(f"BENCH-SYMBOL guest {line.removeprefix(mark)}", flush=True)


def profile(cell):
    """Have each instruction written down for a moment."""
    print("BENCH-PROFILE", flush=True)
    time.sleep(PROFILED)
    print(f"BENCH-PROFILED {cell.depth}", flush=True)


def bare(boot, seconds):
    """fio on the host itself."""
    for cell in boot.cells:
        line = ["fio", *FIO, *LOADS[cell.load], f"--bs={cell.block}", f"--iodepth={cell.depth}", f"--numjobs={boot.queues}"]
        files = ":".join(f"/dev/{name}" for name in devices(boot.luns))
        line += [f"--filename={files}", f"--runtime={1000 * (WARM_UP + seconds + 30):.0f}ms"]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
            yield measure(boot, cell, seconds, lambda: process.poll() is not None)
            process.terminate()


def in_guest(boot, seconds, initrd, profiled):
    """A guest says which cell it begins with, and at its end how many interrupts and sectors it had. The cells that
    `profiled` holds are looked at closely after their window."""
    cells = ",".join(cell.name() for cell in boot.cells)

    def start(kind, disks, options):
        options += f" lapic=notscdeadline avio_cells={cells} avio_ms={1000 * (WARM_UP + seconds + MARGIN):.0f}"
        options += " nokaslr avio_symbols" if profiled else ""
        return kind("bench", disks, initrd, cpus=boot.queues, append=options)

    with WAYS[boot.way]([f"/dev/{name}" for name in devices(boot.luns)], start) as guest:
        for cell in boot.cells:
            mark = f"GUEST-BENCH {cell.name()}."
            begun = lambda mark=mark: guest.said(mark) or guest.process.poll() is not None
            wait_for(begun, 180, f"{mark} of {boot.way}")
            end = f"counted:{cell.name()}"
            row = measure(boot, cell, seconds, lambda end=end: guest.value(end))
            if cell in profiled:
                if cell == profiled[0]:
                    symbols(guest)
                profile(cell)
                if guest.value(end):
                    raise Failure(f"{boot.way}, {cell.name()}: the load ended before its profile")
            wait_for(lambda end=end: guest.value(end), 60, f"the end of {cell.name()} of {boot.way}")
            interrupts, moved = map(int, guest.value(end).split())
            yield row | {"interrupts": interrupts / max(moved * 512 / cell.block, 1)}


def main():
    """One after the other, on the same devices."""
    initrd, selection, seconds, *ways = sys.argv[1:]
    boots = plan(selection, ways or [BARE, *WAYS])
    cells = sum(len(boot.cells) for boot in boots)
    host_a_guest()
    print("BENCH-RUN " + json.dumps({"kernel": os.uname().release, "cells": cells}), flush=True)
    options = ["gb=4", "bs=512", "irqmode=0", "queue_mode=2", "submit_queues=2", "hw_queue_depth=256"]
    modprobe("null_blk", f"nr_devices={1 + MANY_LUNS}", *options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(doorbell_probe())
        for boot in boots:
            profiled = QUICK if selection == "count" and boot.way == "AVIO" and boot.luns == 1 else ()
            rows = bare(boot, float(seconds)) if boot.way == BARE else in_guest(boot, float(seconds), initrd, profiled)
            try:
                for row in rows:
                    if selection == "count":
                        row["instructions"] = (1 - row["idle"]) * 1e9 / row["iops"]
                    print("BENCH " + json.dumps(row), flush=True)
            except Failure as failure:
                # One way that does not come up does not cost the others their figures.
                print("BENCH-FAILED " + json.dumps({"way": boot.way, "why": str(failure)}), flush=True)


main()
