# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Tests of the set-up, with fakes for all that takes long: what it does, what it does again after a failure, and what it
says when it cannot."""

import contextlib
import io
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import host
import kernel
import root
from host import Problem


class Steps:
    """Fakes of slow steps: notes which were called in each run, and has one of them fail in the first run."""

    def __init__(self, breaks):
        self.breaks, self.runs = breaks, []

    def step(self, name, effect=lambda: None):
        """A step is taken: its effect, or the failure."""
        self.runs[-1].append(name)
        if name == self.breaks and len(self.runs) == 1:
            raise Problem(f"{name} fails")
        effect()

    def run(self, function):
        """Run what takes the steps; what it said when it failed, or None."""
        self.runs.append([])
        try:
            function()
            return None
        except Problem as problem:
            return str(problem)

    def resumes(self, function, order, begin):
        """The first run goes as far as the step that fails, the second from step `begin` to the end."""
        equal(self.run(function), f"{self.breaks} fails", "what the first run said")
        equal(self.run(function), None, "what the second run said")
        equal(self.runs, [order[: order.index(self.breaks) + 1], order[order.index(begin) :]], "the steps of both runs")


def equal(found, wanted, what):
    """Fail unless both are the same."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def problem_of(function, *arguments):
    """What a function says when it fails."""
    try:
        function(*arguments)
    except Problem as problem:
        return str(problem)
    raise AssertionError("it did not fail")


def has(text, *words):
    """Fail unless all the words are in the text."""
    for word in words:
        if word not in text:
            raise AssertionError(f"'{word}' is not in: {text}")


def settings(**variables):
    """The environment with these variables, and without ours where they are None."""
    kept = {name: value for name, value in os.environ.items() if name not in variables}
    return patch.dict(os.environ, kept | {name: value for name, value in variables.items() if value is not None}, clear=True)


@contextlib.contextmanager
def cache():
    """An empty cache in place of ours."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
        place = Path(folder)
        for module in (host, root, kernel):
            patches.enter_context(patch.object(module, "CACHE", place))
        patches.enter_context(patch.object(kernel, "RECORDED_STEPS", place / "kernel-steps.json"))
        patches.enter_context(patch.object(root, "remove", lambda tree: shutil.rmtree(tree, ignore_errors=True)))
        patches.enter_context(settings(AVIO_ROOT=None, KERNEL_SRC=None))
        yield place


ROOT_STEPS = ["bootstrap", "mark base", "dpkg", "backports", "apt update", "apt download", "apt install"]
ROOT_STEPS += ["mark packages", "source", "for VMs"]
ROOT_STAGES = {"bootstrap": ROOT_STEPS[:2], "dpkg": ROOT_STEPS[2:8], "source": ROOT_STEPS[8:]}


def root_resumes(breaks, begin):
    """The toolchain root, one step of which fails: the second run begins with that stage, and nothing of a base that was
    never complete is left."""

    def bootstrap(partial, *_):
        (partial / f"base of run {len(steps.runs)}").touch()
        steps.step("bootstrap")

    def mark(partial, name):
        steps.step(f"mark {name}", lambda: ((partial / ".avio").mkdir(exist_ok=True), (partial / ".avio" / name).touch()))

    def apt(_partial, _log, _step, *words):
        steps.step("apt download" if "--download-only" in words else f"apt {words[0]}")

    def logged(line, *_):
        steps.step("dpkg" if line[0] == "dpkg" else "for VMs")

    steps = Steps(breaks)
    fakes = {"bootstrap": bootstrap, "mark": mark, "apt": apt, "logged": logged, "command": lambda line, **_: line}
    fakes |= {"add_backports": lambda *_: steps.step("backports"), "install_source": lambda *_: steps.step("source")}
    with cache() as place, patch.multiple(root, **fakes):
        steps.resumes(root.build, ROOT_STEPS, begin)
        equal([path.name for path in place.iterdir()], [f"root-{root.key()}"], "what is in the cache")
        base = 2 if begin == "bootstrap" else 1
        equal([path.name for path in root.path().glob("base*")], [f"base of run {base}"], "the base")


KERNEL_STEPS = ["allnoconfig", "bzImage", "modules_install"]


def a_kernel(place, make):
    """A kernel of which two options are asked for, with such a `make`."""
    made = object.__new__(kernel.Kernel)
    made.flavour, made.tree, made.identity, made.tools = "normal", place / "tree", "a source", []
    made.wanted = {"CONFIG_A": "y", "CONFIG_B": '"text"'}
    made.path, made.log = place / "kernel", place / "log"
    made.make = make
    return made


def kernel_resumes(breaks, begin):
    """The test kernel, one step of which fails: what was configured stays so, and only the whole has the mark."""

    def make(folder, target, *_, tick=None):
        equal(made.complete.exists(), False, "whether a kernel that is being made is complete")
        steps.step(target, lambda: shutil.copy(folder / "avio.config", folder / ".config"))
        if tick:
            tick()

    steps = Steps(breaks)
    with cache() as place:
        made = a_kernel(place, make)
        steps.resumes(made.build, KERNEL_STEPS, begin)
        equal(made.complete.exists(), True, "whether the kernel is complete")


def kernel_loses_an_option():
    """An option that did not take effect is named, and the kernel is configured again the next time."""

    def make(folder, target, *_, tick=None):
        steps.step(target, lambda: (folder / ".config").write_text("CONFIG_A=y\n", encoding="ascii"))

    steps = Steps(None)
    with cache() as place:
        made = a_kernel(place, make)
        for _ in range(2):
            said = steps.run(made.build) or "nothing"
            has(said, 'CONFIG_B: wanted "text", got n')
            equal("CONFIG_A" in said, False, "whether the other option is named")
        equal(steps.runs, [["allnoconfig"], ["allnoconfig"]], "the steps of both runs")


def extract_resumes():
    """A tarball of which only a part was unpacked is unpacked again, and the whole is renamed."""

    def logged(*_):
        (folder.with_name("linux.partial") / f"file of run {len(steps.runs)}").touch()
        steps.step("tar", lambda: (folder.with_name("linux.partial") / "rust" / "kernel").mkdir(parents=True))

    steps = Steps("tar")
    with cache() as place, patch.multiple(kernel, logged=logged):
        folder = place / "linux"
        steps.resumes(lambda: kernel.extract(Path("/a/linux.tar.xz"), folder), ["tar"], "tar")
        equal(sorted(path.name for path in place.rglob("*")), ["file of run 2", "kernel", "linux", "rust"], "what is in the cache")


def extract_refuses():
    """A tarball of something else is no kernel's."""
    with cache() as place, patch.multiple(kernel, logged=lambda *_: None):
        has(problem_of(kernel.extract, Path("/a/other.tar"), place / "linux"), "/a/other.tar holds no kernel source with Rust")
        equal((place / "linux").exists(), False, "whether there is a source tree")


