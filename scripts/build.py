# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Builds what the project ships: the kernel modules, for the test kernel or for a user's own tree, and the user-space
programs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kernel
import root
from host import BUILD, CACHE, CHECKOUT, Problem, Step, say

MODULES = {"avio_host": "rust/avio_host/avio_host.ko", "avio_stor": "guest/avio_stor/avio_stor.ko"}
# The programs that we ship.
PROGRAMS = ("avio-vmm", "avio-ctl", "gvsdmgr")
BIN = BUILD / "bin"
# What of a kernel's configuration the modules use, and how one comes by it.
NEEDED_OPTIONS = {
    "CONFIG_MODULES": "the modules are loaded",
    "CONFIG_BLOCK": "both modules stand on the block layer",
    "CONFIG_VHOST_TASK": "avio_host's workers need it; any vhost driver brings it, as CONFIG_VHOST_NET=m",
    "CONFIG_EVENTFD": "doorbells and interrupts are eventfds",
    "CONFIG_PCI_MSI": "avio_stor's adapter has MSI-X interrupts",
}
UDEV_RULES = CHECKOUT / "guest" / "60-avio.rules"


def module(name, flavour="normal"):
    """Where a built module is."""
    return BUILD / flavour / MODULES[name]


def make_modules(flavour, *arguments, output=None, env=None):
    """Run the module build against a flavour of the test kernel."""
    built = kernel.ensure(flavour)
    output = output or BUILD / flavour
    output.mkdir(parents=True, exist_ok=True)
    line = ["make", "-C", built.path, f"M={CHECKOUT}", f"MO={output}", "LLVM=1", "AVIO_TESTS=m", f"-j{os.cpu_count()}", *arguments]
    root.run(line, binds=built.binds, env=env)


def modules(flavour):
    """The modules for the test kernel."""
    kernel.ensure(flavour)
    with Step(f"Modules for the {flavour} test kernel, in {(BUILD / flavour).relative_to(CHECKOUT)}"):
        make_modules(flavour, "modules")


def own_tree(tree):
    """Check a user's kernel build tree; the make arguments that follow its compiler. Says all that is missing."""
    tree = Path(tree).resolve()
    auto = tree / "include" / "config" / "auto.conf"
    if not auto.is_file():
        raise Problem(f"KDIR={tree} is not a configured kernel build tree: it has no include/config/auto.conf")
    config = kernel.options([auto])
    if config.get("CONFIG_RUST") != "y":
        raise Problem(f"KDIR={tree} was configured without CONFIG_RUST=y; the modules are Rust and need it")
    programs, arguments = ["rustc", "bindgen", "gcc"], []
    if config.get("CONFIG_CC_IS_CLANG") == "y":
        suffix = clang_suffix(config)
        programs[2:] = [f"clang{suffix}", f"ld.lld{suffix}"]
        arguments.append(f"LLVM={suffix or 1}")
    missing = lacking(tree, config) + [f"{name} is not on the PATH" for name in programs if not shutil.which(name)]
    wanted = config.get("CONFIG_RUSTC_VERSION_TEXT", "").strip('"')
    if shutil.which("rustc"):
        found = subprocess.run(["rustc", "--version"], check=False, capture_output=True, text=True).stdout.strip()
        if wanted and found != wanted:
            missing.append(f"rustc on the PATH is '{found}'; this kernel was built with '{wanted}' and takes no other")
    if missing:
        raise Problem("the modules cannot be built for this kernel:\n  " + "\n  ".join(missing))
    return tree, arguments


def clang_suffix(config):
    """What follows the names of clang and its tools, as in clang-19: as $CC has it; else the number of the version that
    built the tree, if only that name has it."""
    named = re.search(r"-\d+$", os.environ.get("CC", ""))
    if named:
        return named.group()
    version = int(config.get("CONFIG_CLANG_VERSION", 0)) // 10000
    if not shutil.which(f"clang-{version}"):
        return ""
    if shutil.which("clang"):
        said = subprocess.run(["clang", "--version"], check=False, capture_output=True, text=True).stdout
        if re.search(rf"version {version}\.", said):
            return ""
    return f"-{version}"


def lacking(tree, config):
    """What a kernel build tree lacks, a line for each."""
    missing = [f"{name} is off; {why}" for name, why in NEEDED_OPTIONS.items() if config.get(name) != "y"]
    files = [f"rust/lib{crate}.rmeta" for crate in ("core", "ffi", "bindings", "pin_init", "kernel")]
    if config.get("CONFIG_RUST_INLINE_HELPERS") == "y":
        files.append("rust/helpers/helpers_module.bc")
    for name in files:
        if not (tree / name).is_file():
            missing.append(f"{tree}/{name} is missing: the tree needs what its own build of Rust left there")
    if not list((tree / "rust").glob("libmacros*.so")):
        missing.append(f"{tree}/rust/libmacros.so is missing: the tree needs the procedural macros of its build")
    return missing


