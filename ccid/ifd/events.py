"""What a reader says unasked, on its interrupt endpoint, for those who wait for it.

A thread of its own waits for each open reader that has such an endpoint. This is the one place
that knows how: whoever waits otherwise replaces :class:`Events`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ccid.errors import (
    CcidError,
    MalformedMessage,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    TransportTimeout,
)
from ccid.messages.events import RDR_to_PC_NotifySlotChange, SlotChange, parse_event
from ccid.reader import Reader

WAIT_MS = 1000
"""One transfer waits so long. It cannot be cut short, so closing may have to wait for it."""
PAUSE_S = 1.0
"""After a transfer that failed, so that a reader which refuses them all costs little."""

Tell = Callable[[list[SlotChange] | None], None]
"""Told of each slot whether a card is present and whether that changed; None: anything."""


class Events:
    """Waits for the notifications of one reader until it is stopped, or the reader gone.

    Args:
        reader: The reader; one with an interrupt endpoint.
        tell: Called for each notification, from the waiting thread.
    """

    def __init__(self, reader: Reader, tell: Tell) -> None:
        self._reader = reader
        self._tell = tell
        self._stopped = False
        self._thread = threading.Thread(
            target=self._wait, name=f"events of {reader.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Wait no more. When this returns no transfer is under way."""
        self._stopped = True
        if self._thread is not threading.current_thread():
            self._thread.join(WAIT_MS / 1000 + PAUSE_S)

    def _wait(self) -> None:
        while not self._stopped:
            transport = self._reader.tap or self._reader.transport
            try:
                message = transport.receive_event(WAIT_MS)
            except TransportTimeout:
                continue
            except (ReaderRemoved, ReaderClosed, ReaderForked):
                break
            except CcidError:
                time.sleep(PAUSE_S)
                continue
            self._tell(self._slots(message))
        if not self._stopped:
            self._tell(None)

    def _slots(self, message: bytes) -> list[SlotChange] | None:
        """What a notification says of each slot; None if it is no RDR_to_PC_NotifySlotChange."""
        with suppress(MalformedMessage):
            event = parse_event(message)
            if isinstance(event, RDR_to_PC_NotifySlotChange):
                return event.slots(self._reader.descriptor.slot_count)
        return None
