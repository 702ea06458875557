"""A user's table whose keys are as deep as a file is long."""

from __future__ import annotations

import time

import pytest

from ccid.errors import ReaderTableError
from ccid.known.quirks.reader_table import user_source


@pytest.mark.parametrize("text", ["a." * 50_000 + "b = 1", "[" + "a . " * 50_000 + "b]"])
def test_a_key_of_many_parts(text: str) -> None:
    before = time.process_time()
    with pytest.raises(ReaderTableError, match="nested too deeply"):
        user_source("readers.toml", text.encode())
    assert time.process_time() - before < 10
