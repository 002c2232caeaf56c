# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a guest whose adapter stops and goes on under load, by a kexec for instance. Steps of storage.py and
kinds.py."""

import contextlib
import json
import shutil
import time
from pathlib import Path

from backings import dm, linear, loop, null_blk, scsi_disk, standing_still
from common import BIN, GUEST_IMAGE, Guest, Shell, case, check, equal, sh, wait_for
from machine import SOCKET, Machine, host_sum, requests_at_rest, requests_of


def boot_disk(initrd):
    """A file system with the guest's kernel and initramfs on a loop device."""
    device, _ = loop(128, "boot")
    sh("mkfs.ext4", "-q", device)
    sh("mount", device, "/mnt")
    shutil.copy(GUEST_IMAGE, "/mnt/kernel")
    shutil.copy(initrd, "/mnt/initrd")
    sh("umount", "/mnt")
    return device


def quiesced(guest, control):
    """Quiesced, an adapter does nothing while its guest runs on; its state can be saved; resumed, it goes on where it was."""

    def ctl(*words):
        return sh(BIN / "avio-ctl", "--control", SOCKET, *words)

    with case("storage:quiesce-save-and-resume-under-load"):
        control.refuses("save", "quiesce first")
        guest.do(f"beside {guest.disk_of(1)}")
        ctl("quiesce")
        saved, before = json.loads(ctl("save")), requests_at_rest("/dev/second")
        time.sleep(1)
        equal(guest.do("echo awake").strip(), "awake", "the word of the guest")
        equal(requests_of("/dev/second"), before, "I/Os on the backing of a quiesced adapter")
        adapter = saved["adapters"][0]
        equal(json.loads(ctl("save"))["adapters"][0]["queues"], adapter["queues"], "the queues a second later")
        equal((adapter["state"], adapter["quiesced"]), ("running", True), "the adapter's state")
        equal([(lun["lun"], lun["path"]) for lun in adapter["luns"]], [(0, "/dev/first"), (1, "/dev/second")], "the LUNs")
        equal(len(adapter["queues"]), 2, "number of queues")
        positions = [(queue["submission"], queue["completion"]) for queue in adapter["queues"]]
        check(any(taken for taken, _ in positions), f"no queue has moved: {positions}")
        equal([taken for taken, _ in positions], [posted for _, posted in positions], "requests taken, and those answered")
        equal([queue["in-flight"] for queue in control("stats")[0]["queues"]], [0, 0], "requests in flight")
        ctl("resume")
        wait_for(lambda: requests_of("/dev/second") > before, 20, "I/O after resume")
        guest.do("end_beside")


def udev_rules(guest, control):
    """A real udev names disks and partitions by our rules, also when they come and go."""
    with case("storage:udev-rules"):
        first, second = guest.disk_of(0), guest.disk_of(1)
        path = "/dev/disk/by-path/pci-0000:00:01.0-avio-lun-"

        def named(link, wanted):
            equal(guest.do(f"udevadm settle --timeout=300; readlink -f {link}; :").strip(), wanted, link)

        guest.do("ln -s /usr/bin/udevadm /tmp/systemd-udevd; (/tmp/systemd-udevd </dev/null >/tmp/udev.log 2>&1 &); until [ -S /run/udev/control ]; do sleep 0.1; done")
        guest.do("udevadm trigger --subsystem-match=block --action=add")
        named("/dev/disk/by-id/avio-FIRST", f"/dev/{first}")
        named(f"{path}0", f"/dev/{first}")
        named(f"{path}1", f"/dev/{second}")
        guest.do(f"printf 'label: gpt\\n,4M\\n' | sfdisk -q /dev/{first}")
        part = guest.do(f"ls -d /sys/block/{first}/{first}* | sed 's,.*/,/dev/,'").strip()
        named("/dev/disk/by-id/avio-FIRST-part1", part)
        named(f"{path}0-part1", part)
        added = guest.new_disk(control, 17, scsi_disk()[1], serial="a b/c")
        wwn = f"/dev/disk/by-id/wwn-{guest.do(f'attribute {added} wwid').strip()}"
        for link in (wwn, f"{path}17", "/dev/disk/by-id/avio-a_b_c"):
            named(link, f"/dev/{added}")
        guest.remove_disk(control, 17, added)
        left = guest.do(f"until [ ! -e /sys/block/{added} ]; do sleep 0.1; done; udevadm settle --timeout=300; ls -d {wwn} {path}17 2>/dev/null; :")
        equal(left.strip(), "", "links to a disk that has gone")
        guest.do("udevadm control --exit")


