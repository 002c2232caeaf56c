# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The toolchain root: a Debian trixie tree in the cache in which everything is built and every VM is started, so that
compilers, bindgen and QEMU are the same on every machine.

A command in it runs in a mount namespace of its own (as an ordinary user: in a user namespace too), so that none of
its mounts is seen outside. The checkout and the cache are at the same paths as outside, and the checkout also at
/avio, which a VM sees even where its own /tmp would hide the path."""

import os
import shlex
import subprocess
from pathlib import Path

from host import CACHE, CHECKOUT, IS_ROOT, Problem, Step, digest, ensure_packages, lock, logged, say

SUITE = "trixie"
# Count up when the steps below change in a way that the package lists do not show.
RECIPE = 1
# The newest kernel source that Debian has backported is asked for by series, for its point releases come and go.
KERNEL_SERIES = "7.3"

PACKAGES = """
    rustc rust-src rust-clippy rustfmt cargo bindgen clang lld llvm libclang-dev gcc libc6-dev
    make flex bison bc cpio kmod pahole libelf-dev libssl-dev perl python3 rsync git xz-utils file ca-certificates
    qemu-system-x86 virtme-ng udev procps iproute2 sudo
    fio busybox-static kexec-tools e2fsprogs fdisk parted dmsetup lvm2 nvme-cli sg3-utils linux-perf groff-base
""".split()

# Runs as root of the namespace: $1 is the root, $2 the working directory, then pairs of bind mounts up to `--`, then
# the command.
ENTER = r"""
set -e
PATH=$PATH:/usr/sbin:/sbin
R=$1; D=$2; shift 2
mount --bind "$R" "$R"
mount -t proc proc "$R/proc" 2>/dev/null || mount --rbind /proc "$R/proc"
mount --rbind /sys "$R/sys"
mount --rbind /dev "$R/dev"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
if [ -e /etc/resolv.conf ]; then
    # Others may be using the root.
    [ -f "$R/etc/resolv.conf" ] && [ ! -L "$R/etc/resolv.conf" ] || { rm -f "$R/etc/resolv.conf"; : > "$R/etc/resolv.conf"; }
    mount --bind "$(readlink -f /etc/resolv.conf)" "$R/etc/resolv.conf"
fi
# The machine may trust more than Debian does, as behind a proxy; then so must cargo in the root.
if [ -e /etc/ssl/certs/ca-certificates.crt ] && [ -e "$R/etc/ssl/certs/ca-certificates.crt" ]; then
    mount --bind "$(readlink -f /etc/ssl/certs/ca-certificates.crt)" "$R/etc/ssl/certs/ca-certificates.crt"
fi
while [ "$1" != -- ]; do
    [ -e "$R$2" ] || mkdir -p "$R$2"
    mount --bind "$1" "$R$2"; shift 2
done
shift
exec chroot "$R" /usr/bin/env -C "$D" "$@"
"""

# What a VM that lives on this root needs: a poweroff; udev only to name the virtio ports, for its probing of disks
# slows the boot and holds devices open behind a test's back.
FOR_VMS = r"""
ln -sf ../bin/busybox /usr/sbin/poweroff
mkdir -p /etc/lvm /etc/udev/rules.d
cd /usr/lib/udev/rules.d
for rule in *.rules; do
    [ $rule = 50-udev-default.rules ] || ln -sf /dev/null /etc/udev/rules.d/$rule
