"""What unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.quirk_bench import Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Table:
    """The table of readers alone, whatever this user added; a test may add to it, or take."""
    return Table(monkeypatch, tmp_path)
