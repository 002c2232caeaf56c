# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the same loads on null_blk by every way of I/O, one after the other. Arguments: the guests' initramfs,
`quick`, `full` or `count`, and the ways to measure (all, if none is named). `count` is for a VM with one processor that
takes one virtual nanosecond for each instruction: it adds how many an I/O takes. With `--but FILE`, in place of ways: what that
file of results does not have.

A line `BENCH {…}` for each cell, `BENCH-AGAIN {…}` for a guest that could not go on and is started once more, and
`BENCH-FAILED {…}` if that one could not either; `BENCH-RUN {…}` before them tells what is to come."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench_counters import doorbell_probe, per_io, sample, sectors
from bench_ways import WAYS
from common import Failure, check, host_a_guest, modprobe, wait_for

BARE = "bare host"
MANY_LUNS = 128
# A window's seconds: where a target is about the cell, and elsewhere.
LONG, SHORT = 3, 1
# How often what the targets are about is measured.
ROUNDS = 3
WARM_UP = 1  # seconds, from the first I/Os on
FIRST_IOS = 20
# A load lasts until its window is over; one that nobody ends, this many seconds.
LOAD = 600
PROFILED = 0.005  # seconds
# Seconds for which a load that is looked at closely goes on for that.
CLOSE_LOOK = 2
# What each load is for fio, but for block size and depth. The guest has the same in guest/bench.sh.
FIO = ["--name=bench", "--direct=1", "--ioengine=libaio", "--randrepeat=1", "--norandommap", "--invalidate=0"]
FIO += ["--disk_util=0", "--eta=never", "--time_based", f"--runtime={LOAD}"]
LOADS = {
    "randread": ["--rw=randread"],
    "randwrite": ["--rw=randwrite"],
    "mix": ["--rw=randrw", "--rwmixread=70"],
    "read": ["--rw=read"],
    "write": ["--rw=write"],
}


@dataclass(frozen=True)
class Cell:
    """One measurement of a way: a load at a depth for each job, and the seconds of its window."""

    load: str
    block: int
    depth: int
    seconds: int = SHORT

    def name(self):
        """As the guest is told it."""
        return f"{self.load}:{self.block}:{self.depth}:{self.seconds}"


@dataclass(frozen=True)
class Boot:
    """One guest, and what it measures. Jobs are as many as processors and queues."""

    way: str
    queues: int
    luns: int
    cells: tuple
    round: int = 1


AIMED = (Cell("randread", 4096, 1, LONG), Cell("randread", 4096, 32, LONG))
# As many in flight as there are LUNs.
BUSY = Cell("randread", 4096, MANY_LUNS, LONG)
RANDOM = [(load, block) for load in ("randread", "randwrite", "mix") for block in (4096, 8192)]
KINDS = [*RANDOM, ("read", 131072), ("write", 131072)]
DEPTHS = (1, 4, 32, 128)
# Ways that can have many LUNs on one adapter; the report says what the others cannot (WHY_NOT_MANY).
TAKE_MANY = (BARE, "AVIO", "vhost-scsi")
# Ways that no target is about.
BESIDES = ("QEMU virtio-blk", "QEMU AHCI")


def aimed(ways, number=1):
    """A round of what the targets are about, way after way."""
    for way in ways:
        takes_many = way in TAKE_MANY
        yield Boot(way, 1, 1, AIMED + ((BUSY,) if takes_many else ()), number)
        if takes_many:
            yield Boot(way, 1, MANY_LUNS, (BUSY,), number)
        if way == "AVIO":
            yield Boot(way, 2, 1, (*AIMED, BUSY), number)
            yield Boot(way, 2, MANY_LUNS, (BUSY,), number)


def grid(ways):
    """All loads at all depths."""
    for way in ways:
        for luns, depths in ((1, DEPTHS), (MANY_LUNS, (MANY_LUNS,))):
            if luns == 1 or way in TAKE_MANY:
                cells = tuple(Cell(load, block, depth) for load, block in KINDS for depth in depths)
                yield from (Boot(way, queues, luns, cells) for queues in (1, 2))