done
"""

# What a root that the user names must have; the rest is asked for where it is needed.
PROGRAMS = "rustc cargo rustfmt bindgen clang ld.lld llvm-nm make flex bison bc perl pahole python3 vng qemu-system-x86_64 fio".split()

PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "TERM", "CLIPPY")


def key():
    """What the root is made of, as a key."""
    return digest(SUITE, RECIPE, KERNEL_SERIES, sorted(PACKAGES))


def path():
    """Where the finished root is: the one that AVIO_ROOT names, or ours."""
    named = os.environ.get("AVIO_ROOT")
    return Path(named).resolve() if named else CACHE / f"root-{key()}"


def check_named(tree):
    """See that the root that the user named has what it takes."""
    missing = [name for name in PROGRAMS if not any((tree / "usr" / folder / name).exists() for folder in ("bin", "sbin"))]
    if missing:
        raise Problem(f"AVIO_ROOT={tree} is not a root with the toolchain: in its /usr/bin it lacks {', '.join(missing)}")


def namespace():
    """The command that starts a namespace in which we may mount. All in it dies with us, even by SIGKILL."""
    line = ["setpriv", "--pdeathsig", "KILL", "unshare"]
    line += [] if IS_ROOT else ["--user", "--map-auto", "--map-root-user"]
    return [*line, "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]


def command(line, root=None, cwd=CHECKOUT, binds=(), env=None):
    """The host's command line for `line` in the root. `binds` are (outside, inside) folders."""
    pairs = [(CACHE, CACHE), (CHECKOUT, CHECKOUT), (CHECKOUT, "/avio"), *binds]
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "CARGO_HOME": str(CACHE / "cargo-home"),
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **(env or {}),
    }
    settings = [f"{name}={value}" for name, value in variables.items()]
    mounts = [str(part) for pair in pairs for part in pair]
    inside = ["-i", *settings, *map(str, line)]
    return [*namespace(), "--", "sh", "-c", ENTER, "sh", str(root or path()), str(cwd), *mounts, "--", *inside]


def run(line, check=True, **kwargs):
    """Run a command in the root with our own stdin and stdout; its exit code."""
    code = subprocess.run(command(line, **kwargs), check=False).returncode
    if check and code:
        raise Problem(f"failed in the toolchain root with exit code {code}: {shlex.join(map(str, line))}")
    return code


