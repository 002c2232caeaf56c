# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: every kind of backing behind LUNs, many LUNs, several adapters, polled queues, and cgroups.
Argument: the guest's initramfs."""

import os
import subprocess
import sys
from pathlib import Path

import cgroups
from backings import dm, erased, linear, loop, null_blk, nvme_local, nvme_tcp, partitions, sectors, test_disk
from common import Guest, Shell, case, check, claimable, counters, equal, finish, insert, modprobe, module_users, no_guest, refused, remove, sh, wait_for
from lifecycle import addresses, crowded, replaced, slow, stopping, time_out_beside
from machine import STATE, Machine
from sizes import from_huge_pages, writes

INITRD = sys.argv[1]
# A disk of 3 TiB, of which only what is written takes memory.
VAST_MIB = 3 << 20


def each_kind():
    """A guest with a LUN on each kind of backing verifies its I/O on all of them, and the host finds what it left."""
    backings, blocks = {}, {}
    with case("kinds:backings"):
        whole = null_blk("whole", 64, discard=1)
        backings["whole-disk"] = whole
        backings["partition"] = partitions(null_blk("parted", 64))[1]
        null_blk("below", 64)
        modprobe("dm_delay")
        backings["logical-volume"] = dm("volume", linear("/dev/below", 2048))
        backings["loop-over-file"] = loop(32, "file")[0]
        backings["4k-blocks"] = null_blk("large", 32, blocksize=4096)
        backings["nvme"] = nvme_local()
        backings["beyond-2-TiB"] = null_blk("vast", VAST_MIB)
        backings["nvme-tcp"] = nvme_tcp(null_blk("remote", 32))
        backings["dm-delay"] = dm("tardy", f"0 {32 << 11} delay {null_blk('below-tardy', 32)} 0 20")
        backings["test-disk"] = test_disk()
        blocks = {"4k-blocks": 4096}
        slower = dm("slower", linear(null_blk("below-slower", 16)))
    with case("kinds:guest"):
        disks = [f"path={path},lun={lun},serial=KIND{lun}" for lun, path in enumerate([*backings.values(), slower])]
        guest = Shell(disks, INITRD, cpus=2)
        guest.ready()
    with time_out_beside(guest, len(backings), "slower"):
        of_each_kind(guest, backings, blocks)
    with case("kinds:exclusive-claim"):
        taken = subprocess.run(["sfdisk", "--wipe", "never", "-q", backings["whole-disk"]], input="label: gpt\n", text=True, check=False, capture_output=True)
        check(taken.returncode, "another program partitioned a disk that a guest has")
        for path in (*backings.values(), "/dev/parted", "/dev/below"):
            check(not claimable(path), f"another program could claim {path}")
        no_guest(INITRD, f"path={backings['partition']}", backings["partition"], "in use")
        for path in (backings["partition"], "/dev/parted", "/dev/below"):
            no_guest(INITRD, f"path={path},shared", path, "cannot be shared")
        files = null_blk("files", 16)
        sh("mkfs.ext4", "-q", files)
        sh("mount", files, "/mnt")
        no_guest(INITRD, f"path={files},shared", files, "mounted", "cannot be shared")
        sh("umount", "/mnt")
    with case("kinds:console-takes-long-lines"):
        for length in (1000, 2000, 2048, 2100, 2900):
            equal(guest.do(f"printf %s {'x' * length} | wc -c").strip(), str(length), "characters that came")
    with case("kinds:guest-ends"):
        guest.process.stdin.write(b"0 poweroff -f\n")
        guest.process.stdin.flush()
        guest.wait(60)


def of_each_kind(guest, backings, blocks):
    """I/O on all of them."""
    for lun, (kind, path) in enumerate(backings.items()):
        with case(f"kinds:{kind}"):
            disk = guest.disk_of(lun)
            equal(guest.do(f"attribute {disk} queue/logical_block_size").strip(), str(blocks.get(kind, 512)), "block size")
            equal(guest.do(f"attribute {disk} serial").strip(), f"KIND{lun}", "serial number")
            as_the_backing(guest, disk, path)
            guest.do(f"verified {disk} 16 4m")
            guest.do(f"leave_pattern {disk}")
            told = guest.do("sha256sum </tmp/pattern").split()[0]
            found = sh("sh", "-c", f"dd if={path} bs=64k iflag=direct skip=16 count=16 2>/dev/null | sha256sum").split()[0]
            equal(found, told, f"checksum on {path}")
            if kind == "beyond-2-TiB":
                last_blocks(guest, disk, path)
    with case("kinds:secure-erase"):
        secure_erase(guest, *(f"/dev/{guest.disk_of(lun)}" for lun in (0, len(backings) - 1)))
    with case("kinds:M9-checksums-of-what-is-in-the-page-cache"):
        cached(guest, guest.disk_of(len(backings) - 1))


