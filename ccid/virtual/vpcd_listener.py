"""The reader side of the vpcd protocol: puts the card of a connection into a virtual reader.

A listener serves one slot. A program that provides a card (vsmartcard's ``vicc``, jCardSim)
connects, and the listener asks for the ATR. Then the card is in the slot, until the connection
ends. The listener closes a connection that breaks the protocol, that is too slow, or that comes
while the slot has a card; the virtual reader stays usable.

The protocol has no authentication, so the listener binds to 127.0.0.1 only.

A card that listens is called instead: :class:`ccid.virtual.vpcd_caller.VpcdCaller`.

One thread per listener does all input and output on non-blocking sockets. Another thread that sends
only appends to a buffer, whose size is limited, and wakes the listener's thread. A message of the
card goes through a queue, so that a thread that waits for the message, and holds the lock of the
virtual reader meanwhile, gets it too.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Container
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from ccid.errors import MalformedMessage
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import new_lock
from ccid.virtual.cards import Application, Contact
from ccid.virtual.virtual_reader import VirtualReader
from ccid.virtual.virtual_slot import Card
from ccid.virtual.vpcd_card import MAX_EXPECTED, VpcdCard
from ccid.virtual.vpcd_messages import Control, MessageStream, checked_atr, control
from ccid.virtual.vpcd_sockets import CHUNK, receive, send_at_once

HOST = "127.0.0.1"
ATR_LIMIT_S = 10.0
"""A connection that has not sent its ATR after this time is closed."""
PARTIAL_LIMIT_S = 30.0
"""A message that stays incomplete for this time closes the connection."""
MAX_UNSENT = 1 << 18
"""A connection that leaves more bytes than this untaken is closed."""
LOCK_S = 0.005
"""How long the listener's thread waits for the lock of the virtual reader at a time."""
LONGEST_S = 3600.0
"""The longest single wait: the system refuses very long times."""
RETRY_S = 0.5
"""Pause after a failed accept."""

logger = logging.getLogger("ccid.virtual.vpcd")


