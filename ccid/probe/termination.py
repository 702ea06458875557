"""SIGTERM and SIGHUP end a command as Ctrl-C does: the card loses its power, the reader is closed,
files are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = ("SIGTERM", "SIGHUP")
"""The signals that ask a program to end; Windows has the first."""


class Terminated(KeyboardInterrupt):
    """A signal asked the program to end.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _ends(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends a program that hangs
    raise Terminated(number)


@contextmanager
def orderly_end() -> Iterator[None]:
    """Until the end of the block, these signals raise :class:`Terminated` in the main thread. A
    signal that is ignored (``nohup``), or has another handler, stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    there = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    ours = [number for number in there if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _ends)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
