"""The file of CCID_TRACE when the program ends."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.device import tracing


def test_a_full_disk_at_the_end_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registered: list[tuple[Any, ...]] = []
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    monkeypatch.setattr(tracing, "_files", {})
    monkeypatch.setenv("CCID_TRACE", str(tmp_path / "trace.pcapng"))
    with ccid.open_reader(ccid.VirtualReader()):
        pass
    ((ends, *sinks),) = [call for call in registered if "sink" in str(call).lower()]

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sinks[0].close()
    monkeypatch.setattr(sinks[0], "close", full)
    ends(*sinks)
    assert "the trace cannot be ended" in caplog.text
