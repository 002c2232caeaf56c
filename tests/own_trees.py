# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Tests of `make KDIR=…`: what it says of kernel build trees that will not do, and that it builds for one that will."""

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import build
import kernel
import root
from host import CHECKOUT, Problem

RUSTC = "rustc 1.2.3 (test)"
OPTIONS = {"CONFIG_RUST": "y", "CONFIG_RUSTC_VERSION_TEXT": f'"{RUSTC}"', **dict.fromkeys(build.NEEDED_OPTIONS, "y")}
FILES = [f"rust/lib{crate}.rmeta" for crate in ("core", "ffi", "bindings", "pin_init", "kernel")] + ["rust/libmacros.so"]
HELPERS = "rust/helpers/helpers_module.bc"

INLINE = {"CONFIG_RUST_INLINE_HELPERS": "y"}
CLANG = {"CONFIG_CC_IS_CLANG": "y", "CONFIG_CLANG_VERSION": "190107"}
# What a program says of itself, if it is not rustc's version.
SAYS = {"clang": "clang version 18.1.8"}
BOTH = ["rustc", "bindgen"]
PLAIN, NUMBERED = ["clang", "ld.lld"], ["clang-19", "ld.lld-19"]


@dataclass
class Case:
    """A tree made up of what is looked for: the make arguments for its compiler, or what is said of it."""

    wanted: list | str
    # Beside, or instead of, the above.
    options: dict = field(default_factory=dict)
    # Those that the tree has beside the above, or lacks of them.
    files: list = field(default_factory=list)
    # On the PATH.
    programs: list = field(default_factory=lambda: [*BOTH, "gcc"])
    # $CC
    cc: str = ""


CASES = {
    "complete": Case([]),
    "complete-with-clang": Case(["LLVM=1"], CLANG | INLINE, [HELPERS], BOTH + PLAIN),
    "clang-of-another-name": Case(["LLVM=-19"], CLANG, programs=BOTH + PLAIN + NUMBERED),
    "clang-of-both-names": Case(["LLVM=1"], CLANG | {"CONFIG_CLANG_VERSION": "180108"}, programs=BOTH + PLAIN + ["clang-18"]),
    "clang-of-ones-choice": Case(["LLVM=-17"], CLANG, programs=BOTH + PLAIN + ["clang-17", "ld.lld-17"], cc="clang-17"),
    "without-rust": Case("CONFIG_RUST=y", {"CONFIG_RUST": "n"}),
    "without-vhost": Case("CONFIG_VHOST_TASK is off", {"CONFIG_VHOST_TASK": "n"}),
    "without-helpers": Case("helpers_module.bc is missing", INLINE),
    "without-the-kernel-crate": Case("rust/libkernel.rmeta is missing", files=["rust/libkernel.rmeta"]),
    "without-macros": Case("rust/libmacros.so is missing", files=["rust/libmacros.so"]),
    "another-rustc": Case(f"'{RUSTC}'; this kernel", {"CONFIG_RUSTC_VERSION_TEXT": '"rustc 9"'}),
    "without-bindgen": Case("bindgen is not on the PATH", programs=["rustc", "gcc"]),
    "without-its-compiler": Case("clang is not on the PATH", CLANG),
    "without-its-linker": Case("ld.lld-19 is not on the PATH", CLANG, programs=BOTH + ["clang-19"]),
}


def said(tree, programs, cc=""):
    """What is said of a tree, with only these programs on the PATH; or the make arguments for its compiler."""
    place = tree / "bin"
    place.mkdir()
    for name in programs:
        (place / name).write_text(f"#!/bin/sh\necho '{SAYS.get(name, RUSTC)}'\n", encoding="ascii")
        (place / name).chmod(0o755)
    with patch.dict(os.environ, {"PATH": str(place), "CC": cc}):
        try:
            return build.own_tree(tree)[1]
        except Problem as problem:
            return str(problem)


def refusals(report):
    """All of them, and a folder that is no tree."""
    for name, case in CASES.items():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder)
            for file in {*FILES, "include/config/auto.conf"} ^ set(case.files):
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                (tree / file).touch()
            text = "".join(f"{key}={value}\n" for key, value in (OPTIONS | case.options).items())
            (tree / "include/config/auto.conf").write_text(text, encoding="ascii")
            found = said(tree, case.programs, case.cc)
        right = found == case.wanted if isinstance(case.wanted, list) else isinstance(found, str) and case.wanted in found
        report.add("pass" if right else "fail", f"own-tree:{name}", time.monotonic() - start, f"it said {found}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = said(Path(folder), [])
    right = "not a configured kernel build tree" in found
    report.add("pass" if right else "fail", "own-tree:not-a-tree", time.monotonic() - start, f"it said {found}")


def builds(report):
    """The test kernel's tree named as one's own, with the compilers that built it."""
    start = time.monotonic()
    tree = kernel.ensure("normal")
    line = ["make", "-s", "modules", f"KDIR={tree.path}"]
    done = subprocess.run(root.command(line, binds=tree.binds), check=False, capture_output=True, text=True)
    lost = [name for name in build.MODULES.values() if not (CHECKOUT / "build/kdir" / name).is_file()]
    right = done.returncode == 0 and not lost
    report.add("pass" if right else "fail", "own-tree:builds", time.monotonic() - start, (done.stdout + done.stderr)[-300:])
