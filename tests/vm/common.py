# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What the scripts that run in a test VM share: results, modules, block devices, guests. Runs as root on the test
kernel; the checkout is at /avio, the kernel's build at /avio-kernel and that of the guests' at /avio-guest-kernel."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

CHECKOUT = Path("/avio")
KERNEL = Path("/avio-kernel")
GUEST_IMAGE = Path("/avio-guest-kernel/arch/x86/boot/bzImage")
# The same kernel uncompressed: to unpack it takes an emulated guest longer than all the rest of its boot.
GUEST_KERNEL = Path("/avio-guest-kernel/vmlinux")
FLAVOUR = os.environ.get("AVIO_FLAVOUR", "normal")
BIN = CHECKOUT / "build" / "bin"
MODULES = CHECKOUT / "build" / FLAVOUR
HOST_MODULE = MODULES / "rust/avio_host/avio_host.ko"
DEVICE = Path("/dev/avio-stor")
COUNTERS = Path("/sys/kernel/debug/avio_host")
TRACING = Path("/sys/kernel/tracing")
# How many times as long as is usual something may take before it counts as a failure. Nothing waits so long where all is well.
# Everything is slower under emulation, slower again under KASAN, and slower by any factor on a machine that others use too.
PATIENCE = 20 if "debug" in (FLAVOUR, os.environ.get("AVIO_GUEST_FLAVOUR")) else 5


# QEMU emulates the processor.
EMULATED = "AVIO_EMULATED_SVM" in os.environ
# An interrupt of a timer costs a guest as much as many requests there. So the kernels, the host's and the guests', do with
# the scheduler's tick.
SCHEDULER = "NO_HRTICK"
# Linux 7.3 can stand still when it boots slowly: while jiffies are its clock, and it is about to change to another (stop_machine),
# the clocksource watchdog's processor waits with interrupts off for one that has its own off, until 50 µs are over, which by
# that clock they never are (watchdog_wait_seq in kernel/time/clocksource.c). Without a watchdog there is nothing to wait for.
CLOCK = "tsc=reliable"


def host_a_guest():
    """Set this kernel, and this process and those that it starts, up as they are to be while guests run."""
    if EMULATED:
        Path("/sys/kernel/debug/sched/features").write_text(SCHEDULER, encoding="ascii")
        # emulated_svm.c says why.
        if os.cpu_count() > 1:
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})


class Failure(Exception):
    """A check that did not hold."""


class Skip(Exception):
    """A case that this machine cannot run; the text says what it lacks."""


failures = 0


def result(status, name, seconds, detail=""):
    """One line for tests/run.py."""
    global failures
    failures += status == "fail"
    print(f"RESULT {status} {name} {seconds:.2f} {' '.join(str(detail).split())}", flush=True)


@contextlib.contextmanager
def case(name):
    """A test case: passes unless its body raises."""
    start = time.monotonic()
    try:
        yield
    except Skip as skip:
        result("skip", name, time.monotonic() - start, skip)
    except Exception as error:  # a case may fail in any way; the others go on
        result("fail", name, time.monotonic() - start, f"{type(error).__name__}: {error}")
    else:
        result("pass", name, time.monotonic() - start)


def check(condition, text):
    """Fail the case unless the condition holds."""
    if not condition:
        raise Failure(text)


def equal(found, wanted, what):
    """Fail the case unless both are the same."""
    check(found == wanted, f"{what} is {found!r}, not {wanted!r}")


def sh(*line, timeout=120, check_code=True):
    """Run a program; what it printed."""
    done = subprocess.run(
        [str(word) for word in line],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout * PATIENCE,
    )
    if check_code and done.returncode:
        raise Failure(f"{' '.join(map(str, line))}: exit code {done.returncode}: {done.stdout[-400:]}")
    return done.stdout


def modprobe(name, *options):
    """Load one of the kernel's own modules."""
    sh("modprobe", "-d", KERNEL / "installed", name, *options)


def insert():
    """Insert avio_host.ko and wait for its device."""
    sh("insmod", HOST_MODULE)
    wait_for(DEVICE.exists, 10, f"{DEVICE} after insmod")


def remove():
    """Remove avio_host.ko."""
    sh("rmmod", "avio_host")


def loaded():
    """Whether avio_host is in the kernel."""
    return Path("/sys/module/avio_host").exists()


def module_users():
    """The module's use count: adapters that are open."""
    return int(Path("/sys/module/avio_host/refcnt").read_text(encoding="ascii"))


