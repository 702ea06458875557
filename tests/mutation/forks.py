"""Runs tests on a changed module in a child of this process, which has imported what they need
except ``ccid`` itself."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import hypothesis
import pytest

from tests.mutation.judges import Round
from tests.mutation.mutants import ROOT, Mutant

MEMORY = 4 << 30
PATIENCE_S = 20.0
"""A test that takes so long, and as long again for each of SLOWER times it took before, is
endless."""
SLOWER = 8
FIRST_S = 240.0
"""How long may pass until the first test begins."""


class Verdict(Enum):
    """What the tests said of a mutant."""

    KILLED = "killed"
    ENDLESS = "endless"
    SURVIVED = "survived"
    UNTESTED = "untested"


class Outcome(NamedTuple):
    """The verdict, and the test that gave it."""

    verdict: Verdict
    test: str


UNKNOWN = Outcome(Verdict.KILLED, f"import ({int(pytest.ExitCode.USAGE_ERROR)})")
"""There is no test of this name."""


def preload() -> None:
    """Import what all children need. What is of this project stays away: each child has its own."""
    import construct  # noqa: F401
    import usb.core  # noqa: F401

    sys.dont_write_bytecode = False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    of_ours = [name for name in sys.modules if name == "ccid" or name.startswith("ccid.")]
    if of_ours:
        raise RuntimeError(f"{of_ours[0]} is imported already")


def judge(
    mutant: Mutant | None, rounds: Sequence[Round], seconds: dict[str, float], place: Path
) -> Outcome:
    """Run the rounds until a test fails. ``place`` is a folder for the children's files."""
    for each in rounds:
        outcome = in_child(mutant, each, seconds, place)
        if outcome.verdict is not Verdict.SURVIVED:
            return outcome
    return Outcome(Verdict.SURVIVED, "")


def in_child(
    mutant: Mutant | None, tests: Round, seconds: dict[str, float], place: Path
) -> Outcome:
    """Run one round."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.close(reader)
            status = run_tests(mutant, tests, seconds, place, lambda text: told(writer, text))
            told(writer, f"ended {status}")
        finally:
            os._exit(status)
    os.close(writer)
    try:
        return follow(reader, seconds)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def told(writer: int, text: str) -> None:
    """Send a line to the parent."""
    os.write(writer, text.encode() + b"\n")


def follow(reader: int, seconds: dict[str, float]) -> Outcome:
    """Read what the child tells, until the outcome is known."""
    buffer = b""
    test = ""
    until = time.monotonic() + FIRST_S
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return Outcome(Verdict.ENDLESS, test or "import")
        got = os.read(reader, 65536)
        if not got:  # the child died
            return Outcome(Verdict.KILLED, test or "import")
        buffer += got
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            word, _, test_or_status = line.decode().partition(" ")
            if word == "failed":
                return Outcome(Verdict.KILLED, test_or_status)
            if word == "ended":
                if test_or_status == "0":
                    return Outcome(Verdict.SURVIVED, "")
                if test_or_status == str(int(pytest.ExitCode.NO_TESTS_COLLECTED)):
                    return Outcome(Verdict.UNTESTED, "")
                return Outcome(Verdict.KILLED, f"import ({test_or_status})")
            test = test_or_status
            until = time.monotonic() + PATIENCE_S + SLOWER * seconds.get(test, 1.0)


def run_tests(
    mutant: Mutant | None,
    tests: Round,
    recorded: Collection[str],
    place: Path,
    tell: Callable[[str], None],
) -> int:
    """In the child: the tests' exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(ROOT)
    place.mkdir(parents=True, exist_ok=True)
    output = os.open(place / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
    if mutant is not None:
        sys.meta_path.insert(0, Changed(mutant))
    off = [
        word for name in ("cacheprovider", "benchmark", "xdist") for word in ("-p", f"no:{name}")
    ]
    off += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    words = ["-q", "-x", "--tb=short", f"--basetemp={place / 'tmp'}", *off, *tests.files]
    return int(pytest.main(words, [Chosen(tests.tests, recorded, tell)]))


class Changed(importlib.abc.MetaPathFinder):
    """Finds the mutant where its module is imported."""

    def __init__(self, mutant: Mutant) -> None:
        self.source = mutant.source
        self.file = ROOT / mutant.module
        self.name = mutant.module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def find_spec(
        self, name: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        loader = ChangedSource(name, str(self.file), self.source)
        return importlib.util.spec_from_file_location(name, self.file, loader=loader)


class ChangedSource(importlib.machinery.SourceFileLoader):
    """Loads a module from another text."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.source, self.path, "exec", dont_inherit=True)
        return code


class Chosen:
    """A plugin of pytest: runs these tests in this order, and tells of them. A test that nobody has
    recorded comes first."""

    def __init__(
        self, tests: list[str], recorded: Collection[str], tell: Callable[[str], None]
    ) -> None:
        self.rank = {test: number for number, test in enumerate(tests)}
        self.recorded = recorded
        self.tell = tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Examples that are the same each time, and not made small when they fail."""
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutation", parent=hypothesis.settings(), phases=phases, database=None, derandomize=True
        )
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the chosen."""
        items[:] = sorted(
            (
                item
                for item in items
                if item.nodeid in self.rank or item.nodeid not in self.recorded
            ),
            key=lambda item: self.rank.get(item.nodeid, -1),
        )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(f"test {nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(f"failed {report.nodeid}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(f"failed {report.nodeid}")
