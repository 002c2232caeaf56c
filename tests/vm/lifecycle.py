# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a guest whose adapter stops and goes on under load, by a kexec for instance. Steps of storage.py."""

import shutil

from backings import loop
from common import GUEST_IMAGE, case, equal, nearby, sh, wait_for
from machine import host_sum


def boot_disk(initrd):
    """A file system with the guest's kernel and initramfs on a loop device."""
    device, _ = loop(128, "boot")
    sh("mkfs.ext4", "-q", device)
    sh("mount", device, "/mnt")
    shutil.copy(nearby(GUEST_IMAGE), "/mnt/kernel")
    shutil.copy(nearby(initrd), "/mnt/initrd")
    sh("umount", "/mnt")
    return device


def kexec(guest, control, initrd):
    """A kernel takes over from another while I/O is under way: the adapter is reset in between, and what was flushed is
    there afterwards."""
    with case("storage:kexec-under-load"):
        device = boot_disk(initrd)
        control("add-lun", lun=16, disk={"path": device, "readonly": True})
        guest.wait_disks(3)
        boot, kept, busy = guest.disk_of(16), guest.disk_of(0), guest.disk_of(1)
        told = guest.pattern_on(kept)
        guest.do(f"mount -o ro /dev/{boot} /mnt; /usr/sbin/kexec -s -l /mnt/kernel --initrd=/mnt/initrd --reuse-cmdline; umount /mnt", 120)
        guest.do(f"beside {busy}; sleep 1")
        starts = guest.starts()
        guest.last_word("/usr/sbin/kexec -e -x -y")
        wait_for(lambda: control("status")["adapters"][0]["state"] == "stopped", 60, "the old kernel's end")
        wait_for(lambda: guest.starts() > starts, 90, "the new kernel")
        equal(control("status")["adapters"][0]["state"], "running", "the adapter's state under the new kernel")
        guest.wait_disks(3)
        equal(host_sum("/dev/first"), told, "checksum of the pattern on the host")
        found = guest.do(f"dd if=/dev/{guest.disk_of(0)} bs=64k skip=16 count=16 iflag=direct status=none | sha256sum").split()[0]
        equal(found, told, "checksum of the pattern under the new kernel")
        guest.do(f"verified {guest.disk_of(1)} 16 4m")
        control("remove-lun", lun=16)
        guest.wait_disks(2)
        sh("losetup", "-d", device)
