# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: block devices to put behind LUNs, of the kinds that people have, made and taken down by name."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

from common import MODULES, check, loop, modprobe, sh, wait_for

NULLB = Path("/sys/kernel/config/nullb")
NVMET = Path("/sys/kernel/config/nvmet")
NQN, PORT = "nqn.2026-11.avio:test", 4420


def write(path, value):
    """Set an attribute."""
    Path(path).write_text(f"{value}\n", encoding="ascii")


def null_blk(name, mib=64, **attributes):
    """A memory disk of null_blk, by configfs; its path."""
    if not NULLB.exists():
        modprobe("null_blk", "nr_devices=0")
    folder = NULLB / name
    folder.mkdir()
    settings = {"size": mib, "memory_backed": 1, **attributes, "power": 1}
    for attribute, value in settings.items():
        write(folder / attribute, value)
    wait_for(Path(f"/dev/{name}").exists, 10, f"/dev/{name}")
    return f"/dev/{name}"


def remove_null_blk(name):
    """Take it away, whoever has it open."""
    (NULLB / name).rmdir()


def test_disk():
    """A memory disk that knows secure erase, and keeps checksums; its path."""
    sh("insmod", MODULES / "tests/vm/test_disk/test_disk.ko")
    return "/dev/testdisk"


def erased():
    """How many sectors of it were erased so."""
    return int(Path("/sys/module/test_disk/parameters/erased").read_text(encoding="ascii"))


def sectors(device):
    """Capacity in units of 512 bytes."""
    return int(sh("blockdev", "--getsz", device))


def scsi_disk():
    """The disk of scsi_debug: its place in sysfs, and its path."""
    place = next(Path("/sys/bus/pseudo/drivers/scsi_debug/adapter0").glob("host*/target*/*:*"))
    return place, f"/dev/{next((place / 'block').iterdir()).name}"


def dm(name, *table):
    """A device-mapper device of these lines; its path."""
    load = subprocess.run(
        ["dmsetup", "create", name, "--noudevsync"], input="\n".join(table), text=True, check=False, capture_output=True
    )
    check(load.returncode == 0, f"dmsetup create {name}: {load.stderr}")
    sh("dmsetup", "mknodes", name)
    return f"/dev/mapper/{name}"


def dm_reload(name, *table):
    """Another table for it, at once."""
    load = subprocess.run(
        ["dmsetup", "reload", name, "--noudevsync"], input="\n".join(table), text=True, check=False, capture_output=True
    )
    check(load.returncode == 0, f"dmsetup reload {name}: {load.stderr}")
    sh("dmsetup", "resume", name, "--noudevsync")


def openings(name):
    """How often a device-mapper device is open."""
    return int(re.search(r"^Open count: *(\d+)$", sh("dmsetup", "info", name), re.MULTILINE)[1])


def released(name):
    """Wait until nobody has a device-mapper device open: the module lets go of a LUN's backing behind the call."""
    wait_for(lambda: openings(name) == 0, 20, f"the last user of {name} to let go of it")


def remove_dm(name):
    """Take a device-mapper device down when nobody has it open."""
    released(name)
    sh("dmsetup", "remove", name)


@contextlib.contextmanager
def standing_still(name):
    """Has a device-mapper device keep all requests, until the end of the block."""
    sh("dmsetup", "suspend", "--noflush", name)
    try:
        yield
    finally:
        sh("dmsetup", "resume", name)


def linear(device, start=0, length=None):
    """A table line that maps to a device."""
    return f"0 {length or sectors(device) - start} linear {device} {start}"


def lvm(command, *words, check_code=True):
    """A command of LVM, which is to do without udev; what it printed."""
    settings = "activation{udev_sync=0 udev_rules=0} "
    settings += 'devices{obtain_device_list_from_udev=0 use_devicesfile=0 types=["nullb",16]}'
    return sh(command, "--config", settings, *words, check_code=check_code)


def partitions(device):
    """Make two partitions; their paths."""
    subprocess.run(["sfdisk", "-q", device], input="label: gpt\nsize=16M\n,\n", text=True, check=True)
    sh("partprobe", device)
    paths = [Path(f"{device}{mark}{n}") for n in (1, 2) for mark in ("p", "")]
    wait_for(lambda: sum(p.exists() for p in paths) >= 2, 10, f"partitions of {device}")
    return [str(p) for p in paths if p.exists()]


def nvme_local():
    """The NVMe disk that the test machine has; its path."""
    return f"/dev/{next(Path('/sys/bus/pci/drivers/nvme').glob('0000:*/nvme/nvme*/nvme*n1')).name}"


def nvme_tcp(backing):
    """The way to a device over NVMe on TCP, target and host both here; the path on this side."""
    for module in ("nvmet", "nvmet-tcp", "nvme-tcp"):
        modprobe(module)
    sh("ip", "link", "set", "lo", "up")
    subsystem = NVMET / "subsystems" / NQN
    subsystem.mkdir()
    write(subsystem / "attr_allow_any_host", 1)
    namespace = subsystem / "namespaces" / "1"
    namespace.mkdir()
    write(namespace / "device_path", backing)
    write(namespace / "enable", 1)
    place = NVMET / "ports" / "1"
    place.mkdir()
    for attribute, value in (("adrfam", "ipv4"), ("traddr", "127.0.0.1"), ("trsvcid", PORT), ("trtype", "tcp")):
        write(place / f"addr_{attribute}", value)
    os.symlink(subsystem, place / "subsystems" / NQN)
    return nvme_connect()


def nvme_connect():
    """Connect to the target; the disk's path."""
    there = lambda: {path.name for path in Path("/sys/block").glob("nvme*")}
    before = there()
    sh("nvme", "connect", "-t", "tcp", "-a", "127.0.0.1", "-s", PORT, "-n", NQN)
    wait_for(lambda: there() - before, 20, "the NVMe disk")
    return f"/dev/{(there() - before).pop()}"


def nvme_disconnect():
    """Drop the connection: the disk is gone, whoever has it."""
    sh("nvme", "disconnect", "-n", NQN)
