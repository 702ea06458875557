"""A plugin of pytest that records which lines of ``ccid`` each test runs, and how long it takes.

``python -m tests.mutation record`` runs it over the unit tests, with coverage.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

from tests.mutation import FOLDER


class Recorder:
    """Switches coverage's context to the name of each test, and notes its seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.coverage = coverage.Coverage(
            data_file=str(folder / "coverage"), source=["ccid"], branch=True, messages=False
        )
        self.coverage.set_option("run:disable_warnings", ["trace-changed", "module-not-measured"])
        self.coverage.start()  # before ccid is imported: pytest loads this plugin first
        self.tracer = sys.gettrace()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        begun = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - begun
            if sys.gettrace() is not self.tracer:  # a test that traces by itself
                self.coverage.stop()
                self.coverage.start()
                self.tracer = sys.gettrace()
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        told = {"seconds": self.seconds, "failed": sorted(self.failed)}
        (self.folder / "tests.json").write_text(json.dumps(told))


RECORDER = Recorder(Path(os.environ[FOLDER]))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RECORDER, "mutation-recorder")
