# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: guests in our VMM do real disk I/O through avio_host.ko onto loop, null_blk and brd devices, and the host
checks what is on the backing afterwards. Arguments: the guest's initramfs, and `brief` for a selection of the cases."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import (
    BIN, CHECKOUT, DEVICE, GUEST_IMAGE, PATIENCE, Guest, Skip, case, check, claimable, counters, equal, finish, insert, loaded, loop, modprobe, module_users, no_guest, remove, sh, wait_for,
)  # fmt: skip
from machine import SOCKET, STATE, Machine, requests_of

sys.path.insert(0, str(CHECKOUT / "scripts"))
import host  # noqa: E402

INITRD = sys.argv[1]
BRIEF = sys.argv[2:] == ["brief"]
GUEST_FLAVOUR = os.environ["AVIO_GUEST_FLAVOUR"]
PATTERN_AT, PATTERN_LENGTH = 16 * 65536, 1048576


def sha256(path, offset=0, length=None):
    """Checksum of a piece of a device or file, read past the page cache's stale pages."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(offset)
        return hashlib.sha256(file.read(length if length is not None else -1)).hexdigest()


def guest_file_system(device):
    """Mount what the guest made and verify its files by its own checksums."""
    sh("partprobe", device)
    part = Path(f"{device}p1")
    wait_for(part.exists, 10, f"{part}")
    sh("e2fsck", "-fn", part)
    sh("mount", "-o", "ro", part, "/mnt")
    try:
        listing = sh("sh", "-c", "cd /mnt && sha256sum -c sums")
        equal(listing.count(": OK"), 9, "number of files with the guest's checksum")
    finally:
        sh("umount", "/mnt")


def whole(devices):
    """One guest with four LUNs and four queues through everything, then the host's view of the same bytes."""
    first, null, ram, fixed = devices
    disks = [f"path={first},serial=FIRST", f"path={null}", f"path={ram}", f"path={fixed},readonly"]
    before = {device: sha256(device, 0, 4 << 20) for device in (fixed,)}
    guest = None
    with case("stack:guest"):
        task, cpus = ("brief", 2) if BRIEF else ("stack", 4)
        guest = Guest(task, disks, INITRD, cpus=cpus, append="avio_disks=4")
        guest.wait(600)
    if guest is None:
        return
    with case("stack:guest-results"):
        guest.report("guest")
    with case("stack:host-reads-guest-file-system"):
        guest_file_system(first)
    for number, device in ((2, null), (3, ram)):
        with case(f"stack:host-finds-pattern-{number}"):
            told = guest.value(f"pattern {guest_disk(guest, number)}")
            check(told, "the guest named no checksum")
            equal(sha256(device, PATTERN_AT, PATTERN_LENGTH), told, f"checksum on {device}")
    with case("stack:read-only-disk-is-untouched"):
        equal(sha256(fixed, 0, 4 << 20), before[fixed], "checksum of the read-only backing")
        told = guest.value(f"readonly {guest_disk(guest, 4)}")
        equal(told, before[fixed], "checksum that the guest read")


def guest_disk(guest, number):
    """Name of the guest's disk by its order."""
    names = [said.split()[2] for said in guest.words if said.startswith("GUEST-VALUE disk ")]
    check(len(names) >= number, f"the guest listed {len(names)} disks")
    return names[number - 1]


def confined(process):
    """Each thread of a VMM has the filter of the whole process, and all but the main one theirs besides."""
    threads = {}
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            text = (task / "status").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        # The workers of queues are the kernel's.
        if not status["Name"].startswith("avio-stor-q"):
            threads[status["Name"], task.name] = (status["Seccomp"], int(status["Seccomp_filters"]))
    main = threads.pop(("avio-vmm", str(process)))
    equal(main, ("2", 1), "seccomp mode and number of filters of the main thread")
    equal(set(threads.values()), {("2", 2)}, f"seccomp modes and numbers of filters of {threads}")


def counting(device):
    """The module's counters are there while an adapter lives, move, and name no broken queue."""
    with case("stack:counters-move"):
        guest = Guest("busy", [f"path={device}"], INITRD, append="avio_disks=1")
        try:
            wait_for(lambda: guest.said("GUEST-BUSY"), 60, f"the guest's I/O; it said: {guest.tail()}")
            names = ("requests", "read_bytes", "write_bytes", "doorbells", "interrupts")
            before = counters()[0]
            wait_for(lambda: all(counters()[0].get(n, 0) > before.get(n, 0) for n in names), 60, f"{names} to grow")
            check("broken=no" in counters()[1], f"a queue is broken: {counters()[1]}")
            confined(guest.process.pid)
        finally:
            guest.kill()


def in_use(device):
    """The module stays while a guest uses it, survives its VMM's sudden death, and can go after it."""
    with case("stack:rmmod-refused-while-in-use"):
        guest = Guest("busy", [f"path={device}"], INITRD, append="avio_disks=1")
        try:
            wait_for(lambda: guest.said("GUEST-BUSY"), 60, f"the guest's I/O; it said: {guest.tail()}")
            done = subprocess.run(["rmmod", "avio_host"], check=False, capture_output=True, text=True)
            check(done.returncode, "rmmod removed the module under a running guest")
            check(loaded(), "the module is gone although rmmod failed")
        finally:
            guest.kill()
    with case("stack:module-goes-after-SIGKILL"):
        wait_for(lambda: module_users() == 0, 20, "the dead VMM's adapter to be freed")
        remove()
        insert()


