# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Checks that need no VM: formatting, clippy, documentation, and which panics a module can reach, manual
pages."""

import re
import subprocess

import build
import kernel
import root
from host import BUILD, CHECKOUT, Problem, Step, say

WORKSPACES = ("userspace", "tests/hostile", "tests/driver", "tests/fuzz")
# What runs in a kernel has the kernel's licence; the crates that run in user space too, both.
MODULES_LICENCE, LICENCE = "GPL-2.0", "GPL-2.0 OR Apache-2.0"
MODULES_FILES = ("Kbuild", "rust/crates.mk", "rust/avio_sys/", "rust/avio_host/", "rust/avio_lan_host/", "guest/avio_")
MODULES_FILES += ("tests/vm/emulated_svm/", "tests/vm/test_disk/")
# What others wrote has its own, and the inputs of fuzzers have no room for one.
WITHOUT_LICENCE = ("LICENSES/", "userspace/vendor/", "tests/fuzz/seeds/")
ALLOWED_PANICS = CHECKOUT / "scripts" / "panics.allowed"
PANIC = re.compile(r"panick|unwrap_failed|expect_failed|slice.*(fail|oob)|str::slice_error|rust_build_error|assert_failed")


def tracked(*patterns):
    """Files under version control, or about to be, that match."""
    line = ["git", "-C", str(CHECKOUT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in names if (CHECKOUT / name).is_file()]


def formatting():
    """rustfmt over every Rust file, by the kernel's rules for what runs in the kernel."""
    with Step("rustfmt: kernel code"):
        config = kernel.ensure("normal").tree / ".rustfmt.toml"
        files = tracked("rust/*.rs", "guest/*.rs")
        root.run(["rustfmt", "--check", "--config-path", config, *files], binds=kernel.ensure("normal").binds)
    with Step("rustfmt: user space"):
        files = tracked("userspace/*.rs", "tests/*.rs")
        root.run(["rustfmt", "--check", "--edition", "2021", *files])


def userspace():
    """Clippy over all cargo workspaces, and the documentation of what we ship."""
    for name in WORKSPACES:
        with Step(f"clippy: {name}"):
            line = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]
            root.run(line, cwd=CHECKOUT / name, env=build.cargo_env())
    with Step("cargo doc, warnings denied"):
        where = CHECKOUT / "userspace"
        line = ["cargo", "doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]
        root.run(line, cwd=where, env=build.cargo_env(RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links"))


def modules():
    """The modules once more with clippy; any warning fails."""
    with Step("clippy: modules"):
        build.make_modules("normal", "CLIPPY=1", "KRUSTFLAGS=-Dwarnings", "modules", output=BUILD / "clippy")


def panics():
    """Panicking symbols that a module links must be in the allowed list, for a Rust panic in the kernel is BUG()."""
    allowed = set()
    for line in ALLOWED_PANICS.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            allowed.add(line.strip())
    seen, extra = set(), []
    with Step("panicking symbols in the modules"):
        for name in build.MODULES:
            text = root.output(["llvm-nm", "-u", "-C", build.module(name)])
            for symbol in sorted({line.split(None, 1)[1] for line in text.splitlines() if PANIC.search(line)}):
                entry = f"{name} {symbol}"
                seen.add(entry)
                if entry not in allowed:
                    extra.append(entry)
        for entry in sorted(allowed - seen):
            say(f"  no longer needed in {ALLOWED_PANICS.name}: {entry}")
        if extra:
            raise Problem(
                "new ways to panic in a module; find the indexing, unwrap or arithmetic that brought them in:\n  "
                + "\n  ".join(extra)
            )


def manuals():
    """Each program that we ship writes a manual page, which groff takes without a word."""
    for name in build.PROGRAMS:
        with Step(f"manual page: {name}"):
            page = root.output([build.BIN / name, "--man"])
            if not page.startswith(".ie") and ".TH" not in page:
                raise Problem(f"{name} --man writes no manual page")
            said = root.output(["sh", "-c", 'printf "%s" "$1" | groff -Kutf8 -man -Tutf8 -ww 2>&1 >/dev/null', "sh", page]).strip()
            if said:
                raise Problem(f"the manual page of {name}: {said}")


def licences():
    """Every file of ours says its licence, and the right one."""
    with Step("SPDX lines"):
        wrong = []
        for name in tracked():
            if name.endswith(("Cargo.lock", ".json")) or name.startswith(WITHOUT_LICENCE):
                continue
            wanted = MODULES_LICENCE if name.startswith(MODULES_FILES) else LICENCE
            text = (CHECKOUT / name).read_text(encoding="utf-8", errors="replace")
            found = re.search(r"SPDX-License-Identifier: ([\w. -]*[\w.])", text)
            if not found or found[1] != wanted:
                wrong.append(f"{name}: {found[1] if found else 'none'}, should be {wanted}")
        if wrong:
            raise Problem("wrong SPDX-License-Identifier lines:\n  " + "\n  ".join(wrong))


def run():
    """All checks, each to its end; then what failed."""
    build.modules("normal")
    build.userspace()
    failed = []
    for check in (licences, formatting, userspace, modules, panics, manuals):
        try:
            check()
        except Problem as problem:
            say(f"{check.__name__}: {problem}")
            failed.append(check.__name__)
    if failed:
        raise Problem(f"failed checks: {', '.join(failed)}")
    say("all checks passed")
