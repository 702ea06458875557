"""The live view of ``ccid-probe watch``: what is on it, and at a real terminal."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

import ccid
from ccid.device.watching import Event, EventKind
from ccid.probe.watch_board import LATEST, Board
from tests.unit.typist import PATIENCE_S, Typist

NOON = datetime(2026, 1, 2, 12, 0, 0, 5000)


def test_what_is_on_the_board() -> None:
    info = dataclasses.replace(ccid.VirtualReader().info, name="Reader [red]\x1b[31m")
    board = Board()
    board.happened(Event(EventKind.READER_ARRIVED, info), NOON)
    ((path, name, since, cards),) = board.cells()
    assert (path, since, cards) == (info.path, "12:00:00.005", "no card")
    assert name == f"Reader [red]\\x1b[31m ({info.id})"
    board.happened(Event(EventKind.CARD_ARRIVED, info, 1), NOON)
    board.happened(Event(EventKind.CARD_ARRIVED, info, 0), NOON)
    board.happened(Event(EventKind.CARD_LEFT, info, 1), NOON)
    assert [cell[3] for cell in board.cells()] == ["card in slot 0 since 12:00:00.005"]
    board.happened(Event(EventKind.READER_LEFT, info), NOON)
    assert list(board.cells()) == []
    assert len(board.latest) == 5
    for _ in range(20):
        board.happened(Event(EventKind.READER_LEFT, info), NOON)
    assert len(board.latest) == LATEST


START = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if "no rich" in sys.argv:
    sys.modules["rich.live"] = None
from ccid.probe.__main__ import main
sys.exit(main(["watch", "--virtual", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("rich", "more", "is_live"),
    [("rich", [], True), ("no rich", [], False), ("rich", ["--plain"], False)],
)
def test_the_live_view_at_a_terminal(rich: str, more: list[str], is_live: bool) -> None:
    """With rich a board, without lines; Ctrl-C ends both with status 130."""
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    typist = Typist([sys.executable, "-c", START, rich, *more], env)
    try:
        if is_live:
            typist.until("card in slot 0 since")
            typist.until("Ctrl-C ends this")
        else:
            typist.until("card arrived: Virtual Reader")
        typist.process.send_signal(signal.SIGINT)
        assert typist.process.wait(PATIENCE_S) == 130
        assert ("┃" in typist.shown) == is_live
        assert "Traceback" not in typist.shown
    finally:
        typist.close()


def test_lines_import_no_rich() -> None:
    code = (
        "import sys; from ccid.probe.__main__ import main;"
        "main(['watch', '--virtual', '--timeout', '0']); print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "card arrived" in done.stdout