def as_the_backing(guest, disk, path):
    """The guest's disk is what its backing is."""
    number = os.stat(path).st_rdev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    # A partition has that of its disk.
    queue = next(folder for folder in (place / "queue", place.parent / "queue") if folder.exists())
    names = ["physical_block_size", "minimum_io_size", "optimal_io_size", "rotational", "write_cache", "fua", "stable_writes"]
    wanted = [(queue / name).read_text(encoding="ascii").strip() for name in names]
    told = guest.do(f"for n in {' '.join(names)}; do attribute {disk} queue/$n; done").splitlines()
    wanted = dict(zip(names, wanted))
    if not (queue / "nr_requests").exists():
        # What others may be put below at any time is taken for one with a cache.
        wanted["write_cache"], wanted["fua"] = "write back", "1"
    equal(dict(zip(names, told)), wanted, f"attributes of {path}")
    equal(guest.do(f"attribute {disk} size").strip(), str(sectors(path)), f"capacity of {path}")
    most = int(guest.do(f"attribute {disk} queue/discard_max_bytes"))
    equal(most > 0, int((queue / "discard_max_bytes").read_text(encoding="ascii")) > 0, f"whether {path} discards")


def cached(guest, disk):
    """M9: a disk with checksums behind a guest whose programs change pages of its cache while they are written: all of
    it can be read, for the guest's kernel knows that it must not let them."""
    load = f"fio --name=cached --filename=/dev/{disk} --ioengine=mmap --rw=randwrite --bs=512 --size=1m --time_based --runtime=5 --output=/tmp/cached"
    guest.do(f"(while [ ! -e /tmp/enough ]; do sync; done) & {load}; code=$?; touch /tmp/enough; wait; [ $code = 0 ] || {{ cat /tmp/cached; exit 1; }}")
    guest.do(f"dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct")


def last_blocks(guest, disk, path):
    """The last block of a disk with more sectors than 32 bits count is there, and not somewhere else."""
    equal(guest.do(f"attribute {disk} size").strip(), str(VAST_MIB << 11), "capacity")
    guest.do(f"edges {disk}")
    told = guest.do("sha256sum </tmp/b").split()[0]
    last = f"dd if={path} bs=512 iflag=direct skip={(VAST_MIB << 11) - 1} count=1 2>/dev/null | sha256sum"
    equal(sh("sh", "-c", last).split()[0], told, "checksum of the last block on the host")


def secure_erase(guest, other, disk):
    """What a guest erases is gone from the backing, and nothing beside it; where the backing cannot, it is refused. At
    1 MiB on the disk is a pattern of 1 MiB."""
    guest.refuses(f"/usr/sbin/blkdiscard --secure {other}")
    with open("/dev/testdisk", "rb") as backing:
        backing.seek(3 << 19)
        kept = backing.read(1 << 19)
    check(any(kept), "the pattern is not there")
    guest.do(f"/usr/sbin/blkdiscard --secure --offset 1M --length 512K {disk}")
    equal(erased(), 1024, "sectors that were erased")
    sh("blockdev", "--flushbufs", "/dev/testdisk")
    with open("/dev/testdisk", "rb") as backing:
        backing.seek(1 << 20)
        check(not any(backing.read(1 << 19)), "something is left of what was erased")
        check(backing.read(1 << 19) == kept, "what is beside it has changed")
    guest.do(f"/usr/sbin/blkdiscard --secure {disk}")
    equal(erased(), 1024 + int(sh("blockdev", "--getsz", "/dev/testdisk")), "sectors that were erased in all")


def many_luns():
    """256 LUNs on one adapter, all at work, and no more than that."""
    with case("kinds:256-luns"):
        sh("rmmod", "brd", check_code=False)
        modprobe("brd", "rd_nr=257", "rd_size=1024")
        disks = [f"path=/dev/ram{n}" for n in range(256)]
        with Machine(disks, INITRD, cpus=2) as guest:
            guest.ready(120)
            guest.control().refuses("add-lun", "all LUNs are taken", disk={"path": "/dev/ram256"})
            equal(guest.do("gvsdmgr get_info -D /dev/gvsd0 -q lun=all | grep -c '^LUN '").strip(), "256", "LUNs that gvsdmgr lists")
            # What the shell does itself: a program for each disk takes longer than all the rest.
            guest.do('for d in $(disks); do read n </sys/block/$d/lun; echo "This is LUN $n." >/dev/$d || exit 1; done', 180)
            read = 'read n </sys/block/$d/lun; read line </dev/$d || exit 1; echo "$n $line"'
            told = dict(line.split(" ", 1) for line in guest.do(f"for d in $(disks); do {read}; done", 180).splitlines())
        STATE.unlink()
        wanted = {str(number): f"This is LUN {number}." for number in range(256)}
        equal(told, wanted, "what the guest reads of each LUN")
        for number, text in wanted.items():
            with open(f"/dev/ram{number}", "rb") as backing:
                equal(backing.readline(), f"{text}\n".encode(), f"what is on the backing of LUN {number}")
    with case("kinds:257th-lun-refused"):
        refused(INITRD, [word for n in range(257) for word in ("--disk", f"path=/dev/ram{n}")], "256")


