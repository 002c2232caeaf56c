# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The test runner: one line for each test with how long it took, then `N passed, N failed, N skipped`.

Groups: `user` (cargo tests, Loom), `module` (KUnit by insmod, the hostile driver), `stack` (guests in our VMM on the
test kernel), `storage` and `kinds` (LUNs that change, and what may be behind them), `faults` (the kernel and devices
fail). With `--flavour debug`, under KASAN, lockdep and kmemleak: `host` (module, stack and faults in one VM), `guest` and
`luns` (stack and storage with such a guest)."""

import argparse
import functools
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import build
import check
import host
import initramfs
import own_trees
import root
import setup
import vm
from host import BUILD, CHECKOUT, Problem, minutes, say


# One group builds at a time; the VMs of others may run meanwhile.
BUILDING = threading.Lock()


class Report:
    """Counts and prints results."""

    WORDS = {"pass": "ok", "fail": "FAIL", "skip": "skip"}

    def __init__(self):
        self.count = {"pass": 0, "fail": 0, "skip": 0}
        self.failed = []
        self.mutex = threading.Lock()

    def add(self, status, name, seconds, detail=""):
        """One test's result. Usable from any thread."""
        shown = f"  {detail}" if detail and status != "pass" else ""
        with self.mutex:
            self.count[status] += 1
            if status == "fail":
                self.failed.append(name)
            say(f"{self.WORDS[status]:4} {seconds:8.2f} s  {name}{shown}")

    def close(self):
        """The closing lines; the exit code."""
        if self.failed:
            say("\nFailed:\n  " + "\n  ".join(self.failed))
        say("")
        say("{pass} passed, {fail} failed, {skip} skipped".format(**self.count))
        return 0 if self.count["pass"] and not self.count["fail"] else 1


def timed(report, name, function):
    """Run one group; a Problem in it is a failed test, and the other groups go on."""
    say(f"\n--- {name}")
    start = time.monotonic()
    try:
        function(report)
    except Problem as problem:
        report.add("fail", name, time.monotonic() - start, str(problem).strip().splitlines()[-1])
        say(str(problem))
    say(f"--- {name}: {minutes(time.monotonic() - start)}")


def cargo(report, what, arguments, env):
    """Build tests with cargo, run each program, and report each test in it."""
    where = CHECKOUT / "userspace"
    with host.Step(f"Building {what}"):
        line = ["cargo", "test", "--no-run", "--locked", "--message-format=json-render-diagnostics", *arguments]
        messages = root.output(line, cwd=where, env=env).splitlines()
    for message in (json.loads(text) for text in messages if text.startswith("{")):
        if message.get("executable") and message["profile"]["test"]:
            target = message["target"]
            package = Path(message["manifest_path"]).parent
            name = package.name if target["name"] == package.name else f"{package.name}:{target['name']}"
            # RUSTC_BOOTSTRAP opens the harness's own timing; nothing is compiled here.
            run = [message["executable"], "-Zunstable-options", "--report-time"]
            harness(report, name, run, package, {**env, "RUSTC_BOOTSTRAP": "1"})


def harness(report, name, line, where, env):
    """Run a Rust test program and report its tests."""
    start, seen = time.monotonic(), 0
    log = BUILD / "logs" / f"{name.replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = root.command(line, cwd=where, env=env)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    broken = 0
    with open(log, "w", encoding="utf-8") as file:
        for text in process.stdout:
            file.write(text)
            found = re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)[^<]*(?:<([\d.]+)s>)?", text)
            if found:
                status = {"ok": "pass", "FAILED": "fail", "ignored": "skip"}[found.group(2)]
                broken += status == "fail"
                seen += 1
                report.add(status, f"{name}::{found.group(1)}", float(found.group(3) or 0), f"see {log}")
    code = process.wait()
    if code and not broken:
        seconds = time.monotonic() - start
        report.add("fail", f"{name}::(the test program)", seconds, f"exit code {code} after {seen} tests, see {log}")


def killed(report):
    """What a runner has started in the toolchain root, a VM for instance, ends with it even if that is killed."""
    start = time.monotonic()
    program = "import root; root.run(['sh', '-c', 'echo up; exec sleep 600'])"
    line = [sys.executable, "-c", program]
    with subprocess.Popen(line, cwd=CHECKOUT / "scripts", stdout=subprocess.PIPE) as runner:
        began = runner.stdout.readline() == b"up\n"
        runner.kill()
        # The end of the pipe comes when nobody has it open any more.
        ended = bool(select.select([runner.stdout], [], [], 300)[0])
    status = "pass" if began and ended else "fail"
    report.add(status, "runner:all-ends-with-it", time.monotonic() - start, "it did not begin" if not began else "it goes on")


