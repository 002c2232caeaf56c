# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""In the VM: a guest with a control socket and a state file, and what the host sees of its disks."""

import json
import time
from pathlib import Path

from common import Shell, sh, wait_for
from control import Control, Refused

SOCKET, STATE = Path("/tmp/avio.socket"), Path("/tmp/avio.state")


def lun_of(control, number):
    """What the VMM tells of a LUN of the one adapter."""
    return next(lun for lun in control("status")["adapters"][0]["luns"] if lun["lun"] == number)


def lun_stats(control, number):
    """What was counted of it since it was added."""
    return next(lun for lun in control("stats")[0]["luns"] if lun["lun"] == number)


class Machine(Shell):
    """A guest with a control socket and a state file."""

    def command(self, disks, initrd, cmdline, cpus, memory):
        line = super().command(disks, initrd, cmdline, cpus, memory)
        line.remove("--no-reboot")
        return [*line, "--control", SOCKET, "--state", STATE]

    def control(self):
        """Its control socket."""
        wait_for(SOCKET.exists, 20, f"{SOCKET}")
        return Control(SOCKET)

    def starts(self):
        """How often a kernel of it has come up."""
        return sum(said.startswith("GUEST-SHELL ") for said in self.words)

    def last_word(self, command):
        """Have a command done that ends the kernel."""
        self.process.stdin.write(f"0 {command}\n".encode())
        self.process.stdin.flush()

    def wait_disks(self, count):
        """Wait until it has so many disks; their names."""
        return self.do(f"wait_disks {count}; disks").split()

    def new_disk(self, control, lun, path, **options):
        """Put a backing behind a new LUN; the name of the disk that comes."""
        control("add-lun", lun=lun, disk={"path": path, **options})
        wait_for(lambda: self.disk_of(lun), 20, f"the disk of LUN {lun}")
        return self.disk_of(lun)

    def remove_disk(self, control, lun, disk):
        """Take a LUN away, and see its disk go."""

        def removed():
            self.let_go(control, lun)
            try:
                control("remove-lun", lun=lun)
            except Refused as refused:
                # Who looks for partitions may have opened it just now.
                if "guest uses" not in str(refused):
                    raise
                return False
            return True

        wait_for(removed, 20, f"LUN {lun} to be removed")
        self.gone(disk)

    def let_go(self, control, lun):
        """Wait until it has a LUN's disk open no more, as who looks for partitions has."""
        wait_for(lambda: not lun_of(control, lun)["in-use"], 20, f"LUN {lun} to be open no more")

    def looked_through(self, control, lun, disk):
        """Wait until it has looked for partitions on a new disk, which it may begin late."""
        self.do(f"until [ $(awk '{{ print $1 }}' /sys/block/{disk}/stat) -gt 0 ]; do sleep 0.05; done")
        self.let_go(control, lun)

    def at_work(self, disk):
        """Wait until a disk has requests in flight: what is begun in the background may take its time."""
        self.do(f"until grep -q '[1-9]' /sys/block/{disk}/inflight; do sleep 0.05; done")

    def gone(self, disk):
        """Wait until it has no such disk any more."""
        self.do(f"until [ ! -e /sys/block/{disk} ]; do sleep 0.1; done")

    def pattern_on(self, disk):
        """Have a pattern written to a disk at 1 MiB; its checksum."""
        self.do(f"leave_pattern {disk}")
        return self.do("sha256sum </tmp/pattern").split()[0]

    def log_length(self):
        """Where its kernel's log stands, for `logged`: a mark is left there, as the log's beginning goes when it is full."""
        mark = self.asked
        self.do(f"echo '<7>mark {mark}.' >/dev/kmsg")
        return mark

    def logged(self, since, *words):
        """Wait until its kernel has said all these words in one line since then."""
        pattern = " | ".join(f"grep -F -- '{word}'" for word in words)
        log = f"dmesg | tac | sed '/mark {since}\\.$/q'"
        self.do(f"for t in $(seq 1000); do {log} | {pattern} && exit 0; sleep 0.1; done; exit 1", 180)


def host_sum(device, offset=1 << 20, length=1 << 20):
    """Checksum of a piece of a device, as the host sees it."""
    dd = f"dd if={device} bs=64k iflag=direct skip={offset >> 16} count={length >> 16} 2>/dev/null"
    return sh("sh", "-c", f"{dd} | sha256sum").split()[0]


def told(guest, command, lun=""):
    """What a command of gvsdmgr's prints as JSON, about a LUN or the adapter."""
    return json.loads(guest.do(f"gvsdmgr --json {command} -D /dev/gvsd0 {lun and f'-q lun={lun}'}"))


def guest_sum(guest, disk, offset=1 << 20, length=1 << 20):
    """Checksum of a piece of a disk, as a guest sees it."""
    dd = f"dd if=/dev/{disk} bs=64k iflag=direct skip={offset >> 16} count={length >> 16} 2>/dev/null"
    return guest.do(f"{dd} | sha256sum").split()[0]


def requests_of(device):
    """Reads, writes, discards and flushes that a device has carried out."""
    words = Path(f"/sys/class/block/{Path(device).name}/stat").read_text(encoding="ascii").split()
    return sum(int(words[kind]) for kind in (0, 4, 11, 15))


def requests_at_rest(device):
    """The same of a device that nobody uses now: who waits for a request goes on before it is counted."""
    counts = [requests_of(device)]

    def unchanged():
        time.sleep(0.1)
        counts.append(requests_of(device))
        return counts[-1] == counts[-2]

    wait_for(unchanged, 20, f"{device} to be at rest")
    return counts[-1]
