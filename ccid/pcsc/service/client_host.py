"""What one client of the service needs of the resource manager, and of its connection; pure."""

from __future__ import annotations

from typing import Protocol

from ccid.pcsc.manager.core import Core
from ccid.pcsc.manager.functions import Functions
from ccid.pcsc.manager.pcsc_call import Call


class Host(Protocol):
    """What a session needs of the resource manager.

    Attributes:
        core, functions: It.
    """

    core: Core
    functions: Functions

    def begin(self, call: Call) -> None:
        """Begin a call. Its ``finished`` is called later, never within this."""

    def now(self) -> float:
        """The time (monotonic clock, s)."""


class Connection(Protocol):
    """What a session needs of its connection."""

    def has_news(self) -> None:
        """There may be something to send, or the client is to be hung up on."""

    def may_establish(self) -> bool:
        """Its process may have one more context."""

    def may_cancel(self, context: int) -> bool:
        """Its user may cancel what waits in this context."""

    def lend(self, number: int, protocol: int, request: bytes) -> bool:
        """Have TRANSMITs of this handle carried out by somebody else, who hears the client
        meanwhile; False if that cannot be. In the end :meth:`ClientSession.came_back` is called.

        Args:
            number: Of the handle.
            protocol: Of the send header.
            request: The first TRANSMIT; empty if it is still to come.
        """