def claimed(report):
    """Of a target folder that another checkout has used, our crates are built anew and all else is kept; and once only."""
    start, left = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        prints = Path(folder) / "debug" / ".fingerprint"
        for _ in range(2):
            for name in ("avio-vmm-0123", "gvsdmgr-0123", "serde-0123"):
                (prints / name).mkdir(parents=True, exist_ok=True)
            build.claim(Path(folder))
            left.append(sorted(path.name for path in prints.iterdir()))
    wanted = [["serde-0123"], ["avio-vmm-0123", "gvsdmgr-0123", "serde-0123"]]
    report.add("pass" if left == wanted else "fail", "runner:checkouts-keep-apart", time.monotonic() - start, f"left are {left}")


def licences(report):
    """Each file says its licence: `make check` has that too, but a file is soon forgotten."""
    start, status, detail = time.monotonic(), "pass", ""
    try:
        check.licences()
    except Problem as problem:
        status, detail = "fail", str(problem)
    except (OSError, subprocess.CalledProcessError) as error:
        status, detail = "skip", f"git does not list the files: {error}"
    report.add(status, "runner:licences", time.monotonic() - start, detail)


def user(report):
    """cargo test for the workspace, and the Loom models; set-up, licences, and that nothing outlives us."""
    root.ensure()
    killed(report)
    claimed(report)
    own_trees.refusals(report)
    setup.clauses(report)
    licences(report)
    cargo(report, "user-space tests", ["--workspace"], build.cargo_env())
    if (CHECKOUT / "rust/avio_core/tests/loom.rs").exists():
        env = build.cargo_env("cargo-target-loom", RUSTFLAGS="--cfg loom")
        cargo(report, "the Loom models", ["--release", "-p", "avio_core", "--test", "loom"], env)


# After so many seconds a VM is taken for one that has hung.
LONGEST = 3600


def in_vm(report, name, lines, flavour, **options):
    """Run scripts of tests/vm in a VM, with `--` between them, and report their RESULT lines, and whether the kernel's
    log stayed clean."""
    seen = []

    def take(text):
        if text.startswith("RESULT "):
            _, status, test, seconds, *detail = text.split(None, 4)
            seen.append(test)
            report.add(status, test, float(seconds), "".join(detail))

    result = vm.run(lines, f"{name}-{flavour}", flavour, on_line=take, timeout=LONGEST, **options)
    failed_tests = any(text.startswith("RESULT fail ") for text in result.lines)
    failure = result.failure()
    if failure and result.code == 1 and failed_tests and not result.problems and not result.timed_out:
        failure = None  # the script's exit code only repeats what its results say
    if not seen and not failure:
        failure = "no results came from the VM"
    report.add("fail" if failure else "pass", f"{name}:clean kernel log", result.seconds, f"{failure}; see {result.log}")


# KVM does not look for work for a while before it lets an idle guest's processor sleep: others have use for it.
NO_POLLING = "kvm.halt_poll_ns=0"
GUEST_PROGRAMS = ["/usr/bin/fio", "/usr/sbin/blkdiscard"]
# What else the guests of the `storage` group run.
STORAGE_PROGRAMS = ("/usr/sbin/kexec", "/usr/bin/udevadm")
MODULE, FAULTS = ["/avio/tests/vm/module.py"], ["/avio/tests/vm/faults.py"]


def faults(report):
    """The kernel and the devices fail."""
    built("normal")
    in_vm(report, "faults", FAULTS, "normal", guests=False, append=["kunit.autorun=0"])


@functools.cache
def build_once(flavour):
    """Modules for this flavour of kernel and all programs."""
    build.modules(flavour)
    build.hostile()
    build.userspace()


def built(flavour):
    """See that it is done, by one group while the others wait."""
    with BUILDING:
        build_once(flavour)


@functools.cache
def pack_once(name, flavour, programs):
    """The initramfs of guests with such a kernel and such programs beside the usual ones, as a VM sees it."""
    return "/avio/" + str(initramfs.make(name, flavour, [*GUEST_PROGRAMS, *programs]).relative_to(CHECKOUT))