def output(line, **kwargs):
    """What a command in the root prints."""
    result = subprocess.run(command(line, **kwargs), check=False, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise Problem(f"failed in the toolchain root: {shlex.join(map(str, line))}")
    return result.stdout


def check_namespaces():
    """See that namespaces are open to us, and if not say what would open them."""
    probe = subprocess.run([*namespace(), "true"], check=False, capture_output=True, text=True)
    if probe.returncode == 0:
        return
    if IS_ROOT:
        raise Problem(f"cannot make a mount namespace ({probe.stderr.strip()}); in a container, it needs CAP_SYS_ADMIN")
    raise Problem(
        f"cannot make a user namespace ({probe.stderr.strip()}). It needs util-linux 2.38 or newer, a range for you in "
        "/etc/subuid and /etc/subgid, and on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0. "
        "Or run as root."
    )


def ensure():
    """The finished root; made first if it is not there."""
    if os.environ.get("AVIO_ROOT"):
        check_named(path())
        return path()
    if path().is_dir():
        return path()
    ensure_packages()
    check_namespaces()
    with lock():
        if not path().is_dir():
            build()
    return path()


def build():
    """Make the root in a .partial folder and rename it when it is complete. A second run goes on where one stopped."""
    partial = path().with_suffix(".partial")
    log = CACHE / "logs" / f"{path().name}.log"
    say(f"Making the toolchain root {path()}")
    if not (partial / ".avio" / "base").exists():
        remove(partial)
        with Step(f"Toolchain root: Debian {SUITE} base") as step:
            partial.mkdir(parents=True)
            bootstrap(partial, log, step)
            mark(partial, "base")
    if not (partial / ".avio" / "packages").exists():
        with Step("Toolchain root: fetching packages") as step:
            # A run that was stopped while it installed left packages half done, which apt does not touch.
            logged(command(["dpkg", "--configure", "-a"], root=partial, cwd="/"), log)
            add_backports(partial, log)
            apt(partial, log, step, "update")
            apt(partial, log, step, "install", "--download-only", *PACKAGES)
        with Step("Toolchain root: installing packages") as step:
            apt(partial, log, step, "install", *PACKAGES)
            mark(partial, "packages")
    with Step("Toolchain root: kernel source package") as step:
        install_source(partial, log, step)
    logged(command(["sh", "-ec", FOR_VMS], root=partial, cwd="/"), log)
    partial.rename(path())


def mark(root, step):
    """Note inside the root that a step is complete."""
    inside = f"mkdir -p /.avio && touch /.avio/{step}"
    logged(command(["sh", "-c", inside], root=root, cwd="/"), CACHE / "logs" / "steps.log")


def remove(folder):
    """Delete a folder of the cache, also one that holds other users' files by way of a user namespace."""
    if folder.exists():
        subprocess.run([*namespace(), "rm", "-rf", "--one-file-system", str(folder)], check=True)


def bootstrap(partial, log, step):
    """The base system, from the tool's default mirror."""
    # An apt that is not Debian's own does not know Debian's keys; and what this machine trusts beside them stays so.
    keys = ["--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", "--keyring=/etc/apt/trusted.gpg.d"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    line = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", *keys, SUITE, str(partial)]
    logged([*namespace(), "--", *line], log, step.progress, env=env)


def apt(partial, log, step, *arguments):
    """Run apt-get in the root; its own status lines tell how far it is."""
    env = {"DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1"}
    start = log.stat().st_size

    def tick():
        with open(log, "rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
        # dlstatus:n:percent:text while it fetches, pmstatus:package:percent:text while it installs.
        for line in reversed(lines):
            part = line.split(":")
            if len(part) > 3 and part[0] in ("dlstatus", "pmstatus"):
                return step.progress(int(float(part[2])), 100)

    line = ["apt-get", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "APT::Status-Fd=3"]
    line += ["-o", "Dpkg::Options::=--force-unsafe-io", *arguments]
    logged(command(["sh", "-c", 'exec "$@" 3>&1', "sh", *line], root=partial, cwd="/", env=env), log, tick)


def add_backports(partial, log):
    """The backports line is the root's own main line with another suite."""
    target = "/etc/apt/sources.list.d/backports.list"
    mirror = (
        "cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | "
        rf"sed -n -e 's/^deb \(\[.*\] \)\?\([^ ]*\) {SUITE} .*/\2/p' -e 's/^URIs: *\([^ ]*\).*/\1/p' | head -n1"
    )
    derive = f'mirror=$({mirror}); test -n "$mirror"; echo "deb $mirror {SUITE}-backports main" > {target}'
    logged(command(["sh", "-ec", derive], root=partial, cwd="/"), log)


def install_source(partial, log, step):
    """The kernel's source: the series asked for, or the newest of the same major version that is left."""
    names = output(["apt-cache", "pkgnames", "linux-source-"], root=partial, cwd="/").split()
    wanted = f"linux-source-{KERNEL_SERIES}"
    if wanted not in names:
        major = KERNEL_SERIES.split(".", maxsplit=1)[0]
        others = [n for n in names if n.startswith(f"linux-source-{major}.")]
        if not others:
            raise Problem(f"Debian {SUITE}-backports has no {wanted}; name a source with KERNEL_SRC=/path")
        newest = max(others, key=lambda n: int(n.rsplit(".", 1)[1]))
        say(f"  {wanted} is gone from Debian; taking {newest}")
        wanted = newest
    apt(partial, log, step, "install", wanted)
    record = f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {wanted} > /.avio/source; apt-get clean"
    logged(command(["sh", "-ec", record], root=partial, cwd="/"), log)


def source_package():
    """Name and exact version of the kernel source package in the root."""
    record = path() / ".avio" / "source"
    if not record.is_file():
        raise Problem(f"{path()} brings no kernel source; name one with KERNEL_SRC=/path")
    name, version = record.read_text(encoding="utf-8").split()
    return name, version
