# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""`make demo`: builds what is missing, boots the test machine, and shows a guest doing real disk I/O."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import build
import host
import initramfs
import vm
from host import CHECKOUT, minutes, say


def main():
    """Build, boot, show."""
    say("VMs run on {} ({})".format(*host.accelerator()))
    build.modules("normal")
    build.userspace()
    initrd = initramfs.make("demo", "normal")
    say("Booting the test machine …")

    def show(text):
        if text.startswith("DEMO "):
            say(text.removeprefix("DEMO "))

    line = ["/avio/tests/vm/demo.py", "/avio/" + str(initrd.relative_to(CHECKOUT))]
    result = vm.run(line, "demo", timeout=600, append=["kunit.autorun=0"], on_line=show)
    failure = result.failure()
    if failure:
        say(f"\nThe demo failed: {failure}. Everything that was said is in {result.log}")
        return 1
    say(f"\nThe demo took {minutes(result.seconds)}; everything that was said is in {result.log.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    host.main(main)
