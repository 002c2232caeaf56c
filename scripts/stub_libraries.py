# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Stand-ins for libraries that fio is linked with for storage on a network and the like, which no test guest has: with all
that they load, they are most of what its initramfs would hold. A call of any of their functions ends the program."""

import re

import root
from host import BUILD

FOLDER = BUILD / "stubs"
# One library stands in for all of these, under each of their names.
STUB = FOLDER / "avio-stubs.so"
LIBRARIES = r"lib(numa|ibverbs|rdmacm|nfs|gfapi|nbd|rados|rbd|pmem)\.so"


def symbols(what, files):
    """The dynamic symbols of these files, as (name, version); a default version is a version like others."""
    kinds = {"undefined": "U", "defined": "[A-Zi]"}
    text = root.output(["llvm-nm", "-D", f"--{what}-only", *files])
    return set(re.findall(rf"^\S*\s+{kinds[what]} ([^@\s]+)@*(\S*)$", text, re.MULTILINE))


def needed(program):
    """The libraries that a program itself names: their names and paths in the root."""
    names = re.findall(r"NEEDED.*\[(.+)\]", root.output(["llvm-readelf", "-d", program]))
    paths = dict(re.findall(r"(\S+) => (/\S+)", root.output(["ldd", program])))
    return {name: paths[name] for name in names}


def version_script(wanted):
    """What tells the linker the versions of symbols, given as (name, version)."""
    script = ""
    for version in sorted({version for _, version in wanted if version}):
        names = sorted(name for name, its in wanted if its == version)
        script += f"{version} {{ global: {'; '.join(names)}; }};\n"
    return script


def make(program):
    """Make the stand-in for such libraries of a program; the names that it goes by, which are links in FOLDER."""
    libraries = needed(program)
    replaced = [name for name in libraries if re.match(LIBRARIES, name)]
    kept = [path for name, path in libraries.items() if name not in replaced]
    defined = {name for name, _ in symbols("defined", kept)}
    wanted = {(name, version) for name, version in symbols("undefined", [program]) if name not in defined}
    FOLDER.mkdir(parents=True, exist_ok=True)
    source, script = STUB.with_suffix(".c"), STUB.with_suffix(".map")
    source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name, _ in sorted(wanted)), encoding="ascii")
    script.write_text(version_script(wanted), encoding="ascii")
    line = ["clang", "-w", "-fPIC", "-fno-builtin", "-fuse-ld=lld", "-nostdlib", "-shared", f"-Wl,--version-script,{script}"]
    root.run([*line, "-o", STUB, source])
    for name in replaced:
        link = FOLDER / name
        link.unlink(missing_ok=True)
        link.symlink_to(STUB.name)
    return replaced
