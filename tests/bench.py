# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""`make bench`: counts instructions in one test machine, boots another, runs tests/vm/bench.py in it, and writes
docs/benchmarks.json, docs/benchmarks.md, docs/benchmarks-full.md and the plots beside them. `make bench BENCH=quick` measures only
what the targets are about, and writes to build/bench instead.

`tests/bench.py --missing` measures what such a run could not, and adds it.

What cannot be measured is said, and then the command fails, after all else is written. A target that is missed is said, too, but
is a result like another."""

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

# How long the machine that measures may take, in seconds: several times what it does.
LIMITS = {"quick": 3600, "full": 4 * 3600}
# What a cell takes beside its window, and a guest beside its cells, in an emulated machine.
CELL, BOOT = 2, 12
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


def took_failure(line, results):
    """Whether the line tells of a way that could not go on; kept and said then."""
    for mark, key, what in (("BENCH-FAILED ", "failed", "FAILED"), ("BENCH-AGAIN ", "again", "once more")):
        if line.startswith(mark):
            results[key].append(json.loads(line.removeprefix(mark)))
            say("{what}: {way}: {why}".format(what=what, **results[key][-1]))
            return True
    return False


def matrix(initrd, selection, ways, results):
    """All cells in one VM, added to the results."""
    rows, run = results["rows"], {}
    before = len(rows)

    def row(line):
        if took_failure(line, results):
            return
        if line.startswith("BENCH-RUN "):
            run.update(json.loads(line.removeprefix("BENCH-RUN ")))
            results["kernel"] = run["kernel"]
            seconds = run["windows"] + CELL * run["cells"] + BOOT * run["boots"]
            say(f"{run['cells']} cells, {run['boots']} guests, about {minutes(seconds)}")
        elif line.startswith("BENCH "):
            rows.append(json.loads(line.removeprefix("BENCH ")))
            what = "{way}, queues {queues}, LUNs {luns}: {load} {block}, depth {depth}: {iops:,.0f} I/Os a second"
            say(f"{len(rows) - before:4} of {run['cells']}  {what.format(**rows[-1])}")

    inside = ["/avio/tests/vm/bench.py", f"/avio/{initrd.relative_to(CHECKOUT)}", selection, *ways]
    result = vm.run(inside, "bench", cpus=2, timeout=LIMITS[selection], on_line=row, append=["kunit.autorun=0"])
    if result.failure() and rows and not result.code and not result.timed_out:
        # Something in a kernel's log; the figures are there.
        results["failed"].append({"way": "the machine's log", "why": result.failure()})
    elif result.failure():
        # What was measured is not lost, but nothing to publish either.
        kept = host.BUILD / "benchmarks-of-a-failed-run.json"
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        done = f"{len(rows) - before} of {run.get('cells', 'all')} cells are in {kept}"
        raise Problem(f"the benchmark's VM: {result.failure()}; {done}; its log: {result.log}")
    if not rows:
        raise Problem(f"the benchmark's VM has measured nothing; its log: {result.log}")


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


def without_guest(results):
    """What an I/O costs in instructions without a guest, counted in a VM of its own."""

    def row(line):
        if line.startswith("BENCH-COUNT "):
            results["instructions"].append(json.loads(line.removeprefix("BENCH-COUNT ")))
            say("{way}, depth {depth}: {instructions:,.0f} instructions an I/O".format(**results["instructions"][-1]))
        elif line.startswith("BENCH-SINGLE "):
            results["single"].update(json.loads(line.removeprefix("BENCH-SINGLE ")))

    counting(["/avio/tests/vm/bench_instructions.py"], "bench-instructions", row, timeout=600)


def with_guest(results, initrd, more):
    """What an I/O costs in instructions, those of the guest and of whatever else runs included, and where they go."""
    rows, looked = results["counted"], profile.Profile()

    def row(line):
        try:
            if looked.take(line) or took_failure(line, results):
                return
        except (Problem, OSError) as problem:
            # The rest is worth having without.
            results["failed"].append({"way": "where instructions go", "why": str(problem)})
            return
        if line.startswith("BENCH "):
            rows.append(json.loads(line.removeprefix("BENCH ")))
            say("with a guest: {way}, LUNs {luns}, depth {depth}: {instructions:,.0f} instructions an I/O".format(**rows[-1]))

    inside = ["/avio/tests/vm/bench.py", f"/avio/{initrd.relative_to(CHECKOUT)}", "count", *more]
    try:
        counting(inside, "bench-count", row, timeout=3600, qemu=profile.QEMU, append=["nokaslr"])
    finally:
        whole = {row["depth"]: row["instructions"] for row in rows if (row["way"], row["luns"], row["round"]) == (report.targets.AVIO, 1, 1)}
        results["profile"] += looked.results(whole)


def count(results, initrd, more=()):
    """All that is counted in instructions, or `more` says what. What fails does not keep the rest from being measured."""
    parts = [lambda: with_guest(results, initrd, more)]
    for part in parts if results["instructions"] else [lambda: without_guest(results), *parts]:
        try:
            part()
        except Exception as error:  # what fails here does not cost the rest
            say(f"FAILED: {error}")
            results["failed"].append({"way": "instructions", "why": f"{type(error).__name__}: {error}"})


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


def judge(results, written):
    """Say what was reached and what was not; a Problem if anything could not be measured."""
    lines = list(report.targets.against(results))
    missed = [f"{what}: {value}, should be {target}" for what, value, _, target, reached in lines if reached == report.targets.NO]
    missing = [what for what, value, *_ in lines if value == report.targets.MISSING]
    missing += [f"{one['way']}: {one['why']}" for one in results["failed"]]
    say("\n" + report.against(results))
    say(f"\nwritten to {written.relative_to(CHECKOUT)}")
    say("\n".join(["targets that are missed:", *missed]) if missed else "no measured target is missed")
    if missing:
        raise Problem("\n".join(["the benchmark is not whole; not measured:", *missing]))


def main():
    """Build, boot, count, write."""
    parser = argparse.ArgumentParser(description="Measure AVIO beside its peers.")
    only = "only this way of I/O, without instructions; nothing is written then"
    parser.add_argument("--only", action="append", default=[], metavar="WAY", help=only)
    parser.add_argument("--missing", action="store_true", help="only what the last run could not measure")
    args = parser.parse_args()
    selection = os.environ.get("BENCH") or "full"
    if selection not in report.FOLDERS:
        raise Problem(f"BENCH is '{selection}'; it must be quick or full")
    say("VMs run on {} ({})".format(*host.accelerator()))
    build.modules("normal")
    build.userspace()
    initrd = initramfs.make("bench", "normal", programs=["/usr/bin/fio"])
    results = {"selection": selection} | machine() | {"single": {}, "failed": [], "again": []}
    results |= {"instructions": [], "counted": [], "profile": [], "rows": []}
    if args.only:
        matrix(initrd, selection, args.only, results)
        return say(report.cells(report.merged(results["rows"])))
    python = python_with_matplotlib()
    build.programs("The driver that plays a guest", "tests/driver")
    more = []
    if args.missing:
        results = report.kept(selection) | {"failed": []}
        had = len(results["rows"]) + len(results["counted"])
        more = ["--but", f"/avio/{(report.FOLDERS[selection] / report.DATA).relative_to(CHECKOUT)}"]
    count(results, initrd, more)
    matrix(initrd, selection, more, results)
    if args.missing:
        results["later"] = results.get("later", 0) + len(results["rows"]) + len(results["counted"]) - had
    report.keep(results)
    with host.Step("Plots"):
        if subprocess.run([python, PLOTS, selection], check=False).returncode:
            results["failed"].append({"way": "plots", "why": "what is above"})
    judge(results, report.write(selection))
    return 0


if __name__ == "__main__":
    host.main(main)
