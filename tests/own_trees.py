# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Tests of `make KDIR=…`: what it says of kernel build trees that will not do, and that it builds for one that will."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import build
import kernel
import root
from host import CHECKOUT, Problem

RUSTC = "rustc 1.2.3 (test)"
OPTIONS = {"CONFIG_RUST": "y", "CONFIG_RUSTC_VERSION_TEXT": f'"{RUSTC}"', **dict.fromkeys(build.NEEDED_OPTIONS, "y")}
FILES = [f"rust/lib{crate}.rmeta" for crate in ("core", "ffi", "bindings", "pin_init", "kernel")] + ["rust/libmacros.so"]
HELPERS = "rust/helpers/helpers_module.bc"

# Options and files that the tree has beside or instead of the above, programs on the PATH, and what is to be said.
INLINE = {"CONFIG_RUST_INLINE_HELPERS": "y"}
CLANG = {"CONFIG_CC_IS_CLANG": "y"}
CASES = {
    "complete": ({}, [], ["rustc", "bindgen", "gcc"], None),
    "complete-with-clang": (CLANG | INLINE, [HELPERS], ["rustc", "bindgen", "clang", "ld.lld"], None),
    "without-rust": ({"CONFIG_RUST": "n"}, [], ["rustc", "bindgen", "gcc"], "CONFIG_RUST=y"),
    "without-vhost": ({"CONFIG_VHOST_TASK": "n"}, [], ["rustc", "bindgen", "gcc"], "CONFIG_VHOST_TASK is off"),
    "without-helpers": (INLINE, [], ["rustc", "bindgen", "gcc"], "helpers_module.bc is missing"),
    "another-rustc": ({"CONFIG_RUSTC_VERSION_TEXT": '"rustc 9"'}, [], ["rustc", "bindgen", "gcc"], f"'{RUSTC}'; this kernel"),
    "without-bindgen": ({}, [], ["rustc", "gcc"], "bindgen is not on the PATH"),
    "without-its-compiler": (CLANG, [], ["rustc", "bindgen", "gcc"], "clang is not on the PATH"),
}


def said(tree, programs):
    """What is said of a tree, with only these programs on the PATH; None if it will do."""
    place = tree / "bin"
    place.mkdir()
    for name in programs:
        (place / name).write_text(f"#!/bin/sh\necho '{RUSTC}'\n", encoding="ascii")
        (place / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = str(place)
    try:
        build.own_tree(tree)
        return None
    except Problem as problem:
        return str(problem)
    finally:
        os.environ["PATH"] = before


def refusals(report):
    """Trees made up of what is looked for."""
    for name, (options, files, programs, wanted) in CASES.items():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder)
            for file in [*FILES, *files, "include/config/auto.conf"]:
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                (tree / file).touch()
            text = "".join(f"{key}={value}\n" for key, value in (OPTIONS | options).items())
            (tree / "include/config/auto.conf").write_text(text, encoding="ascii")
            found = said(tree, programs)
        right = found is None if wanted is None else wanted in (found or "")
        report.add("pass" if right else "fail", f"own-tree:{name}", time.monotonic() - start, f"it said {found}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = said(Path(folder), [])
    right = found and "not a configured kernel build tree" in found
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