def wait_for(condition, seconds, what, more=str):
    """Wait until a condition holds; fail after so many seconds (longer on a slow kernel), and say what `more` finds then."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        # The clock first: who was kept from the processor until now looks once more.
        late = time.monotonic() > end
        if condition():
            return
        if late:
            raise Failure(f"waited {seconds * PATIENCE} s in vain for {what}{more()}")
        time.sleep(0.05)


def claimable(device):
    """Whether nobody has a device for himself, or shares it."""
    with contextlib.suppress(OSError), open(os.open(device, os.O_RDWR | os.O_EXCL), "rb") as claimed:
        fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def loop(size_mib, name, *options):
    """A loop device over a new file in memory; the device and the file."""
    path = Path("/tmp") / name
    with open(path, "wb") as file:
        file.truncate(size_mib << 20)
    return sh("losetup", "--find", "--show", *options, path).strip(), path


def counters():
    """What the module shows in debugfs, a file for each adapter: the sums over the queues of all, and the text."""
    sums, texts = {}, []
    for path in sorted(p for p in COUNTERS.iterdir() if p.is_file()):
        text = path.read_text(encoding="ascii")
        texts.append("".join(f"{path.name}: {line}\n" for line in text.splitlines()))
        for line in text.splitlines():
            if line.startswith("queue"):
                for name, value in (word.split("=") for word in line.split()[1:]):
                    if value.isdigit():
                        sums[name] = sums.get(name, 0) + int(value)
    return sums, "".join(texts)


def exits():
    """The last of what made guests' processors exit within half a second, if this kernel traces that."""
    switch = TRACING / "events/kvm/kvm_exit/enable"
    if not os.access(switch, os.W_OK):
        return ""
    switch.write_text("1", encoding="ascii")
    time.sleep(0.5)
    switch.write_text("0", encoding="ascii")
    lines = [line for line in (TRACING / "trace").read_text(encoding="ascii").splitlines() if "kvm_exit:" in line]
    return f"{len(lines)} exits: " + " / ".join(line.split("kvm_exit: ")[1] for line in lines[-8:])


def refused(initrd, options, *words):
    """A VMM with these options must end at once, and say all these words."""
    line = [str(word) for word in (BIN / "avio-vmm", "--kernel", GUEST_IMAGE, "--initrd", initrd, *options)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60 * PATIENCE)
    what = " ".join(line[5:])[:100]
    check(done.returncode and all(word in done.stderr for word in words), f"a VMM with {what} ended with {done.returncode} and {done.stderr[-300:]!r}")


def no_guest(initrd, disk, *words):
    """The same with this disk."""
    refused(initrd, ["--disk", disk], *words)


def whole(line):
    """What a guest has said in a line that ends with its length; nothing of one in whose middle are other words."""
    found = re.fullmatch(r"(GUEST-.*) =(\d+)", line)
    return found[1] if found and int(found[2]) in (len(found[1]), len(found[1].encode())) else None


