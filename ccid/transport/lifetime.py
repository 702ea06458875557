"""The end of a transport: closed, unplugged, or inherited by a forked child."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from weakref import WeakSet

from ccid.errors import CcidError, ReaderClosed, ReaderForked, ReaderRemoved, ReaderReset
from ccid.transport import ReaderInfo, Returns

_living: WeakSet[Life] = WeakSet()


def living() -> list[Life]:
    """All transports in memory, open or not."""
    while True:
        try:
            return list(_living)
        except RuntimeError:  # another thread opened or forgot one meanwhile
            continue


class Life:
    """Base of transports. The first reason to end counts, and every registered function gets it.

    Args:
        name: The reader's name, for errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead: CcidError | None = None
        self._listeners: list[Callable[[CcidError], None]] = []
        self._tell_reset: Callable[[ReaderInfo], None] | None = None
        self._returns: Returns | None = None
        self._told = 0
        """How many listeners were called, at least."""
        _living.add(self)

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        """Call ``tell`` with the reason when the transport ends; at once if it has ended."""
        self._listeners.append(tell)
        if self.dead is not None:
            self._die(self.dead)

    def on_reset(self, tell: Callable[[ReaderInfo], None], returns: Returns | None = None) -> None:
        """As :meth:`ccid.transport.Transport.on_reset`."""
        self._tell_reset, self._returns = tell, returns

    def is_away(self) -> bool:
        """As :meth:`ccid.transport.Transport.is_away`."""
        return False

    def reset_or_dead(self) -> CcidError:
        """The error for what was under way as the device was reset: the reason of the end, if the
        transport has ended."""
        if self.dead is not None:
            return copy.copy(self.dead)
        return ReaderReset(
            f"{self.name} was reset, or left USB for a moment, and is open again; what was under "
            f"way is lost",
            reader=self.name,
        )

    def check(self) -> None:
        """Raise the reason if the transport has ended."""
        if self.dead is not None:
            raise copy.copy(self.dead)

    def _die(self, reason: CcidError) -> None:
        if self.dead is None:
            self.dead = reason
        # If a signal handler raised in the middle of an earlier call, this one goes on there. A
        # function that is called twice gets the same reason.
        for i in range(self._told, len(self._listeners)):
            self._listeners[i](self.dead)
            self._told = i + 1

    def closed(self) -> ReaderClosed:
        """End the transport as closed; returns the error to raise."""
        self._die(ReaderClosed(f"{self.name} was closed", reader=self.name))
        return ReaderClosed(f"{self.name} was closed", reader=self.name)

    def removed(self, text: str = "") -> ReaderRemoved:
        """End the transport as unplugged; returns the error to raise.

        Args:
            text: What happened, if it was not unplugged.
        """
        error = ReaderRemoved(text or f"{self.name} was unplugged", reader=self.name)
        self._die(error)
        return error

    def _forked(self) -> None:
        self.dead, self._told = None, 0  # the reason of the parent does not count in this process
        self._die(
            ReaderForked(
                f"{self.name} was opened by process {os.getppid()}, and this is its fork "
                f"{os.getpid()}: two processes cannot share one conversation with a reader. "
                f"Open it here, after the parent has closed it",
                reader=self.name,
            )
        )


def _after_fork() -> None:
    for transport in list(_living):
        transport._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
