# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what cgroups do to LUNs: the VMM's own, and those that the VMM makes for adapters and LUNs."""

import os
import subprocess
import time
from pathlib import Path

from backings import null_blk, write
from common import BIN, GUEST_IMAGE, PATIENCE, Shell, case, check, counters, equal, sh, wait_for
from control import Control

ROOT = Path("/sys/fs/cgroup")
DIR = ROOT / "guest1"
SOCKET = Path("/tmp/weights.socket")
# In a second, all cgroups together; few enough for a guest under emulation to want more.
IOPS = 100
HEAVY, LIGHT = 1000, 100


def number(path):
    """A device's numbers, as cgroup files have them."""
    device = os.stat(path).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def mounted():
    """See that cgroups are there and have the io controller."""
    if not (ROOT / "cgroup.controllers").exists():
        sh("mount", "-t", "cgroup2", "none", ROOT)
    write(ROOT / "cgroup.subtree_control", "+io")


def of_the_vmm(initrd):
    """What the VMM's cgroup may do to a disk holds for what its guest does."""
    with case("kinds:cgroup-io-limit"):
        mounted()
        group = ROOT / "guest"
        group.mkdir()
        path = null_blk("throttled", 32)
        rate = 40
        write(group / "io.max", f"{number(path)} riops={rate}")
        write(group / "cgroup.procs", os.getpid())
        with Shell([f"path={path}"], initrd) as guest:
            guest.ready()
            write(ROOT / "cgroup.procs", os.getpid())
            disk = guest.do("disk 1").strip()
            begun, before = time.monotonic(), counters()[0]["requests"]
            fio = f"fio --name=c --filename=/dev/{disk} --rw=randread --bs=4k --size=8m --iodepth=16 --direct=1"
            guest.do(f"{fio} --ioengine=libaio --time_based --runtime=5 --output=/tmp/c")
            done, elapsed = counters()[0]["requests"] - before, time.monotonic() - begun
        check(done <= rate * (elapsed + 1), f"{done} reads in {elapsed:.1f} s where its cgroup allows {rate} a second")
        check(done > rate, f"only {done} reads in {elapsed:.1f} s")


class Weighed(Shell):
    """A guest with two adapters of one queue each, so that LUNs that contend share a queue."""

    def command(self, disks, initrd, cmdline, cpus, memory):
        line = [*super().command(disks, initrd, cmdline, cpus, memory), "--control", SOCKET, "--cgroup", DIR]
        return [*line, "--hba", "id=a,queues=1", "--hba", "id=b,queues=1,weight=300"]

    def disk_of(self, serial):
        """Name of the disk with a serial number."""
        return self.do(f"grep -lx {serial} /sys/block/avio*/serial | cut -d/ -f4").strip()

    def contend(self, names):
        """Have all these disks read as fast as they can at the same time."""
        jobs = " ".join(f"--name={name} --filename=/dev/{name}" for name in names)
        fio = "fio --rw=randread --bs=4k --size=8m --iodepth=16 --direct=1 --ioengine=libaio --time_based --runtime=6"
        self.do(f"{fio} --output=/tmp/w {jobs} || {{ cat /tmp/w; exit 1; }}", 120)


def limited(path):
    """Have the kernel's proportional controller share so many requests a second of a device, whatever it really could."""
    rates = " ".join(f"{way}bps=1000000000 {way}seqiops={IOPS} {way}randiops={IOPS}" for way in "rw")
    write(ROOT / "io.cost.model", f"{number(path)} ctrl=user model=linear {rates}")
    write(ROOT / "io.cost.qos", f"{number(path)} enable=1 ctrl=user rpct=0 wpct=0 min=100 max=100")


def luns(answer):
    """The LUNs of an answer to status or stats, by adapter and number."""
    adapters = answer["adapters"] if "adapters" in answer else answer
    return {(adapter["hba"], lun["lun"]): lun for adapter in adapters for lun in adapter["luns"]}


def weight(group):
    """What a cgroup's weight is."""
    return (group / "io.weight").read_text(encoding="ascii").split("\n")[0]


def bytes_read(group, device):
    """What the kernel counted as read in a cgroup from a device."""
    for line in (group / "io.stat").read_text(encoding="ascii").splitlines():
        name, *values = line.split()
        if name == device:
            return int(dict(value.split("=") for value in values)["rbytes"])
    return 0


def shares(guest, control, names):
    """Reads that each LUN got done while all of these contended."""
    before = luns(control("stats"))
    guest.contend(names)
    after = luns(control("stats"))
    return {place: after[place]["reads"] - before[place]["reads"] for place in after}