def modules_for(tree):
    """The modules for a user's own kernel tree, with that tree's compiler from the user's own PATH."""
    tree, arguments = own_tree(tree)
    output = BUILD / "kdir"
    output.mkdir(parents=True, exist_ok=True)
    with Step(f"Modules for {tree}, in {output.relative_to(CHECKOUT)}"):
        line = ["make", "-C", str(tree), f"M={CHECKOUT}", f"MO={output}", f"-j{os.cpu_count()}", *arguments, "modules"]
        if subprocess.run(line, check=False).returncode:
            raise Problem(f"the module build for {tree} failed; see above")


def install(tree):
    """Install modules, programs and the guest's udev rules on this machine; what is compiled is made with its own
    compilers, as what the toolchain root makes may need a newer C library. DESTDIR and PREFIX as usual."""
    if not tree:
        raise Problem("say for which kernel: make install KDIR=/path/to/kernel/build (the test kernel is not installed)")
    if not shutil.which("cargo"):
        raise Problem("cargo is not on the PATH; the programs that are installed are built with this machine's own")
    modules_for(tree)
    with Step("Programs for this machine"):
        line = ["cargo", "build", "--release", "--locked", "--workspace", "--target-dir", str(BUILD / "install")]
        if subprocess.run(line, cwd=CHECKOUT / "userspace", check=False).returncode:
            raise Problem("the build of the programs failed; see above")
    tree, arguments = own_tree(tree)
    line = ["make", "-C", str(tree), f"M={CHECKOUT}", f"MO={BUILD / 'kdir'}", *arguments, "modules_install"]
    if os.environ.get("DESTDIR"):
        line.append(f"INSTALL_MOD_PATH={os.environ['DESTDIR']}")
    if subprocess.run(line, check=False).returncode:
        raise Problem("modules_install failed; see above")
    destination, prefix = os.environ.get("DESTDIR", ""), os.environ.get("PREFIX") or "/usr/local"
    install_rules(destination, prefix)
    prefix = Path(destination + prefix)
    programs, manuals = prefix / "bin", prefix / "share" / "man" / "man8"
    for folder in (programs, manuals):
        folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = BUILD / "install" / "release" / name
        shutil.copy2(program, programs)
        page = subprocess.run([program, "--man"], check=True, capture_output=True).stdout
        (manuals / f"{name}.8").write_bytes(page)
        say(f"installed {programs / name} and its manual page")


def install_rules(destination, prefix):
    """Install the udev rules for the disks that a guest sees."""
    # /usr/lib is for what comes with the system, as a package with the prefix /usr does, and /etc for the rest: below
    # another prefix not every udev looks.
    folder = Path(destination + ("/usr/lib" if Path(prefix) == Path("/usr") else "/etc")) / "udev" / "rules.d"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(UDEV_RULES, folder / UDEV_RULES.name)
    say(f"installed {folder / UDEV_RULES.name}: names for the disks in a guest")


def cargo_env(target="cargo-target", **more):
    """Environment for cargo in the root. CARGO_TARGET_DIR may name another folder, in the cache or in the checkout."""
    folder = Path(os.environ.get("CARGO_TARGET_DIR", CACHE)) / target
    claim(folder)
    return {"CARGO_TARGET_DIR": str(folder), "CARGO_TERM_COLOR": "never", **more}


def claim(folder):
    """Have cargo build the crates of this checkout, if it was another that has last used this target folder: it takes them
    for the same, and looks at the times of files alone. What comes from elsewhere is kept. Two checkouts that build at the
    same moment can still meet."""
    owner = folder / ".checkout"
    if owner.exists() and owner.read_text(encoding="utf-8") == str(CHECKOUT):
        return
    for manifest in (path for where in ("rust", "tests", "userspace") for path in (CHECKOUT / where).rglob("Cargo.toml")):
        for name in re.findall(r'^name = "(.+)"', manifest.read_text(encoding="utf-8"), re.MULTILINE):
            for fingerprint in folder.glob(f"*/.fingerprint/{name}-*"):
                shutil.rmtree(fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    owner.write_text(str(CHECKOUT), encoding="utf-8")


def programs(what, where, *arguments):
    """Build a cargo workspace and put its programs into build/bin."""
    root.ensure()
    BIN.mkdir(parents=True, exist_ok=True)
    with Step(f"{what}, in build/bin"):
        line = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics", *arguments]
        artefacts = root.output(line, cwd=CHECKOUT / where, env=cargo_env())
        found = [json.loads(text).get("executable") for text in artefacts.splitlines() if text.startswith("{")]
        for program in filter(None, found):
            fresh = BIN / f".{Path(program).name}"
            shutil.copy2(program, fresh)
            fresh.rename(BIN / Path(program).name)


def userspace():
    """The user-space programs."""
    programs("User-space programs", "userspace", "--workspace")


def hostile():
    """The driver that attacks the module, for the tests."""
    programs("The hostile driver", "tests/hostile")
