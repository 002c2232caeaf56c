# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Packs the initramfs of a test guest: busybox, the programs named with every library that they load (or a stand-in for
it), our guest driver, and the scripts of tests/vm/guest. A cpio archive in the kernel's `newc` format, uncompressed:
unpacking is dear where the processor is emulated."""

import os
import stat
from pathlib import Path

import build
import root
import stub_libraries
from host import BUILD, CHECKOUT

PROGRAMS = ["/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck", "/usr/sbin/sfdisk"]
FIO = "/usr/bin/fio"
OWN = [build.BIN / "gvsdmgr"]
RULES = CHECKOUT / "guest" / "60-avio.rules"
GUEST = CHECKOUT / "tests" / "vm" / "guest"


class Cpio:
    """Writes a `newc` archive. Folders are added as needed."""

    def __init__(self, file):
        self.file, self.inode, self.names = file, 0, set()

    def entry(self, name, mode, data=b"", device=(0, 0)):
        """One entry; a second one by the same name is ignored."""
        if name in self.names:
            return
        self.names.add(name)
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0]
        header = b"070701" + b"".join(b"%08X" % value for value in fields)
        self.file.write(header + encoded + b"\0" * (-(len(header) + len(encoded)) % 4))
        self.file.write(data + b"\0" * (-len(data) % 4))

    def folders(self, name):
        """The folders above `name`."""
        for parent in reversed(Path(name).parents):
            if str(parent) != ".":
                self.entry(str(parent), stat.S_IFDIR | 0o755)

    def add(self, name, data, mode=0o644):
        """A file."""
        self.folders(name)
        self.entry(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        """A symbolic link."""
        self.folders(name)
        self.entry(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self):
        """The end mark."""
        self.entry("TRAILER!!!", 0)


def closure(programs):
    """Each program and library that a set of programs loads, as a path in the toolchain root. Libraries with stand-ins, and
    what only those load, are none of them."""
    found = set(programs)
    for line in root.output(["ldd", *programs], env={"LD_LIBRARY_PATH": stub_libraries.FOLDER}).splitlines():
        words = [word for word in line.split() if word.startswith("/") and not word.endswith(":")]
        found.update(word for word in words[:1] if not Path(word).is_relative_to(stub_libraries.FOLDER))
    return sorted(found)


def make(name, flavour, programs=()):
    """Build build/<name>.cpio for a guest with this flavour of kernel; its path."""
    tree = root.path()
    target = BUILD / f"{name}-{flavour}.cpio"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        cpio = Cpio(file)
        for folder in ("proc", "sys", "dev", "tmp", "mnt", "run"):
            cpio.entry(folder, stat.S_IFDIR | 0o755)
        cpio.entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        cpio.add("bin/busybox", (tree / "usr/bin/busybox").read_bytes(), 0o755)
        for path in OWN:
            cpio.add(f"bin/{path.name}", path.read_bytes(), 0o755)
        for name in stub_libraries.make(FIO) if FIO in programs else ():
            cpio.add(f"lib/{name}", stub_libraries.STUB.read_bytes(), 0o755)
        for path in closure([*PROGRAMS, *programs, *map(str, OWN)]):
            if path in map(str, OWN):
                continue
            # The root has /bin, /sbin and /lib as links into /usr; the archive keeps the paths as programs ask for them.
            inside = Path(os.path.realpath(tree / path.lstrip("/")))
            if inside.is_absolute() and not inside.is_relative_to(tree):
                inside = tree / inside.relative_to("/")
            cpio.add(path.lstrip("/"), inside.read_bytes(), 0o755)
        for applet in root.output(["busybox", "--list"]).split():
            cpio.link(f"bin/{applet}", "busybox")
        cpio.add("usr/lib/udev/rules.d/60-avio.rules", RULES.read_bytes())
        cpio.add("avio_stor.ko", build.module("avio_stor", flavour).read_bytes())
        for script in sorted(GUEST.iterdir()):
            cpio.add(script.name, script.read_bytes(), 0o755)
        cpio.close()
    return target