class TwoAdapters(Machine):
    """A guest with the adapters `left` and `right`, and rings of so many entries."""

    entries = 256

    def command(self, disks, initrd, cmdline, cpus, memory):
        line = super().command(disks, initrd, cmdline, cpus, memory)
        return [*line, "--hba", "id=left", "--hba", "id=right", "--queue-size", self.entries]


def many_luns_of_two():
    """128 LUNs, half of them on each of two adapters, all at work, and none of them another's."""
    with case("kinds:64-luns-on-each-of-two-adapters"):
        hbas = ("left", "right")
        disks = [f"path=/dev/ram{n},hba={hbas[n % 2]},lun={n // 2}" for n in range(128)]
        with TwoAdapters(disks, INITRD, cpus=2) as guest:
            guest.ready(120)
            address = addresses(guest.control())
            # Where a disk is: its LUN, and its adapter, by the name of the folder that it is in.
            place = "read n </sys/block/$d/lun; cd -P /sys/block/$d/device"
            guest.do(f'for d in $(disks); do {place}; echo "This is LUN $n of ${{PWD##*/}}." >/dev/$d || exit 1; done', 180)
            wrong = '[ "$line" = "This is LUN $n of ${PWD##*/}." ] || echo "$n of ${PWD##*/}: $line"'
            equal(guest.do(f"for d in $(disks); do {place}; read line </dev/$d || exit 1; {wrong}; done", 180), "", "what is read that another LUN was given")
        STATE.unlink()
        for n in range(128):
            with open(f"/dev/ram{n}", "rb") as backing:
                equal(backing.readline(), f"This is LUN {n // 2} of {address[hbas[n % 2]]}.\n".encode(), f"what is on /dev/ram{n}")


def all_adapters():
    """As many adapters as a guest can have, each with a LUN: each is at the address that the order of the command line gives,
    and what is written through the first and the last is on their own backings. One more is refused."""
    ids = [f"hba-{n}" for n in range(31)]
    hbas = [word for name in ids for word in ("--hba", f"id={name},queues=1")]

    class Full(Machine):
        def command(self, disks, initrd, cmdline, cpus, memory):
            return [*super().command(disks, initrd, cmdline, cpus, memory), *hbas, "--queue-size", 8]

    with case("kinds:31-adapters"):
        # The order of the disks does not matter.
        disks = [f"path=/dev/ram{n},hba={name},serial={name}" for n, name in reversed(list(enumerate(ids)))]
        # Each adapter pins all of the memory.
        with Full(disks, INITRD, memory=256) as guest:
            guest.ready(120)
            wanted = {name: f"0000:00:{n + 1:02x}.0" for n, name in enumerate(ids)}
            equal(addresses(guest.control()), wanted, "the adapters' addresses")
            place = "read name </sys/block/$d/serial; cd -P /sys/block/$d/device"
            told = guest.do(f'for d in $(disks); do {place}; echo "$name ${{PWD##*/}}"; done').splitlines()
            equal(dict(line.split() for line in told), wanted, "where the guest has the disks")
            for name in (ids[0], ids[-1]):
                disk = guest.disk_of(0, wanted[name])
                guest.do(f"verified {disk} 4 256k; echo 'This is {name}.' >/dev/{disk}")
                found = guest.do(f"dd if=/dev/{disk} bs=4k count=1 iflag=direct 2>/dev/null | head -n 1")
                equal(found.strip(), f"This is {name}.", f"what is read from {disk}")
        STATE.unlink()
        for n in (0, 30):
            with open(f"/dev/ram{n}", "rb") as backing:
                equal(backing.readline(), f"This is {ids[n]}.\n".encode(), f"what is on /dev/ram{n}")
    with case("kinds:32nd-adapter-refused"):
        refused(INITRD, [*hbas, "--hba", "id=one-more"], "32 adapters are too many; a guest can have 31")


