# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Boots the test kernel under virtme-ng in the toolchain root, runs one command in it, and searches the kernel's log.

The VM sees the toolchain root as its own, read-only with throw-away changes; the checkout is at /avio, the kernel's
build at /avio-kernel, and that of the kernel for its own guests at /avio-guest-kernel. By hand: scripts/vm.py [options] -- command …"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import host
import kernel
import root
from host import BUILD, CHECKOUT, Problem, accelerator, minutes, say

# What must not stand in a kernel's log. A console line that matches fails the run. A call trace has its heading above it; one
# without is what fault injection prints of its own doing.
PROBLEMS = [
    ("oops", r"\bOops\b|\bBUG:|kernel BUG at|unable to handle|general protection|Kernel panic"),
    ("warning", r"\bWARNING: "),
    ("lockdep", r"possible (recursive|circular|irq)|inconsistent lock state|bad unlock balance|suspicious RCU usage"),
    ("lockdep", r"lock held when returning|still has locks held|Invalid wait context|held lock freed"),
    ("RCU stall", r"rcu.*(stall|kthread starved)"),
    ("hung task", r"INFO: task .* blocked for more than"),
    ("lockup", r"soft lockup|hard LOCKUP"),
    ("KASAN", r"\bKASAN:|\bUBSAN:|\bKCSAN:|\bKFENCE:"),
    ("leak", r"kmemleak: .*(new suspected|unreferenced)"),
    ("corruption", r"list_(add|del) corruption|refcount_t:|ODEBUG:|Bad page state|double free|BUG .*: Object"),
    ("Rust panic", r"rust_kernel: panicked"),
    # A guest goes on after these, when the request's time has run out.
    ("lost interrupt", r"its interrupt is late or lost"),
    ("lost request", r"any more and never answered it"),
]
# Lines that match one of PROBLEMS and are none. Keep it tiny, and say why for each.
ALLOWED = [
    # A test has a guest's kernel crash, to see its memory dumped.
    r"Kernel panic - not syncing: sysrq triggered crash$",
]


def problem_in(line):
    """The kind of problem that a line of a kernel's log shows, or None."""
    if any(re.search(pattern, line) for pattern in ALLOWED):
        return None
    return next((kind for kind, pattern in PROBLEMS if re.search(pattern, line)), None)


# What the VM has in place of programs whose work at boot is slow and of no use here.
STAND_INS = [(CHECKOUT / "scripts" / "vm-udevadm", "/usr/bin/udevadm"), ("/dev/null", "/usr/bin/systemd-tmpfiles")]


@dataclass
class Result:
    """How a VM run ended."""

    code: int
    seconds: float
    log: Path
    lines: list = field(default_factory=list)
    console: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    timed_out: bool = False

    def failure(self):
        """Why the run counts as failed, or None."""
        if self.timed_out:
            return f"timed out after {minutes(self.seconds)}"
        if self.problems:
            kind, line = self.problems[0]
            return f"{kind} in the kernel log: {line}"
        if self.code:
            return f"exit code {self.code}"
        return None


def vng_line(line, cpus, memory, append, qemu, env):
    """The virtme-ng command line."""
    kind, _ = accelerator()
    vng = ["vng", "--verbose", "--skip-modules", "--force-9p", "--disable-microvm", "--run", "/avio-kernel/arch/x86/boot/bzImage"]
    vng += ["--user", "root", "--cwd", "/avio", "--cpus", str(cpus), "--memory", memory]
    extra = list(qemu)
    # Nothing that the VM sees of the root changes while it runs: it may keep what it has read.
    options = ["rootflags=version=9p2000.L,trans=virtio,access=any,cache=loose", *append]
    if kind == "tcg":
        vng.append("--disable-kvm")
        extra += ["-cpu", "EPYC,+svm,+npt"]
        # All its clocks are the machine's. Comparing them, the kernel takes a slow emulation for an unstable TSC, and the
        # clocks of its guests go wrong then.
        options.append("tsc=reliable")
    for option in options:
        vng += ["--append", option]
    if extra:
        vng.append("--qemu-opts=" + shlex.join(extra))
    # The kernel's console has standard error for itself, so that only the kernel's words are searched.
    settings = [f"{name}={value}" for name, value in env.items()]
    inside = shlex.join(["/usr/bin/env", *settings, "/usr/bin/python3", "/avio/tests/vm/inside.py", *map(str, line)]) + " 2>&1"
    return [*vng, "--exec", inside]


