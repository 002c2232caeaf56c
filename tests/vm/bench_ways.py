# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the ways of I/O that the benchmark puts side by side. Each is a context in which a guest runs that has
the given block devices as its disks by that way; all guests have the same kernel, initramfs, processors and memory.

`boot(kind, disks, options)` of the caller starts a guest of the given class."""

import contextlib
from pathlib import Path

from common import GUEST_IMAGE, Guest, insert, loaded, modprobe, module_users, remove, sh, wait_for

TARGET = Path("/sys/kernel/config/target")
BACKSTORES = TARGET / "core/iblock_0"
WWPN, INITIATOR = "naa.5001405000000a10", "naa.5001405000000a11"


class QemuGuest(Guest):
    """The same guest on QEMU; its `disks` are QEMU's options."""

    def command(self, disks, initrd, cmdline, cpus, memory):
        """QEMU's command line."""
        return [
            "qemu-system-x86_64", "-machine", "q35,accel=kvm", "-cpu", "host", "-smp", cpus, "-m", memory,
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", GUEST_IMAGE, "-initrd", initrd, "-append", cmdline, *(disk.format(queues=cpus) for disk in disks),
        ]  # fmt: skip


@contextlib.contextmanager
def avio(paths, boot):
    """Our VMM, our driver, our module."""
    if loaded():
        remove()
    insert()
    try:
        with boot(Guest, [f"path={path}" for path in paths], f"avio_disks={len(paths)}") as guest:
            yield guest
    finally:
        wait_for(lambda: module_users() == 0, 20, "the adapter's end")
        remove()


def emulated(disks, *options, append=""):
    """A way through a disk that QEMU emulates, on io_uring, in the guest one of those whose names begin so; `append` is for
    the guest's kernel."""

    @contextlib.contextmanager
    def way(paths, boot):
        block = f"driver=host_device,node-name=d0,filename={paths[0]},aio=io_uring,cache.direct=on"
        with boot(QemuGuest, ["-blockdev", block, *options], f"avio_prefix={disks} avio_disks=1 {append}") as guest:
            yield guest

    return way


@contextlib.contextmanager
def vhost_target(*paths):
    """A target for vhost-scsi; its LUNs are the block devices themselves, by way of iblock."""
    modprobe("target_core_iblock")
    modprobe("vhost_scsi")
    if not TARGET.exists():
        sh("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    group = TARGET / "vhost" / WWPN / "tpgt_1"
    group.mkdir(parents=True)
    luns = [(group / f"lun/lun_{number}", BACKSTORES / f"bench{number}") for number in range(len(paths))]
    for (lun, store), path in zip(luns, paths):
        store.mkdir(parents=True)
        (store / "control").write_text(f"udev_path={path}", encoding="ascii")
        (store / "enable").write_text("1", encoding="ascii")
        lun.mkdir()
        (lun / "disk").symlink_to(store)
    (group / "nexus").write_text(INITIATOR, encoding="ascii")
    try:
        yield WWPN
    finally:
        for lun, _ in luns:
            (lun / "disk").unlink()
        (group / "nexus").write_text("NULL", encoding="ascii")
        for lun, store in luns:
            lun.rmdir()
            store.rmdir()
        for folder in (group, group.parent, BACKSTORES):
            folder.rmdir()


@contextlib.contextmanager
def vhost_scsi(paths, boot):
    """The kernel's vhost-scsi."""
    with vhost_target(*paths) as wwpn:
        options = ["-device", f"vhost-scsi-pci,wwpn={wwpn},num_queues={{queues}}"]
        with boot(QemuGuest, options, f"avio_prefix=sd avio_disks={len(paths)}") as guest:
            yield guest


# The kernel's driver leaves out a disk whose SAS address is 0, as QEMU's disks have it unless they are told a world-wide
# name, and uses message-signalled interrupts only when asked to.
SAS_DISK = "scsi-hd,bus=hba.0,drive=d0,wwn=0x5001405000000a12"
SAS_MSI = "mptbase.mpt_msi_enable_sas=1"
VIRTIO_BLK = "virtio-blk-pci,drive=d0,num-queues={queues}"
# The names that the report shows.
WAYS = {
    "AVIO": avio,
    "vhost-scsi": vhost_scsi,
    "QEMU virtio-blk, IOThread": emulated("vd", "-object", "iothread,id=io0", "-device", f"{VIRTIO_BLK},iothread=io0"),
    "QEMU virtio-blk": emulated("vd", "-device", VIRTIO_BLK),
    "QEMU mptsas1068": emulated("sd", "-device", "mptsas1068,id=hba", "-device", SAS_DISK, append=SAS_MSI),
    "QEMU AHCI": emulated("sd", "-device", "ide-hd,bus=ide.0,drive=d0"),
}
