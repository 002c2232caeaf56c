# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""`make bench`: boots the test machine, runs tests/vm/bench.py in it, and writes docs/benchmarks.json, docs/benchmarks.md
and the plots beside them. `make bench BENCH=full` measures every load at every depth, not only what the targets need, and
writes docs/benchmarks-full.json and so on."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "scripts"), str(Path(__file__).resolve().parent / "bench")]

import build
import host
import initramfs
import profile
import report
import root
import vm
from host import CHECKOUT, Problem, minutes, say

# A cell's window and all around it, generously, in seconds; and a guest's boot.
CELL_LIMIT, BOOTS_LIMIT = 30, 600
MATPLOTLIB = "matplotlib==3.10.*"
PLOTS = Path(__file__).resolve().parent / "bench" / "plots.py"


def processor():
    """The machine's processor, as /proc/cpuinfo names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def machine():
    """What the figures were taken on."""
    kind, why = vm.accelerator()
    emulated = "an emulated AMD EPYC with SVM (TCG)" if kind == "tcg" else "the machine's own (KVM)"
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": processor(),
        "processors": 2,
        "spare": vm.spare_processors(2),
        "accelerator": f"{emulated}: {why}",
        "qemu": root.output(["qemu-system-x86_64", "--version"]).splitlines()[0].removeprefix("QEMU emulator version "),
    }


def took_failure(line, failed):
    """Whether the line tells of a way that did not come up; kept and said then."""
    if not line.startswith("BENCH-FAILED "):
        return False
    failed.append(json.loads(line.removeprefix("BENCH-FAILED ")))
    say("FAILED: {way}: {why}".format(**failed[-1]))
    return True


def matrix(initrd, selection, seconds, ways):
    """All cells in one VM."""
    results = {"rows": [], "failed": []}

    def row(line):
        if took_failure(line, results["failed"]):
            return
        if line.startswith("BENCH-RUN "):
            results.update(json.loads(line.removeprefix("BENCH-RUN ")))
            say(f"{results['cells']} cells, about {minutes(results['cells'] * (seconds + 4) + 90)}")
        elif line.startswith("BENCH "):
            rows = results["rows"]
            rows.append(json.loads(line.removeprefix("BENCH ")))
            what = "{way}, queues {queues}, LUNs {luns}: {load} {block}, depth {depth}: {iops:,.0f} I/Os a second"
            say(f"{len(rows):4} of {results['cells']}  {what.format(**rows[-1])}")

    inside = ["/avio/tests/vm/bench.py", f"/avio/{initrd.relative_to(CHECKOUT)}", selection, seconds, *ways]
    limit = BOOTS_LIMIT + CELL_LIMIT * (500 if selection == "full" else 50)
    result = vm.run(inside, "bench", cpus=2, timeout=limit, on_line=row, append=["kunit.autorun=0"])
    if result.failure():
        if not results["rows"]:
            raise Problem(f"the benchmark's VM: {result.failure()}; its log: {result.log}")
        # What was measured is not lost, but nothing to publish either.
        kept = host.BUILD / "benchmarks-of-a-failed-run.json"
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        done = f"{len(results['rows'])} of {results['cells']} cells are in {kept}"
        raise Problem(f"the benchmark's VM: {result.failure()}; {done}; its log: {result.log}")
    return results


@contextlib.contextmanager
def emulated():
    """Has VMs run on an emulated processor, whatever the machine has."""
    before = os.environ.get("AVIO_ACCEL", "")
    os.environ["AVIO_ACCEL"] = "tcg"
    try:
        yield
    finally:
        os.environ["AVIO_ACCEL"] = before


def counting(inside, name, on_line, timeout, qemu=(), append=()):
    """A VM that counts instructions: one processor, which takes one virtual nanosecond for each."""
    options = {"qemu": ["-icount", "shift=0", *qemu], "append": ["kunit.autorun=0", *append]}
    with emulated():
        result = vm.run(inside, name, cpus=1, timeout=timeout, on_line=on_line, **options)
    if result.failure():
        raise Problem(f"the VM that counts instructions: {result.failure()}; its log: {result.log}")


def instructions():
    """What an I/O costs in instructions without a guest, counted in a VM of its own."""
    found = {"instructions": [], "single": {}}

    def row(line):
        if line.startswith("BENCH-COUNT "):
            found["instructions"].append(json.loads(line.removeprefix("BENCH-COUNT ")))
            say("{way}, depth {depth}: {instructions:,.0f} instructions an I/O".format(**found["instructions"][-1]))
        elif line.startswith("BENCH-SINGLE "):
            found["single"].update(json.loads(line.removeprefix("BENCH-SINGLE ")))

    counting(["/avio/tests/vm/bench_instructions.py"], "bench-instructions", row, timeout=600)
    return found


def counted(initrd, ways=()):
    """What an I/O costs in instructions, those of the guest and of whatever else runs included, and where they go."""
    rows, failed, looked = [], [], profile.Profile()

    def row(line):
        if looked.take(line) or took_failure(line, failed):
            return
        if line.startswith("BENCH "):
            rows.append(json.loads(line.removeprefix("BENCH ")))
            say("with a guest: {way}, LUNs {luns}, depth {depth}: {instructions:,.0f} instructions an I/O".format(**rows[-1]))

    inside = ["/avio/tests/vm/bench.py", f"/avio/{initrd.relative_to(CHECKOUT)}", "count", 1, *ways]
    counting(inside, "bench-count", row, timeout=2400, qemu=profile.QEMU, append=["nokaslr"])
    whole = {row["depth"]: row["instructions"] for row in rows if (row["way"], row["luns"]) == (report.targets.AVIO, 1)}
    return {"counted": rows, "profile": looked.results(whole), "failed": failed}


def python_with_matplotlib():
    """A Python of an environment of its own in the cache; made first if it is not there."""
    folder = host.CACHE / "plots"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        # Debian's Python comes without it.
        host.ensure_packages({sysconfig.get_path("stdlib") + "/ensurepip": "python3-venv"})
        with host.Step("Python with matplotlib"):
            log = host.CACHE / "logs" / "plots.log"
            host.logged([sys.executable, "-m", "venv", "--clear", folder], log)
            host.logged([python, "-m", "pip", "install", "--disable-pip-version-check", MATPLOTLIB], log)
        (folder / ".complete").touch()
    return python


def main():
    """Build, boot, count, write."""
    parser = argparse.ArgumentParser(description="Measure AVIO beside its peers.")
    parser.add_argument("--seconds", type=float, default=3, help="of each cell's window")
    only = "only this way of I/O; nothing is written then"
    parser.add_argument("--only", action="append", default=[], metavar="WAY", help=only)
    args = parser.parse_args()
    selection = os.environ.get("BENCH") or "quick"
    if selection not in ("quick", "full"):
        raise Problem(f"BENCH is '{selection}'; it must be quick or full")
    say("VMs run on {} ({})".format(*host.accelerator()))
    build.modules("normal")
    build.userspace()
    initrd = initramfs.make("bench", "normal", programs=["/usr/bin/fio"])
    results = {"selection": selection, "seconds": args.seconds} | machine()
    if args.only:
        return say(report.cells(matrix(initrd, selection, args.seconds, args.only)["rows"]))
    python = python_with_matplotlib()
    failed = []
    if selection == "quick":
        build.programs("The driver that plays a guest", "tests/driver")
        results |= instructions() | counted(initrd)
        failed = results["failed"]
    measured = matrix(initrd, selection, args.seconds, [])
    results |= measured | {"failed": failed + measured["failed"]}
    report.keep(results)
    with host.Step("Plots"):
        subprocess.run([python, PLOTS, selection], check=True)
    written = report.write(selection)
    say("\n" + report.cells([row for row in results["rows"] if (row["load"], row["block"], row["luns"]) == ("randread", 4096, 1)]))
    if selection == "quick":
        say("\n" + report.against(results))
    say(f"\nwritten to {written.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    host.main(main)