def spare_processors(cpus):
    """How many processors a machine gets beside those of its guests, which keep away from processor 0 where it is emulated
    (tests/vm/emulated_svm)."""
    return 1 if accelerator()[0] == "tcg" and cpus > 1 else 0


def run(line, name, flavour="normal", guest_flavour="normal", cpus=2, guests=True, memory="3G", timeout=600, append=(), qemu=(), on_line=None):
    """Boot, run `line`, come back. `on_line` gets each line that the command prints, as it comes. With `guests`, the
    processors are those that guests can have."""
    built, guest = kernel.ensure(flavour), kernel.ensure(guest_flavour)
    env = {"AVIO_FLAVOUR": flavour, "AVIO_GUEST_FLAVOUR": guest_flavour}
    helper = BUILD / flavour / "tests/vm/emulated_svm/emulated_svm.ko"
    if accelerator()[0] == "tcg" and helper.exists():
        env["AVIO_EMULATED_SVM"] = str(Path("/avio") / helper.relative_to(CHECKOUT))
    vng = vng_line(line, cpus + (spare_processors(cpus) if guests else 0), memory, append, qemu, env)
    log = BUILD / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    result = Result(code=-1, seconds=0.0, log=log)
    start = time.monotonic()
    binds = [(built.path, "/avio-kernel"), (guest.path, "/avio-guest-kernel"), *STAND_INS]
    command = root.command(vng, cwd="/avio", binds=binds)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with open(log, "w", encoding="utf-8", errors="replace") as file:
        mutex = threading.Lock()

        def read(stream, kept, mark, handle):
            for raw in stream:
                text = raw.decode(errors="replace").rstrip("\r\n")
                with mutex:
                    kept.append(text)
                    file.write(f"{time.monotonic() - start:8.2f} {mark} {text}\n")
                    file.flush()
                handle(text)

        def from_command(text):
            # A nested guest's console comes through the command, marked; its kernel is searched as well.
            if text.startswith("guest| "):
                search(text)
            if on_line:
                try:
                    on_line(text)
                except Exception as error:  # who stops reading stops the machine
                    result.problems.append(("a mistake of what reads the output", f"{error!r} at: {text}"))

        def search(text):
            kind = problem_in(text)
            if kind:
                result.problems.append((kind, text))

        readers = [
            threading.Thread(target=read, args=(process.stdout, result.lines, "|", from_command)),
            threading.Thread(target=read, args=(process.stderr, result.console, "#", search)),
        ]
        for reader in readers:
            reader.start()
        try:
            result.code = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            result.timed_out = True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for reader in readers:
                reader.join(timeout=10)
    result.seconds = time.monotonic() - start
    return result


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a command in a VM with the test kernel.")
    parser.add_argument("--flavour", choices=sorted(kernel.FRAGMENTS), default="normal")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory", default="3G")
    parser.add_argument("--timeout", type=float, default=600, help="seconds")
    parser.add_argument("--append", action="append", default=[], help="kernel option")
    parser.add_argument("--qemu", action="append", default=[], help="QEMU option; give it several times")
    parser.add_argument("--name", default="vm", help="name of the log")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    say("Accelerator: {} ({})".format(*accelerator()))
    result = run(
        ["-c", *args.command], args.name, args.flavour, cpus=args.cpus, memory=args.memory, timeout=args.timeout,
        append=args.append, qemu=args.qemu, on_line=say,
    )  # fmt: skip
    failure = result.failure()
    say(f"{failure or 'ok'}, {minutes(result.seconds)}, log: {result.log}")
    if failure and not result.code:
        return 1
    return result.code


if __name__ == "__main__":
    host.main(main)