def kexec(guest, control, initrd):
    """A kernel takes over from another while I/O is under way: the adapter is reset in between, and what was flushed is
    there afterwards."""
    with case("storage:kexec-under-load"):
        device = boot_disk(initrd)
        boot, kept, busy = guest.new_disk(control, 16, device, readonly=True), guest.disk_of(0), guest.disk_of(1)
        told = guest.pattern_on(kept)
        guest.do(f"mount -o ro /dev/{boot} /mnt; /usr/sbin/kexec -s -l /mnt/kernel --initrd=/mnt/initrd --reuse-cmdline; umount /mnt", 120)
        guest.do(f"beside {busy}")
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
        guest.remove_disk(control, 16, guest.disk_of(16))
        sh("losetup", "-d", device)


def crash_dump(initrd):
    """A kernel crashes while I/O is under way, and the one that takes over dumps its memory onto an AVIO disk. Another
    guest's I/O goes on, and is what it was."""
    with case("storage:crash-dump-under-load"):
        boot, dump = boot_disk(initrd), null_blk("dump", 1024)
        # LUNs that no guest has known before, for those are gated.
        disks = [f"path={boot},lun=30,readonly", f"path={dump},lun=31", f"path={null_blk('busy')},lun=32"]
        last_words = "so ends this kernel"
        crashing = {"cpus": 2, "memory": 384, "append": "crashkernel=128M"}
        with Machine(disks, initrd, **crashing) as guest, Shell([f"path={null_blk('neighbour')}"], initrd) as neighbour:
            guest.ready()
            neighbour.ready()
            neighbour.do("beside $(disk 1)")
            line = "$(sed 's/crashkernel=[^ ]*//; s/avio_task=[^ ]*/avio_task=dump avio_lun=31 nr_cpus=1/' /proc/cmdline)"
            load = f"/usr/sbin/kexec -s -p /mnt/kernel --initrd=/mnt/initrd --append=\"{line}\""
            guest.do(f"mount -o ro /dev/{guest.disk_of(30)} /mnt; {load}; umount /mnt", 120)
            guest.do(f"beside {guest.disk_of(32)}; echo {last_words} >/dev/kmsg")
            guest.last_word("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
            guest.wait(180)
            length = int(guest.value("dumped") or 0)
            neighbour.do("end_beside")
        check(length > 192 << 20, f"{length} bytes were dumped")
        with open(dump, "rb") as file:
            core = file.read(length)
        equal((core[:4], core[16]), (b"\x7fELF", 4), "the dump's file format, and its kind (a core)")
        check(last_words.encode() in core, "the crashed kernel's last words are not in the dump")
        sh("losetup", "-d", boot)


def root_on_a_lun(initrd):
    """A guest whose root file system is on a LUN."""
    with case("storage:root-on-a-LUN"):
        device, _ = loop(256, "root")
        sh("sh", "-c", f"mkdir /tmp/tree && cd /tmp/tree && cpio -id --quiet <{initrd}")
        sh("mkfs.ext4", "-q", "-d", "/tmp/tree", device)
        sh("rm", "-r", "/tmp/tree")
        with Guest("root", [f"path={device}"], initrd, append="avio_disks=1") as guest:
            guest.wait(90)
            equal(guest.value("root"), "/dev/avioa ext4", "what is mounted on /, and as what")
        sh("mount", "-o", "ro", device, "/mnt")
        equal(Path("/mnt/written").read_text(encoding="ascii"), "by a guest\n", "what the guest wrote on its root")
        sh("umount", "/mnt")
        sh("losetup", "-d", device)


def addresses(control):
    """The PCI address of each adapter."""
    return {adapter["hba"]: f"0000:{adapter['address']}" for adapter in control("status")["adapters"]}


def stopping(guest, control):
    """While a backing hangs, the guest of adapters `left` and `right` mends the other queue of `left`, which was broken; and
    when somebody resets `left`, it is STOPPING until the backing returns, and then goes on; `right` does not notice."""
    device, beside = dm("hanging", linear(null_blk("beneath", 16))), null_blk("beside", 16)
    control("add-lun", hba="left", lun=0, disk={"path": device})
    control("add-lun", hba="right", lun=0, disk={"path": beside})
    # The kernel's words are to come in its log, and not in the middle of an answer.
    guest.do("dmesg -n 1; wait_disks 4")
    address = addresses(control)
    write = "taskset {} dd if=/dev/urandom of=/dev/{} bs=4k count=8 oflag=direct"

    def states():
        return {adapter["hba"]: adapter["state"] for adapter in control("status")["adapters"]}

    def in_flight():
        return [queue["in-flight"] for queue in control("stats")[0]["queues"]]

    hanging, neighbour = guest.disk_of(0, address["left"]), guest.disk_of(3, address["left"])
    guest.do(f"beside {guest.disk_of(0, address['right'])}")
    guest.looked_through(control, 0, hanging)
    with standing_still("hanging"):
        with case("kinds:a-queue-is-mended-while-a-backing-hangs"):
            guest.in_background(write.format(1, hanging), "hung")
            wait_for(lambda: sorted(map(bool, in_flight())) == [False, True], 20, "a request of one queue on the backing that hangs")
            idle, since = in_flight().index(0), guest.log_length()
            guest.do(f"find_queue {address['left']} {idle}; scribble")
            guest.logged(since, f"queue {idle}: was reset")
            guest.do(write.format(2, neighbour))
            equal(states(), {"left": "running", "right": "running"}, "the adapters' states")
            equal(guest.do("cat /tmp/hung 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
        with case("kinds:stopping-while-a-backing-hangs"):
            guest.do(f"find_queue {address['left']} 0; devmem $((bar + 0x30)) 32 0")
            wait_for(lambda: states()["left"] == "stopping", 20, "the adapter to be stopping")
            guest.do(f"echo 1000 >/sys/block/{neighbour}/queue/io_timeout")
            guest.in_background(write.format(3, neighbour), "waited")
            since = requests_of(beside)
            wait_for(lambda: requests_of(beside) > since + 100, 20, "I/O on the other adapter")
            equal(states(), {"left": "stopping", "right": "running"}, "the adapters' states")
            control.refuses("remove-lun", "stopping", hba="left", lun=3, force=True)
            equal(guest.do("cat /tmp/hung /tmp/waited 2>/dev/null; :"), "", "ends of writes while the adapter stops")
    with case("kinds:goes-on-when-the-backing-returns"):
        guest.do("until [ -s /tmp/hung ] && [ -s /tmp/waited ]; do sleep 0.1; done; cat /tmp/hung /tmp/waited | grep -qvx 0 && exit 1; :")
        equal(states(), {"left": "running", "right": "running"}, "the adapters' states")
        guest.do(f"echo 30000 >/sys/block/{neighbour}/queue/io_timeout")
        guest.do(f"verified {hanging} 16 4m; verified {neighbour} 16 512k; end_beside")


def slow(guest, control):
    """A request takes too long, as its backing hangs: the guest aborts it, resets the LUN, and waits on; the adapter's
    other LUN does not notice, and nothing is lost when the backing returns. The devices are those of `stopping`."""
    with case("kinds:time-outs-while-a-backing-hangs"):
        left = addresses(control)["left"]
        hanging, neighbour = guest.disk_of(0, left), guest.disk_of(3, left)
        guest.do(f"echo 1000 >/sys/block/{hanging}/queue/io_timeout; beside {neighbour}")

        def counted():
            line = f"for g in /dev/gvsd*; do gvsdmgr --json get_stat -D $g -q lun=/dev/{hanging} 2>/dev/null && break; done"
            return json.loads(guest.do(line))[0]

        def reads():
            return int(guest.do(f"cat /sys/block/{neighbour}/stat").split()[0])

        with standing_still("hanging"):
            guest.do("dd if=/dev/urandom of=/tmp/data bs=4k count=8")
            guest.in_background(f"dd if=/tmp/data of=/dev/{hanging} bs=32k oflag=direct", "late")
            wait_for(lambda: counted()["aborts"] >= 2, 20, "a second abort")
            stat, since = counted(), reads()
            check(stat["in_flight"] >= 1, f"requests in flight: {stat}")
            check(stat["timeouts"] >= 3 and stat["lun_resets"] >= 1, f"time-outs and resets of the LUN: {stat}")
            wait_for(lambda: reads() > since, 20, "I/O on the other LUN")
            equal(guest.do("ls /tmp/late 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
        guest.do("until [ -s /tmp/late ]; do sleep 0.1; done; grep -qx 0 /tmp/late")
        guest.do(f"dd if=/dev/{hanging} of=/tmp/found bs=32k count=1 iflag=direct; cmp /tmp/data /tmp/found")
        for said in ("aborting it, and waiting on", "resetting the LUN, and waiting on"):
            guest.do(f"dmesg | grep -q '(LUN 0) takes long; {said}'")
        equal({adapter["state"] for adapter in control("status")["adapters"]}, {"running"}, "the adapters' states")
        guest.do(f"dmesg -n 5; verified {hanging} 16 4m; end_beside")


@contextlib.contextmanager
def time_out_beside(guest, lun, backing):
    """A request takes longer than the block layer has it take of its own accord, as its backing hangs: the guest says so, and
    it is done when the backing returns. That takes half a minute, in which other things are tested."""
    disk, late = guest.disk_of(lun), f"(LUN {lun}) takes long; aborting it, and waiting on"
    with contextlib.ExitStack() as hangs:
        with case("kinds:a-write-whose-time-will-run-out"):
            hangs.enter_context(standing_still(backing))
            guest.do("dd if=/dev/urandom of=/tmp/late-data bs=4k count=8")
            guest.in_background(f"dd if=/tmp/late-data of=/dev/{disk} bs=32k oflag=direct", "late")
        yield
        with case("kinds:the-default-time-out"):
            equal(guest.do(f"attribute {disk} queue/io_timeout").strip(), "30000", "the block layer's own time, in ms")
            guest.do(f"until dmesg | grep -qF '{late}'; do sleep 0.1; done", 180)
            equal(guest.do("ls /tmp/late 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
            hangs.close()
            guest.do("until [ -s /tmp/late ]; do sleep 0.1; done; grep -qx 0 /tmp/late")
            guest.do(f"dd if=/dev/{disk} of=/tmp/found bs=32k count=1 iflag=direct; cmp /tmp/late-data /tmp/found")


def crowded(guest, control):
    """A LUN whose backing hangs has as many requests in flight as it gets, while the adapter's other LUN is at rest; that
    one then works on the same queue. The devices are those of `stopping`."""
    with case("kinds:a-lun-that-hangs-leaves-room-to-others"):
        left = addresses(control)["left"]
        hanging, neighbour = guest.disk_of(0, left), guest.disk_of(3, left)
        # A LUN that has lately been at work keeps its share; it has to be forgotten.
        guest.do(f"echo 30000 >/sys/block/{hanging}/queue/io_timeout; echo 1000 >/sys/block/{neighbour}/queue/io_timeout")
        guest.do(f"taskset 1 dd if=/dev/{neighbour} of=/dev/null bs=4k count=1 iflag=direct")
        guest.do(f"while grep -q TAG_ACTIVE /sys/kernel/debug/block/{neighbour}/hctx*/state; do sleep 0.1; done")
        fio = f"fio --name=many --filename=/dev/{hanging} --rw=randwrite --bs=4k --size=4m --iodepth=512 --direct=1 --ioengine=libaio"
        with standing_still("hanging"):
            guest.in_background(f"taskset 1 {fio} --verify=crc32c --verify_fatal=1 --do_verify=1", "many")
            guest.do(f"until [ $(awk '{{ print $1 + $2 }}' /sys/block/{hanging}/inflight) -ge 128 ]; do sleep 0.1; done")
            guest.do("dd if=/dev/urandom of=/tmp/data bs=4k count=8")
            write, read = f"dd if=/tmp/data of=/dev/{neighbour} oflag=direct", f"dd if=/dev/{neighbour} of=/tmp/found iflag=direct"
            guest.in_background(f"(taskset 1 {write} bs=4k && taskset 1 {read} bs=4k count=8 && cmp /tmp/data /tmp/found)", "few")
            wait_for(lambda: guest.do("cat /tmp/few 2>/dev/null; :").strip() == "0", 30, "I/O on the other LUN")
            equal(guest.do("ls /tmp/many 2>/dev/null; :"), "", "the end of I/O that its backing has not taken")
        guest.do("until [ -s /tmp/many ]; do sleep 0.1; done; grep -qx 0 /tmp/many")


def replaced(guest, control):
    """A LUN is replaced by force while its backing hangs with a request: the adapter's other LUNs come and go, and its own
    disk comes again when the old backing has returned. The devices are those of `stopping`."""
    with case("kinds:replacement-while-a-backing-hangs"):
        left, fresh, passing = addresses(control)["left"], null_blk("fresh", 16), null_blk("passing", 16)
        disk, neighbour = guest.disk_of(0, left), guest.disk_of(3, left)
        before = requests_at_rest(fresh)
        accept = f"for g in /dev/gvsd*; do gvsdmgr -f replace_dsk -D $g -q lun=/dev/{disk} && break; done"
        guest.do(f"beside {neighbour}")
        with standing_still("hanging"):
            guest.in_background(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct", "doomed")
            guest.at_work(disk)
            since = guest.log_length()
            equal(control("replace-lun", hba="left", lun=0, disk={"path": fresh}, force=True), {"gated": True}, "the answer")
            control("add-lun", hba="left", lun=5, disk={"path": passing})
            wait_for(lambda: guest.disk_of(5, left), 20, "a disk that was added")
            added = guest.disk_of(5, left)
            guest.do(f"verified {added} 16 1m")
            control("remove-lun", hba="left", lun=5)
            guest.gone(added)
            control("add-lun", hba="left", lun=6, disk={"path": passing})
            wait_for(lambda: guest.disk_of(6, left), 20, "a disk that was added behind that")
            guest.refuses(accept)
            equal(guest.do("ls /tmp/doomed 2>/dev/null; :"), "", "the end of a write that its backing has not taken")
        guest.do("until [ -s /tmp/doomed ]; do sleep 0.1; done; grep -qvx 0 /tmp/doomed")
        guest.logged(since, "LUN 0", "replace_dsk")
        equal(guest.disk_of(0, left), disk, "name of the LUN's disk")
        guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1")
        equal(requests_of(fresh), before, "I/Os on the new backing before the guest agreed")
        guest.do(accept)
        told = guest.pattern_on(disk)
        equal(host_sum(fresh), told, "checksum on the new backing")
        guest.do("end_beside")