def short(cell):
    """The same with a short window."""
    return replace(cell, seconds=SHORT)


def plan(selection, ways):
    """What is measured. What the targets are about serves in the grid, too."""
    first = list(aimed(ways))
    if selection == "count":
        counted = [replace(boot, cells=tuple(map(short, boot.cells))) for boot in first if boot.queues == 1]
        # How often a worker sleeps while so much is in flight is not the same in each guest.
        busy = [replace(boot, cells=(short(BUSY),)) for boot in counted if boot.way == "AVIO"]
        return counted + [replace(boot, round=number) for number in range(2, ROUNDS + 1) for boot in busy]
    boots = list(first)
    for number in range(2, ROUNDS + 1):
        boots += aimed([way for way in ways if way not in BESIDES], number)
    if selection == "full":
        taken = {(boot.way, boot.queues, boot.luns, short(cell)) for boot in first for cell in boot.cells}
        for boot in grid(ways):
            left = (cell for cell in boot.cells if (boot.way, boot.queues, boot.luns, cell) not in taken)
            boots.append(replace(boot, cells=tuple(left)))
    return boots


def missing(boots, rows):
    """What is left of these boots beside the rows that there are."""
    have = {(row["way"], row["queues"], row["luns"], row["round"], Cell(row["load"], row["block"], row["depth"], row["seconds"])) for row in rows}
    for boot in boots:
        cells = tuple(cell for cell in boot.cells if (boot.way, boot.queues, boot.luns, boot.round, cell) not in have)
        if cells:
            yield replace(boot, cells=cells)


def devices(luns):
    """The devices of a guest with so many LUNs."""
    return ["nullb0"] if luns == 1 else [f"nullb{number}" for number in range(1, luns + 1)]


def window(boot, cell):
    """Count over a window; the row."""
    names = devices(boot.luns)
    first = sample(names)
    time.sleep(cell.seconds)
    last = sample(names)
    row = {"way": boot.way, "queues": boot.queues, "luns": boot.luns, "round": boot.round, **asdict(cell)}
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


def bare(boot):
    """fio on the host itself."""
    names = devices(boot.luns)
    files = ":".join(f"/dev/{name}" for name in names)
    for cell in boot.cells:
        line = ["fio", *FIO, *LOADS[cell.load], f"--bs={cell.block}", f"--iodepth={cell.depth}", f"--numjobs={boot.queues}"]
        enough = sectors(names) + FIRST_IOS * cell.block // 512
        with subprocess.Popen([*line, f"--filename={files}"], stdout=subprocess.DEVNULL) as process:
            try:
                steady = lambda load=process, enough=enough: load.poll() is not None or sectors(names) > enough
                wait_for(steady, 60, f"the first I/Os of {cell.name()}")
                time.sleep(WARM_UP)
                row = window(boot, cell)
                check(process.poll() is None, f"the load {cell.name()} has ended by itself")
            finally:
                process.terminate()
        yield row


def says(guest, name, seconds):
    """What the guest says under a name, within some milliseconds of saying it: a window may begin then. Each line is looked at
    once."""
    mark, seen, end = f"GUEST-VALUE {name} ", 0, time.monotonic() + seconds
    while True:
        ended = guest.process.poll() is not None
        if ended:
            guest.reader.join(timeout=10)
        words = guest.words[seen:]
        seen += len(words)
        for said in words:
            if said.startswith(mark):
                return said.removeprefix(mark)
        if ended or time.monotonic() > end:
            what = "the guest has ended" if ended else f"{seconds} s are over"
            raise Failure(f"{what}, and it has not said {name}; its last words: {guest.tail()}")
        time.sleep(0.005)


