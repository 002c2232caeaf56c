# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The machine that we run on: where things are kept, which packages it lacks, whether it has KVM, and how slow work
tells how far it is. Every other script here stands on this one."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "avio"
BUILD = CHECKOUT / "build"
IS_ROOT = os.geteuid() == 0

# What the root and its use need from the host: a program that shows the package is there, and the package.
HOST_PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
USER_PACKAGES = {"newuidmap": "uidmap"}
# Where the kernel tells what it can do for VMs.
CPUINFO, KVM, KERNEL_MODULES = Path("/proc/cpuinfo"), Path("/dev/kvm"), Path("/sys/module")


class Problem(Exception):
    """Something that the person at the terminal can put right; the text says what was wrong and what would be right."""


def say(text):
    """One line to the terminal, at once."""
    print(text, flush=True)


def minutes(seconds):
    """A duration for people: 8.2 s, 4 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def digest(*parts):
    """A short key for a set of inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Step:
    """A slow step: says that it begins, from time to time how far it is, and at its end how long it took."""

    def __init__(self, name):
        self.name, self.start, self.last = name, time.monotonic(), time.monotonic()
        self.first = None

    def __enter__(self):
        say(f"{self.name} …")
        return self

    def __exit__(self, kind, *_):
        word = "done in" if kind is None else "stopped after"
        say(f"{self.name}: {word} {minutes(time.monotonic() - self.start)}")

    def progress(self, done=None, total=0, unit="", every=15):
        """Say that `done` of `total` are finished and, judged by the pace so far, what is left; without numbers, say
        how long it has taken. `done` may be a function, which is called when its number is needed."""
        now = time.monotonic()
        due = now - self.last >= every
        if not due and (done is None or self.first):
            return
        done = done() if callable(done) else done
        if self.first is None and done is not None:
            self.first = (now, done)
        if not due:
            return
        self.last = now
        text = f"  {self.name}: {minutes(now - self.start)}"
        if done is None:
            return say(text + " so far")
        if total:
            text += f", {min(100, 100 * done // total)} %"
            text += f" ({done} of about {max(total, done)} {unit})" if unit else ""
            pace = (done - self.first[1]) / (now - self.first[0]) if now > self.first[0] else 0
            if pace and total > done and done - self.first[1] >= total // 50:
                text += f", about {minutes((total - done) / pace)} left"
        else:
            text += f", {done} {unit}"
        say(text)


def logged(command, log, on_tick=None, **kwargs):
    """Run a command with its output in a file. `on_tick` is called each second. On failure show the end of the file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        out.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        begun = out.tell()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **kwargs)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(timeout=1)
                    break
                if on_tick:
                    on_tick()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code:
        tail = log.read_bytes()[begun:].decode(errors="replace").splitlines()[-30:]
        raise Problem("\n".join(tail) + f"\n\nThe step above failed (exit code {code}). Its whole output: {log}")


@contextlib.contextmanager
def lock():
    """Only one run at a time changes the cache; others wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"Another run (process {file.read().strip()}) is working on {CACHE}; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def ensure_packages(wanted=None):
    """Have these host packages, or those that the root needs, by apt if we are root."""
    if wanted is None:
        wanted = HOST_PACKAGES if IS_ROOT else HOST_PACKAGES | USER_PACKAGES
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [
        package
        for probe, package in wanted.items()
        if not (os.path.exists(probe) if probe.startswith("/") else shutil.which(probe, path=path))
    ]
    if not missing:
        return
    line = "apt-get install " + " ".join(missing)
    if not IS_ROOT or not shutil.which("apt-get"):
        raise Problem(f"Packages are missing on this machine. As root: {line}")
    with Step(f"Host packages {', '.join(missing)}"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        log = CACHE / "logs" / "host-packages.log"
        logged(["apt-get", "update"], log, env=env)
        logged(["apt-get", "install", "-y", "--no-install-recommends", *missing], log, env=env)


def accelerator():
    """'kvm' or 'tcg', and why. A /dev/kvm alone proves nothing: some machines have one that cannot run a kernel. And a test
    VM runs guests of its own, for which KVM has to pass the processor's virtualization on."""
    forced = os.environ.get("AVIO_ACCEL")
    if forced:
        if forced not in ("kvm", "tcg"):
            raise Problem(f"AVIO_ACCEL is '{forced}'; it must be kvm or tcg")
        return forced, "AVIO_ACCEL says so"
    flags = set()
    for line in CPUINFO.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            flags = set(line.split())
            break
    if not flags & {"vmx", "svm"}:
        return "tcg", "the processor shows neither vmx nor svm"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm is missing or not ours to open"
    name = "kvm_intel" if "vmx" in flags else "kvm_amd"
    nested = KERNEL_MODULES / name / "parameters" / "nested"
    if not nested.is_file() or nested.read_text(encoding="ascii").strip() not in ("1", "Y"):
        return "tcg", f"the tests need VMs in VMs, and {nested} does not say 1; loading {name} with nested=1 makes it so"
    return "kvm", "vmx or svm, /dev/kvm, and VMs in VMs"


def main(function):
    """Run a script's main function; a Problem becomes its text and exit code 1."""
    try:
        sys.exit(function())
    except Problem as problem:
        say(f"\nerror: {problem}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\ninterrupted; the same command goes on from here")
        sys.exit(130)
