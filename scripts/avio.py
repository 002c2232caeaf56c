# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What the Makefile's targets call, one command each."""

import os
import shutil
import sys

import build
import check
import host
import kernel
import root
from host import BUILD, Problem, say


def setup(*flavours):
    """The toolchain root and the test kernel (or the flavours named)."""
    say("Accelerator for VMs: {} ({})".format(*host.accelerator()))
    say(f"Toolchain root: {root.ensure()}")
    for flavour in flavours or ("normal",):
        say(f"Test kernel ({flavour}): {kernel.ensure(flavour).path}")


def modules(*flavours):
    """The modules: for KDIR if it is set, else for the test kernel."""
    if os.environ.get("KDIR"):
        return build.modules_for(os.environ["KDIR"])
    for flavour in flavours or ("normal",):
        build.modules(flavour)


def everything():
    """Modules and programs."""
    modules()
    build.userspace()


def run(*line):
    """A command in the toolchain root; a shell if none is named."""
    root.ensure()
    return root.run(line or ("bash",), check=False)


def clean():
    """Throw away what was built in the checkout; the cache stays."""
    shutil.rmtree(BUILD, ignore_errors=True)
    say(f"removed {BUILD}; roots and kernels stay in {host.CACHE}")


def purge():
    """Throw away the cache too."""
    clean()
    if host.CACHE.exists():
        root.remove(host.CACHE)
        say(f"removed {host.CACHE}")


COMMANDS = {
    "setup": setup,
    "all": everything,
    "modules": modules,
    "userspace": build.userspace,
    "check": check.run,
    "install": lambda: build.install(os.environ.get("KDIR")),
    "run": run,
    "clean": clean,
    "purge": purge,
}


def main():
    """The command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        raise Problem(f"say what to do: {', '.join(COMMANDS)}")
    return COMMANDS[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    host.main(main)
