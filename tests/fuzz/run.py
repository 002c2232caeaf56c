# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""`make fuzz`: libFuzzer on each target for a minute, or for as many seconds as FUZZ says. It starts from tests/fuzz/seeds
and from what earlier runs found; that, and an input that broke something, are in build/fuzz."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

import build
import host
import root
from host import BUILD, CHECKOUT, Problem, Step, say

HERE = CHECKOUT / "tests" / "fuzz"
TARGETS = ("ring", "request")
# By name, so that cargo keeps the flags below from build scripts.
TRIPLE = "x86_64-unknown-linux-gnu"
# What cargo-fuzz passes, without a sanitizer: what is tested here has no unsafe code, and breaks by a panic.
COVERAGE = """
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks
""".split()
# A legal request with the longest list has about 4300 bytes.
LONGEST = 4400


def programs():
    """Build the targets; the folder in which they are."""
    root.ensure()
    with Step("Fuzz targets"):
        env = build.cargo_env("cargo-target-fuzz", RUSTFLAGS=" ".join(COVERAGE))
        root.run(["cargo", "build", "--release", "--locked", "--target", TRIPLE], cwd=HERE, env=env)
    return Path(env["CARGO_TARGET_DIR"]) / TRIPLE / "release"


def fuzz(program, seconds):
    """Run one target; an input that breaks it is a Problem."""
    found = BUILD / "fuzz" / program.name
    (found / "corpus").mkdir(parents=True, exist_ok=True)
    log = found / "log"
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=60", "-print_final_stats=1"]
    line = [program, *limits, f"-artifact_prefix={found}/", found / "corpus", HERE / "seeds" / program.name]
    with Step(f"{program.name} for {seconds} s"):
        code = root.run(["sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "sh", log, *line], check=False)
    text = log.read_text(encoding="utf-8", errors="replace")
    if code:
        raise Problem(f"{program.name} broke; {log} names the input. To try it again: make shell, and there {program} INPUT")
    runs = next(line.split()[-1] for line in text.splitlines() if line.startswith("stat::number_of_executed_units"))
    say(f"  {runs} inputs, none broke it; {len(list((found / 'corpus').iterdir()))} are kept in {found / 'corpus'}")


def main():
    """All targets, one after the other."""
    seconds = os.environ.get("FUZZ") or "60"
    if not seconds.isdecimal() or int(seconds) == 0:
        raise Problem(f"FUZZ={seconds} is not a number of seconds, as in: make fuzz FUZZ=600")
    folder = programs()
    for name in TARGETS:
        fuzz(folder / name, int(seconds))


if __name__ == "__main__":
    host.main(main)
