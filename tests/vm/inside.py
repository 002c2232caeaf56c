# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The first thing that runs in a test VM: runs the Python scripts that it is given, with `--` between them, or a command
after `-c`; then, in a debug kernel, looks for leaks."""

import os
import subprocess
import sys
import time

KMEMLEAK = "/sys/kernel/debug/kmemleak"
# Whether memory of our VMM's kind is in huge pages where it asks for them; QEMU's is without more.
SHMEM_HUGE = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

# After how many seconds the kernel takes a processor for stuck: a host that stood still for half a minute is no fault of the
# modules'. The first is doubled for soft lockups. Guests set the same (guest/init).
PAUSES = {
    "/proc/sys/kernel/watchdog_thresh": "30",
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout": "60",
}


def bear_pauses():
    """Have the kernel wait as long, where it looks for such things."""
    for path, seconds in PAUSES.items():
        if os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write(seconds)


def leaks():
    """Unreferenced objects that kmemleak finds, as it describes them. Two scans, for the first may see a pointer in
    flight; kmemleak looks only at objects older than five seconds."""
    time.sleep(5)
    for _ in range(2):
        with open(KMEMLEAK, "w", encoding="ascii") as file:
            file.write("scan")
    with open(KMEMLEAK, encoding="utf-8", errors="replace") as file:
        return file.read()


def lines(arguments):
    """The command lines to run."""
    if arguments[0] == "-c":
        return [arguments[1:]]
    scripts, rest = [], arguments
    while rest:
        end = rest.index("--") if "--" in rest else len(rest)
        scripts.append([sys.executable, *rest[:end]])
        rest = rest[end + 1 :]
    return scripts


def main():
    """Run all of them; an exit code that is not 0 if there was one, or 1 if memory leaked."""
    code = 0
    bear_pauses()
    if "AVIO_EMULATED_SVM" in os.environ:
        subprocess.run(["insmod", os.environ["AVIO_EMULATED_SVM"]], check=True)
    with open(SHMEM_HUGE, "w", encoding="ascii") as file:
        file.write("advise")
    for line in lines(sys.argv[1:]):
        code = subprocess.run(line, check=False).returncode or code
    if os.path.exists(KMEMLEAK):
        found = leaks()
        if found:
            print(found, flush=True)
            with open("/dev/kmsg", "w", encoding="utf-8") as log:
                log.write(f"kmemleak: unreferenced objects remain: {found.count('unreferenced object')}")
            code = code or 1
    return code if 0 <= code < 256 else 128 + -code


sys.exit(main())
