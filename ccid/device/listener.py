"""Listener: one function that is called for each notification of a reader."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ccid.codec.messages.events import SlotChange
from ccid.transport import Transport

Slots = list[SlotChange] | None
"""The state of each slot that a notification reports; None if something else may have happened."""


class Listener:
    """One registration by :meth:`ccid.Reader.listen`. Two registrations of equal functions are two
    objects, so that each can be ended alone.

    Args:
        registered: The listeners of the reader.
        tell: The function to call.

    Attributes:
        tell: The function to call.
    """

    def __init__(self, registered: list[Listener], tell: Callable[[Slots], None]) -> None:
        self.tell = tell
        self._registered = registered
        self._leave: Callable[[], None] | None = None

    def wait_for_events(self, transport: Transport) -> None:
        """Have a thread of the library wait for notifications, on behalf of this listener.

        Args:
            transport: The transport of the reader.

        Raises:
            TransportError: No thread can be started.
        """
        self._leave = transport.attend()

    def end(self) -> None:
        """End the calls of ``tell``, and the wait. A second call has no effect."""
        with suppress(ValueError):  # a second call
            self._registered.remove(self)
        if self._leave is not None:
            self._leave()