class Guest:
    """A KVM guest in our VMM. Its console is echoed with `guest| ` before each line, so that its kernel's log is
    searched too; what it says to us (`say` in guest/tasks.sh) is kept."""

    STDIN = subprocess.DEVNULL

    def __init__(self, task, disks, initrd, cpus=1, memory=512, queues=None, huge=False, append="", quiet=False, kernel=GUEST_KERNEL):
        self.kernel = kernel
        cmdline = f"console=ttyS0 panic=-1 loglevel=5 kunit.autorun=0 avio_task={task} {append}".strip()
        cmdline += f" avio_scheduler={SCHEDULER} {CLOCK}" if EMULATED else ""
        host_a_guest()
        line = self.command(disks, initrd, cmdline, cpus, memory)
        line += ["--huge-pages"] if huge else []
        line += ["--queues", queues] if queues else []
        self.words, self.lines, self.quiet = [], [], quiet
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in line], stdin=self.STDIN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def command(self, disks, initrd, cmdline, cpus, memory):
        """The VMM's command line."""
        line = [BIN / "avio-vmm", "--kernel", self.kernel, "--initrd", initrd]
        line += ["--cmdline", cmdline, "--cpus", cpus, "--memory", memory, "--no-reboot"]
        for disk in disks:
            line += ["--disk", disk]
        return line

    def read(self):
        """Take the console apart, line by line."""
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").strip()
            self.lines.append(line)
            if not self.quiet:
                print(f"guest| {line}", flush=True)
            said = whole(line)
            if said and said not in self.words:
                self.words.append(said)

    def value(self, name):
        """The rest of the guest's line `GUEST-VALUE name …`."""
        mark = f"GUEST-VALUE {name} "
        return next((said[len(mark) :] for said in self.words if said.startswith(mark)), None)

    def said(self, text):
        """Whether a line with this text has come."""
        return any(text in line for line in self.lines)

    def wait(self, seconds=120):
        """Wait for the guest to power itself off."""
        try:
            code = self.process.wait(timeout=seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"the guest did not end within {seconds * PATIENCE} s; its last words: {self.tail()}") from None
        self.reader.join(timeout=10)
        check(code == 0, f"avio-vmm ended with exit code {code}: {self.tail()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        """End the VMM the hard way, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self.reader.join(timeout=10)

    def tail(self):
        """The last lines of the console."""
        return " / ".join(self.lines[-5:])

    def hangs(self):
        """What there is to say of a guest that does not go on: its last words, and what its processors do."""
        return f"; its last words: {self.tail()}; its processors: {exits() or 'silent'}"

    def report(self, prefix):
        """Hand the guest's results on as ours."""
        results = [said.split(None, 5)[2:] for said in self.words if said.startswith("GUEST-RESULT ")]
        for status, name, seconds, *detail in results:
            result(status, f"{prefix}:{name}", float(seconds), "".join(detail))
        check(results and f"GUEST-RESULTS {len(results)}" in self.words, f"the guest reported {len(results)} results: {self.tail()}")


class Shell(Guest):
    """A guest that does what we say, through its console."""

    STDIN = subprocess.PIPE

    def __init__(self, disks, initrd, wanted=None, **options):
        append = f"avio_disks={len(disks) if wanted is None else wanted} {options.pop('append', '')}"
        super().__init__("shell", disks, initrd, append=append, **options)
        self.asked, self.asked_at = 0, {}

    def ready(self, seconds=60):
        """Wait until it listens."""
        wait_for(lambda: self.said("GUEST-SHELL") or self.process.poll() is not None, seconds, "the guest's shell", self.hangs)
        check(self.process.poll() is None, f"the guest has ended: {self.tail()}")

    def begin(self, command):
        """Begin a command; its number for `answer`."""
        self.asked += 1
        self.asked_at[self.asked] = len(self.words)
        self.process.stdin.write(f"{self.asked} {command}\n".encode())
        self.process.stdin.flush()
        return self.asked

    def answer(self, number, seconds=60, again=3):
        """Wait for a command's end; its exit code and what it printed."""
        mark, since = f"GUEST-ANSWER {number} ", self.asked_at.pop(number)

        def found():
            return next((said[len(mark) :] for said in self.words[since:] if said.startswith(mark)), None)

        wait_for(lambda: found() or self.process.poll() is not None, seconds, f"answer {number}", self.hangs)
        check(found(), f"the guest ended before its answer: {self.tail()}")
        code, count = map(int, found().split())
        mark = f"GUEST-SAYS {number} "
        lines = dict(said[len(mark) :].split(" ", 1) for said in self.words[since:] if said.startswith(mark))
        if len(lines) == count:
            return code, "\n".join(lines.values())
        check(again, f"of answer {number}, {len(lines)} of {count} lines are whole: {self.tail()}")
        return code, self.answer(self.begin(f"cat /tmp/answer{number}"), seconds, again - 1)[1]

    def try_to(self, command, seconds=60):
        """Have a command done; its exit code and what it printed."""
        return self.answer(self.begin(command), seconds)

    def do(self, command, seconds=60):
        """Have a command done that must succeed; what it printed."""
        code, text = self.try_to(command, seconds)
        check(code == 0, f"in the guest, `{command}` ended with {code}: {text[-400:]}")
        return text

    def in_background(self, command, name):
        """Begin a command whose exit code comes into /tmp/NAME."""
        self.do(f"({command}; echo $? >/tmp/{name}) </dev/null >/dev/null 2>&1 &")

    def disk_of(self, lun, address=""):
        """Name of the disk of a LUN; of the adapter at this PCI address, if there are several."""
        found = f"readlink -f /sys/block/$d/device | grep -q '{address}$' && echo $d"
        return self.do(f"for d in $(grep -lx {lun} /sys/block/avio*/lun | cut -d/ -f4); do {found}; done; :").strip()

    def refuses(self, command, seconds=60):
        """Have a command done that must fail; what it printed."""
        code, text = self.try_to(command, seconds)
        check(code, f"in the guest, `{command}` succeeded: {text[-400:]}")
        return text


def finish():
    """The script's exit code."""
    sys.exit(1 if failures else 0)
