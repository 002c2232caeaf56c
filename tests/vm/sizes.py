# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a large write of a program's is one request. Step of storage.py, and part of kinds.py."""

from backings import null_blk, remove_null_blk
from common import case, equal


def writes(guest, disk, how):
    """How many requests a write becomes."""
    count = f"told get_stat Writes lun=/dev/{disk}"
    before, after = guest.do(f"{count}; {how} >/tmp/w 2>&1 || {{ cat /tmp/w; exit 1; }}; {count}").split()
    return int(after) - int(before)


def from_huge_pages(disk, mib):
    """Writes so many MiB from memory that is in one piece, or in two for each 4 MiB."""
    fio = f"fio --name=h --filename=/dev/{disk} --rw=write --bs={mib}m --size={mib}m --direct=1 --ioengine=psync"
    return f"(echo 8 >/proc/sys/vm/nr_hugepages; {fio} --iomem=shmhuge; code=$?; echo 0 >/proc/sys/vm/nr_hugepages; exit $code)"


def large(guest, control):
    """1 MiB from pages anywhere in memory, and 4 MiB from huge pages."""
    with case("storage:a-large-write-is-one-request"):
        disk = guest.new_disk(control, 27, null_blk("large", 32))
        scattered = f"dd if=/dev/zero of=/dev/{disk} bs=1M count=1 oflag=direct"
        equal(writes(guest, disk, scattered), 1, "number of requests for 1 MiB")
        equal(writes(guest, disk, from_huge_pages(disk, 4)), 1, "number of requests for 4 MiB")
        guest.remove_disk(control, 27, disk)
        remove_null_blk("large")
