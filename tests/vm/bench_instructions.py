# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In a VM with one processor that takes one virtual nanosecond for each instruction: what an I/O costs the host without
a guest, a program (tests/driver) playing the guest's driver. Also how much memory the kernel needs for an adapter.

A line `BENCH-COUNT {…}` for each way and depth; `BENCH-SINGLE {…}` for other figures."""

import json

from bench_ways import vhost_target
from common import BIN, insert, modprobe, remove, sh

DEPTHS = (1, 32)
DEVICE = "/dev/nullb0"
QUEUES = 16


def drive(*line):
    """What the driver prints."""
    return float(sh(BIN / "avio-driver", *line).split()[-1])


def count(way, *line):
    """The cost of a read at each depth."""
    for depth in DEPTHS:
        instructions = drive(*line, "--device", DEVICE, "--depth", depth)
        print("BENCH-COUNT " + json.dumps({"way": way, "depth": depth, "instructions": instructions}), flush=True)


def main():
    """All ways that a program can play the guest of."""
    modprobe("null_blk", "nr_devices=1", "gb=4", "bs=512", "irqmode=0", "queue_mode=2", "submit_queues=1", "hw_queue_depth=256")
    count("bare host", "bare")
    insert()
    count("AVIO", "avio")
    memory = drive("memory", "--device", DEVICE, "--queues", QUEUES)
    print("BENCH-SINGLE " + json.dumps({"memory_mib": memory}), flush=True)
    remove()
    with vhost_target(DEVICE) as wwpn:
        count("vhost-scsi", "vhost-scsi", "--wwpn", wwpn)


main()
