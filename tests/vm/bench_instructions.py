# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In a VM with one processor that takes one virtual nanosecond for each instruction: what an I/O costs the host without
a guest, a program (tests/driver) playing the guest's driver. Also how much memory the kernel needs for an adapter with
16 queues, and how often its workers wake up for nothing.

A line `BENCH-COUNT {…}` for each way and depth; `BENCH-SINGLE {…}` for other figures."""

import contextlib
import json
import subprocess
from pathlib import Path

from bench_ways import vhost_target
from common import BIN, insert, modprobe, remove, sh, wait_for

DEPTHS = (1, 32)
DEVICE = "/dev/nullb0"
QUEUES = 16
SOCKET = Path("/tmp/vhost-user-blk")
EXPORT = {"type": "vhost-user-blk", "id": "bench", "node-name": "d0", "iothread": "io0"}
EXPORT["addr"] = {"type": "unix", "path": str(SOCKET)}
COMMANDS = [{"execute": "qmp_capabilities"}, {"execute": "block-export-add", "arguments": EXPORT}]


def drive(*line):
    """What the driver prints."""
    return float(sh(BIN / "avio-driver", *line).split()[-1])


def count(way, *line):
    """The cost of a read at each depth."""
    for depth in DEPTHS:
        instructions = drive(*line, "--device", DEVICE, "--depth", depth)
        print("BENCH-COUNT " + json.dumps({"way": way, "depth": depth, "instructions": instructions}), flush=True)


@contextlib.contextmanager
def vhost_user_blk():
    """QEMU without a machine, serving the device as virtio-blk from an IOThread on io_uring."""
    block = f"driver=host_device,node-name=d0,filename={DEVICE},aio=io_uring,cache.direct=on,read-only=on"
    line = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    line += ["-object", "iothread,id=io0", "-blockdev", block]
    with subprocess.Popen(line, stdin=subprocess.PIPE, text=True) as process:
        try:
            process.stdin.write("".join(json.dumps(command) + "\n" for command in COMMANDS))
            process.stdin.flush()
            wait_for(lambda: SOCKET.exists() or process.poll() is not None, 30, "QEMU's socket")
            yield
        finally:
            process.terminate()


def main():
    """All ways that a program can play the guest of."""
    modprobe("null_blk", "nr_devices=1", "gb=4", "bs=512", "irqmode=0", "queue_mode=2", "hw_queue_depth=256")
    count("bare host", "bare")
    insert()
    count("AVIO", "avio")
    adapter = ["--device", DEVICE, "--queues", QUEUES]
    single = {"memory_mib": drive("memory", *adapter), "idle_wakeups": drive("idle", *adapter)}
    print("BENCH-SINGLE " + json.dumps(single), flush=True)
    remove()
    with vhost_target(DEVICE) as wwpn:
        count("vhost-scsi", "vhost-scsi", "--wwpn", wwpn)
    with vhost_user_blk():
        count("QEMU vhost-user-blk", "vhost-user-blk", "--socket", SOCKET)


main()
