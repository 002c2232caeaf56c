# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The test kernel: its source, its configuration, its build, in two flavours. Everything lies in the cache under a key
of what went in: fragments, source, and the versions of the compilers."""

import functools
import json
import os
import shutil
from pathlib import Path

import root
from host import CACHE, CHECKOUT, Problem, Step, digest, lock, logged, say

SCRIPTS = CHECKOUT / "scripts"
FRAGMENTS = {
    "normal": [SCRIPTS / "kernel.config"],
    "debug": [SCRIPTS / "kernel.config", SCRIPTS / "kernel-debug.config"],
}
# How many build steps a kernel had on the machine of whoever last changed the fragments: only for the estimate of a
# first build. Later builds go by the cache's own record.
MEASURED_STEPS = SCRIPTS / "kernel-steps.json"
RECORDED_STEPS = CACHE / "kernel-steps.json"
# Count up when the steps below change in a way that the inputs do not show.
RECIPE = 1


def source():
    """The kernel's source tree, and an identity for it. KERNEL_SRC names a tree or tarball; else it is Debian's."""
    named = os.environ.get("KERNEL_SRC")
    if not named:
        name, version = root.source_package()
        tarball = root.path() / "usr" / "src" / f"{name}.tar.xz"
        return unpack(tarball, f"{name.removeprefix('linux-source-')}-{version}"), f"{name} {version}"
    named = Path(named).resolve()
    if named.is_file():
        stat = named.stat()
        identity = f"{named.name}-{digest(str(named), stat.st_size, stat.st_mtime_ns)}"
        return unpack(named, identity), identity
    if not (named / "Kbuild").is_file() or not (named / "rust" / "kernel").is_dir():
        raise Problem(f"KERNEL_SRC={named} is neither a kernel source tree nor a tarball of one")
    if (named / ".config").exists():
        raise Problem(f"KERNEL_SRC={named} was built in place; run `make mrproper` there, for the build goes elsewhere")
    state = commit_of(named) if (named / ".git").exists() else str((named / "Makefile").stat().st_mtime_ns)
    return named, f"{named} {state}"


def commit_of(tree):
    """The commit of a user's tree and whether it has changes."""
    line = ["git", "-c", "safe.directory=*", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=40"]
    return root.output(line, binds=[(tree, tree)]).strip()


def unpack(tarball, name):
    """Unpack a source tarball once."""
    folder = CACHE / f"linux-{name.replace('/', '_')}"
    if folder.is_dir():
        return folder
    with lock():
        if not folder.is_dir():
            extract(tarball, folder)
    return folder


def extract(tarball, folder):
    """Unpack a tarball into a .partial folder and rename that when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    root.remove(partial)
    with Step(f"Unpacking {tarball.name}") as step:
        partial.mkdir(parents=True)
        line = ["tar", "-C", str(partial), "--strip-components=1", "--no-same-owner", "-xf", str(tarball)]
        binds = [(tarball.parent, tarball.parent)]
        logged(root.command(line, binds=binds), CACHE / "logs" / "source.log", step.progress)
    if not (partial / "rust" / "kernel").is_dir():
        raise Problem(f"{tarball} holds no kernel source with Rust")
    partial.rename(folder)


def toolchain():
    """Versions of the programs that make the kernel."""
    lines = ["rustc --version", "clang --version | head -n1", "ld.lld --version", "bindgen --version"]
    return root.output(["sh", "-c", "; ".join(lines)]).splitlines()


def options(paths):
    """The options that fragments ask for, later ones over earlier ones."""
    found = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            line = line.strip()
            if line.startswith("CONFIG_"):
                name, value = line.split("=", 1)
                found[name] = value
    return found


class Kernel:
    """A flavour of the test kernel, with its place in the cache."""

    def __init__(self, flavour):
        self.flavour = flavour
        self.tree, self.identity = source()
        self.wanted = options(FRAGMENTS[flavour])
        self.tools = toolchain()
        key = digest(RECIPE, self.identity, self.wanted, self.tools)
        self.path = CACHE / f"kernel-{flavour}-{key}"
        self.log = CACHE / "logs" / f"{self.path.name}.log"

    @property
    def image(self):
        """The bootable kernel."""
        return self.path / "arch" / "x86" / "boot" / "bzImage"

    @property
    def modules(self):
        """The folder to give modprobe with -d."""
        return self.path / "installed"

    @property
    def is_users(self):
        """Whether the tree is one that somebody may work on."""
        return not self.tree.is_relative_to(CACHE)

    @property
    def binds(self):
        """What a command in the root must see beside checkout and cache."""
        return [(self.tree, self.tree)] if self.is_users else []

    def make(self, folder, *arguments, tick=None):
        """Run the kernel's make with its output in the log."""
        line = ["make", "-C", str(self.tree), f"O={folder}", "LLVM=1", f"-j{os.cpu_count()}", *arguments]
        logged(root.command(line, binds=self.binds), self.log, tick)

    @property
    def complete(self):
        """The mark of a finished build."""
        return self.path / ".complete"

    def build(self):
        """Configure, check, compile. A second run goes on where one stopped. The build happens where it stays, for it
        remembers its own path; a mark says that it is complete."""
        self.path.mkdir(parents=True, exist_ok=True)
        say(f"Making the {self.flavour} test kernel from {self.identity} in {self.path}")
        if not (self.path / ".configured").exists():
            with Step(f"Test kernel ({self.flavour}): configuration"):
                merged = self.path / "avio.config"
                merged.write_text("".join(f"{k}={v}\n" for k, v in self.wanted.items()), encoding="utf-8")
                self.make(self.path, "allnoconfig", f"KCONFIG_ALLCONFIG={merged}")
                self.check_config(self.path)
                (self.path / ".configured").touch()
        with Step(f"Test kernel ({self.flavour}): compiling") as step:
            expected = expected_steps(self.flavour)
            done = functools.partial(finished_steps, self.path)
            tick = lambda: step.progress(done, expected, "build steps")
            self.make(self.path, "bzImage", "modules", tick=tick)
        record_steps(self.flavour, finished_steps(self.path))
        with Step(f"Test kernel ({self.flavour}): installing its modules"):
            shutil.rmtree(self.path / "installed", ignore_errors=True)
            self.make(self.path, "modules_install", f"INSTALL_MOD_PATH={self.path / 'installed'}")
        self.complete.touch()

    def check_config(self, folder):
        """Every option that was asked for must have taken effect."""
        have = options([folder / ".config"])
        lost = [f"  {k}: wanted {v}, got {have.get(k, 'n')}" for k, v in self.wanted.items() if have.get(k, "n") != v]
        if lost:
            raise Problem(
                "these options did not take effect; a dependency is missing from scripts/kernel*.config:\n"
                + "\n".join(lost)
            )


@functools.cache
def ensure(flavour):
    """The finished kernel of a flavour; made first, with all it needs, if it is not there. That of a user's own tree is
    brought up to date."""
    root.ensure()
    kernel = Kernel(flavour)
    if kernel.is_users or not kernel.complete.exists():
        with lock():
            if kernel.is_users or not kernel.complete.exists():
                kernel.build()
    return kernel


def finished_steps(folder):
    """How many build steps have left their mark: kbuild writes a .cmd file after each."""
    return sum(name.endswith(".cmd") for _, _, names in os.walk(folder) for name in names)


def expected_steps(flavour):
    """How many steps the last build of this flavour had: here, or else where the fragments were last changed."""
    for file in (RECORDED_STEPS, MEASURED_STEPS):
        if file.exists():
            count = json.loads(file.read_text(encoding="utf-8")).get(flavour)
            if count:
                return count
    return 0


def record_steps(flavour, count):
    """Keep the number of steps of a complete build for the next estimate."""
    record = json.loads(RECORDED_STEPS.read_text(encoding="utf-8")) if RECORDED_STEPS.exists() else {}
    record[flavour] = count
    RECORDED_STEPS.write_text(json.dumps(record) + "\n", encoding="utf-8")