def packed(flavour, name="guest", programs=()):
    """The same, by one group while the others wait; what goes into it is built."""
    built(flavour)
    with BUILDING:
        return pack_once(name, flavour, programs)


def module(report):
    """KUnit and the hostile driver."""
    built("normal")
    in_vm(report, "module", MODULE, "normal", guests=False)
    with BUILDING:
        own_trees.builds(report)


def stack(report):
    """Guests on the whole stack."""
    line = ["/avio/tests/vm/stack.py", packed("normal")]
    in_vm(report, "stack", line, "normal", cpus=4, memory="4G", append=["kunit.autorun=0", NO_POLLING])


def on_the_stack(script, name=None, guest="normal", brief=False, qemu=lambda: (), programs=()):
    """A guest with such a kernel and such programs on the whole stack, told by a script of tests/vm what to do, on a normal
    machine that QEMU gets such options for."""

    def run(report):
        built("normal")
        initrd = packed(guest, script if programs else "guest", programs)
        line = [f"/avio/tests/vm/{script}.py", initrd, *(["brief"] if brief else [])]
        options = {"guest_flavour": guest, "memory": "4G", "append": ["kunit.autorun=0", NO_POLLING]}
        in_vm(report, name or script, line, "normal", qemu=qemu(), **options)

    return run


def nvme():
    """An NVMe disk for a test machine, as QEMU's options; its contents are in the build folder."""
    image = BUILD / "nvme.img"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    inside = "/avio/" + str(image.relative_to(CHECKOUT))
    return ["-drive", f"if=none,id=nvme,format=raw,file={inside}", "-device", "nvme,serial=AVIO-NVME,drive=nvme"]


def debug_host(report):
    """Everything of the host's side in one VM, for a debug kernel boots slowly."""
    built("debug")
    lines = [*MODULE, "--", "/avio/tests/vm/stack.py", packed("normal"), "brief", "--", *FAULTS]
    # Its guests are few, and make do with a processor less.
    in_vm(report, "host", lines, "debug", guests=False, memory="2G", append=[NO_POLLING])


def machines_at_once():
    """How many VMs run beside each other. They wait a good part of their time, for guests to boot and for time-outs."""
    available = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    enough = os.cpu_count() > 1 and int(available[1]) > 12 << 20
    return 2 if enough else 1


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the tests.")
    parser.add_argument("--flavour", choices=["normal", "debug"], default="normal")
    parser.add_argument("--only", action="append", metavar="GROUP", help="run this group alone")
    args = parser.parse_args()
    say("VMs run on {} ({})".format(*host.accelerator()))
    # Under emulation a debug kernel inside a debug kernel would take hours: the host's side and the guest's are tried in
    # turn.
    groups = {
        "normal": {
            "user": ("user space", user),
            "storage": ("LUNs that change under load", on_the_stack("storage", programs=STORAGE_PROGRAMS)),
            "kinds": ("kinds of backings, many LUNs", on_the_stack("kinds", qemu=nvme)),
            "stack": ("whole stack", stack),
            "module": ("module: KUnit and hostile driver", module),
            "faults": ("faults of the kernel and of devices", faults),
        },
        "debug": {
            "host": ("debug host: KUnit, hostile driver, whole stack, faults", debug_host),
            "guest": ("debug guest on a normal host", on_the_stack("stack", "guest", "debug", brief=True)),
            "luns": ("debug guest whose LUNs change under load", on_the_stack("storage", "luns", "debug", brief=True)),
        },
    }[args.flavour]
    unknown = set(args.only or []) - set(groups)
    if unknown:
        parser.error(f"--flavour {args.flavour} has the groups {', '.join(groups)}, not {', '.join(unknown)}")
    report = Report()
    wanted = {key: group for key, group in groups.items() if not args.only or key in args.only}
    if "user" in wanted:
        timed(report, *wanted.pop("user"))
    pool = ThreadPoolExecutor(machines_at_once())
    try:
        # As a list, for what went wrong in a thread comes out with its result.
        list(pool.map(lambda group: timed(report, *group), wanted.values()))
    except KeyboardInterrupt:
        # The threads would wait for their VMs to end; those end with us.
        say("interrupted")
        os._exit(130)
    return report.close()


if __name__ == "__main__":
    host.main(main)
