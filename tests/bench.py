# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""`make bench`: boots the test machine once, runs tests/vm/bench.py in it, prints its figures side by side and writes
them to docs/benchmarks.md."""

import datetime
import json
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import build
import host
import initramfs
import vm
from host import CHECKOUT, Problem, minutes, say

REPORT = CHECKOUT / "docs" / "benchmarks.md"
COLUMNS = [("way", "way"), ("depth", "depth"), ("iops", "I/Os a second"), ("exits", "VM exits an I/O")]
COLUMNS += [("doorbells", "doorbells an I/O"), ("interrupts", "interrupts an I/O"), ("cpu_us", "CPU an I/O, µs")]


def cell(value):
    """A figure as a table shows it; a way of I/O that does not have it, a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


def table(rows):
    """The figures as a Markdown table with aligned columns."""
    lines = [[title for _, title in COLUMNS]] + [[cell(row.get(key)) for key, _ in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    text = ["| " + " | ".join(word.ljust(width) for word, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def processor():
    """The machine's processor, as /proc/cpuinfo names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def report(rows, release):
    """docs/benchmarks.md."""
    kind, why = vm.accelerator()
    emulated = "an emulated AMD EPYC with SVM (TCG)" if kind == "tcg" else "the machine's own (KVM)"
    return f"""<!-- SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 -->
# Benchmarks

Written by `make bench`; do not edit. All rows are from one run, one after the other.

- date: {datetime.date.today().isoformat()}
- test machine: Linux {release}, 2 processors, {emulated}: {why}
- on: {processor()}
- load: fio, 4 KiB random reads, O_DIRECT, libaio, one job; guests have one processor and 512 MiB
- device: null_blk without latency, so that nothing but the path is measured
- all figures are counted on the test machine over the same window of each run: reads by the device, exits by KVM,
  processor time (of host and guest together) by the kernel
- QEMU virtio-blk: io_uring, one IOThread, cache.direct=on

{table(rows)}

Under TCG a VM exit costs many times what it costs on a real processor, and all else is slower; compare rows, not
machines.
"""


def main():
    """Build, boot, count, write."""
    build.modules("normal")
    build.userspace()
    initrd = initramfs.make("bench", "normal", programs=["/usr/bin/fio"])
    rows, release = [], []

    def row(line):
        if line.startswith("BENCH-KERNEL "):
            release.append(line.split()[1])
        elif line.startswith("BENCH "):
            rows.append(json.loads(line[len("BENCH ") :]))
            say("{way}, depth {depth}: {iops:,.0f} I/Os a second".format(**rows[-1]))

    say("Measuring: bare host, AVIO, QEMU virtio-blk, at depths 1 and 32")
    inside = ["/avio/tests/vm/bench.py", f"/avio/{initrd.relative_to(CHECKOUT)}"]
    result = vm.run(inside, "bench", cpus=2, timeout=900, on_line=row)
    if result.failure():
        raise Problem(f"the benchmark's VM: {result.failure()}; its log: {result.log}")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(rows, release[0]), encoding="utf-8")
    say(f"\n{table(rows)}\n\nwritten to {REPORT.relative_to(CHECKOUT)}; it took {minutes(result.seconds)}")


if __name__ == "__main__":
    host.main(main)
