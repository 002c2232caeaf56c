# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What the storage path is meant to reach, against what a run measured. All are ratios of two ways in the same run, or
counts, so that they hold on any machine."""

import statistics

AVIO, BARE, VHOST = "AVIO", "bare host", "vhost-scsi"
VIRTIO_IOTHREAD, EMULATED = "QEMU virtio-blk, IOThread", "QEMU mptsas1068"
# QEMU's virtio-blk where it can be counted without a guest: the same block layer, behind a socket.
VIRTIO_SERVER = "QEMU vhost-user-blk"


class Missing(Exception):
    """A figure that the run does not have."""


class Results:
    """A run's figures, by what they are of; those of the cells as a round had them."""

    def __init__(self, results, number):
        self.rows, self.single = [row for row in results["rows"] if row["round"] == number], results.get("single", {})
        self.without = results.get("instructions", [])
        self.counted = [row for row in results.get("counted", []) if row["round"] == number]

    def cell(self, way, depth, queues=1, luns=1, rows=None):
        """The row of 4 KiB random reads."""
        wanted = {"way": way, "load": "randread", "block": 4096, "depth": depth, "queues": queues, "luns": luns}
        for row in self.rows if rows is None else rows:
            if all(row[name] == value for name, value in wanted.items()):
                return row
        raise Missing

    def rate(self, way, depth, luns=1, queues=1):
        """I/Os a second."""
        return self.cell(way, depth, queues, luns)["iops"]

    def without_guest(self, way, depth):
        """Instructions of an I/O beyond those of the bare host's, a program playing the guest."""
        found = {(row["way"], row["depth"]): row["instructions"] for row in self.without}
        if (way, depth) not in found or (BARE, depth) not in found:
            raise Missing
        return found[way, depth] - found[BARE, depth]

    def instructions(self, way, depth, luns=1):
        """Instructions of an I/O, the guest's and the host's."""
        return self.cell(way, depth, luns=luns, rows=self.counted)["instructions"]

    def beyond(self, way, depth):
        """The same beyond those of the bare host's."""
        return self.instructions(way, depth) - self.instructions(BARE, depth)

    def processor(self, way, depth):
        """Processor time of an I/O, in µs, the guest's and the host's."""
        row = self.cell(way, depth)
        return row["cpu_guest_us"] + row["cpu_host_us"]

    def number(self, name):
        """A figure that belongs to no cell."""
        if self.single.get(name) is None:
            raise Missing
        return self.single[name]


def ratio(figure, depth, other):
    """AVIO's figure over that of another way."""
    return lambda results: getattr(results, figure)(AVIO, depth) / getattr(results, figure)(other, depth)


def crossings(queues):
    """Doorbells and interrupts of an I/O."""

    def found(results):
        row = results.cell(AVIO, 32, queues=queues)
        return row["doorbells"] + row["interrupts"]

    return found


def exits(queues):
    """All VM exits of an I/O."""
    return lambda results: results.cell(AVIO, 32, queues=queues)["exits"]


def many(queues):
    """The rate of 128 LUNs over that of one, with as many I/Os in flight."""
    return lambda results: results.rate(AVIO, 128, 128, queues) / results.rate(AVIO, 128, 1, queues)