def in_guest(boot, initrd, closely):
    """A guest makes each load. It says when the load is steady and both begin to count, and in the end how many interrupts and
    sectors it had, counted over as many seconds as here. `closely` has the cells looked at closely after their window."""
    cells = ",".join(cell.name() for cell in boot.cells)

    def start(kind, disks, options):
        options += f" lapic=notscdeadline avio_cells={cells} avio_warm_up={WARM_UP} avio_first={FIRST_IOS} avio_load={LOAD}"
        options += f" nokaslr avio_symbols avio_close_look={CLOSE_LOOK}" if closely else ""
        return kind("bench", disks, initrd, cpus=boot.queues, append=options)

    with WAYS[boot.way]([f"/dev/{name}" for name in devices(boot.luns)], start) as guest:
        for cell in boot.cells:
            says(guest, f"begun:{cell.name()}", 240)
            row = window(boot, cell)
            if closely and cell.depth < MANY_LUNS:
                if cell == boot.cells[0]:
                    symbols(guest)
                profile(cell)
                check(not guest.value(f"over:{cell.name()}"), f"the load {cell.name()} has ended before its profile")
            interrupts, moved = map(int, says(guest, f"counted:{cell.name()}", 60).split())
            check(moved, f"the guest has counted no I/O of {cell.name()}")
            ios = moved * 512 / cell.block
            # How much the guest's window has of the host's.
            windows = ios / (row["iops"] * row["elapsed"])
            check(0.5 < windows < 2, f"the guest has counted {windows:.0%} of the host's I/Os of {cell.name()}")
            yield row | {"interrupts": interrupts / ios, "windows": windows}


def measured(boot, initrd, selection):
    """The rows of a boot."""
    closely = selection == "count" and (boot.way, boot.luns, boot.round) == ("AVIO", 1, 1)
    for row in bare(boot) if boot.way == BARE else in_guest(boot, initrd, closely):
        if selection == "count":
            row["instructions"] = (1 - row["idle"]) * 1e9 / row["iops"]
        yield row


def main():
    """One after the other, on the same devices."""
    initrd, selection, *ways = sys.argv[1:]
    if ways[:1] == ["--but"]:
        results = json.loads(Path(ways[1]).read_text(encoding="utf-8"))
        boots = list(missing(plan(selection, [BARE, *WAYS]), results["counted" if selection == "count" else "rows"]))
    else:
        boots = plan(selection, ways or [BARE, *WAYS])
    cells = [cell for boot in boots for cell in boot.cells]
    host_a_guest()
    run = {"kernel": os.uname().release, "cells": len(cells), "windows": sum(cell.seconds for cell in cells)}
    print("BENCH-RUN " + json.dumps(run | {"boots": len(boots)}), flush=True)
    # A real disk takes 128 KiB at once, which are a sector more than null_blk takes of its own accord.
    options = ["gb=4", "bs=512", "irqmode=0", "queue_mode=2", "submit_queues=2", "hw_queue_depth=256", "max_sectors=2560"]
    modprobe("null_blk", f"nr_devices={1 + MANY_LUNS}", *options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(doorbell_probe())
        for boot in boots:
            left, failures = list(boot.cells), 0
            while left:
                try:
                    for row in measured(replace(boot, cells=tuple(left)), initrd, selection):
                        left.pop(0)
                        failures = 0
                        print("BENCH " + json.dumps(row), flush=True)
                except Exception as error:  # whatever befalls one way does not cost the others their figures
                    failures += 1
                    # A cell that fails twice is left out, and if none came up, so are the others.
                    lost = [] if failures < 2 else left[:1] if len(left) < len(boot.cells) else left[:]
                    left = left[len(lost) :]
                    what = asdict(replace(boot, cells=())) | {"selection": selection, "why": f"{type(error).__name__}: {error}"}
                    mark = "BENCH-FAILED" if lost or not left else "BENCH-AGAIN"
                    print(f"{mark} " + json.dumps(what | {"left": [asdict(cell) for cell in lost or left]}), flush=True)


if __name__ == "__main__":
    main()
