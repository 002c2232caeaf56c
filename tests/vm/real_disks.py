# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: what people have behind a LUN, a volume of LVM's, a SCSI disk, a disk over the network, and what becomes of
it while a guest runs: it grows, is reset, is lost and comes again. Steps of storage.py."""

import time
from pathlib import Path

from backings import lvm, null_blk, nvme_connect, nvme_disconnect, nvme_tcp, released, remove_null_blk, scsi_disk, write
from common import case, check, equal, modprobe, sh, wait_for
from machine import host_sum


def volume(guest, control):
    """A logical volume of LVM's: it grows under load, and has a snapshot taken of it, which keeps what was there."""
    with case("storage:lvm"):
        modprobe("dm_snapshot")
        disk, path = null_blk("physical", 128), "/dev/mapper/group-db"
        lvm("pvcreate", disk)
        lvm("vgcreate", "group", disk)
        lvm("lvcreate", "--name", "db", "--size", "32m", "group")
        name = guest.new_disk(control, 23, path)
        kept = guest.pattern_on(name)
        guest.do(f"beside {guest.disk_of(0)}")
        lvm("lvextend", "--size", "48m", "group/db")
        guest.do(f"until_is {48 << 11} attribute {name} size")
        lvm("lvcreate", "--snapshot", "--name", "before", "--size", "32m", "group/db")
        guest.do(f"dd if=/dev/zero of=/dev/{name} bs=1M seek=1 count=1 oflag=direct; edges {name}")
        equal(host_sum("/dev/mapper/group-before"), kept, "checksum of the pattern in the snapshot")
        check(host_sum(path) != kept, "the guest's write has not reached the volume")
        refused = lvm("lvremove", "--yes", "group/db", check_code=False)
        check("in use" in refused, f"a volume that a guest has was not kept: {refused}")
        guest.do("end_beside")
        guest.remove_disk(control, 23, name)
        released("group-db")
        lvm("vgremove", "--yes", "group")
        remove_null_blk("physical")


def lost_and_back(guest, control):
    """A backing that vanishes is told to the guest with no I/O needed, and so is its return, whether or not the VMM is told to
    look for it."""

    def scsi_again():
        Path(f"/sys/class/scsi_host/{place.parent.parent.name}/scan").write_text("- - -", encoding="ascii")
        wait_for((place / "block").is_dir, 20, "the disk's return")
        return scsi_disk()[1]

    with case("storage:S2-loss-and-return"):
        modprobe("scsi_debug", "dev_size_mb=16", "delay=0")
        place, path = scsi_disk()
        loss(guest, control, path, lambda: write(place / "delete", 1), scsi_again)
    with case("storage:S2-loss-and-return-over-nvme-tcp"):
        path = nvme_tcp(null_blk("remote", 16))
        loss(guest, control, path, nvme_disconnect, nvme_connect, rescan=True)
        nvme_disconnect()


def loss(guest, control, path, lose, again, rescan=False):
    """One disk is lost under load, and comes again, by another path perhaps, which `again` tells. A program has it open all the
    while, and another LUN does not notice."""
    link = Path("/tmp/by-id")
    link.symlink_to(path)
    disk = guest.new_disk(control, 15, str(link))
    guest.do(f"leave_pattern {disk}; rm -f /tmp/opened /tmp/returned /tmp/kept-open /tmp/doomed")
    read = "touch /tmp/opened; until [ -e /tmp/returned ]; do sleep 0.1; done; dd bs=64k skip=16 count=16 | cmp - /tmp/pattern"
    guest.in_background(f"({read}) </dev/{disk}", "kept-open")
    guest.do("until [ -e /tmp/opened ]; do sleep 0.1; done")
    guest.do(f"beside {guest.disk_of(0)}")
    # Behind the pattern.
    load = f"fio --name=doomed --filename=/dev/{disk} --offset=4m --size=8m --rw=randrw --bs=4k --iodepth=16 --direct=1 --ioengine=libaio"
    guest.in_background(f"{load} --time_based --runtime=600", "doomed")
    guest.at_work(disk)
    since = guest.log_length()
    lose()
    guest.logged(since, "LUN 15", "lost")
    guest.do("until [ -s /tmp/doomed ]; do sleep 0.1; done; grep -qvx 0 /tmp/doomed")
    guest.do(f"until_is LOST told get_info State lun=/dev/{disk}")
    guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct")
    since = guest.log_length()
    # The VMM has the old device open, so that its name may be taken; here we are udev.
    fresh = again()
    link.unlink()
    link.symlink_to(fresh)
    if rescan:
        control("rescan-lun", lun=15)
    guest.logged(since, "LUN 15", "back")
    guest.do(f"until_is ONLINE told get_info State lun=/dev/{disk}")
    guest.do(f"dd if=/dev/{disk} bs=64k skip=16 count=16 iflag=direct | cmp - /tmp/pattern")
    guest.do("echo 3 >/proc/sys/vm/drop_caches; touch /tmp/returned; until [ -s /tmp/kept-open ]; do sleep 0.1; done")
    equal(guest.do("cat /tmp/kept-open").strip(), "0", "exit code of who kept the disk open")
    guest.do("end_beside")
    guest.remove_disk(control, 15, disk)
    link.unlink()


