# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The first thing that runs in a test VM: runs the command that it is given, then, in a debug kernel, looks for leaks."""

import os
import subprocess
import sys
import time

KMEMLEAK = "/sys/kernel/debug/kmemleak"


def leaks():
    """Unreferenced objects that kmemleak finds, as it describes them. Two scans, for the first may see a pointer in
    flight; kmemleak looks only at objects older than five seconds."""
    time.sleep(5)
    for _ in range(2):
        with open(KMEMLEAK, "w", encoding="ascii") as file:
            file.write("scan")
    with open(KMEMLEAK, encoding="utf-8", errors="replace") as file:
        return file.read()


def main():
    """Run the command; its exit code, or 1 if memory leaked."""
    code = subprocess.run(sys.argv[1:], check=False).returncode
    if os.path.exists(KMEMLEAK):
        found = leaks()
        if found:
            print(found, flush=True)
            with open("/dev/kmsg", "w", encoding="utf-8") as log:
                log.write(f"kmemleak: unreferenced objects remain: {found.count('unreferenced object')}")
            code = code or 1
    return code if 0 <= code < 256 else 128 + -code


sys.exit(main())
