"""The thread that opens an interface again after a reset.

A signal is handled in the main thread only: so Ctrl-C never leaves a device half opened. And the
thread that waits for events, which serves all readers, does not wait for one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ccid.ground.signal_safe_locks import new_rlock

RETURN_S = 2.0
"""How long a device that was reset, or left the bus, may take to be there again. A hub takes 0.3 s
to take in a device; a device that starts its firmware anew takes longer."""
PAUSE_S = 0.02
"""Between two attempts."""

logger = logging.getLogger("ccid.transport")


class Recovery:
    """Tries to open one interface again, until it is open or :data:`RETURN_S` is over.

    Args:
        name: The reader's name.
        attempt: Opens it, and raises what speaks against it. Sets an end by itself where it is
            useless to try again.
        give_up: Called with the last error when the time is over.
        ended: Called at the end.

    Attributes:
        lock: Held during an attempt.
        is_under_way: From :meth:`begin` until it is open, or given up.
    """

    def __init__(
        self,
        name: str,
        attempt: Callable[[], None],
        give_up: Callable[[Exception], None],
        ended: Callable[[], object],
    ) -> None:
        self.lock = new_rlock()
        self.is_under_way = False
        self._name = name
        self._attempt = attempt
        self._give_up = give_up
        self._ended = ended
        self._starting = new_rlock()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, if it is not under way."""
        with self._starting:
            self.is_under_way = True
            self._start()

    def go_on(self) -> None:
        """Start the thread if it is under way without one: Ctrl-C ended :meth:`begin`."""
        with self._starting:
            if self.is_under_way:
                self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=f"ccid reset of {self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.is_under_way = False
            self._give_up(error)
        else:
            self._thread = thread

    def _run(self) -> None:
        try:
            self._try_until_open()
        finally:
            with self._starting:
                self.is_under_way, self._thread = False, None
            self._ended()

    def _try_until_open(self) -> None:
        until = time.monotonic() + RETURN_S
        while True:
            try:
                with self.lock:
                    self._attempt()
                return
            except Exception as error:
                if time.monotonic() >= until:
                    self._give_up(error)
                    return
            time.sleep(PAUSE_S)
