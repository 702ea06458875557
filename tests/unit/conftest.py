"""Fixtures that unit tests share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from weakref import WeakSet

import pytest

from ccid.device.open_readers import opened
from ccid.probe import __main__ as probe
from ccid.transport import contexts, stale_list
from tests.unit.fake_contexts import FurtherContexts
from tests.unit.quirk_bench import Table

Run = Callable[..., tuple[int, str, str]]
CLOSE_S = 20.0
"""A thread that closes a reader has ended within this time, on a busy machine too."""


class User:
    """Somebody who uses a context of libusb."""


@pytest.fixture(autouse=True)
def further(monkeypatch: pytest.MonkeyPatch) -> FurtherContexts:
    """No reader of another test uses a context of libusb, and further ones are fakes."""
    monkeypatch.setattr(contexts, "_further", [])
    monkeypatch.setattr(contexts.first, "_users", WeakSet())
    return FurtherContexts(monkeypatch)


@pytest.fixture(params=["first context", "further context"])
def any_context(request: pytest.FixtureRequest, further: FurtherContexts) -> User:
    """The first reader that a test opens uses the context of libusb that finds devices, as in a
    program with one reader; and another one, as if somebody used that."""
    user = User()
    if request.param == "further context":
        contexts.first._use(user)
    return user


@pytest.fixture(autouse=True)
def hears_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this machine is a container makes no difference to tests."""
    monkeypatch.setattr(stale_list, "why_deaf", str)


@pytest.fixture(autouse=True)
def closes_all_readers() -> Iterator[None]:
    """The watches of other tests would tell of a reader that a test leaves open. One that a thread
    still closes is waited for."""
    yield
    if opened.there():
        gc.collect()
        limit = time.monotonic() + CLOSE_S
        while (left := opened.there()) and time.monotonic() < limit:
            time.sleep(0.01)
        opened.reset()
        assert not left


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Table:
    """The table of readers without the user's file. A test may add readers, or remove readers."""
    return Table(monkeypatch, tmp_path)


@pytest.fixture
def collects_little() -> Iterator[None]:
    """``gc.collect`` looks at what the test made, and at nothing of the thousands of tests around
    it, which takes half a second each time. Only those objects are in ``gc.get_objects``."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def collected() -> None:
    """What tests of other modules left to the garbage collector, descriptors among it, is gone."""
    gc.collect()


parser = cache(probe.parser)
"""The parser of ccid-probe's command line, made once: that takes as long as a short command."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ccid-probe; returns the exit status, stdout and stderr."""
    monkeypatch.setattr(probe, "parser", parser)

    def call(*words: str) -> tuple[int, str, str]:
        try:
            status = probe.main(words)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
