# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: the kernel's allocations, its block layer and the devices fail while the hostile driver plays a guest; what
was acknowledged and flushed must be there afterwards. No other script comes after it in a VM."""

from common import case, finish, insert, loaded, modprobe, remove, sh
from hostile import attack, disk


def main():
    """Insert, fail, remove."""
    with case("faults:devices"):
        if not loaded():
            insert()
        disk()
        modprobe("dm_flakey")
    if loaded():
        attack("faults", "--faults")
        with case("faults:remove"):
            remove()
            sh("rmmod", "null_blk", "dm_flakey")
    finish()


main()