def packages_named():
    """Whoever is not root, or has no apt, is told in one line what to install, and nothing is tried."""
    calls = []
    for is_root, apt, packages in ((False, "/bin/apt-get", ["mmdebstrap", "uidmap"]), (True, None, ["mmdebstrap"])):
        which = lambda name, apt=apt, **_: apt if name == "apt-get" else None
        with patch.multiple(host, IS_ROOT=is_root, logged=lambda *words, **_: calls.append(words)), settings(PATH=""):
            with patch.object(host.shutil, "which", which):
                said = problem_of(host.ensure_packages)
        has(said, "As root: apt-get install ", *packages)
        equal(len(said.splitlines()), 1, "number of lines")
    equal(calls, [], "what was run")


def packages_installed():
    """Root has what is missing installed, and only that."""
    which = lambda name, **_: None if name == "absent" else f"/bin/{name}"
    calls = []
    with cache(), patch.object(host, "IS_ROOT", True), patch.object(host.shutil, "which", which):
        with patch.object(host, "logged", lambda line, *_, **__: calls.append(line)):
            host.ensure_packages({"absent": "one", "present": "two", "/no/such/file": "three"})
    equal([line[:2] for line in calls], [["apt-get", "update"], ["apt-get", "install"]], "the commands")
    equal(calls[1][-2:], ["one", "three"], "the packages")
    equal("two" in calls[1], False, "whether a package that is there was asked for")


# AVIO_ACCEL, the processor's flags, whether there is /dev/kvm, the modules' `nested`; the accelerator, a word of the reason.
VMX, SVM = {"kvm_intel": "Y", "kvm_amd": "0"}, {"kvm_intel": "N", "kvm_amd": "1"}
ACCELERATORS = {
    "kvm-by-order": ("kvm", "fpu", False, {}, "kvm", "AVIO_ACCEL"),
    "tcg-by-order": ("tcg", "fpu svm", True, SVM, "tcg", "AVIO_ACCEL"),
    "svm": (None, "fpu svm", True, SVM, "kvm", "svm"),
    "vmx": (None, "fpu vmx", True, VMX, "kvm", "vmx"),
    "neither": (None, "fpu", True, SVM, "tcg", "neither vmx nor svm"),
    "no-device": (None, "fpu svm", False, SVM, "tcg", "/dev/kvm is missing"),
    "svm-not-nested": (None, "fpu svm", True, VMX, "tcg", "loading kvm_amd with nested=1"),
    "vmx-not-nested": (None, "fpu vmx", True, SVM, "tcg", "loading kvm_intel with nested=1"),
    "module-is-silent": (None, "fpu svm", True, {}, "tcg", "kvm_amd"),
}


def accelerator(forced, flags, device, nested, wanted, reason):
    """Which accelerator a machine has."""
    with tempfile.TemporaryDirectory() as folder, settings(AVIO_ACCEL=forced):
        cpuinfo, kvm, modules = (Path(folder) / name for name in ("cpuinfo", "kvm", "modules"))
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n", encoding="ascii")
        if device:
            kvm.touch()
        for name, value in nested.items():
            (modules / name / "parameters").mkdir(parents=True)
            (modules / name / "parameters" / "nested").write_text(f"{value}\n", encoding="ascii")
        with patch.multiple(host, CPUINFO=cpuinfo, KVM=kvm, KERNEL_MODULES=modules):
            found, why = host.accelerator()
    equal(found, wanted, f"the accelerator, because: {why}")
    has(why, reason)


