"""The reader side of the vpcd protocol for a card that listens, as vsmartcard's ``vicc --reversed``
does: calls the program that provides the card, and puts the card into a virtual reader.

A program that is not there yet, or is no more, is called again every half second. All else is as
with a card that connects (:mod:`ccid.virtual.vpcd_listener`).
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable, Container
from contextlib import ExitStack
from typing import Any, TypeAlias

from ccid.virtual.cards import Application, Contact
from ccid.virtual.virtual_reader import VirtualReader
from ccid.virtual.virtual_slot import Card
from ccid.virtual.vpcd_listener import RETRY_S, Connection, VpcdListener, logger

CALL_LIMIT_S = 10.0
"""A call that is not answered after this time is given up."""
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN)

Found: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""The family of an address, and the address as a socket of it takes it."""


class VpcdCaller(VpcdListener):
    """Puts the card of a program that listens into a slot.

    Args:
        reader: The virtual reader.
        address: Host and port of the program.
        slot: bSlot.
        interface: Index of the reader's interface with the slot.
        insert_as: Makes what goes into the slot from a card.
    """

    def __init__(
        self,
        reader: VirtualReader,
        address: tuple[str, int],
        slot: int = 0,
        interface: int = 0,
        insert_as: Callable[[Application], Card] = Contact,
    ) -> None:
        super().__init__(reader, address[1], slot, interface, insert_as)
        self.address = address
        self._found: list[Found] = []
        self._calls = 0
        self._call: socket.socket | None = None
        self._call_until = self._call_at = 0.0

    def _open(self, stack: ExitStack) -> None:
        """Ask where the host is: an unknown name is an OSError here."""
        found = socket.getaddrinfo(*self.address, type=socket.SOCK_STREAM)
        self._found = [(family, where) for family, _, _, _, where in found]
        stack.callback(self._hang_up)

    def _sleep_s(self) -> float | None:
        if self._connection is not None:
            return super()._sleep_s()
        until = self._call_at if self._call is None else self._call_until
        return max(0.0, until - self._now())

    def _look_for_card(self, ready: Container[object]) -> None:
        if self._connection is not None:
            return
        now = self._now()
        call = self._call
        if call is None:
            if now >= self._call_at:
                self._call_at = now + RETRY_S
                if self._slot_card() is None:
                    self._start_call(now)
        elif call in ready:
            self._answered(call, call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        elif now >= self._call_until:
            self._answered(call, errno.ETIMEDOUT)

    def _start_call(self, now: float) -> None:
        """Call the next of the host's addresses."""
        family, where = self._found[self._calls % len(self._found)]
        self._calls += 1
        try:
            call = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            logger.info("the program with the card cannot be called: %s", error)
            return
        call.setblocking(False)
        self._call, self._call_until = call, now + CALL_LIMIT_S
        self._selector.register(call, selectors.EVENT_WRITE)
        code = call.connect_ex(where)
        if code not in UNDER_WAY:
            self._answered(call, code)

    def _answered(self, call: socket.socket, code: int) -> None:
        """A call is over: the program is connected, or was not to be had."""
        if code or self._slot_card() is not None:
            logger.debug("no card at %s:%d: %s", *self.address, os.strerror(code))
            self._hang_up()
            return
        self._selector.unregister(call)
        self._call = None
        self._begin(call)

    def _hang_up(self) -> None:
        """Give a call up, if there is one."""
        call, self._call = self._call, None
        if call is not None:
            self._selector.unregister(call)
            call.close()

    def _end(self, connection: Connection, why: str) -> None:
        super()._end(connection, why)
        self._call_at = self._now() + RETRY_S
