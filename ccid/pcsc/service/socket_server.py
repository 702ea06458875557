"""The service: one thread that has all clients and the resource manager.

It sleeps until a client says something, a driver has done something, a reader stirs, or a time has
come. What takes time (an APDU, a reader that is opened) other threads do, one for each slot. The
socket of a client that sends APDUs is lent to a thread of its own
(:mod:`ccid.pcsc.service.lent_sockets`).
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import selectors
import socket
import time

from ccid.pcsc.manager.engine import Engine, Missed, Settings
from ccid.pcsc.service.client_messages import BadRequest
from ccid.pcsc.service.client_session import ClientSession
from ccid.pcsc.service.lent_sockets import CAN_LEND, Lease, LentSockets, limit_waits
from ccid.pcsc.service.socket_place import Peer, peer_of

logger = logging.getLogger("ccid.pcsc")

READ_SIZE = 64 * 1024
MAX_CLIENTS_OF_PROCESS = 256
"""Connections of one process; more are hung up on. A context takes one, a cancellation another."""
MAX_CONTEXTS_OF_PROCESS = 200
"""Contexts of one process, as pcscd has for all; more get SCARD_E_NO_MEMORY."""
MAX_ACCEPTED = 64
"""Connections that are taken before others are heard again."""
FAREWELL_S = 0.5
"""How long clients have to hear that the service ends."""


AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)
"""The service's thread waits for no client, though the sockets of clients block."""
SEND_FLAGS = AT_ONCE | getattr(socket, "MSG_NOSIGNAL", 0)

_PIPE = "pipe"
"""What the selector has with the pipe of :meth:`SocketServer.end_with`."""
_GONE = "gone"
"""What it has with :attr:`LentSockets.gone`."""


