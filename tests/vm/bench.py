# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: 4 KiB random reads from one null_blk device by three ways: by the bare host, by a guest through AVIO, and
by a guest on QEMU's virtio-blk with io_uring and an IOThread. The one argument is the guest's initramfs.

All is counted here, on the host, over the same window of each run: reads by the device's own counter, VM exits by
KVM's, processor time by the kernel's."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import GUEST_IMAGE, Guest, counters, insert, modprobe, remove, wait_for

DEVICE = "nullb0"
DEPTHS = (1, 32)
WARM_UP, WINDOW = 4, 8  # seconds
FIO = ["--name=bench", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--randrepeat=1", "--time_based"]


def busy_seconds():
    """Processor time of the whole machine, all but idle and waiting (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def sample(modules):
    """All counters, now."""
    found = {
        "time": time.monotonic(),
        "reads": int(Path(f"/sys/block/{DEVICE}/stat").read_text(encoding="ascii").split()[0]),
        "exits": int(Path("/sys/kernel/debug/kvm/exits").read_text(encoding="ascii")),
        "cpu": busy_seconds(),
    }
    if modules:
        sums = counters()[0]
        found |= {name: sums.get(name, 0) for name in ("doorbells", "interrupts")}
    return found


def measure(way, depth, modules=False):
    """Wait until the load is steady, count over a window, and print what came of it."""
    time.sleep(WARM_UP)
    before = sample(modules)
    time.sleep(WINDOW)
    after = sample(modules)
    spent = {name: after[name] - before[name] for name in before}
    reads = max(spent["reads"], 1)
    row = {"way": way, "depth": depth, "iops": spent["reads"] / spent["time"], "cpu_us": spent["cpu"] * 1e6 / reads}
    row |= {name: spent[name] / reads for name in ("exits", "doorbells", "interrupts") if name in spent}
    print("BENCH " + json.dumps(row), flush=True)


def bare():
    """fio on the host itself."""
    for depth in DEPTHS:
        line = ["fio", *FIO, f"--filename=/dev/{DEVICE}", f"--iodepth={depth}", f"--runtime={WARM_UP + WINDOW + 5}"]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
            measure("bare host", depth)
            process.terminate()


def in_guest(way, guest, modules=False):
    """The guest says which depth it begins with."""
    try:
        for depth in DEPTHS:
            wait_for(lambda depth=depth: guest.said(f"GUEST-BENCH {depth}."), 120, f"depth {depth}; said: {guest.tail()}")
            measure(way, depth, modules)
    finally:
        guest.kill()


def avio(initrd):
    """Our VMM, our driver, our module."""
    insert()
    seconds = WARM_UP + WINDOW + 4
    append = f"lapic=notscdeadline avio_disks=1 avio_seconds={seconds}"
    in_guest("AVIO", Guest("bench", [f"path=/dev/{DEVICE}"], initrd, append=append, quiet=True), modules=True)
    wait_for(lambda: Path("/sys/module/avio_host/refcnt").read_text(encoding="ascii").strip() == "0", 20, "the adapter's end")
    remove()


class QemuGuest(Guest):
    """The same guest on QEMU with virtio-blk."""

    def command(self, disks, initrd, cmdline, cpus, memory):
        """QEMU's command line."""
        return [
            "qemu-system-x86_64", "-machine", "q35,accel=kvm", "-cpu", "host", "-smp", cpus, "-m", memory,
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", GUEST_IMAGE, "-initrd", initrd, "-append", cmdline,
            "-object", "iothread,id=io0",
            "-blockdev", f"driver=host_device,node-name=d0,filename={disks[0]},aio=io_uring,cache.direct=on",
            "-device", "virtio-blk-pci,drive=d0,iothread=io0",
        ]  # fmt: skip


def virtio(initrd):
    """QEMU's virtio-blk."""
    append = f"lapic=notscdeadline avio_device=vda avio_seconds={WARM_UP + WINDOW + 4}"
    in_guest("QEMU virtio-blk", QemuGuest("bench", [f"/dev/{DEVICE}"], initrd, append=append, quiet=True))


def main():
    """One after the other, on the same device."""
    print(f"BENCH-KERNEL {os.uname().release}", flush=True)
    modprobe("null_blk", "nr_devices=1", "gb=4", "bs=512", "irqmode=0", "queue_mode=2", "submit_queues=2", "hw_queue_depth=256")
    bare()
    avio(sys.argv[1])
    virtio(sys.argv[1])


main()
