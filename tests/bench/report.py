# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Turns what `make bench` has measured, docs/benchmarks.json, into docs/benchmarks.md and docs/benchmarks-full.md, and what
`make bench BENCH=quick` has, build/bench/benchmarks.json, into a benchmarks.md beside it. By hand, without measuring again:
tests/bench/report.py."""

import json
import statistics
from pathlib import Path

import targets

CHECKOUT = Path(__file__).resolve().parent.parent.parent
# Where each selection's files are.
FOLDERS = {"full": CHECKOUT / "docs", "quick": CHECKOUT / "build" / "bench"}
DATA, MAIN, GRID = "benchmarks.json", "benchmarks.md", "benchmarks-full.md"
COMMANDS = {"full": "make bench", "quick": "make bench BENCH=quick"}
LOADS = {
    "randread": "random read",
    "randwrite": "random write",
    "mix": "70 % random read, 30 % random write",
    "read": "sequential read",
    "write": "sequential write",
}
SPARE = ["", " and one that runs no guests"]
COUNTED = """4 KiB random reads, counted in a test machine with one processor that takes one virtual nanosecond for each
instruction (QEMU's `-icount shift=0`): at depths 1 and 32 the figures are the same on every machine and in every run, within a
percent or so. With 128 in flight they go by how often a worker sleeps; AVIO's are medians of three guests.
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
EXITS = """What a guest's processors exit for, an I/O.

- doorbells: as above, each an exit
- halts: the guest has nothing to do
- host interrupts: whatever interrupts the processor while a guest has it: the host's own timer, the guest's timer that has run
  out, a call of another processor; and where the processor is emulated, one for each interrupt that the guest gets
  (tests/vm/emulated_svm)
- interrupt windows: KVM has an interrupt for the guest, which does not take any just then, and is made to exit when it does
- others: mostly the registers of the guest's own interrupt controller and timer
- injected: interrupts that KVM gives the guest; what it has beyond those of devices are its timers and calls between its
  processors

Timers run out with time, not with I/Os: the more I/Os a second, the fewer of their exits for each."""
WHY_NOT_MANY = """128 LUNs: of an adapter, which bare host (one program on 128 disks), AVIO and vhost-scsi can have. QEMU's
  mptsas1068 takes 8 disks and its AHCI 6. Its virtio-blk is an adapter for each disk: 128 of them, each with rings
  and interrupts of its own, would be another thing"""
LATER = ", but for {} cells that it lacked, which `tests/bench.py --missing` measured behind it"
PLACE = ("way", "queues", "luns", "load", "block", "depth")
COLUMNS = [("way", "way"), ("queues", "queues"), ("luns", "LUNs"), ("depth", "depth"), ("iops", "I/Os a second")]
COLUMNS += [("exits", "VM exits"), ("doorbells", "doorbells"), ("interrupts", "interrupts")]
COLUMNS += [("cpu_guest_us", "guest CPU, µs"), ("cpu_host_us", "host CPU, µs")]
KINDS = [*COLUMNS[:4], ("exits", "VM exits"), ("doorbells", "doorbells"), ("halts", "halts")]
KINDS += [("host_interrupts", "host interrupts"), ("interrupt_windows", "interrupt windows"), ("other_exits", "others")]
KINDS += [("injected", "injected"), ("interrupts", "of devices")]
WORKERS = """The module's own counts of its queues, an I/O (vmm.md, 7)."""
MODULE = ("doorbells", "visits", "passes", "polls", "polls_found", "asides", "asides_found", "interrupts")


def exits_by_kind(row):
    """What the exits of a row are, from KVM's counters; those that were next to none are not among them."""
    kvm = row.get("kvm")
    if kvm is None:
        return {}
    names = {"halts": "halt_exits", "host_interrupts": "irq_exits", "interrupt_windows": "irq_window_exits"}
    kinds = {kind: kvm.get(name, 0.0) for kind, name in names.items()}
    # KVM's counters are read one after the other, so that the sum may be a little more than all.
    others = max(row["exits"] - row["doorbells"] - sum(kinds.values()), 0.0)
    return kinds | {"other_exits": others, "injected": kvm.get("irq_injections", 0.0)}


def merged(rows):
    """A row for each cell, with the medians of what was measured several times, and all its rates; way by way."""
    cells, ways = {}, list(dict.fromkeys(row["way"] for row in rows))
    for row in rows:
        module = {f"module_{name}": value for name, value in row.get("module", {}).items()}
        cells.setdefault(tuple(row[name] for name in PLACE), []).append(row | exits_by_kind(row) | module)
    found = []
    for place, same in cells.items():
        figures = dict.fromkeys(key for row in same for key, value in row.items() if key not in PLACE and isinstance(value, (int, float)))
        middle = {key: statistics.median(row[key] for row in same if key in row) for key in figures}
        found.append(dict(zip(PLACE, place)) | middle | {"rates": [row["iops"] for row in same]})
    return sorted(found, key=lambda row: (ways.index(row["way"]), row["luns"], row["queues"], row["depth"]))


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
    return table(["what", "measured", "min to max", "target", "reached"], targets.against(results))


def aimed(results):
    """The cells that the targets are about, and what their exits are."""
    longest = max(row["seconds"] for row in results["rows"])
    rows = [row for row in merged(results["rows"]) if row["seconds"] == longest]
    titles, lines = [title for _, title in COLUMNS], []
    for row in rows:
        low, high = min(row["rates"]), max(row["rates"])
        spread = f"{low:,.0f} to {high:,.0f}" if low != high else None
        lines.append([row.get(key) for key, _ in COLUMNS] + [spread])
    guests = [[row.get(key) for key, _ in KINDS] for row in rows if "exits" in row]
    keys = [key for key, _ in COLUMNS[:4]] + [f"module_{name}" for name in MODULE]
    module = [[row.get(key) for key in keys] for row in rows if "module_passes" in row]
    return f"""## The targets' cells

4 KiB random reads.

{table([*titles, "I/Os a second, min to max"], lines)}

### What the exits are

{EXITS}

{table([title for _, title in KINDS], guests)}

### What AVIO's workers do

{WORKERS}

{table([*titles[:4], *MODULE], module)}"""


def instructions(results):
    """The section of counted instructions."""
    profiles = "\n\n".join(where(profile) for profile in results["profile"])
    crossings = {"luns": "LUNs", "depth": "depth", "exits": "VM exits", "doorbells": "doorbells", "interrupts": "interrupts"}
    return f"""## Instructions

{COUNTED}

### With a guest

{WITH_GUEST}

{beyond(merged(results["counted"]), **crossings)}

### Without a guest

{WITHOUT_GUEST}

{beyond(results["instructions"], depth="depth")}

### Where AVIO's go

{WHERE}

{profiles}
"""


def whose(failure):
    """What failed, and where."""
    if "queues" not in failure:
        return failure["way"]
    where = "instructions" if failure["selection"] == "count" else f"round {failure['round']}"
    return f"{failure['way']}, queues {failure['queues']}, LUNs {failure['luns']}, {where}"


def failures(results):
    """What could not be measured, and what only a second guest could."""
    for one in results.get("failed", []):
        cells = [f"{cell['block'] // 1024} KiB, {LOADS[cell['load']]}, depth {cell['depth']}" for cell in one.get("left", [])]
        yield f"\nNot measured: {whose(one)}: {'; '.join([*cells, one['why']])}\n"
    for one in results.get("again", []):
        yield f"\nMeasured by a second guest, as the first could not go on: {whose(one)}: {one['why']}\n"


def pictures(folder, full):
    """The plots that are there."""
    paths = (path for path in sorted(folder.glob("bench-*.svg")) if path.name.startswith("bench-full-") == full)
    return "\n".join(f"![{path.stem}]({path.name})" for path in paths)


def windows(results):
    """How long it was measured, how often, and how well guests' windows fit the host's."""
    seconds = sorted({row["seconds"] for row in results["rows"]})
    number = max(row["round"] for row in results["rows"])
    text = f"""windows of {seconds[-1]:g} s in the cells that the targets are about, which are measured {number} times, way after way;
  figures are medians. Once: QEMU virtio-blk without an IOThread, and QEMU AHCI"""
    text += f"; and all other cells, in windows of {seconds[0]:g} s" if len(seconds) > 1 else ""
    shares = [row["windows"] for row in results["rows"] if "windows" in row and row["seconds"] == seconds[-1]]
    fit = f"; in the targets' cells it has {100 * min(shares):.1f} to {100 * max(shares):.1f} % of its I/Os" if shares else ""
    return text, fit


def head(results, about):
    """What each report begins with."""
    text, fit = windows(results)
    return f"""<!-- SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 -->
# Benchmarks

Written by `{COMMANDS[results["selection"]]}` from [{DATA}]({DATA}); do not edit. All figures are from one run, one way
after the other{LATER.format(results["later"]) if results.get("later") else ""}. {about}

- date: {results["date"]}
- test machine: Linux {results["kernel"]}, {results["processors"]} processors{SPARE[results.get("spare", 0)]}, {results["accelerator"]}
- on: {results["cpu"]}
- device: null_blk without latency, so that nothing but the path is measured
- guests: the same kernel and initramfs, 512 MiB, as many processors as queues
- load: fio, O_DIRECT, libaio; a job for each queue, each with the depth given
- {text}
- counted on the test machine over the same window of each cell: I/Os by the device, VM exits by KVM, processor time of
  the whole machine by the kernel's ticks; figures but the rate are for each I/O
- doorbells: accesses with which the guest calls for the host, bound to an eventfd or emulated by the VMM
- interrupts: as the guest counts them, all devices but the console, over the I/Os that it counts. Its window begins with
  the host's, and is as long{fit}
- {WHY_NOT_MANY}
- QEMU: {results["qemu"]}, on io_uring with cache.direct=on; mptsas1068: with message-signalled interrupts, which its
  driver must be asked for; vhost-scsi: iblock LUNs

Where the processor is emulated a VM exit costs many times what it costs on a real one, and all else is slower; compare
rows, not machines. There each interrupt that a guest gets costs one more exit, in all ways alike, because of a defect of the
emulation (tests/vm/emulated_svm).
{"".join(failures(results))}"""


def main_text(results, folder):
    """The report on the targets."""
    full = results["selection"] == "full"
    about = f"Every load at every depth is in [{GRID}]({GRID})." if full else "These are only the cells that the targets are about."
    more = f"\n## Every cell\n\nAll loads at all depths, in tables and by plots: [{GRID}]({GRID}).\n" if full else ""
    return f"""{head(results, about)}
## Against the targets

4 KiB random reads, one queue where no other number is given. A ratio is of two cells of one round: measured is the median of the
rounds.

{against(results)}

{instructions(results)}
{aimed(results)}

{pictures(folder, False)}
{more}"""


def grid_text(results, folder):
    """The report on every cell."""
    return f"""{head(results, f"The targets, and instructions, are in [{MAIN}]({MAIN}).")}
## By depth

{pictures(folder, True)}

## Every cell

{chr(10).join(f"{section}{chr(10)}" for section in by_load(merged(results["rows"])))}"""


def keep(results):
    """Keep a run's results."""
    folder = FOLDERS[results["selection"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def kept(selection):
    """The results that are kept."""
    return json.loads((FOLDERS[selection] / DATA).read_text(encoding="utf-8"))


def write(selection):
    """The reports of the results that are kept; the path of the one on the targets."""
    folder, results = FOLDERS[selection], kept(selection)
    (folder / MAIN).write_text(main_text(results, folder), encoding="utf-8")
    if selection == "full":
        (folder / GRID).write_text(grid_text(results, folder), encoding="utf-8")
    return folder / MAIN


if __name__ == "__main__":
    for one, where_it_is in FOLDERS.items():
        if (where_it_is / DATA).exists():
            write(one)