class _Client:
    """A connection.

    Args:
        server: Whose.
        connection: Its socket.
        peer: Who is at its other end.
    """

    def __init__(self, server: SocketServer, connection: socket.socket, peer: Peer) -> None:
        self.server = server
        self.connection = connection
        self.peer = peer
        name = f"{peer}, {connection.fileno()}"
        self.session = ClientSession(server.engine, self, name, server.entries)
        self.wants_write = False
        self.lease: Lease | None = None
        self._can_be_lent: bool | None = None

    def has_news(self) -> None:
        """There may be something to send, or it is to be hung up on."""
        self.server.stirred.add(self)

    def may_establish(self) -> bool:
        """Its process may have one more context."""
        return self.server.contexts_of(self.peer.pid) < MAX_CONTEXTS_OF_PROCESS

    def may_cancel(self, context: int) -> bool:
        """Its user may cancel what waits in this context: the one who established it."""
        other = self.server.client_of(context)
        return other is not None and other.peer.uid == self.peer.uid

    def lend(self, number: int, protocol: int, request: bytes) -> bool:
        """Lend its socket to a thread of its own, if its APDUs need not wait for anything."""
        context, lent = self.session.context, self.server.lent
        if lent is None or context is None or self.wants_write:
            return False
        if logger.isEnabledFor(logging.DEBUG):
            return False  # each request is in the log
        if not self.server.engine.may_transmit_now(number, protocol, context):
            return False
        if self._can_be_lent is None:
            self._can_be_lent = limit_waits(self.connection)
        if self._can_be_lent:
            self.lease = lent.lend(self.connection, context, request)
        if self.lease is None:
            return False
        self.server.lent_to[self.lease] = self
        self.server.selector.unregister(self.connection)
        return True

    def came_back(self, lease: Lease) -> None:
        """Its socket is not lent any more."""
        self.lease = None
        self.server.selector.register(self.connection, selectors.EVENT_READ, self)
        self.server.stirred.add(self)
        try:
            self.session.came_back(lease.session, lease.unsent)
        except BadRequest as error:
            self.session.refuse(error)
        except Exception as fault:  # one of ours costs this client, and no other
            self.session.refuse(BadRequest(type(fault).__name__))

    def ready(self, events: int) -> None:
        """The socket can be read, or written again."""
        if events & selectors.EVENT_READ:
            try:
                data = self.connection.recv(READ_SIZE, AT_ONCE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.server.hang_up(self)
                return
            self.server.stirred.add(self)
            try:
                self.session.received(data)
            except BadRequest as error:
                self.session.refuse(error)
            except Exception as fault:  # one of ours costs this client, and no other
                self.session.refuse(BadRequest(type(fault).__name__))
        if events & selectors.EVENT_WRITE:
            self.server.stirred.add(self)

    def flush(self) -> None:
        """Send what there is for the client, as far as it takes it."""
        session = self.session
        if session.out:
            try:
                sent = self.connection.send(session.out, SEND_FLAGS)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.server.hang_up(self)
                return
            session.out[:sent] = bytes(sent)  # it may be a secret, and memory is used again
            del session.out[:sent]
        if session.is_over:
            self.server.hang_up(self)
            return
        if bool(session.out) != self.wants_write:
            self.wants_write = bool(session.out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.wants_write else 0)
            self.server.selector.modify(self.connection, events, self)
            if not session.out:
                self._go_on()
        if not session.out:
            session.all_sent()

    def _go_on(self) -> None:
        """All was sent: requests that waited for that are carried out."""
        try:
            self.session.go_on()
        except BadRequest as error:
            self.session.refuse(error)
        self.server.stirred.add(self)


class SocketServer:
    """Serves clients of libpcsclite at one socket.

    Args:
        listener: The socket, listening.
        settings: For the resource manager.
        entries: Entries of the reader-state array for clients before protocol 4:6.
        same_user: Only this process's user may connect.

    Attributes:
        engine: The resource manager.
        selector: Tells which sockets are ready.
        stirred: Clients to which there may be something to send.
        lent: The sockets that are lent; None where none can be.
        lent_to: Whose they are.
    """

    def __init__(
        self,
        listener: socket.socket,
        settings: Settings,
        *,
        entries: int,
        same_user: bool = True,
    ) -> None:
        self.entries = entries
        self.selector = selectors.DefaultSelector()
        self.stirred: set[_Client] = set()
        self._listener = listener
        self._same_user = same_user
        self._clients: dict[_Client, None] = {}
        self._of_process: collections.Counter[int] = collections.Counter()
        self._spare = open(os.devnull, "rb")
        self._woken, self._waker = socket.socketpair()
        for one in (self._woken, self._waker, listener):
            one.setblocking(False)
        self._is_awake = True
        self._is_stopped = False
        self.engine = Engine(settings, self._wake)
        self.selector.register(self._woken, selectors.EVENT_READ, None)
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.lent_to: dict[Lease, _Client] = {}
        self.lent = LentSockets(self.engine, self._wake) if CAN_LEND else None
        if self.lent is not None:
            self.selector.register(self.lent.gone, selectors.EVENT_READ, _GONE)

    # Waking ---------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the loop go round; from any thread."""
        if not self._is_awake:
            self._is_awake = True
            with contextlib.suppress(OSError):  # it is full: that wakes, too
                self._waker.send(b"\0")

    def stop(self) -> None:
        """End :meth:`serve`; from any thread, or a signal handler."""
        self._is_stopped = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def end_with(self, descriptor: int) -> None:
        """End :meth:`serve` when the other end of this pipe is closed."""
        self.selector.register(descriptor, selectors.EVENT_READ, _PIPE)

    @property
    def waker(self) -> int:
        """A descriptor that wakes the loop by what is written to it."""
        return self._waker.fileno()

    # The loop -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Serve until :meth:`stop`; then tell the clients, and power all cards off."""
        try:
            while not self._is_stopped:
                try:
                    self._round()
                except Exception:  # a fault of ours must not end the service for all
                    logger.exception("the service goes on after a fault")
        finally:
            self._end()

    def _round(self) -> None:
        self._take_back()
        due = self._work()
        self._is_awake = False
        if self._has_news():
            due = 0.0
        wait_s = None if due is None else max(0.0, due - time.monotonic())
        ready = self.selector.select(wait_s)
        self._is_awake = True
        for key, events in ready:
            if isinstance(key.data, _Client):
                if key.data in self._clients:
                    key.data.ready(events)
            elif key.fileobj is self._listener:
                self._accept()
            elif key.data is _PIPE:
                self._is_stopped = True
            elif key.data is _GONE:
                self._take_gone()
            else:
                with contextlib.suppress(OSError):
                    self._woken.recv(READ_SIZE)

    def _has_news(self) -> bool:
        """Something was posted while the loop was awake, and did not wake it."""
        return self.engine.has_messages or (self.lent is not None and self.lent.has_news)

    def _work(self) -> float | None:
        """Do all that there is to do, and send what came of it."""
        due = self.engine.run()
        while self.stirred:
            while self.stirred:
                self.stirred.pop().flush()
            due = self.engine.run()
        return due

    # Clients whose socket is lent -----------------------------------------------------------------

    def _take_back(self) -> None:
        """Go on with those whose sockets came back."""
        while self.lent is not None and (lease := self.lent.come_back()) is not None:
            client = self.lent_to.pop(lease)
            if client in self._clients:
                client.came_back(lease)
                continue
            lease.connection.close()
            done = lease.session.done
            if done is not None:  # what it says of the card is lost with the client
                self.engine.post(Missed(done.job.slot))

    def _take_gone(self) -> None:
        """Hang up on those that are gone while a card works for them."""
        for lease in () if self.lent is None else self.lent.take_gone():
            if lease.is_exchanging:
                self.hang_up(self.lent_to[lease])

    # Clients --------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take those that connect, but no more at once than those who wait can bear."""
        for _ in range(MAX_ACCEPTED):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._refuse_one(error)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(True)  # for a thread that has nothing else to do than to wait for it
        try:
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return
        if self._same_user and peer.uid not in (None, os.geteuid()):
            logger.warning("%s of user %s may not connect", peer, peer.uid)
            connection.close()
        elif peer.pid and self._of_process[peer.pid] >= MAX_CLIENTS_OF_PROCESS:
            logger.warning("%s has too many connections", peer)
            connection.close()
        else:
            self._of_process[peer.pid] += 1
            client = _Client(self, connection, peer)
            self._clients[client] = None
            self.selector.register(connection, selectors.EVENT_READ, client)

    def _refuse_one(self, error: OSError) -> None:
        """No descriptor is left: a connection is taken with the spare one, and closed."""
        logger.error("a client cannot be accepted: %s", error)
        self._spare.close()
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = open(os.devnull, "rb")

    def hang_up(self, client: _Client) -> None:
        """A client is gone, or is to be."""
        if client not in self._clients:
            return
        del self._clients[client]
        self.stirred.discard(client)
        self._of_process[client.peer.pid] -= 1
        if not self._of_process[client.peer.pid]:
            del self._of_process[client.peer.pid]
        if client.lease is None or self.lent is None:
            self.selector.unregister(client.connection)
            client.connection.close()
            client.session.close()
        else:
            context = client.session.context
            self.lent.recall(client.lease)
            client.session.close()
            if context is not None:
                self.engine.end_now(context.number)

    def client_of(self, context: int) -> _Client | None:
        """The client that established this context."""
        for client in self._clients:
            its = client.session.context
            if its is not None and its.number == context:
                return client
        return None

    def contexts_of(self, pid: int) -> int:
        """How many contexts a process has."""
        return sum(c.peer.pid == pid and c.session.context is not None for c in self._clients)

    # The end --------------------------------------------------------------------------------------

    def _end(self) -> None:
        self.selector.unregister(self._listener)
        self._listener.close()
        for client in list(self._clients):
            client.session.shut_down()
        self.engine.run()
        until = time.monotonic() + FAREWELL_S
        for client in list(self._clients):
            if client.lease is not None:
                self.hang_up(client)
                continue
            client.connection.settimeout(max(0.01, until - time.monotonic()))
            with contextlib.suppress(OSError):
                client.connection.sendall(client.session.out)
            self.hang_up(client)
        self.engine.run()
        self.engine.end()
        if self.lent is not None:
            self.selector.unregister(self.lent.gone)
            self.lent.end()
        self.engine.run()
        self.selector.close()
        for one in (self._woken, self._waker):
            one.close()
        self._spare.close()