YES, NO, MISSING = "yes", "**no**", "not measured"
# What it is, how it is found, the sign of the comparison, the limit, and its unit. Without a sign it is no target, but
# stands beside the one before.
BEYOND = "instructions an I/O beyond the bare host's, depth {}, over {}'s"
TARGETS = [
    (BEYOND.format(1, "vhost-scsi"), ratio("beyond", 1, VHOST), "≤", 0.5, "×"),
    (BEYOND.format(1, "QEMU virtio-blk with an IOThread"), ratio("beyond", 1, VIRTIO_IOTHREAD), "≤", 0.4, "×"),
    (BEYOND.format(1, "the emulated SCSI adapter"), ratio("beyond", 1, EMULATED), "≤", 0.2, "×"),
    ("beside that, all instructions of an I/O over all of its", ratio("instructions", 1, EMULATED), "", None, "×"),
    (BEYOND.format(32, "vhost-scsi"), ratio("beyond", 32, VHOST), "≤", 0.4, "×"),
    (BEYOND.format(32, "QEMU virtio-blk with an IOThread"), ratio("beyond", 32, VIRTIO_IOTHREAD), "≤", 0.3, "×"),
    (BEYOND.format(32, "the emulated SCSI adapter"), ratio("beyond", 32, EMULATED), "≤", 0.2, "×"),
    ("beside that, all instructions of an I/O over all of its", ratio("instructions", 32, EMULATED), "", None, "×"),
    ("instructions an I/O beyond the bare host's without a guest, depth 1, over vhost-scsi's", ratio("without_guest", 1, VHOST), "≤", 0.5, "×"),
    ("the same over QEMU vhost-user-blk's", ratio("without_guest", 1, VIRTIO_SERVER), "≤", 0.4, "×"),
    ("the same, depth 32, over vhost-scsi's", ratio("without_guest", 32, VHOST), "≤", 0.4, "×"),
    ("the same over QEMU vhost-user-blk's", ratio("without_guest", 32, VIRTIO_SERVER), "≤", 0.3, "×"),
    ("processor time an I/O, guest and host, depth 32, over the emulated SCSI adapter's", ratio("processor", 32, EMULATED), "≤", 0.2, "×"),
    ("I/Os a second over the emulated SCSI adapter's, depth 1", ratio("rate", 1, EMULATED), "≥", 4, "×"),
    ("the same at depth 32", ratio("rate", 32, EMULATED), "≥", 4, "×"),
    ("I/Os a second over QEMU virtio-blk's with an IOThread, depth 32", ratio("rate", 32, VIRTIO_IOTHREAD), "≥", 2, "×"),
    ("I/Os a second over vhost-scsi's, depth 32", ratio("rate", 32, VHOST), "≥", 1.5, "×"),
    ("doorbells and interrupts an I/O, depth 32", crossings(1), "≤", 0.1, ""),
    ("beside that, VM exits of all kinds an I/O", exits(1), "", None, ""),
    ("doorbells and interrupts an I/O, depth 32, two queues", crossings(2), "≤", 0.1, ""),
    ("beside that, VM exits of all kinds an I/O", exits(2), "", None, ""),
    ("I/Os a second of 128 busy LUNs over one LUN's, 128 in flight", many(1), "≥", 0.9, "×"),
    (
        "the same where time is instructions",
        lambda results: results.instructions(AVIO, 128) / results.instructions(AVIO, 128, luns=128),
        "≥", 0.9, "×",
    ),
    ("I/Os a second of 128 busy LUNs over one LUN's, two queues, 128 in flight on each", many(2), "≥", 0.9, "×"),
    ("kernel memory of an adapter with 16 queues", lambda results: results.number("memory_mib"), "≤", 8, " MiB"),
    ("wake-ups of the workers of an idle guest", lambda results: results.number("idle_wakeups"), "≤", 0, ""),
]  # fmt: skip


def rounds(results, find):
    """A figure in each round that has it."""
    for number in range(1, 1 + max((row["round"] for row in results["rows"]), default=1)):
        try:
            yield find(Results(results, number))
        except Missing:
            pass


def against(results):
    """For each target: what, the median of its rounds, what they went between, the target, verdict, as text."""
    for what, find, sign, limit, unit in TARGETS:
        target = f"{sign} {limit}{unit}" if sign else "–"
        values = list(rounds(results, find))
        if not values:
            yield what, MISSING, "–", target, "–"
            continue
        median = statistics.median(values)
        reached = median <= limit if sign == "≤" else not sign or median >= limit
        # Counts of an I/O are small.
        places = 2 if unit else 3
        value, low, high = (f"{one:.{places}f}{unit}" for one in (median, min(values), max(values)))
        spread = "–" if low == high else f"{low} to {high}"
        yield what, value, spread, target, (YES if reached else NO) if sign else "–"