def two_adapters():
    """Two adapters in a guest: their addresses are those of the command line, each has its own LUN 0."""
    with case("kinds:two-adapters"):
        disks = ["path=/dev/ram0,hba=left,lun=3", "path=/dev/ram1,hba=right,lun=3"]
        places = []
        for turn in range(2):
            # The first time with rings shorter than a driver would like to ask ahead.
            TwoAdapters.entries = [8, 256][turn]
            with TwoAdapters(disks, INITRD, cpus=2) as guest:
                guest.ready()
                places.append(guest.do("for d in $(disks); do readlink -f /sys/block/$d/device; done"))
                told = guest.do("ls -d /sys/bus/pci/drivers/avio_stor/0000:* | wc -l").strip()
                equal(told, "2", "number of adapters")
                if turn == 0:
                    for depth in (32, 8, 1):
                        guest.do(f"verified $(disk 1) {depth} 4m && verified $(disk 2) {depth} 4m")
                else:
                    stopping(guest, guest.control())
                    slow(guest, guest.control())
                    crowded(guest, guest.control())
                    replaced(guest, guest.control())
        equal(places[0], places[1], "addresses after a restart")


def polled():
    """A polled queue: completions without interrupts, where the same load on the other queues has one for each."""
    with case("kinds:polled-queue"), Shell(["path=/dev/ram0"], INITRD, cpus=2) as guest:
        guest.ready()
        guest.do("rmmod avio_stor && insmod /avio_stor.ko poll_queues=1 coalesce=0 && wait_disks 1")
        disk = guest.do("disk 1").strip()
        fio = f"fio --name=p --filename=/dev/{disk} --rw=randread --bs=4k --size=512k --io_size=2m --direct=1 --ioengine=io_uring"

        def interrupts(how):
            before = counters()[0]
            guest.do(f"{fio} {how} --output=/tmp/p || {{ cat /tmp/p; exit 1; }}")
            after = counters()[0]
            requests, raised = (after[name] - before[name] for name in ("requests", "interrupts"))
            check(requests >= 512, f"512 reads were {requests} requests")
            return raised

        # The other queues first, so that whoever looks for partitions has looked.
        with_interrupts, without = interrupts(""), interrupts("--hipri")
        check(with_interrupts >= 256, f"512 reads that were not polled raised {with_interrupts} interrupts")
        check(without < 32, f"512 polled reads raised {without} interrupts, and others {with_interrupts}")


def without_features():
    """The guest's driver without any of the features that a host may lack: the same data; and a broken queue takes the whole
    adapter's reset."""
    names = ("fua", "segment-list", "ranges", "events", "tasks", "coalesce", "queue-reset")

    class Plain(Shell):
        def command(self, disks, initrd, cmdline, cpus, memory):
            return [*super().command(disks, initrd, cmdline, cpus, memory), "--hba", f"id=plain,without={'+'.join(names)}"]

    with case("kinds:driver-without-features"), Plain([f"path={null_blk('plain', 64, discard=1, cache_size=4)}"], INITRD, cpus=2) as guest:
        guest.ready()
        disk = guest.do("disk 1").strip()
        equal(guest.do("told get_info Features").strip(), "FLUSH", "features")
        equal(guest.do(f"attribute {disk} queue/discard_max_bytes").strip(), "0", "most bytes of a discard")
        guest.do(f"verified {disk} 16 4m && edges {disk} && durable {disk} 32m")
        guest.refuses("gvsdmgr -f task_mgmt -D /dev/gvsd0 -q tgt=all -t reset")
        # A request has three segments at most, but a huge page is one.
        equal(writes(guest, disk, from_huge_pages(disk, 1)), 1, "number of requests for 1 MiB")
        guest.do(f"find_queue $(told get_info 'Hardware Path') 0; verified {disk} 16 4m & until dmesg | grep -q 'the adapter was reset'; do scribble; done; wait $!")
        equal(guest.do("told get_info State").strip(), "ONLINE", "the adapter's state")


def administered():
    """What a guest's administrator does, and what the guest's driver does about a queue that broke."""
    with case("kinds:administration"):
        # The last one is slow: what it answers finds nobody who would take the answer without an interrupt.
        slow_one = null_blk("slow", irqmode=2, completion_nsec=30_000_000)
        disks = [*(f"path={null_blk(f'admin{n}')}" for n in range(3)), f"path={slow_one}"]
        with Guest("admin", disks, INITRD, cpus=2, append="avio_disks=4") as guest:
            guest.wait(400)
            guest.report("admin")


def main():
    """One guest after another."""
    with case("kinds:module"):
        insert()
    each_kind()
    many_luns()
    many_luns_of_two()
    all_adapters()
    two_adapters()
    polled()
    without_features()
    administered()
    cgroups.of_the_vmm(INITRD)
    cgroups.weights(INITRD)
    with case("kinds:module-remove"):
        wait_for(lambda: module_users() == 0, 20, "the last guest's end")
        remove()
    finish()


main()
