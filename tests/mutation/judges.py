"""Which tests judge a changed line: those that ran it when they were recorded."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import coverage

from tests.mutation import FOLDER
from tests.mutation.mutants import ROOT

NEAREST = 2
"""So many files of tests judge first: those that run most of the module."""
AT_MOST = 150
AT_MOST_S = 20.0
"""How many of the other tests judge then, and the seconds they took when they were recorded."""


class Round(NamedTuple):
    """Tests that run in one process."""

    files: list[str]
    """Files of tests, or names of tests."""
    tests: list[str]
    """Their names, the likeliest to fail first."""


def record(folder: Path, files: Sequence[str]) -> None:
    """Run these files of tests and add what each test runs to the record; without files run all
    unit tests, for a new record."""
    fresh = folder / "fresh" if files else folder
    fresh.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {FOLDER: str(fresh)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutation.recorder"]
    subprocess.run([*words, *(files or ["tests/unit"])], cwd=ROOT, env=environment, check=False)
    if files:
        merge(fresh, folder)


def merge(fresh: Path, folder: Path) -> None:
    """Add one record to another, and remove it."""
    data = coverage.CoverageData(str(folder / "coverage"))
    new = coverage.CoverageData(str(fresh / "coverage"))
    data.read()
    new.read()
    data.update(new)
    data.write()
    told = json.loads((fresh / "tests.json").read_text())
    kept = folder / "tests.json"
    before = json.loads(kept.read_text()) if kept.exists() else {"seconds": {}, "failed": []}
    failed = (set(before["failed"]) - told["seconds"].keys()) | set(told["failed"])
    seconds = before["seconds"] | told["seconds"]
    kept.write_text(json.dumps({"seconds": seconds, "failed": sorted(failed)}))
    shutil.rmtree(fresh)


class Judges:
    """What was recorded."""

    def __init__(self, folder: Path) -> None:
        self.data = coverage.CoverageData(str(folder / "coverage"))
        self.data.read()
        told = json.loads((folder / "tests.json").read_text())
        self.seconds: dict[str, float] = told["seconds"]
        self.unsound = set(told["failed"])
        self.recorded_at = (folder / "tests.json").stat().st_mtime
        self.killers: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @cache  # noqa: B019
    def by_line(self, module: str) -> dict[int, set[str]]:
        """The tests that ran each line of a module."""
        found = self.data.contexts_by_lineno(str(ROOT / module))
        return {
            line: {test for test in tests if test in self.seconds} - self.unsound
            for line, tests in found.items()
        }

    def covering(self, module: str, line: int) -> set[str]:
        """The tests that ran the statement of a line. What runs when the module is imported is
        judged by all that run any of it."""
        if inside_function(module, line):
            first, last = statement(module, line)
            chosen = range(first, last + 1)
            lines = self.by_line(module)
            return set().union(*(lines.get(each, ()) for each in chosen))
        named = self.naming(module)
        there = {test for test in self.seconds if file_of(test) in named} - self.unsound
        return there.union(*self.in_functions(module).values())

    @cache  # noqa: B019
    def naming(self, module: str) -> list[str]:
        """The files of tests that name a module: they judge its numbers and tables."""
        word = Path(module).stem
        files = sorted({file_of(test) for test in self.seconds})
        return [file for file in files if word in (ROOT / file).read_text("utf-8").split("def ")[0]]

    def in_functions(self, module: str) -> dict[int, set[str]]:
        """The tests that ran each line of a module's functions; where it has none, of the modules
        beside it."""
        found = {
            line: tests
            for line, tests in self.by_line(module).items()
            if inside_function(module, line)
        }
        if found:
            return found
        beside = sorted((ROOT / module).parent.glob("*.py"))
        numbered = [self.by_line(str(path.relative_to(ROOT))) for path in beside]
        return dict(enumerate(tests for lines in numbered for tests in lines.values()))

    @cache  # noqa: B019
    def nearest(self, module: str) -> list[str]:
        """The files of tests, those first that run most lines of the module."""
        reach: Counter[str] = Counter()
        for tests in self.in_functions(module).values():
            reach.update({file_of(test) for test in tests})
        return [file for file, _ in reach.most_common()]

    def rounds(self, module: str, line: int) -> list[Round]:
        """The tests that judge a line: those in the module's nearest files, then others."""
        killers = self.killers[module]
        tests = sorted(
            self.covering(module, line),
            key=lambda test: (-killers[test], self.seconds[test], test),
        )
        here = {file_of(test) for test in tests}
        near = [file for file in self.nearest(module) if file in here or not here][:NEAREST]
        near += [file for file in self.naming(module) if file in here and file not in near]
        near += sorted(self.unknown_files() - set(near))
        first = [test for test in tests if file_of(test) in near]
        rest: list[str] = []
        spent = 0.0
        for test in tests:
            if file_of(test) not in near and len(rest) < AT_MOST:
                spent += self.seconds[test]
                if spent > AT_MOST_S:
                    break
                rest.append(test)
        both = [(near, first), (sorted({file_of(test) for test in rest}), rest)]
        # without a test that is known: those of the nearest files that nobody has recorded yet
        return [Round(files, chosen) for files, chosen in both if chosen] or [Round(near, [])]

    def alone(self, test: str) -> Round:
        """A round of one test."""
        return Round([test], [test])

    @cache  # noqa: B019
    def unknown_files(self) -> set[str]:
        """Files of tests that were not there when the others were recorded."""
        known = {file_of(test) for test in self.seconds}
        newer = {
            str(path.relative_to(ROOT))
            for path in ROOT.glob("tests/unit/test_*.py")
            if path.stat().st_mtime > self.recorded_at
        }
        return newer - known


def file_of(test: str) -> str:
    """The file of a test."""
    return test.partition("::")[0]


@cache
def tree(module: str) -> ast.Module:
    """A module's syntax."""
    return ast.parse((ROOT / module).read_text("utf-8"))


def statement(module: str, line: int) -> tuple[int, int]:
    """First and last line of the innermost statement that has a line; of a block only its head."""
    best = (line, line)
    begun = 0
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            body: list[ast.stmt] = getattr(node, "body", [])
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or 0
            if node.lineno <= line <= last and node.lineno >= begun:
                begun = node.lineno
                best = (begun, last)
    return best


def inside_function(module: str, line: int) -> bool:
    """Whether a line runs when a function is called, not when the module is imported."""
    return any(
        node.body[0].lineno <= line <= (node.end_lineno or 0)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
