"""``tools/mutate``: changes the code in small ways, and counts which changes the unit tests notice.

    tools/mutate record              which lines does each unit test run? (some minutes)
    tools/mutate record tests/unit/test_t1.py   the same for new tests only
    tools/mutate                     500 mutants of the modules that must be tested best
    tools/mutate ccid/iso7816/t1.py  mutants of these modules only
    tools/mutate --survivors         those again that survived, after a test was written

The results are in .mutation, and a mutant that was judged is not judged again as long as its
module stays as it is."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.mutation import forks
from tests.mutation.forks import Outcome, Verdict
from tests.mutation.judges import Judges, record
from tests.mutation.mutants import ROOT, SUBJECTS, Mutant, sample

PLACE = Path(os.environ.get("CCID_MUTATION", ROOT / ".mutation"))
RESULTS = PLACE / "results.jsonl"

Key = tuple[str, int, str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if fewer mutants were killed than wanted."""
    parser = argparse.ArgumentParser(
        prog="tools/mutate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("module", nargs="*", help="record, or modules as ccid/iso7816/t1.py")
    parser.add_argument("--count", type=int, default=500, help="so many mutants (500)")
    parser.add_argument("--seed", type=int, default=1, help="which of them (1)")
    parser.add_argument("--jobs", type=int, default=1, help="so many at the same time (1)")
    parser.add_argument(
        "--only",
        default="*",
        metavar="PATTERN",
        help="only those of the sample that are in such modules",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="judge N now, the others later")
    parser.add_argument("--survivors", action="store_true", help="judge the survivors again")
    parser.add_argument("--table", action="store_true", help="only print what is known")
    parser.add_argument("--at-least", type=float, default=90, metavar="PERCENT", help="(90)")
    options = parser.parse_args(argv)
    if options.module[:1] == ["record"]:
        record(PLACE, options.module[1:])
        return 0
    wanted = options.module or SUBJECTS
    modules = sorted({str(path.relative_to(ROOT)) for one in wanted for path in ROOT.glob(one)})
    if not modules:
        parser.error(f"there is no module {wanted[0]}")
    mutants = [
        mutant
        for mutant in kept_sample(modules, options.count, options.seed)
        if fnmatch(mutant.module, options.only)
    ]
    known = results()
    again = (Verdict.SURVIVED, Verdict.UNTESTED) if options.survivors else ()
    todo = [
        mutant
        for mutant in mutants
        if mutant.key not in known or known[mutant.key].verdict in again
    ]
    if todo and not options.table:
        todo = todo[: options.limit]
        print(f"{len(todo)} of {len(mutants)} mutants to judge, seed {options.seed}", flush=True)
        run(todo, options.jobs)
        known = results()
    return table([(mutant, known[mutant.key]) for mutant in mutants if mutant.key in known],
                 options.seed, options.at_least)  # fmt: skip


def kept_sample(modules: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """The sample, from a file if these modules were changed in the same way before."""
    texts = [(module, (ROOT / module).read_text("utf-8")) for module in modules]
    digest = hashlib.sha256(repr((texts, count, seed)).encode()).hexdigest()[:16]
    file = PLACE / f"sample-{digest}.json"
    if not file.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(sample(modules, count, seed)))
    return [Mutant(*fields) for fields in json.loads(file.read_text())]


def run(mutants: Sequence[Mutant], jobs: int) -> None:
    """Judge these mutants in so many processes."""
    forks.preload()
    children = []
    for number in range(jobs):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(mutants[number::jobs], PLACE / f"{os.getpid()}")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    if any(ends):
        raise SystemExit("a process that judged mutants failed")


def work(mutants: Sequence[Mutant], place: Path) -> None:
    """Judge mutants one after the other. A test that kills must pass on the code as it is; or have
    its name from the mutant, which changed a number that is a parameter of the test."""
    judges = Judges(PLACE)
    sound: dict[str, bool] = {}
    some = next(iter(judges.seconds.keys() - judges.unsound))
    if forks.judge(None, [judges.alone(some)], judges.seconds, place).verdict is Verdict.KILLED:
        raise SystemExit(f"{some} fails without a mutant: {place / 'output'}")
    for mutant in mutants:
        begun = time.monotonic()
        while True:
            rounds = judges.rounds(mutant.module, mutant.line)
            outcome = forks.judge(mutant, rounds, judges.seconds, place)
            test = outcome.test
            if outcome.verdict is not Verdict.KILLED or "::" not in test:
                break
            if test not in sound:
                told = forks.judge(None, [judges.alone(test)], judges.seconds, place)
                sound[test] = told.verdict is Verdict.SURVIVED or told == forks.UNKNOWN
            if sound[test]:
                judges.killers[mutant.module][test] += 1
                break
            if test in judges.unsound:
                raise SystemExit(f"{test} fails without a mutant, and was not recorded")
            print(f"fails without a mutant, too: {test}", flush=True)
            judges.unsound.add(test)
            judges.by_line.cache_clear()
        keep(mutant, outcome)
        seconds = time.monotonic() - begun
        print(f"{outcome.verdict.value} in {seconds:.1f} s: {mutant} [{outcome.test}]", flush=True)


def keep(mutant: Mutant, outcome: Outcome) -> None:
    """Add a result to the file of results."""
    told = {"key": mutant.key, "verdict": outcome.verdict.value, "test": outcome.test}
    with RESULTS.open("a") as file:
        file.write(json.dumps(told) + "\n")


def results() -> dict[Key, Outcome]:
    """The last result of each mutant."""
    found: dict[Key, Outcome] = {}
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            told = json.loads(line)
            module, number, before, after = told["key"]
            outcome = Outcome(Verdict(told["verdict"]), told["test"])
            found[module, number, before, after] = outcome
    return found


def table(judged: Sequence[tuple[Mutant, Outcome]], seed: int, at_least: float) -> int:
    """Print a line for each module, and the survivors; returns 1 if too many survived."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    print(f"\nseed {seed}, commit {commit or 'unknown'}\n")
    print("| Module | Mutants | Killed | Endless | Survived | Killed or endless |")
    print("|---|--:|--:|--:|--:|--:|")
    counts = Counter((mutant.module, outcome.verdict) for mutant, outcome in judged)
    counts.update(("all", outcome.verdict) for _, outcome in judged)
    noticed = 0.0
    for module in [*sorted({mutant.module for mutant, _ in judged}), "all"]:
        killed, endless = counts[module, Verdict.KILLED], counts[module, Verdict.ENDLESS]
        survived = counts[module, Verdict.SURVIVED] + counts[module, Verdict.UNTESTED]
        number = killed + endless + survived
        noticed = 100 * (killed + endless) / max(number, 1)
        print(f"| {module} | {number} | {killed} | {endless} | {survived} | {noticed:.1f} % |")
    print()
    for mutant, outcome in sorted(judged, key=lambda one: one[0].key):
        if outcome.verdict in (Verdict.SURVIVED, Verdict.UNTESTED):
            print(f"{outcome.verdict.value}: {mutant}")
    return int(noticed < at_least)


if __name__ == "__main__":
    sys.exit(main())
