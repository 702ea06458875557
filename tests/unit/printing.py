"""Runs ccid-probe, and checks that its output cannot control the terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from ccid.probe.__main__ import main

EVIL = "evil\x1b]0;owned\x07\x7f\x9b31m\u202e\n#\t\u2028"
"""A device name with control characters."""
TAMED = "evil\\x1b]0;owned\\x07\\x7f\\x9b31m\\u202e\\n#\\t\\u2028"
"""The same name, made printable."""


def printed(*words: str) -> tuple[int, str, str]:
    """Run ccid-probe; returns the exit status, stdout and stderr. Fails if a line holds a control
    character."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    for text in (out.getvalue(), err.getvalue()):
        assert [line for line in text.split("\n") if not line.isprintable()] == []
    return status, out.getvalue(), err.getvalue()
