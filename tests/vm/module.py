# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: inserts avio_host.ko, turns its KUnit output into results, and lets the hostile driver loose on it."""

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

from backings import dm, linear, remove_dm, standing_still, test_disk
from common import BIN, COUNTERS, HOST_MODULE, case, check, counters, finish, insert, loaded, modprobe, remove, result, sh, wait_for
from hostile import DISK, attack, disk


def kernel_log():
    """A reader of kernel messages from now on: each call gives the new ones as (seconds, text)."""
    file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(file, 0, os.SEEK_END)

    def read():
        while True:
            try:
                record = os.read(file, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            head, _, text = record.partition(";")
            yield int(head.split(",")[2]) / 1e6, text.split("\n", 1)[0]

    return read


def kunit(messages):
    """KTAP lines of case level, as (status, name, seconds, detail). A case's time is that between its line and the one
    before: the cases run one by one."""
    suite, before, notes = "", None, []
    for when, text in messages:
        found = re.match(r"( *)(not ok|ok) (\d+) (\S+)(.*)", text)
        if "# Subtest: " in text:
            suite, notes = text.split("# Subtest: ")[1].strip(), []
        elif found and found.group(1):
            status = "pass" if found.group(2) == "ok" else "fail"
            if "# SKIP" in found.group(5):
                status = "skip"
            detail = " / ".join(notes) if status == "fail" else found.group(5).replace("# SKIP", "").strip(" #")
            yield status, f"{suite}.{found.group(4)}", when - (before or when), detail
            notes = []
        elif text.strip().startswith("#"):
            notes.append(text.strip())
        before = when


def hostile():
    """The hostile driver, on a disk in memory; it prints results as we do. It wants a file on a disk file system too,
    as memory that cannot be pinned."""
    with case("hostile:devices"):
        disk()
        modprobe("dm_mirror")
        modprobe("dm_flakey")
        modprobe("dm_raid")
        test_disk()
        modprobe("brd", "rd_nr=1", "rd_size=65536")
        sh("mkfs.ext4", "-q", "/dev/ram0")
        sh("mount", "/dev/ram0", "/mnt")
        Path("/mnt/file").write_bytes(bytes(1 << 20))
    attack("hostile", "--disk-file", "/mnt/file")
    with case("hostile:devices-are-free"):
        sh("umount", "/mnt")
        sh("rmmod", "brd", "test_disk")


@contextlib.contextmanager
def victim(step, device=DISK):
    """A guest that has come to this step, and is killed at the end."""
    line = [BIN / "avio-hostile", "--device", device, "victim", step]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        yield process
        process.kill()
    check(ready == "ready\n", f"the victim said {ready!r}")


def kept_waiting():
    """Whether there are requests in flight, and nothing moves for a while."""
    before = counters()[0]
    time.sleep(0.2)
    after = counters()[0]
    return after["in_flight"] and after["requests"] == before["requests"]


def removals():
    """Removes the module in every state that allows it, and inserts it again."""
    for step in ("opened", "queues", "running", "broken", "quiesced", "loaded"):
        with case(f"c7_removed_after_a_guest_was_killed_when_{step}"):
            with victim(step):
                pass
            remove()
            insert()
    with case("c7_not_removed_while_a_backing_has_requests"):
        with victim("loaded", dm("still", linear(DISK))) as process, standing_still("still"):
            wait_for(kept_waiting, 20, "a request that its backing keeps")
            process.kill()
            # Long enough for it to have come to the end of its adapter, where it waits for the backing.
            time.sleep(1)
            sh("rmmod", "avio_host", check_code=False)
            check(loaded(), "the module was removed under requests")
        remove_dm("still")
        remove()
        insert()
    with case("c7_not_removed_while_its_debugfs_file_is_open"):
        with victim("running"):
            file = open(next(COUNTERS.iterdir()), "rb")
        sh("rmmod", "avio_host", check_code=False)
        check(loaded(), "the module was removed under an open file")
        file.close()
        remove()
        insert()


def main():
    """KUnit, then the hostile driver, then removal."""
    read = kernel_log()
    with case("module:insert"):
        check(HOST_MODULE.exists(), f"{HOST_MODULE} was not built")
        insert()
    time.sleep(0.5)
    cases = list(kunit(read()))
    for status, name, seconds, detail in cases:
        result(status, f"kunit:{name}", seconds, detail)
    with case("kunit:ran"):
        check(cases, "the module's KUnit suites printed no KTAP at insmod")
    if loaded():
        hostile()
        removals()
        with case("module:remove"):
            remove()
            sh("rmmod", "null_blk")
    finish()


main()
