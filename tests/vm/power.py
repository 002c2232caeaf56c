# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the power of a disk with a volatile cache is cut. Step of storage.py."""

import hashlib
from pathlib import Path

from backings import NULLB, null_blk, remove_null_blk, write
from common import case, equal, sh, wait_for
from machine import guest_sum, host_sum


def power_cut(guest, control):
    """What a guest has made durable is there after a power cut. What it has only written is not, which shows that there was
    one."""
    with case("storage:power-cut"):
        path, length = null_blk("volatile", 32, cache_size=4, fua=1), 1 << 16
        disk = guest.new_disk(control, 28, path)
        equal(guest.do(f"attribute {disk} queue/fua").strip(), "1", "whether the disk writes through")
        guest.do(f"printf 'label: gpt\\n,16M\\n,\\n' | sfdisk -q /dev/{disk}")
        # Nobody else may send a flush, as who fills the tables of inodes later does. The file system ends a transaction of its journal by a record that it writes through, with no flush behind. The
        # journal is not filled beforehand, for null_blk writes through whatever is not written for the first time.
        guest.do(f"mkfs.ext4 -q -E lazy_journal_init=1 /dev/{disk}1 && mount -o commit=600,noinit_itable /dev/{disk}1 /mnt")
        guest.do("dd if=/dev/urandom of=/mnt/kept bs=64k count=4 conv=fsync")
        kept = guest.do("sha256sum </mnt/kept").split()[0]
        guest.do(f"dd if=/dev/urandom of=/dev/{disk}2 bs={length} count=1 oflag=direct")
        cached = guest_sum(guest, f"{disk}2", 0, length)
        write(NULLB / "volatile" / "power", 0)
        guest.refuses(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct")
        control("remove-lun", lun=28, force=True)
        guest.gone(disk)
        guest.do("umount /mnt")
        write(NULLB / "volatile" / "power", 1)
        wait_for(lambda: Path(f"{path}2").exists(), 10, "the partitions")
        nothing = hashlib.sha256(bytes(length)).hexdigest()
        equal((cached != nothing, host_sum(f"{path}2", 0, length)), (True, nothing), "what was in the cache, before and after")
        sh("mount", f"{path}1", "/mnt")
        found = sh("sh", "-c", "sha256sum </mnt/kept").split()[0]
        sh("umount", "/mnt")
        equal(found, kept, "checksum of what was durable")
        remove_null_blk("volatile")