class Connection:
    """One connection: the :class:`ccid.virtual.vpcd_card.Link` of its card.

    Args:
        sock: The connected socket, non-blocking.
        now: The time, seconds.
        wake: Wakes the listener's thread.

    Attributes:
        card: The card; None until the ATR has come.
        inbox: Messages of the other end that the card has not taken; None marks the end.
        is_given_up: The card asks for the end of the connection.
    """

    def __init__(self, sock: socket.socket, now: float, wake: Callable[[], None]) -> None:
        self.sock = sock
        self.card: VpcdCard | None = None
        self.inbox: Mailbox[bytes | None] = Mailbox()
        self.is_given_up = False
        self._wake = wake
        self._lock = new_lock()
        self._unsent = bytearray()
        self._stream = MessageStream()
        self._atr_until = now + ATR_LIMIT_S
        self._partial_until: float | None = None

    def send(self, data: bytes) -> None:
        """Queue ``data`` for the other end. Never blocks."""
        with self._lock:
            self._unsent += data
        self._wake()

    def wait(self, timeout_s: float) -> bytes | None:
        """The next message of the other end; None after ``timeout_s`` seconds, or at the end."""
        try:
            return self.inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Ask for the end of the connection. Never blocks."""
        self.is_given_up = True
        self._wake()

    @property
    def has_unsent(self) -> bool:
        """True if there are bytes to send."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send what the socket takes.

        Raises:
            OSError: The connection broke.
            MalformedMessage: The other end leaves too many bytes untaken.
        """
        with self._lock:
            if self._unsent:
                with suppress(BlockingIOError):
                    del self._unsent[: self.sock.send(self._unsent)]
            if len(self._unsent) > MAX_UNSENT:
                raise MalformedMessage("vpcd: the card side takes no messages")

    def receive(self, now: float) -> list[bytes]:
        """The messages that are complete now.

        Raises:
            OSError: The connection broke.
            EOFError: The other end closed the connection.
            MalformedMessage: The other end broke the protocol.
        """
        try:
            data = receive(self.sock)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        messages = list(self._stream.feed(data))
        if not self._stream.is_partial:
            self._partial_until = None
        elif messages or self._partial_until is None:
            self._partial_until = now + PARTIAL_LIMIT_S
        return messages

    def deadline(self) -> float | None:
        """The time at which the connection becomes too slow; None without a limit."""
        times = [self._partial_until, self._atr_until if self.card is None else self.card.deadline]
        return min((time for time in times if time is not None), default=None)


class VpcdListener:
    """Puts the cards of connections to a TCP port of this machine into a slot.

    Args:
        reader: The virtual reader.
        port: The TCP port; 0 for any free port.
        slot: bSlot.
        interface: Index of the reader's interface with the slot.
        insert_as: Makes what goes into the slot from a card: a card with options of its contacts.

    Attributes:
        reader, slot: As above.
        address: Host and port; after :meth:`start` with the real port.
    """

    def __init__(
        self,
        reader: VirtualReader,
        port: int,
        slot: int = 0,
        interface: int = 0,
        insert_as: Callable[[Application], Card] = Contact,
    ) -> None:
        self.reader = reader
        self.slot = slot
        self.address = (HOST, port)
        self._interface = interface
        self._insert_as = insert_as
        self._connection: Connection | None = None
        self._arrivals: Mailbox[None] = Mailbox()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._resources = ExitStack()

    def start(self) -> Self:
        """Listen, in a new thread.

        Raises:
            OSError: The port is in use, or no thread can start.
        """
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._open(stack)
            self._alarm, self._alarmed = socket.socketpair()
            for end in (self._alarm, self._alarmed):
                stack.callback(end.close)
                end.setblocking(False)
            self._selector.register(self._alarmed, selectors.EVENT_READ)
            thread = threading.Thread(target=self._run, name="vpcd", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise OSError(f"no thread can be started to listen: {error}") from None
            self._thread = thread
            self._resources = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        """Make the socket on which cards connect; ``stack`` closes it."""
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        if os.name == "posix":  # on other systems the option lets another process take the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.address)
        listener.listen()
        listener.setblocking(False)
        self.address = listener.getsockname()[:2]
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def close(self) -> None:
        """Stop listening, close the connection and remove its card.

        The caller must not hold the lock of the virtual reader.
        """
        if self._thread is None:
            return
        self._is_closing = True
        self._wake()
        self._thread.join()
        self._thread = None
        self._resources.close()

    def __enter__(self) -> Self:
        return self if self._thread is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait_for_card(self, timeout_s: float) -> bool:
        """Wait until the slot has a card; False after ``timeout_s`` seconds without one."""
        if self._slot_card() is not None:
            return True
        try:
            self._arrivals.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    # The listener's thread --------------------------------------------------------------------

    def _wake(self) -> None:
        with suppress(OSError):  # a full buffer wakes the thread anyway; a closed one needs not
            self._alarm.send(b"\0")

    def _now(self) -> float:
        return self.reader.port.now()

    def _slot_card(self) -> Card | None:
        return self.reader.functions[self._interface].slots[self.slot].inserted

    def _run(self) -> None:
        while not self._is_closing:
            ready = [key.fileobj for key, _ in self._selector.select(self._sleep_s())]
            if self._alarmed in ready:  # before the work: an alarm during the work stays
                self._alarmed.recv(CHUNK)
            connection = self._connection
            if connection is not None:
                self._serve(connection, connection.sock in ready)
            self._look_for_card(ready)
        if self._connection is not None:
            self._end(self._connection, "the listener closes")

    def _look_for_card(self, ready: Container[object]) -> None:
        """Get a connection, if there is one to get.

        Args:
            ready: The sockets on which something happened.
        """
        if self._listener in ready:
            self._accept()

    def _sleep_s(self) -> float | None:
        """Until when the thread may sleep for the present connection; None without a limit."""
        if self._connection is None:
            return None
        if not self._connection.inbox.empty():
            return 0.0
        deadline = self._connection.deadline()
        return None if deadline is None else min(max(0.0, deadline - self._now()), LONGEST_S)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return  # the client closed the connection first
        except OSError as error:
            logger.warning("a connection could not be accepted: %s", error)
            time.sleep(RETRY_S)
            return
        self._catch_up()
        if self._connection is not None or self._slot_card() is not None:
            logger.info("a connection is closed at once: the slot has a card")
            sock.close()
            return
        self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        """A program that provides a card is connected."""
        sock.setblocking(False)
        send_at_once(sock)
        self._connection = Connection(sock, self._now(), self._wake)
        self._selector.register(sock, selectors.EVENT_READ)
        self._connection.send(control(Control.POWER_ON) + control(Control.ATR))
        self._connection.send(control(Control.POWER_OFF))

    def _catch_up(self) -> None:
        """Read what the present connection has sent: perhaps its end, before the new one came."""
        for _ in range(MAX_EXPECTED):
            connection = self._connection
            if connection is None or not select.select([connection.sock], [], [], 0)[0]:
                return
            self._serve(connection, True)

    def _serve(self, connection: Connection, is_ready: bool) -> None:
        """Do all pending work for the connection; close the connection if that fails."""
        try:
            if is_ready:
                for message in connection.receive(self._now()):
                    self._take(connection, message)
            self._deliver(connection)
            connection.flush()
            events = selectors.EVENT_READ
            if connection.has_unsent:
                events |= selectors.EVENT_WRITE
            self._selector.modify(connection.sock, events)
            deadline = connection.deadline()
            is_late = deadline is not None and deadline <= self._now()
            if is_late or connection.is_given_up:
                raise MalformedMessage("vpcd: the card side is too slow")
        except EOFError:
            self._end(connection, "the card side closed the connection")
        except (MalformedMessage, OSError) as error:
            self._end(connection, str(error))

    def _take(self, connection: Connection, message: bytes) -> None:
        """Take a message: the ATR, or a response APDU."""
        if connection.card is None:
            self._insert(connection, checked_atr(message))
        elif connection.inbox.qsize() >= MAX_EXPECTED:
            raise MalformedMessage("vpcd: response APDUs without command APDUs")
        else:
            connection.inbox.put(message)

    def _deliver(self, connection: Connection) -> None:
        """Give the card its messages, unless another thread uses the reader.

        That thread may wait for a message. So this thread must go on to read the socket, and
        tries again soon.
        """
        changed = self.reader.port.changed
        if connection.card is None or connection.inbox.empty():
            return
        if not changed.acquire(timeout=LOCK_S):
            return
        try:
            while (content := connection.inbox.get_nowait()) is not None:
                connection.card.take(content, self._now())
        except queue.Empty:
            return
        finally:
            changed.release()

    def _insert(self, connection: Connection, atr: bytes) -> None:
        card = VpcdCard(atr, connection)
        with self.reader.port.changed:
            if self._slot_card() is not None:
                raise MalformedMessage("vpcd: the slot has another card")
            connection.card = card
            self.reader.insert(self._insert_as(card), self.slot, self._interface)
        logger.info("a card is inserted")
        self._arrivals.put(None)

    def _end(self, connection: Connection, why: str) -> None:
        """Close a connection and remove its card."""
        logger.info("the connection of a card is closed: %s", why)
        connection.inbox.put(None)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._connection = None
        card = connection.card
        if card is None:
            return
        with suppress(queue.Empty):
            self._arrivals.get_nowait()
        with self.reader.port.changed:
            inserted = self._slot_card()
            if isinstance(inserted, Contact) and inserted.application is card:
                self.reader.remove(self.slot, self._interface)
            card.lose(self._now())
