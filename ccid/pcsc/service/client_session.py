"""One client of the service: bytes in, calls of the resource manager, bytes out.

Theory of operation. A connection is a context at most. Requests are carried out one after the
other: while a call is under way, what else has come is kept. Waiting for a change is no such call:
libpcsclite registers for that, and one message of eight bytes ends it, whether an event, a
cancellation or the answer to STOP. Such a message never comes between WAIT and the array that
belongs to it, nor within another reply, because a client would read it as part of that.

libpcsclite tries again every 100 ms where a transaction is in the way. Here such a call waits for a
moment first, and goes on as soon as the transaction ends. It cannot wait for ever: libpcsclite
holds a lock for the whole context meanwhile, and what would end the transaction may need that lock.

A client that sends APDUs may be lent: somebody else hears it meanwhile and answers it, and gives it
back with what it said that is no APDU (:mod:`ccid.pcsc.service.lent_session`).

Nothing here waits, and nothing that a client says raises anything but :class:`BadRequest`, which
ends that client.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ccid.iso7816.apdu import TPDU_HEADER
from ccid.pcsc.manager.pcsc_call import Call, Done, DoneByCaller, Steps
from ccid.pcsc.manager.pcsc_state import Context, SlotView
from ccid.pcsc.manager.scard_codes import Proto, ScardCode
from ccid.pcsc.service import client_messages as messages
from ccid.pcsc.service.client_host import Connection, Host
from ccid.pcsc.service.client_messages import (
    ATTRIBUTE,
    COUNT,
    SIX,
    THREE,
    TRANSMIT,
    TWO,
    BadRequest,
    Command,
)
from ccid.pcsc.service.client_replies import Replies, u32
from ccid.pcsc.service.lent_session import TRANSMIT_HEADER, LentSession

logger = logging.getLogger("ccid.pcsc")

HOLD_S = 0.25
"""A call that a transaction is in the way of waits here so long before libpcsclite asks again."""
MAX_WAITS = 8
"""Registrations of one client; libpcsclite needs one."""
MAX_UNREAD = 64 * 1024
"""Bytes of replies that a client has not read, beyond which no request of it is carried out."""
MAX_UNHEARD = 2 * (messages.MAX_DATA + 1024)
"""Bytes of requests that wait, beyond which a client is hung up on."""

Arguments = tuple[Any, ...]


class ClientCall(Call):
    """A call for a client."""

    def __init__(
        self,
        session: ClientSession,
        function: Callable[..., Steps | Done],
        arguments: Arguments,
        *,
        hold: bool = False,
    ) -> None:
        super().__init__(
            function,
            arguments,
            session.context,
            deadline=session.host.now() + HOLD_S if hold else None,
            late_code=ScardCode.E_SHARING_VIOLATION,
            refuses_own_lock=hold,
        )
        self.session = session
        self.reply: Callable[[ClientCall], bytes] = _no_reply

    def finished(self) -> None:
        """Send the reply, and go on with what the client said meanwhile."""
        self.session.call_over(self)


class ChangeCall(Call):
    """A client waits for a change."""

    def __init__(self, session: ClientSession) -> None:
        super().__init__(session.host.functions.change, (), session.context)
        self.session = session
        self.is_withdrawn = False

    def finished(self) -> None:
        """Send the message that says so."""
        self.session.change_over(self)


def _no_reply(call: ClientCall) -> bytes:
    return b""


class ClientSession:
    """A client.

    Args:
        host: The resource manager.
        connection: The client's.
        name: Of the client, for a log.
        entries: So many entries the reader-state array has for clients before 4:6.

    Attributes:
        context: Its context; None before and after.
        out: What is to be sent to it.
        is_over: It is gone, or is to be hung up on.
        is_lent: Somebody else hears it and answers it.
    """

    def __init__(self, host: Host, connection: Connection, name: str, entries: int) -> None:
        self.host = host
        self._connection = connection
        self.name = name
        self._entries = entries
        self.context: Context | None = None
        self.out = bytearray()
        self.is_over = False
        self.is_lent = False
        self._may_be_lent = True
        self._began = 0
        self._is_after_begin = self._begins_to_send = False
        self._in = bytearray()
        self._call: ClientCall | None = None
        self._waits: list[ChangeCall] = []
        self._held: list[bytes] = []
        self._holds_events = False
        self._minor = messages.DEFAULT_MINOR
        self._name_size = messages.NAME

    # Bytes ----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes came from the client.

        Raises:
            BadRequest: They are no request of libpcsclite's.
        """
        self._in += data
        if len(self._in) > MAX_UNHEARD:
            raise BadRequest(f"{len(self._in)} bytes at once")
        self.go_on()

    def go_on(self) -> None:
        """Carry out the requests that are complete, one after the other.

        Raises:
            BadRequest: One is none.
        """
        while not self._is_occupied and len(self.out) <= MAX_UNREAD:
            request = self._next_request()
            if request is None:
                return
            self._carry_out(*request)

    @property
    def _is_occupied(self) -> bool:
        """No request of it is carried out."""
        return self.is_over or self.is_lent or self._call is not None

    def all_sent(self) -> None:
        """The client was sent all there is. One that has begun a transaction is lent, if it sent an
        APDU at once the last time that it did so."""
        number, self._began = self._began, 0
        may_be_lent = self._begins_to_send and not self._is_occupied
        if number and may_be_lent and self._is_simple:
            self.is_lent = self._connection.lend(number, Proto.RAW, b"")

    def came_back(self, lent: LentSession[DoneByCaller], unsent: bytes) -> None:
        """It is not lent any more.

        Args:
            lent: What was left undone.
            unsent: The rest of a reply.

        Raises:
            BadRequest: What the client said is no request of libpcsclite's.
        """
        self.is_lent = False
        if self.is_over:
            return
        self.out += unsent
        self._may_be_lent = not lent.is_refused
        self._is_after_begin = self._is_after_begin and not lent.is_used
        done = lent.done
        if done is not None:
            number = TRANSMIT.unpack(lent.body)[0]
            told = self.host.functions.transmitted
            reply = Replies(lent.body).transmit
            self._begin(reply, told, number, done.job, done.card, done.outcome)
        self.received(lent.unheard)

    def _next_request(self) -> tuple[Command, bytes, bytes] | None:
        start = messages.HEADER.size
        if len(self._in) < start:
            return None
        command, size = messages.request_length(self._in)
        if len(self._in) < start + size:
            return None
        body = bytes(self._in[start : start + size])
        end = start + size + messages.data_length(command, body)
        if len(self._in) < end:
            return None
        data = bytes(self._in[start + size : end])
        if len(data) > TPDU_HEADER:  # it may be a secret
            self._in[:end] = bytes(end)
        del self._in[:end]
        return command, body, data

    def close(self) -> None:
        """The client is gone: its context is released."""
        self.is_over = True
        self._in.clear()
        self.out.clear()
        call, self._call = self._call, None
        if call is not None:
            self.host.core.abandon(call, self.host.now())
        self._drop_context()

    def shut_down(self) -> None:
        """The service ends: tell a client that waits for something."""
        now = self.host.now()
        for wait in list(self._waits):
            self.host.core.expire(wait, ScardCode.E_NO_SERVICE, now)
        if self._call is not None:
            self.host.core.expire(self._call, ScardCode.E_NO_SERVICE, now)

    # Calls ----------------------------------------------------------------------------------------

    def _begin(
        self,
        reply: Callable[[ClientCall], bytes],
        function: Callable[..., Steps | Done],
        *arguments: Any,
        hold: bool = False,
    ) -> None:
        call = ClientCall(self, function, arguments, hold=hold)
        call.reply = reply
        self._call = call
        self.host.begin(call)

    def call_over(self, call: ClientCall) -> None:
        """A call of this client ended."""
        if self._call is not call:
            self._orphan(call)
            return
        self._call = None
        assert call.code is not None
        self.out += call.reply(call)
        if call.function == self.host.functions.begin and call.code is ScardCode.S_SUCCESS:
            self._began, self._is_after_begin = call.arguments[0], True
        if not self._holds_events:
            self.out += self._release_events()
        try:
            self.go_on()
        except BadRequest as error:
            self.refuse(error)
        self._connection.has_news()

    def _orphan(self, call: ClientCall) -> None:
        """What a client that is gone asked for has come: it is given back."""
        if isinstance(call.result, Context):
            self.host.core.client_gone(call.result, self.host.now())

    def refuse(self, error: BadRequest) -> None:
        """Hang up on the client."""
        logger.warning("%s: hung up on: %s", self.name, error)
        self.is_over = True

    # Requests -------------------------------------------------------------------------------------

    def _carry_out(self, command: Command, body: bytes, data: bytes) -> None:
        logger.debug("%s: %s", self.name, command.name)
        self._began = 0
        if self._is_after_begin:
            self._is_after_begin, self._begins_to_send = False, command is Command.TRANSMIT
        match command:
            case Command.TRANSMIT:
                self._transmit(body, data)
            case Command.CONTROL:
                self._control(body, data)
            case Command.CONNECT:
                self._connect(body)
            case Command.GETATTRIB | Command.SETATTRIB:
                self._attribute(command, body)
            case Command.WAIT:
                self._wait()
            case Command.STOP:
                self._stop(body)
            case Command.GETSTATE | Command.SIZE | Command.ARRAY | Command.EVENTS:
                self._look(command)
            case Command.ESTABLISH | Command.RELEASE | Command.CANCEL | Command.VERSION:
                self._of_context(command, body)
            case _:
                self._of_card(command, body)

    def _of_context(self, command: Command, body: bytes) -> None:
        match command:
            case Command.VERSION:
                self._version(body)
            case Command.ESTABLISH:
                self._establish(body)
            case Command.RELEASE:
                self._release(body)
            case Command.CANCEL:
                self._cancel(body)

    def _version(self, body: bytes) -> None:
        major, minor, _ = THREE.unpack(body)
        code = ScardCode.S_SUCCESS
        if major != messages.MAJOR or minor < messages.MIN_MINOR:
            code, minor = ScardCode.E_SERVICE_STOPPED, messages.MAX_MINOR
        self._minor = min(minor, messages.MAX_MINOR)
        self.out += THREE.pack(messages.MAJOR, self._minor, code)

    def _establish(self, body: bytes) -> None:
        scope, _, _ = THREE.unpack(body)
        self._drop_context()
        if not self._connection.may_establish():
            self.out += THREE.pack(scope, 0, ScardCode.E_NO_MEMORY)
            return
        self._begin(Replies.establish, self.host.functions.establish, scope)

    def _release(self, body: bytes) -> None:
        number, _ = TWO.unpack(body)
        code = ScardCode.E_INVALID_HANDLE
        if self.context is not None:
            code = ScardCode.E_INVALID_VALUE
            if number == self.context.number:
                self._drop_context()
                code = ScardCode.S_SUCCESS
        self.out += TWO.pack(number, code)

    def _drop_context(self) -> None:
        """The context is released, if there is one; what waits is not told. A client may have
        begun to wait before it had a context."""
        now = self.host.now()
        for wait in self._waits:
            wait.is_withdrawn = True
            self.host.core.abandon(wait, now)
        self._waits.clear()
        self._held.clear()
        self._holds_events = False
        if self.context is not None:
            self.host.core.client_gone(self.context, now)
            self.context = None

    def _cancel(self, body: bytes) -> None:
        number, _ = TWO.unpack(body)
        if not self._connection.may_cancel(number):
            self.out += TWO.pack(number, ScardCode.E_INVALID_HANDLE)
            return
        call = ClientCall(self, self.host.functions.cancel, (number, True))
        call.context = None  # any may be cancelled
        call.reply = Replies(body).two
        self._call = call
        self.host.begin(call)

    def _connect(self, body: bytes) -> None:
        is_old = len(body) == messages.CONNECT_OLD.size
        form = messages.CONNECT_OLD if is_old else messages.CONNECT
        number, name, share, protocols, _, _, _ = form.unpack(body)
        replies = Replies(body)
        if is_old:
            self._name_size = messages.OLD_NAME
        if self.context is None:
            self.out += replies.connected(0, 0, ScardCode.E_INVALID_HANDLE)
        elif number != self.context.number:
            self.out += replies.connected(0, 0, ScardCode.E_INVALID_VALUE)
        else:
            text = messages.reader_name(name)
            connect = self.host.functions.connect
            self._begin(replies.connect, connect, number, text, share, protocols)

    def _of_card(self, command: Command, body: bytes) -> None:
        replies, functions = Replies(body), self.host.functions
        fields = [int.from_bytes(body[i : i + 4], sys.byteorder) for i in range(0, len(body), 4)]
        if self.context is None:
            self.out += body[:-4] + u32(ScardCode.E_INVALID_HANDLE)
            return
        match command:
            case Command.RECONNECT:
                self._begin(replies.reconnect, functions.reconnect, *fields[:4], hold=True)
            case Command.DISCONNECT:
                self._begin(replies.plain, functions.disconnect, *fields[:2])
            case Command.BEGIN:
                self._begin(replies.plain, functions.begin, fields[0], hold=True)
            case Command.END:
                self._begin(replies.plain, functions.end, *fields[:2])
            case Command.STATUS:
                self._begin(replies.plain, functions.status, fields[0], hold=True)

    def _transmit(self, body: bytes, data: bytes) -> None:
        number, protocol, *_ = TRANSMIT.unpack(body)
        replies, transmit = Replies(body), self.host.functions.transmit
        may_be_lent, self._may_be_lent = self._may_be_lent, True
        if may_be_lent and self._is_simple:
            whole = TRANSMIT_HEADER + body + data
            self.is_lent = self._connection.lend(number, protocol, whole)
        if self.is_lent:
            return
        if self.context is None:
            self.out += replies.transmitted(b"", 0, ScardCode.E_INVALID_HANDLE)
        else:
            self._begin(replies.transmit, transmit, number, protocol, data, hold=True)

    @property
    def _is_simple(self) -> bool:
        """It has a context, and nothing waits: neither for it nor to be sent to it."""
        waits = self._waits or self._held or self._holds_events
        return self.context is not None and not waits and not self._in and not self.out

    def _control(self, body: bytes, data: bytes) -> None:
        number, code, *_ = SIX.unpack(body)
        replies = Replies(body)
        if self.context is None:
            self.out += replies.controlled(b"", ScardCode.E_INVALID_HANDLE)
        else:
            self._begin(replies.control, self.host.functions.control, number, code, data)

    def _attribute(self, command: Command, body: bytes) -> None:
        number, attribute, value, length, _ = ATTRIBUTE.unpack(body)
        replies, functions = Replies(body), self.host.functions
        if self.context is None:
            self.out += body[:-4] + u32(ScardCode.E_INVALID_HANDLE)
        elif command is Command.GETATTRIB:
            self._begin(replies.get_attribute, functions.get_attribute, number, attribute)
        else:
            set_it = functions.set_attribute
            self._begin(replies.plain, set_it, number, attribute, value[:length])

    # Looking and waiting --------------------------------------------------------------------------

    def _look(self, command: Command) -> None:
        match command:
            case Command.SIZE:
                self.out += COUNT.pack(self._array_size)
            case Command.EVENTS:
                self.out += TWO.pack(self._reader_events, ScardCode.S_SUCCESS)
            case _:
                self._begin(self._array, self.host.functions.views)

    @property
    def _array_size(self) -> int:
        if self._minor < messages.MAX_MINOR:
            return self._entries
        return len(self.host.core.resources.slots)

    @property
    def _reader_events(self) -> int:
        return self.host.core.resources.reader_events

    def _array(self, call: ClientCall) -> bytes:
        views: list[SlotView | None] = call.result or []
        size = self._array_size
        self._holds_events = False
        return messages.array(views, size, self._name_size)

    def _release_events(self) -> bytes:
        """What happened meanwhile may be told."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    def _wait(self) -> None:
        """WAIT: up to 4:3 the client has looked already; 4:4 and 4:5 get the array at once; later
        ones ask for it next."""
        if len(self._waits) + len(self._held) >= MAX_WAITS:
            raise BadRequest("too many WAITs")
        wait = ChangeCall(self)
        self._waits.append(wait)
        self._holds_events = self._minor > 3
        self.host.begin(wait)
        if 3 < self._minor < messages.MAX_MINOR:
            self._begin(self._array, self.host.functions.views)

    def change_over(self, wait: ChangeCall) -> None:
        """Something changed, or the wait was cancelled."""
        if wait.is_withdrawn or wait not in self._waits:
            return
        self._waits.remove(wait)
        assert wait.code is not None
        # a client that reads this for the answer to EVENTS reads what it asked for
        events = self._reader_events if self._minor > 4 else 0
        message = TWO.pack(events, wait.code)
        if self._holds_events or self._call is not None:
            self._held.append(message)
        else:
            self.out += message
            self._connection.has_news()

    def _stop(self, body: bytes) -> None:
        timeout = TWO.unpack(body)[0] if body else 0
        self._holds_events = False
        self.out += self._release_events()
        if not self._waits:
            return
        wait = self._waits.pop(0)
        wait.is_withdrawn = True
        self.host.core.abandon(wait, self.host.now())
        self.out += TWO.pack(timeout, ScardCode.S_SUCCESS)