def scsi(guest, control):
    """The guest sees which SCSI disk it has, and what it does to the LUN reaches that disk and no other."""
    (place, path), errors = scsi_disk(), Path("/sys/kernel/debug/scsi_debug")
    serial, wwn = ((place / name).read_text(encoding="ascii").strip() for name in ("serial", "wwid"))

    def resets(what):
        return sh("dmesg").count(f"doing {what} reset")

    with case("storage:serial-number-and-name-are-the-disks-own"):
        disk = guest.new_disk(control, 18, path)
        check(serial and wwn.startswith("naa."), f"the disk has serial number {serial!r} and name {wwn!r}")
        equal(guest.do(f"attribute {disk} serial").strip(), serial, "serial number")
        equal(guest.do(f"attribute {disk} wwid").strip(), wwn.replace("naa.", "0x"), "world-wide name")
    with case("storage:reset-of-a-lun-reaches-its-disk-only"):
        # It says what it resets, and no reset of the device is successful.
        write("/sys/bus/pseudo/drivers/scsi_debug/opts", "0x2000")
        write(errors / place.name / "error", "4 1 0xff")
        reset, begun = f"gvsdmgr -f task_mgmt -D /dev/gvsd0 -q lun=/dev/{disk} -t reset", time.monotonic()
        guest.do(reset)
        wait_for(lambda: resets("device"), 20, "the disk's reset")
        guest.do(f"for n in $(seq 10); do {reset} || exit 1; done; dd if=/dev/{disk} of=/dev/null bs=4k count=16 iflag=direct")
        done, elapsed = resets("device"), time.monotonic() - begun
        check(done <= 1 + elapsed / 10, f"{done} resets of the disk in {elapsed:.1f} s")
        equal([resets(what) for what in ("target", "bus", "host")], [0, 0, 0], "resets of target, bus and host")
        write(errors / place.name / "error", "- 4 0xff")
        write("/sys/bus/pseudo/drivers/scsi_debug/opts", "0")
        guest.remove_disk(control, 18, disk)
    with case("storage:resize-of-a-partition"):
        sh("sh", "-c", f"printf 'label: gpt\n,4M\n' | sfdisk -q {path}")
        wait_for(Path(f"{path}1").exists, 20, "the partition")
        disk = guest.new_disk(control, 19, f"{path}1")
        equal(guest.do(f"attribute {disk} serial").strip(), f"{serial}-part1", "serial number")
        equal(guest.do(f"attribute {disk} size").strip(), str(4 << 11), "capacity before")
        sh("sh", "-c", f"printf ',8M\\n' | sfdisk -q --no-reread --no-tell-kernel -N 1 {path}")
        sh("partx", "--update", "--nr", 1, path)
        # The kernel tells nobody of that, and neither do we.
        guest.do(f"until_is {8 << 11} attribute {disk} size")
        guest.remove_disk(control, 19, disk)
        sh("sfdisk", "--delete", "-q", path)
