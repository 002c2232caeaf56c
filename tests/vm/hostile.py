# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Runs the hostile driver in a test VM, on a disk in memory."""

import subprocess

from common import BIN, case, check, modprobe

DISK = "/dev/nullb0"
# Longer than several of its tests may take (`TEST_LIMIT`), and not as long as the VM may.
LONGEST = 3000


def disk():
    """Make the disk."""
    modprobe("null_blk", "nr_devices=1", "memory_backed=1", "gb=1")


def attack(name, *options):
    """Run the driver. It prints results as we do."""
    line = [BIN / "avio-hostile", "--device", DISK, *options]
    with case(f"{name}:ended"):
        ended = subprocess.run(line, check=False, timeout=LONGEST).returncode
        check(ended in (0, 1), f"avio-hostile ended with exit code {ended}")