def pinned():
    """Pages that are pinned for devices."""
    Path("/proc/sys/vm/stat_refresh").read_text(encoding="ascii")
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    return int(counts["nr_foll_pin_acquired"]) - int(counts["nr_foll_pin_released"])


def freed(pins, devices, when):
    """All that a killed VMM had is free again: the module, the guest's pages, and its disks."""
    wait_for(lambda: module_users() == 0, 20, f"the adapter of a VMM killed {when} to be freed")
    wait_for(lambda: pinned() == pins, 20, f"the pages of a VMM killed {when} to be unpinned", lambda: f"; {pinned()} are pinned, not {pins}")
    for device in devices:
        wait_for(lambda: claimable(device), 20, f"{device} of a VMM killed {when} to be free")


def changing(control, first, second, count):
    """Have a LUN added, exchanged and removed over and over; returns while that goes on, when so many are done."""
    for _ in range(30):
        control.begin("add-lun", lun=7, disk={"path": first})
        control.begin("replace-lun", lun=7, disk={"path": second}, force=True)
        control.begin("remove-lun", lun=7, force=True)
    for _ in range(count):
        control.answer()


def killed_at_any_moment(device, others):
    """Whenever a VMM is killed, all that it had is free again, and its state file is whole."""
    pins, disks, devices = pinned(), [f"path={device},lun=0"], (device, *others)
    with case("stack:SIGKILL-at-any-moment"):
        for milliseconds in (0, 20, 50, 100, 200, 400, 800, 1600):
            with Guest("busy", disks, INITRD, append="avio_disks=1"):
                time.sleep(milliseconds / 1000)
            freed(pins, devices, f"after {milliseconds} ms")
    with case("stack:SIGKILL-while-LUNs-change"):
        for count in (1, 2, 3):
            # One that is there is this VMM's.
            SOCKET.unlink(missing_ok=True)
            with Machine(disks, INITRD) as guest:
                control = guest.control()
                changing(control, *others, count)
            freed(pins, devices, f"when {count} changes were done")
            equal(json.loads(STATE.read_text(encoding="ascii"))["version"], 1, "version in the state file")
    with case("stack:SIGKILL-of-a-guest-at-rest"):
        with Machine(disks, INITRD) as guest:
            guest.ready()
        freed(pins, devices, "when its guest was up")
    with case("stack:SIGKILL-under-load-while-LUNs-change"):
        with Machine(disks, INITRD) as guest:
            guest.ready()
            guest.do(f"beside {guest.disk_of(0)}")
            control, since = guest.control(), requests_of(device)
            wait_for(lambda: requests_of(device) > since + 100, 30, "I/O on the backing")
            changing(control, *others, 2)
        freed(pins, devices, "under load")
        equal(json.loads(STATE.read_text(encoding="ascii"))["version"], 1, "version in the state file")


def two_guests(first, second):
    """Two guests at once, one of them with huge pages, each finds its own disk."""
    with case("stack:two-guests"):
        # What was read from disks is in pieces all over memory.
        for name, value in (("drop_caches", "3"), ("compact_memory", "1")):
            Path("/proc/sys/vm", name).write_text(value, encoding="ascii")
        pages = Path("/proc/sys/vm/nr_hugepages")
        pages.write_text("140", encoding="ascii")
        huge = int(pages.read_text(encoding="ascii")) >= 140
        guests = [
            Guest("hello", [f"path={first}"], INITRD, memory=256, huge=huge, append="avio_disks=1"),
            Guest("hello", [f"path={second}"], INITRD, memory=256, append="avio_disks=1"),
        ]
        free = lambda: next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if "HugePages_Free" in line)
        wait_for(lambda: free() <= 140 - 128, 60, "one guest to have 256 MiB of huge pages")
        for guest in guests:
            guest.wait(120)
        for guest in guests:
            guest.report("two-guests")
        pages.write_text("0", encoding="ascii")
        check(huge, "the VM had not enough memory for 140 huge pages")


def many_processors(device):
    """As many processors as the VMM has for a guest, each with a queue, and as many queues as there can be."""
    with case("stack:16-processors"):
        guest = Guest("queues", [f"path={device}"], INITRD, cpus=16, queues=64, append="avio_disks=1 ignore_loglevel")
        guest.wait(300)
        guest.report("16-processors")
        check(guest.said("queue pairs: 16, of"), "the guest's driver found no 16 queue pairs")


def reset(device):
    """A guest's reset ends the VMM in good order."""
    with case("stack:guest-reset"):
        guest = Guest("reset", [f"path={device}"], INITRD, append="avio_disks=1", kernel=GUEST_IMAGE)
        guest.wait(90)
        check(guest.said("GUEST-RESETS"), f"the guest never came to its reset: {guest.tail()}")


