"""Shared by the benchmarks: whether this machine can measure natively."""

from __future__ import annotations

import pytest

from tests.bench.native import programs


@pytest.fixture(scope="session")
def native() -> None:
    """Skip the test, and say so, where this machine does not allow native measures; fail where
    only programs are missing."""
    trouble = programs.cannot_run()
    if trouble:
        pytest.skip(f"NOTHING IS MEASURED: {trouble}")
    missing = programs.missing()
    if missing:
        pytest.fail(missing, pytrace=False)
