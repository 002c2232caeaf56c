# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Turns docs/benchmarks.json into docs/benchmarks.md, and what `make bench BENCH=full` measured, docs/benchmarks-full.json,
into docs/benchmarks-full.md. By hand, without measuring again: tests/bench/report.py."""

import json
from pathlib import Path

import targets

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
STEMS = {"quick": "benchmarks", "full": "benchmarks-full"}
SELECTIONS = {
    "quick": """These are the loads that the targets are about. [benchmarks-full.md](benchmarks-full.md) has others at more depths, from a run
of their own (`make bench BENCH=full`).""",
    "full": """These are all loads at all depths. [benchmarks.md](benchmarks.md) has those that the targets are about, from a run of their own.""",
}
LOADS = {"randread": "random read", "randwrite": "random write", "mix": "70 % random read, 30 % random write", "read": "sequential read"}
SPARE = ["", " and one that runs no guests"]
COUNTED = """4 KiB random reads, counted in a test machine with one processor that takes one virtual nanosecond for each
instruction (QEMU's `-icount shift=0`): within a percent or so the figures are the same on every machine and in every run.
Whatever is said of numbers of instructions holds for this one kernel and its configuration."""
WITH_GUEST = """fio in a guest, with all that the I/O takes: the guest's own system calls and block layer, KVM's part, the way's
own, QEMU's where it takes part, and the backing device. Guest and host share the one processor. KVM has to decode some
instructions at which a guest exits, as the emulated processor does not tell where the next one begins; a real one does."""
WITHOUT_GUEST = """A program (`tests/driver`) plays the guest's driver, with eventfds in place of KVM's doorbells and
interrupts, so that what is counted is what an I/O costs the host, beside the few instructions of the program itself. The
bare host reads by io_uring. Fewer than none beyond the bare host's means fewer than reading by system calls takes.
QEMU's emulated adapters cannot be counted so: a guest calls them by exits to QEMU, for which the program has nothing that
costs the same."""
WHERE = """By each instruction of about five milliseconds, in the machine that counts with a guest. `programs` is fio in the
guest, and the VMM in the host."""
COLUMNS = [("way", "way"), ("queues", "queues"), ("luns", "LUNs"), ("depth", "depth"), ("iops", "I/Os a second")]
COLUMNS += [("exits", "VM exits"), ("doorbells", "doorbells"), ("interrupts", "interrupts")]
COLUMNS += [("cpu_guest_us", "guest CPU, µs"), ("cpu_host_us", "host CPU, µs")]


def cell(value):
    """A figure as a table shows it; one that a way of I/O does not have, a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


def table(titles, lines):
    """A Markdown table with aligned columns."""
    lines = [titles, *([cell(value) for value in line] for line in lines)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    text = ["| " + " | ".join(word.ljust(width) for word, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def cells(rows):
    """The table of some cells."""
    return table([title for _, title in COLUMNS], [[row.get(key) for key, _ in COLUMNS] for row in rows])


def by_load(rows):
    """A section for each load."""
    kinds = dict.fromkeys((row["load"], row["block"]) for row in rows)
    for load, block in kinds:
        chosen = [row for row in rows if (row["load"], row["block"]) == (load, block)]
        yield f"### {block // 1024} KiB, {LOADS[load]}\n\n{cells(chosen)}"


def beyond(rows, **more):
    """A table of instructions, beside those of the bare host's at the same depth and as many LUNs."""
    bare = {(row["depth"], row.get("luns")): row["instructions"] for row in rows if row["way"] == targets.BARE}
    titles = ["way", *more.values(), "instructions an I/O", "beyond the bare host's"]
    lines = []
    for row in rows:
        number, floor = row["instructions"], bare.get((row["depth"], row.get("luns")))
        more_than = None if floor is None else number - floor
        lines.append((row["way"], *(row.get(key) for key in more), number, more_than))
    return table(titles, lines)


def where(profile):
    """Where the instructions go at a depth."""
    parts = [(one["part"], one["host"], one["guest"]) for one in profile["parts"]]
    parts.append(("all", sum(one[1] for one in parts), sum(one[2] for one in parts)))
    functions = [(f"`{one['function']}`", one["part"], one["where"], one["instructions"]) for one in profile["functions"]]
    return f"""#### Depth {profile["depth"]}

{table(["part", "host", "guest"], parts)}

{table(["function", "part", "in", "instructions an I/O"], functions)}"""


def against(results):
    """The table of targets."""
    return table(["what", "measured", "target", "reached"], targets.against(results))


def goals(results):
    """What the targets are about, which only a run of its own measures."""
    if results["selection"] != "quick":
        return ""
    return f"""
## Against the targets

4 KiB random reads, one queue where no other number is given.

{against(results)}

{instructions(results)}"""


def instructions(results):
    """The section of counted instructions."""
    profiles = "\n\n".join(where(profile) for profile in results["profile"])
    crossings = {"luns": "LUNs", "depth": "depth", "exits": "VM exits", "doorbells": "doorbells", "interrupts": "interrupts"}
    return f"""## Instructions

{COUNTED}

### With a guest

{WITH_GUEST}

{beyond(results["counted"], **crossings)}

### Without a guest

{WITHOUT_GUEST}

{beyond(results["instructions"], depth="depth")}

### Where AVIO's go

{WHERE}

{profiles}
"""


def lacking(rows, way):
    """What all other ways with one LUN have been measured at and this one has not, by queues and load."""
    names = ("queues", "load", "block", "depth")
    cells = {}
    for row in rows:
        if row["luns"] == 1:
            cells.setdefault(row["way"], set()).add(tuple(row[name] for name in names))
    others = [found for other, found in cells.items() if other != way]
    missing = sorted(set.intersection(*others) - cells.get(way, set())) if others else []
    depths = {}
    for *place, depth in missing:
        depths.setdefault(tuple(place), []).append(str(depth))
    for (queues, load, block), found in depths.items():
        yield f"queues {queues}: {block // 1024} KiB, {LOADS[load]}, depth {', '.join(found)}"


def failures(results):
    """What could not be measured."""
    for one in results.get("failed", []):
        yield f"\nNot measured: {'; '.join((one['way'], *lacking(results['rows'], one['way'])))} ({one['why']})\n"


def pictures(selection):
    """The plots that are there."""
    paths = (path for path in sorted(DOCS.glob("bench-*.svg")) if path.name.startswith("bench-full-") == (selection == "full"))
    return "\n".join(f"![{path.stem}]({path.name})" for path in paths)


def text(results):
    """The report."""
    sections, selection = "\n\n".join(by_load(results["rows"])), results["selection"]
    command = "make bench" if selection == "quick" else f"make bench BENCH={selection}"
    return f"""<!-- SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 -->
# Benchmarks

Written by `{command}` from [{STEMS[selection]}.json]({STEMS[selection]}.json); do not edit. All figures are from one run, one way
after the other. {SELECTIONS[selection]}

- date: {results["date"]}
- test machine: Linux {results["kernel"]}, {results["processors"]} processors{SPARE[results.get("spare", 0)]}, {results["accelerator"]}
- on: {results["cpu"]}
- device: null_blk without latency, so that nothing but the path is measured
- guests: the same kernel and initramfs, 512 MiB, as many processors as queues
- load: fio, O_DIRECT, libaio; a job for each queue, each with the depth given; windows of {results["seconds"]:g} s
- counted on the test machine over the same window of each cell: I/Os by the device, VM exits by KVM, processor time of
  the whole machine by the kernel's ticks; figures but the rate are for each I/O
- doorbells: accesses with which the guest calls for the host, bound to an eventfd or emulated by the VMM;
  interrupts: as the guest counts them, all devices but the console
- QEMU: {results["qemu"]}, on io_uring with cache.direct=on; mptsas1068: with message-signalled interrupts, which its
  driver must be asked for; vhost-scsi: iblock LUNs

Where the processor is emulated a VM exit costs many times what it costs on a real one, and all else is slower; compare
rows, not machines. There each interrupt that a guest gets costs one more exit, in all ways alike, because of a defect of the
emulation (tests/vm/emulated_svm).
{goals(results)}
## Every cell

{pictures(selection)}
{"".join(failures(results))}
{sections}
"""


def keep(results):
    """Keep a run's results."""
    path = DOCS / f"{STEMS[results['selection']]}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(selection):
    """The report of the results that are kept; its path."""
    data, report = (DOCS / f"{STEMS[selection]}.{kind}" for kind in ("json", "md"))
    if data.exists():
        report.write_text(text(json.loads(data.read_text(encoding="utf-8"))), encoding="utf-8")
    return report


if __name__ == "__main__":
    for one in STEMS:
        write(one)