def reload_module(times):
    """In and out, many times over."""
    with case(f"stack:module-reload-{times}-times"):
        for _ in range(times):
            remove()
            check(not DEVICE.exists(), f"{DEVICE} is left after rmmod")
            insert()


@contextlib.contextmanager
def away(path):
    """A device node that is not there, until the end of the block."""
    os.rename(path, f"{path}.away")
    try:
        yield
    finally:
        os.rename(f"{path}.away", path)


def accelerator():
    """The scripts run VMs on KVM where there is a processor for it, as here, and where not by emulation."""
    with case("stack:kvm-is-chosen-where-it-works"):
        equal(host.accelerator()[0], "kvm", "how VMs would run here")
        with away("/dev/kvm"):
            equal(host.accelerator()[0], "tcg", "how VMs would run without /dev/kvm")


def kernel_of_32_bits(image):
    """A kernel that tells of no 64-bit entry point in its header (xloadflags); where it is."""
    path = Path("/tmp/kernel-of-32-bits")
    content = bytearray(Path(image).read_bytes())
    content[0x236:0x238] = bytes(2)
    path.write_bytes(content)
    return path


def refusals(device):
    """What the VMM says when it cannot work."""

    def fails(name, line, *words):
        with case(f"stack:refuses-{name}"):
            done = subprocess.run([str(w) for w in line], check=False, capture_output=True, text=True, timeout=60 * PATIENCE)
            said = done.stdout + done.stderr
            check(done.returncode, "the VMM reported success")
            missing = [word for word in words if word not in said]
            check(not missing, f"the message does not name {missing}: {said[-300:]!r}")
            check("panicked" not in said, f"the VMM panicked: {said[-300:]!r}")

    vmm, image = BIN / "avio-vmm", GUEST_IMAGE
    common = ["--initrd", INITRD, "--cmdline", "console=ttyS0", "--cpus", 1, "--memory", 256]
    fails("bad-kernel", [vmm, "--kernel", "/etc/passwd", *common, "--disk", f"path={device}"], "/etc/passwd", "bzImage")
    release = Path("/sys/module/avio_host/version")
    with case("stack:a-module-of-another-release-is-told"):
        equal(sh(vmm, "--version").split()[-1], release.read_text(encoding="ascii").strip(), "the VMM's release")
        Path("/tmp/version").write_text("1023.0.0\n", encoding="ascii")
        sh("mount", "--bind", "/tmp/version", release)
        try:
            no_guest(INITRD, "path=/dev/nothing", "avio_host of 1023.0.0", "renew avio-vmm")
        finally:
            sh("umount", release)
    fails("no-such-disk", [vmm, "--kernel", image, *common, "--disk", "path=/dev/nothing"], "/dev/nothing")
    limited = ["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=1048576"]
    fails("too-little-lockable-memory", [*limited, vmm, "--kernel", image, *common, "--disk", f"path={device}"], "RLIMIT_MEMLOCK is too low")
    fails("too-few-huge-pages", [vmm, "--kernel", image, *common, "--huge-pages", "--disk", f"path={device}"], "128 huge pages", "nr_hugepages")
    old = kernel_of_32_bits(image)
    fails("a-32-bit-kernel", [vmm, "--kernel", old, *common, "--disk", f"path={device}"], str(old), "no 64-bit entry point")
    with away("/dev/kvm"):
        fails("no-kvm", [vmm, "--kernel", image, *common, "--disk", f"path={device}"], "/dev/kvm")
    fails("a-file-as-disk", [vmm, "--kernel", image, *common, "--disk", "path=/etc/passwd"], "/etc/passwd", "block device")
    remove()
    fails("no-module", [vmm, "--kernel", image, *common, "--disk", f"path={device}"], "avio-stor", "avio_host")
    insert()


def main():
    """All cases, the long one first."""
    if not Path("/dev/kvm").exists():
        with case("stack:kvm"):
            raise Skip("no /dev/kvm in the test VM: the processor has no nested virtualization")
        finish()
    with case("stack:backing-devices"):
        insert()
        modprobe("null_blk", "nr_devices=1", "memory_backed=1", "gb=1", "bs=4096", "submit_queues=4")
        modprobe("brd", "rd_nr=1", "rd_size=131072")
        first = loop(192, "first", "--partscan")[0]
        fixed, file = loop(8, "fixed", "--read-only")
        file.write_bytes(os.urandom(8 << 20))
    devices = (first, "/dev/nullb0", "/dev/ram0", fixed)
    whole(devices)
    # What this shows of the host does not depend on the guest's kernel.
    if GUEST_FLAVOUR == "normal":
        reload_module(5 if BRIEF else 20)
    if not BRIEF:
        in_use("/dev/nullb0")
        killed_at_any_moment("/dev/nullb0", ("/dev/ram0", first))
        counting("/dev/nullb0")
        reset("/dev/nullb0")
        two_guests(first, "/dev/ram0")
        many_processors("/dev/ram0")
        accelerator()
        refusals("/dev/ram0")
    with case("stack:module-remove"):
        remove()
        sh("rmmod", "null_blk", "brd")
    finish()


main()
