"""Threads to which the sockets of clients are lent that send APDUs.

Theory of operation. The service's thread gives a client's socket away with a TRANSMIT that can be
carried out at once, and does not listen to it any more. A thread here reads, exchanges and writes,
until the client says something else, or nothing for a while; then it gives the socket back. Who
holds the socket is known at any time: nothing of a client is touched by two threads.

The service hears one thing of a lent socket all the same: that the client is gone, by a second
epoll, which no message of the client wakes. Then what a card does for it is ended. Two flags settle
who saw what: the thread sets :attr:`Lease.is_exchanging` and then looks at
:attr:`Lease.is_recalled`; the service sets that one, and then looks at the other.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ccid.ground.mailbox import Mailbox
from ccid.pcsc.manager.engine import Engine
from ccid.pcsc.manager.pcsc_call import DoneByCaller
from ccid.pcsc.manager.pcsc_state import Context
from ccid.pcsc.service.lent_session import LentSession

logger = logging.getLogger("ccid.pcsc")

MAX_LENT = 32
"""Sockets that are lent at the same time; other clients are served all the same."""
PATIENCE_S = 0.2
"""A client that says nothing for so long gets no thread of its own."""
END_S = 1.0
"""How long the end waits for the threads."""
READ_SIZE = 4096
CAN_LEND = sys.platform == "linux"
"""Elsewhere no system call tells that a client is gone without its messages."""
TIMES = ("ll", "qq")
"""How a time may be given to the system: in its own words, or in 64 bits."""


class Lease:
    """A socket that is lent.

    Args:
        engine: The resource manager.
        connection: The socket; it blocks.
        context: Of the client.
        request: What the client said last.

    Attributes:
        session: What is said.
        unsent: The rest of a reply that the client did not take.
        is_exchanging: The thread is at the card, or about to be.
        is_recalled: The client is gone: no exchange may begin.
    """

    def __init__(
        self, engine: Engine, connection: socket.socket, context: Context, request: bytes
    ) -> None:
        self.connection = connection
        self.session: LentSession[DoneByCaller] = LentSession(self._transmit)
        self.unsent = b""
        self.is_exchanging = self.is_recalled = False
        self._request = request
        self._context = context
        self._transmit_now = engine.transmit_now

    def _transmit(
        self, number: int, protocol: int, apdu: bytes
    ) -> tuple[bytes, int] | DoneByCaller | None:
        self.is_exchanging = True
        try:
            if self.is_recalled:
                return None
            return self._transmit_now(number, protocol, apdu, self._context)
        finally:
            self.is_exchanging = False

    def run(self) -> None:
        """Serve the client, until somebody else has to go on."""
        session, connection = self.session, self.connection
        received, receive, send = session.received, connection.recv, connection.send
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        data, self._request = self._request, b""
        with suppress(OSError):  # the service meets the same error; or nothing came for a while
            while True:
                reply = received(data)
                data = b""  # it may be a secret: it is not kept while this waits
                if reply:
                    self.unsent = reply
                    self.unsent = reply[send(reply, flags) :]
                if session.is_over or self.unsent:
                    return
                if not reply or not session.unheard:
                    del reply  # so may this
                    data = receive(READ_SIZE)
                    if not data:
                        return


class LentSockets:
    """The threads, and what becomes of the sockets. All but the threads is for the thread of the
    service.

    Args:
        engine: The resource manager.
        wake: Wakes the service, from any thread.

    Attributes:
        gone: Tells by becoming readable that a client is gone; for a selector.
    """

    def __init__(self, engine: Engine, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._wake = wake
        self._leases: Mailbox[Lease | None] = Mailbox()
        self._back: deque[Lease] = deque()
        self._threads: list[threading.Thread] = []
        self._lent: dict[int, Lease] = {}
        self.gone = select.epoll()

    def lend(self, connection: socket.socket, context: Context, request: bytes) -> Lease | None:
        """Lend a socket, with what the client said last; None if that cannot be: no thread is free,
        or the system has no room to watch it."""
        if len(self._lent) >= len(self._threads) and not self._begin_thread():
            return None
        number = connection.fileno()
        try:
            self.gone.register(number, select.EPOLLRDHUP)
        except OSError:
            return None
        self._lent[number] = lease = Lease(self._engine, connection, context, request)
        self._leases.put(lease)
        return lease

    def _begin_thread(self) -> bool:
        if len(self._threads) >= MAX_LENT:
            return False
        thread = threading.Thread(target=self._run, name="pcsc client", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has none left
            return False
        self._threads.append(thread)
        return True

    def _run(self) -> None:
        while (lease := self._leases.get()) is not None:
            try:
                lease.run()
            except Exception as fault:  # one of ours costs this client, and no other
                logger.error("a lent socket is hung up on: %s", type(fault).__name__)
                with suppress(OSError):
                    lease.connection.shutdown(socket.SHUT_RDWR)
            self._back.append(lease)
            del lease  # it may hold a secret
            self._wake()

    @property
    def has_news(self) -> bool:
        """A socket came back."""
        return bool(self._back)

    def come_back(self) -> Lease | None:
        """One that came back; None if none did."""
        if not self._back:
            return None
        lease = self._back.popleft()
        number = lease.connection.fileno()
        del self._lent[number]
        self._forget(number)
        return lease

    def _forget(self, number: int) -> None:
        with suppress(OSError):  # it told already that its client is gone
            self.gone.unregister(number)

    def take_gone(self) -> list[Lease]:
        """Those whose client is gone, each once. Those at a card are to be ended; the others come
        back by themselves."""
        found = []
        for number, _ in self.gone.poll(0):
            self._forget(number)
            lease = self._lent.get(number)
            if lease is not None:
                lease.is_recalled = True
                found.append(lease)
        return found

    def recall(self, lease: Lease) -> None:
        """Have a socket come back that nobody needs any more."""
        lease.is_recalled = True
        self._forget(lease.connection.fileno())
        with suppress(OSError):
            lease.connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End the threads; all sockets were recalled."""
        for _ in self._threads:
            self._leases.put(None)
        until = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        while (lease := self.come_back()) is not None:
            lease.connection.close()
        self.gone.close()


def limit_waits(connection: socket.socket) -> bool:
    """Have each wait for a client's words end after :data:`PATIENCE_S`; False where that cannot
    be."""
    time_given = (int(PATIENCE_S), int(PATIENCE_S % 1 * 1e6))
    for form in TIMES:
        with suppress(OSError):
            packed = struct.pack(form, *time_given)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
            return True
    return False