def refusals(initrd, path):
    """The VMM says what is wrong with a cgroup."""

    def refused(text, *options, inside=None):
        line = [BIN / "avio-vmm", "--kernel", GUEST_IMAGE, "--initrd", initrd, *options]
        enter = (lambda: write(inside / "cgroup.procs", os.getpid())) if inside else None
        done = subprocess.run(
            [str(word) for word in line], check=False, capture_output=True, text=True, timeout=60 * PATIENCE, preexec_fn=enter
        )
        check(done.returncode == 1 and text in done.stderr, f"{options}: exit code {done.returncode}, {done.stderr[-300:]!r}")

    with case("kinds:weights-refusals"):
        disk = ["--disk", f"path={path},weight=7"]
        refused("needs --cgroup", *disk)
        refused("is no cgroup", *disk, "--cgroup", "/tmp")
        refused("processes live in", *disk, "--cgroup", DIR, inside=DIR)
        bare = DIR / "bare"
        bare.mkdir()
        refused("no io controller", *disk, "--cgroup", bare)
        bare.rmdir()
        equal([entry.name for entry in DIR.iterdir() if entry.is_dir()], [], "cgroups left behind")


def changes(control, path):
    """LUNs come and go with their cgroups; weights are shown and refused."""
    status = control("status")
    equal([lun["weight"] for lun in luns(status).values()], [HEAVY, LIGHT, 100], "weights of the LUNs")
    equal([adapter["weight"] for adapter in status["adapters"]], [100, 300], "weights of the adapters")
    control("add-lun", hba="a", lun=7, disk={"path": path, "shared": True, "weight": 50})
    equal(weight(DIR / "a/lun7"), "default 50", "weight of a LUN that was added")
    control("replace-lun", hba="a", lun=7, disk={"path": path, "shared": True}, force=True)
    equal(weight(DIR / "a/lun7"), "default 100", "weight of a LUN that was replaced")
    control("remove-lun", hba="a", lun=7, force=True)
    check(not (DIR / "a/lun7").exists(), "the cgroup of a removed LUN is still there")
    control.refuses("set-weight", "10000", hba="a", lun=0, weight=10001)
    control.refuses("add-lun", "10000", hba="a", disk={"path": path, "shared": True, "weight": 0})


def weights(initrd):
    """Of LUNs that contend for a device, and of adapters, the weightier gets more."""
    path = null_blk("weighed", 32)
    with case("kinds:weights-setup"):
        mounted()
        DIR.mkdir()
        limited(path)
    refusals(initrd, path)
    places = (("a", 0, f",weight={HEAVY}"), ("a", 1, f",weight={LIGHT}"), ("b", 0, ""))
    disks = [f"path={path},shared,hba={hba},lun={lun},serial={hba}{lun}{more}" for hba, lun, more in places]
    with case("kinds:weights-cgroups-are-taken-over"):
        with Weighed(disks, initrd) as killed:
            killed.ready()
        check((DIR / "a/lun0").exists(), "there is nothing to be taken over")
        write(DIR / "b/lun0/io.weight", 77)
    earlier = {(hba, lun): bytes_read(DIR / hba / f"lun{lun}", number(path)) for hba, lun, _ in places}
    with Weighed(disks, initrd) as guest:
        with case("kinds:weights-are-set"):
            guest.ready()
            control = Control(SOCKET)
            equal(weight(DIR / "b/lun0"), "default 100", "weight of a LUN that has none given")
            changes(control, path)
        with case("kinds:weights-of-luns"):
            first, second, third = (guest.disk_of(serial) for serial in ("a0", "a1", "b0"))
            got = shares(guest, control, [first, second])
            check(got["a", 0] > 2 * got["a", 1] > 0, f"with weights {HEAVY} and {LIGHT} the reads were {got}")
            control("set-weight", hba="a", lun=0, weight=LIGHT)
            control("set-weight", hba="a", lun=1, weight=HEAVY)
            got = shares(guest, control, [first, second])
            check(got["a", 1] > 2 * got["a", 0] > 0, f"with weights {LIGHT} and {HEAVY} the reads were {got}")
        with case("kinds:weights-of-adapters"):
            control("set-weight", hba="b", weight=HEAVY)
            got = shares(guest, control, [first, second, third])
            both = got["a", 0] + got["a", 1]
            check(got["b", 0] > 2 * both > 0, f"with weights 100 and {HEAVY} of their adapters the reads were {got}")
        with case("kinds:weights-are-accounted"):
            for (hba, lun), counted in luns(control("stats")).items():
                read = bytes_read(DIR / hba / f"lun{lun}", number(path)) - earlier[hba, lun]
                equal(read, counted["read-bytes"], f"bytes read in the cgroup of LUN {lun} of {hba}")
        with case("kinds:weights-cgroups-go"):
            control("quit")
            guest.process.wait(timeout=60 * PATIENCE)
            wait_for(lambda: not (DIR / "a").exists() and not (DIR / "b").exists(), 10, "the cgroups' end")
    DIR.rmdir()
