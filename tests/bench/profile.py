# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Where the instructions of an I/O go, function by function: has QEMU write down each instruction that the test machine
executes for a moment, and sorts them by whether a guest was running (HF_GUEST_MASK in QEMU's target/i386/cpu.h), by function
and by the part of the kernel that the function is of."""

import bisect
import collections
import re
import socket

import kernel
import root
from host import BUILD, Problem

SOCKET, TRACE = BUILD / "monitor", BUILD / "instructions.log"
INSIDE = "/avio/build"
QEMU = ["-monitor", f"unix:{INSIDE}/{SOCKET.name},server=on,wait=off"]
# A line of QEMU's trace: code segment, address and flags of the block, which is one instruction long.
LINE = re.compile(r"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/([0-9a-f]+)/")
GUEST, RING = 1 << 21, 3
PROMPT = b"(qemu) "
# Parts of the kernel by where a function's object lies; the first that fits.
PARTS = [
    ("KVM", ("arch/x86/kvm/", "virt/")),
    ("scheduler, RCU", ("kernel/sched/", "kernel/rcu/")),
    ("timers and clocks", ("kernel/time/", "arch/x86/kernel/tsc", "arch/x86/kernel/pvclock", "arch/x86/kernel/kvmclock")),
    ("block layer", ("block/", "lib/sbitmap")),
    ("system calls for I/O", ("fs/", "io_uring/", "lib/iov_iter", "mm/gup")),
    ("entries, interrupts", ("kernel/irq/", "arch/x86/kernel/apic/", "arch/x86/kernel/irq", "arch/x86/entry/")),
]
REST, USER = "rest of the kernel", "programs"
# Fewer instructions than this are no sample: the moment has passed before QEMU was told.
LEAST = 1_000_000
# Functions that are listed for each depth.
LISTED = 24


class Monitor:
    """QEMU's monitor for people: the one for programs cannot switch logs."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(str(SOCKET))
        self.answer()

    def answer(self):
        """What it says up to its next prompt."""
        said = b""
        while not said.endswith(PROMPT):
            more = self.socket.recv(4096)
            if not more:
                raise Problem("QEMU's monitor has gone")
            said += more
        return said

    def do(self, *commands):
        """Carry out commands."""
        for command in commands:
            self.socket.sendall(command.encode() + b"\n")
            self.answer()


class Symbols:
    """Functions by address."""

    def __init__(self, lines):
        """Of lines `address type name [module]`, as /proc/kallsyms has them."""
        functions = {}
        for line in lines:
            words = line.split()
            if len(words) > 2 and words[1] in "tTwW" and not words[2].startswith("__pfx_") and "__builtin" not in line:
                functions[int(words[0], 16)] = (words[2], words[3].strip("[]") if len(words) > 3 else None)
        self.addresses, self.functions = sorted(functions), functions

    def find(self, address):
        """Name and module of the function at an address."""
        at = bisect.bisect_right(self.addresses, address) - 1
        return self.functions[self.addresses[at]] if at >= 0 else ("?", None)


def objects(built):
    """The object of each function of the kernel itself."""
    found = {}
    line = ["nm", "--print-file-name", "--defined-only", "vmlinux.a"]
    for line in root.output(line, cwd=built).splitlines():
        path, _, rest = line.partition(":")[2].partition(":")
        words = rest.split()
        if len(words) == 3 and words[1] in "tT":
            found.setdefault(words[2], path)
    return found


def part(name, module, paths):
    """The part of the kernel that a function is of."""
    if module:
        return module
    path = paths.get(name, "")
    return next((title for title, prefixes in PARTS if path.startswith(prefixes)), REST)


def plain(names):
    """Names of Rust as people read them, without crates' hashes and the types that they are for."""
    lines = root.output(["c++filt", *names]).splitlines()
    return dict(zip(names, (re.sub(r"\[[0-9a-f]+\]", "", line) for line in lines)))


class Profile:
    """Takes what the VM says and makes tables of it. Host and guest have the same kernel, at the same addresses."""

    def __init__(self):
        self.built = kernel.ensure("normal").path
        self.kernel = (self.built / "System.map").read_text(encoding="ascii").splitlines()
        self.modules, self.counts = {"host": [], "guest": []}, {}
        for path in (SOCKET, TRACE):
            path.unlink(missing_ok=True)

    def take(self, line):
        """A line that the VM has printed; whether it was for us."""
        mark, _, rest = line.partition(" ")
        if mark == "BENCH-SYMBOL":
            where, _, symbol = rest.partition(" ")
            self.modules[where].append(symbol)
        elif mark == "BENCH-PROFILE":
            Monitor().do(f"logfile {INSIDE}/{TRACE.name}", "one-insn-per-tb on", "log exec,nochain")
        elif mark == "BENCH-PROFILED":
            Monitor().do("log none", "one-insn-per-tb off")
            self.counts[rest] = self.read()
        else:
            return False
        return True

    def read(self):
        """How often each address was executed, by guest or host, and ring."""
        counts = collections.Counter()
        with open(TRACE, encoding="ascii", errors="replace") as trace:
            for line in trace:
                if found := LINE.match(line):
                    counts[found.groups()] += 1
        TRACE.unlink()
        if counts.total() < LEAST:
            raise Problem(f"QEMU has written down only {counts.total()} instructions, should be {LEAST} or more")
        return counts

    def functions(self, counts, symbols, paths):
        """Each function's share of a trace: where, part, name, share."""
        found, total = collections.Counter(), sum(counts.values())
        for (address, flags), number in counts.items():
            flags = int(flags, 16)
            where = "guest" if flags & GUEST else "host"
            if flags & RING == RING:
                found[where, USER, USER] += number
            else:
                name, module = symbols[where].find(int(address, 16))
                found[where, part(name, module, paths), name] += number
        return [(*key, number / total) for key, number in found.most_common()]

    def results(self, instructions):
        """For each depth, given what an I/O takes: instructions by part, and the functions with most. A depth of which
        that is not known is left out."""
        kept, paths = [], objects(self.built)
        symbols = {where: Symbols(self.kernel + lines) for where, lines in self.modules.items()}
        for depth, counts in self.counts.items():
            if int(depth) not in instructions:
                continue
            whole, parts = instructions[int(depth)], collections.defaultdict(lambda: {"host": 0.0, "guest": 0.0})
            functions = self.functions(counts, symbols, paths)
            for where, title, _, share in functions:
                parts[title][where] += share * whole
            listed = [one for one in functions if one[1] != USER][:LISTED]
            names = plain([name for _, _, name, _ in listed])
            kept.append({
                "depth": int(depth),
                "parts": [{"part": title, **both} for title, both in sorted(parts.items(), key=lambda one: -sum(one[1].values()))],
                "functions": [
                    {"where": where, "part": title, "function": names[name], "instructions": share * whole}
                    for where, title, name, share in listed
                ],
            })  # fmt: skip
        return kept