def accelerator_refused():
    """AVIO_ACCEL has two values."""
    with settings(AVIO_ACCEL="xen"):
        has(problem_of(host.accelerator), "'xen'", "kvm or tcg")


def a_tree(place):
    """What looks like a kernel source tree."""
    (place / "rust" / "kernel").mkdir(parents=True)
    for name in ("Kbuild", "Makefile"):
        (place / name).touch()
    return place


def source_named():
    """KERNEL_SRC names a tree or a tarball; which version it is comes from git, or the times of files."""
    with cache() as place:
        tree, tarball = a_tree(place / "tree"), place / "linux.tar"
        tarball.touch()
        with settings(KERNEL_SRC=str(tree)):
            os.utime(tree / "Makefile", ns=(0, 1234))
            equal(kernel.source(), (tree, f"{tree} 1234"), "a tree and its identity")
            (tree / ".git").mkdir()
            with patch.object(root, "output", lambda *_, **__: "abcd-dirty\n"):
                equal(kernel.source(), (tree, f"{tree} abcd-dirty"), "a tree with git and its identity")
            (tree / ".config").touch()
            has(problem_of(kernel.source), str(tree), "make mrproper")
        with settings(KERNEL_SRC=str(tarball)), patch.object(kernel, "unpack", lambda *words: words):
            (found, name), identity = kernel.source()
            equal((found, name), (tarball, identity), "what was unpacked, and as what")
            has(identity, "linux.tar-")
        for other in (place, place / "nothing"):
            with settings(KERNEL_SRC=str(other)):
                has(problem_of(kernel.source), f"KERNEL_SRC={other} is neither a kernel source tree nor a tarball")


def source_of_the_root():
    """Without KERNEL_SRC it is Debian's, if the root brings one."""
    with cache(), patch.object(kernel, "unpack", lambda *words: words):
        has(problem_of(kernel.source), "KERNEL_SRC=/path")
        (root.path() / ".avio").mkdir(parents=True)
        (root.path() / ".avio" / "source").write_text("linux-source-7.3 7.3.4-1\n", encoding="ascii")
        tarball = root.path() / "usr/src/linux-source-7.3.tar.xz"
        equal(kernel.source(), ((tarball, "7.3-7.3.4-1"), "linux-source-7.3 7.3.4-1"), "Debian's source")


def progress():
    """How far a step is comes each quarter of a minute, with what is left at this pace, and is counted only then."""
    clock, counted, out = SimpleNamespace(now=100.0), [], io.StringIO()

    def count():
        counted.append(clock.now)
        return 10 * int(clock.now - 100)

    with patch.object(host, "time", SimpleNamespace(monotonic=lambda: clock.now)), contextlib.redirect_stdout(out):
        with host.Step("Work") as step:
            for _ in range(32):
                step.progress(count, 1000, "parts")
                clock.now += 1
        with host.Step("Wait") as step:
            for _ in range(20):
                step.progress()
                clock.now += 1
    lines = out.getvalue().splitlines()
    wanted = ["Work …", "  Work: 15.0 s, 15 % (150 of about 1000 parts), about 1 min 25 s left"]
    wanted += ["  Work: 30.0 s, 30 % (300 of about 1000 parts), about 1 min 10 s left", "Work: done in 32.0 s"]
    equal(lines[:4], wanted, "the lines of a step with numbers")
    equal(lines[5], "  Wait: 15.0 s so far", "the line of a step without")
    equal(counted, [100, 115, 130], "when it was counted")


def cases():
    """All cases: their names, functions, and what these take."""
    for begin, stage in ROOT_STAGES.items():
        for breaks in stage:
            yield f"root-resumes-after-{breaks}", root_resumes, (breaks, begin)
    for breaks, begin in zip(KERNEL_STEPS, ("allnoconfig", "bzImage", "bzImage")):
        yield f"kernel-resumes-after-{breaks}", kernel_resumes, (breaks, begin)
    for name, arguments in ACCELERATORS.items():
        yield f"accelerator-{name}", accelerator, arguments
    for function in (kernel_loses_an_option, extract_resumes, extract_refuses, packages_named, packages_installed):
        yield function.__name__, function, ()
    for function in (accelerator_refused, source_named, source_of_the_root, progress):
        yield function.__name__, function, ()


def clauses(report):
    """Run them all."""
    for name, function, arguments in cases():
        start, failure = time.monotonic(), None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                function(*arguments)
        except Exception as error:  # a case may fail in any way; the others go on
            failure = f"{type(error).__name__}: {error}"
        name = name.replace("_", "-").replace(" ", "-")
        report.add("fail" if failure else "pass", f"setup:{name}", time.monotonic() - start, failure or "")
