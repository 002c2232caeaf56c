# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the story of `make demo`. The one argument is the guest's initramfs."""

import sys
import threading
import time
from pathlib import Path

from common import GUEST_IMAGE, Failure, Guest, HOST_MODULE, check, counters, insert, loop, remove, sh, wait_for


def tell(text):
    """A line of the story."""
    print(f"DEMO {text}", flush=True)


def echo(guest):
    """Pass the guest's own lines on, from its driver's insertion to its end."""
    shown, started = 0, False
    while guest.process.poll() is None or shown < len(guest.lines):
        for line in guest.lines[shown:]:
            started = started or line.startswith("# insmod")
            if started and not line.startswith("GUEST-"):
                tell(f"    guest | {line}")
            shown += 1
        time.sleep(0.05)


def number(value):
    """12,345"""
    return f"{value:,}"


def main():
    """Insert, boot, watch, verify, add up."""
    insert()
    tell(f"This is the test machine, Linux {sh('uname', '-r').strip()}. {HOST_MODULE.name} is inserted: /dev/avio-stor is there.")
    device, file = loop(256, "disk.img", "--partscan")
    tell(f"A disk for the guest: {device}, over {file}, 256 MiB of zeros.")
    tell("avio-vmm starts a KVM guest with 2 processors and 512 MiB; its disk goes through the module.")
    guest = Guest("demo", [f"path={device},serial=DEMO"], sys.argv[1], cpus=2, append="avio_disks=1 loglevel=4", quiet=True, kernel=GUEST_IMAGE)
    threading.Thread(target=echo, args=(guest,), daemon=True).start()
    wait_for(lambda: guest.said("GUEST-DONE") or guest.process.poll() is not None, 180, f"the guest; it said: {guest.tail()}")
    sums, text = counters()
    guest.wait(60)
    time.sleep(0.2)
    check(not guest.said("GUEST-FAILED"), f"a step failed in the guest: {guest.tail()}")
    check(guest.said("GUEST-DONE"), f"the guest ended early: {guest.tail()}")
    tell("The guest has powered off. Now the host looks at the same bytes on the backing device:")
    sh("partprobe", device)
    part = Path(f"{device}p1")
    wait_for(part.exists, 10, f"{part}")
    tell(f"    host  | e2fsck -fn {part}: {sh('e2fsck', '-fn', part).strip().splitlines()[-1]}")
    sh("mount", "-o", "ro", part, "/mnt")
    for line in sh("sh", "-c", "cd /mnt && sha256sum -c sums").splitlines():
        tell(f"    host  | {line}")
    sh("umount", "/mnt")
    tell("What the module counted (debugfs):")
    for line in text.splitlines():
        tell(f"    {line}")
    tell(
        f"In sum: {number(sums['requests'])} I/Os, {number(sums['read_bytes'])} bytes read, "
        f"{number(sums['write_bytes'])} bytes written, {number(sums['doorbells'])} doorbells, "
        f"{number(sums['interrupts'])} interrupts."
    )
    remove()
    tell("The module is removed again. Nothing of this was mocked.")


try:
    main()
except Failure as failure:
    tell(f"FAILED: {failure}")
    sys.exit(1)
