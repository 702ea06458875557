"""``tools/fuzz``: the targets, one after the other, guided by coverage where that can be had."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.seeded import HERE, Found, run
from tests.fuzz.targets import TARGETS

CASES = HERE.parents[1] / ".fuzz"
"""Where inputs are kept that reach new code, and those that break something; not in git."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if an input broke a target."""
    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", metavar="TARGET", help="by default all")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    length.add_argument("--inputs", type=int, help="for each target, however long that takes")
    parser.add_argument("--seed", type=int, help="to have the same inputs again (by default new)")
    parser.add_argument("--random", action="store_true", help="by chance only, without atheris")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run one input, which broke it")
    parser.add_argument("--list", action="store_true", help="print the targets")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(TARGETS))
        return 0
    unknown = [name for name in options.target if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    if options.input is not None:
        if len(options.target) != 1:
            parser.error("--input wants one TARGET")
        TARGETS[options.target[0]](options.input.read_bytes())
        return 0
    guided = not options.random and importlib.util.find_spec("atheris") is not None
    seed = time.time_ns() % 1_000_000 if options.seed is None else options.seed
    print(f"seed {seed}, {'guided by atheris' if guided else 'by chance'}", flush=True)
    fuzz = with_atheris if guided else by_chance
    seconds = None if options.inputs is not None else options.seconds
    names = options.target or list(TARGETS)
    return max(fuzz(name, seconds, options.inputs, seed) for name in names)


def by_chance(name: str, seconds: float | None, inputs: int | None, seed: int) -> int:
    """Run a target on inputs made by chance, for so long or so many; returns 1 if one broke it."""
    began = time.process_time()
    try:
        count = run(name, TARGETS[name], seed=seed, seconds=seconds, most=inputs)
    except Found as found:
        file = CASES / name / f"crash-seed-{seed}-{found.number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(found.data)
        print(f"{found}\n  kept in {file}", flush=True)
        return 1
    print(f"{name}: {count} inputs, {time.process_time() - began:.0f} s of CPU", flush=True)
    return 0


def with_atheris(name: str, seconds: float | None, inputs: int | None, seed: int) -> int:
    """The same in a process of its own, with atheris."""
    folder = CASES / name / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = HERE / "dictionaries" / f"{name}.dict"
    words = [f"-dict={dictionary}"] if dictionary.is_file() else []
    command = [
        *(sys.executable, "-m", "tests.fuzz.guided", name, str(folder)),
        *(str(HERE / "corpus" / name), f"-seed={seed}"),
        f"-runs={inputs}" if seconds is None else f"-max_total_time={seconds:.0f}",
        *("-max_len=4096", "-timeout=30", "-rss_limit_mb=1024", "-print_final_stats=1"),
        *(f"-artifact_prefix={CASES / name}{os.sep}", *words),
    ]
    before = _cpu_of_children()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    (CASES / name / "log").write_text(said, "utf-8")
    count = next((w.split()[-1] for w in said.splitlines() if "number_of_executed" in w), "?")
    if not done.returncode:
        print(f"{name}: {count} inputs, {_cpu_of_children() - before:.0f} s of CPU", flush=True)
        return 0
    begin = said.find("=== Uncaught Python exception")
    print(f"{name}: broken; {CASES / name / 'log'} has it all", flush=True)
    print("\n".join(said[begin:].splitlines()[:40] if begin >= 0 else said.splitlines()[-30:]))
    return 1


def _cpu_of_children() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


if __name__ == "__main__":
    sys.exit(main())
