"""What one input may cost: a second, and 50 MB."""

from __future__ import annotations

import logging
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from ccid.errors import CcidError
from ccid.ground.printable_log import PrintableFormatter

LONGEST_S = 1.0
"""Seconds of computing that an input may cost."""
HANGING_S = 20.0
"""Seconds that it may take by the clock, on a busy machine: this is a wait that does not end."""
MOST_BYTES = 50 << 20
"""Bytes by which an input may make the process grow."""
_UNIT = 1 if sys.platform == "darwin" else 1024


class TooSlow(BaseException):
    """An input takes too long. No code that is tried may catch it, so it is no Exception."""


class TooLarge(Exception):
    """An input takes too much memory."""


def _too_slow(number: int, frame: FrameType | None) -> None:
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"
    limit = "it may compute" if number == signal.SIGPROF else "it may wait"
    raise TooSlow(f"it takes longer than {limit}, at {where}")


def largest() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


class Unread(logging.Handler):
    """Makes each line of the log and shows none: hostile text must not break that either."""

    def emit(self, record: logging.LogRecord) -> None:
        assert self.format(record).replace("\n", "").isprintable()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise


class Bounds:
    """While it is entered, inputs are bounded. To be used in the main thread.

    Args:
        slower: How many times as long all takes, because somebody watches.
    """

    def __init__(self, slower: float = 1.0) -> None:
        self._slower = slower

    def __enter__(self) -> Bounds:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals come to the main thread only")
        self._before = [(n, signal.signal(n, _too_slow)) for n in (signal.SIGPROF, signal.SIGALRM)]
        self._had = largest()
        self._log, self._lines = logging.getLogger("ccid"), Unread()
        self._lines.setFormatter(PrintableFormatter("%(message)s"))
        self._log.addHandler(self._lines)
        self._level = self._log.level
        self._log.setLevel(logging.INFO)
        self._propagates, self._log.propagate = self._log.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.removeHandler(self._lines)
        self._log.setLevel(self._level)
        self._log.propagate = self._propagates
        for number, handler in self._before:
            signal.signal(number, handler)

    @staticmethod
    def _stop() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def run(self, target: Callable[[bytes], None], data: bytes) -> None:
        """Run ``target``; errors of this library are what it should raise.

        Raises:
            TooSlow: It takes longer than allowed.
            TooLarge: It takes more memory than allowed.
            Any other exception: The target let it through.
        """
        signal.setitimer(signal.ITIMER_REAL, HANGING_S)
        signal.setitimer(signal.ITIMER_PROF, LONGEST_S * self._slower)
        try:
            target(data)
        except CcidError:
            pass
        finally:
            self._stop()
        now = largest()
        if now - self._had > MOST_BYTES:
            raise TooLarge(f"{now - self._had} bytes more than before")
        self._had = now
