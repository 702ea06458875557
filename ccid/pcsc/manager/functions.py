"""The functions of PC/SC by the numbers of contexts and handles; pure.

Each takes the call that it is for, and returns its result or the steps to it. Where the call has a
context already, as that of a client at a socket has, another context's handle is as unknown as one
that never was.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccid.pcsc.manager import card_calls
from ccid.pcsc.manager.core import Core
from ccid.pcsc.manager.pcsc_call import AnyChange, Call, Done, Steps
from ccid.pcsc.manager.pcsc_state import Context, Handle
from ccid.pcsc.manager.scard_codes import (
    MAX_ATTRIBUTE,
    MAX_EXTENDED,
    ScardCode,
    ScardError,
    Scope,
    StateBits,
)
from ccid.pcsc.manager.status_changes import ReaderState, StatusLook


class Functions:
    """What a client can ask for.

    Args:
        core: Whose resources.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._resources = core.resources

    # Contexts -------------------------------------------------------------------------------------

    def establish(self, call: Call, scope: int) -> Done:
        """SCardEstablishContext: the :class:`Context`."""
        if scope not in tuple(Scope):
            raise ScardError(ScardCode.E_INVALID_VALUE)
        return Done(self._resources.new_context())

    def release(self, call: Call, number: int) -> Done:
        """SCardReleaseContext."""
        self._core.release(self._context(call, number), call)
        return Done()

    def check(self, call: Call, number: int) -> Done:
        """SCardIsValidContext."""
        self._context(call, number)
        return Done()

    def cancel(self, call: Call, number: int, sticky: bool = False) -> Done:
        """SCardCancel, of any context; True if something waited."""
        return Done(self._core.cancel(self._resources.context(number), sticky))

    def _context(self, call: Call, number: int) -> Context:
        found = self._resources.context(number)
        if call.context not in (None, found):
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        return found

    def _handle(self, call: Call, number: int) -> Handle:
        found = self._resources.handle(number)
        if call.context not in (None, found.context):
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        call.context = found.context
        return found

    # Lists and changes ----------------------------------------------------------------------------

    def views(self, call: Call, number: int | None = None) -> Steps:
        """All slots as they are seen, by place; None where there is none. Waits a moment for
        readers that are being opened when the manager begins.

        Args:
            call: The call.
            number: Of a context that must be valid; None for none.
        """
        if number is not None:
            call.context = self._context(call, number)
        return self._views()

    def _views(self) -> Steps:
        while not self._core.is_complete:
            yield AnyChange()
        return self._resources.views

    def change(self, call: Call) -> Steps:
        """Wait until something changes that clients can see."""
        context = call.context
        if context is not None and context.cancelled_until is not None:
            is_cancelled = self._core.now <= context.cancelled_until
            context.cancelled_until = None
            if is_cancelled:
                raise ScardError(ScardCode.E_CANCELLED)
        return self._change()

    @staticmethod
    def _change() -> Steps:
        yield AnyChange()

    def status_change(self, call: Call, number: int, states: Sequence[ReaderState]) -> Steps | Done:
        """SCardGetStatusChange: its code, and what there is. The call's deadline is its
        time-out."""
        if all(state.current & StateBits.IGNORE for state in states):
            return Done((ScardCode.S_SUCCESS, [ReaderState(s.name, s.current) for s in states]))
        call.context = self._context(call, number)
        return self._status_change(states)

    def _status_change(self, states: Sequence[ReaderState]) -> Steps:
        code, resources = ScardCode.S_SUCCESS, self._resources
        try:
            yield from self._views()
        except ScardError as error:
            code = error.code
        look = StatusLook(states, resources.views, resources.reader_events)
        is_changed = look.is_changed(resources.views, resources.reader_events)
        while not is_changed and code is ScardCode.S_SUCCESS:
            try:
                yield AnyChange()
            except ScardError as error:
                code = error.code
            is_changed = look.is_changed(resources.views, resources.reader_events)
        if is_changed and code is ScardCode.E_TIMEOUT:
            code = ScardCode.S_SUCCESS
        return code, look.told

    # Cards ----------------------------------------------------------------------------------------

    def connect(self, call: Call, number: int, name: str, share: int, protocols: int) -> Steps:
        """SCardConnect: the handle, and the active protocol."""
        call.context = self._context(call, number)
        return card_calls.connect(self._resources, call.context, name, share, protocols)

    def reconnect(
        self, call: Call, number: int, share: int, protocols: int, initialization: int
    ) -> Steps:
        """SCardReconnect: the active protocol."""
        handle = self._handle(call, number)
        return card_calls.reconnect(self._resources, handle, share, protocols, initialization)

    def disconnect(self, call: Call, number: int, disposition: int) -> Steps:
        """SCardDisconnect."""
        return card_calls.disconnect(self._resources, self._handle(call, number), disposition)

    def begin(self, call: Call, number: int) -> Steps:
        """SCardBeginTransaction."""
        return card_calls.begin(self._handle(call, number))

    def end(self, call: Call, number: int, disposition: int) -> Steps:
        """SCardEndTransaction."""
        return card_calls.end(self._resources, self._handle(call, number), disposition)

    def status(self, call: Call, number: int) -> Steps:
        """SCardStatus: a :class:`~ccid.pcsc.manager.card_calls.CardStatus`."""
        return card_calls.status(self._handle(call, number))

    def transmit(self, call: Call, number: int, protocol: int, apdu: bytes) -> Steps:
        """SCardTransmit: the response, and the protocol as drivers number it."""
        handle = self._handle(call, number)
        if len(apdu) > MAX_EXTENDED:
            raise ScardError(ScardCode.E_INSUFFICIENT_BUFFER)
        return card_calls.transmit(handle, protocol, apdu)

    def control(self, call: Call, number: int, code: int, data: bytes) -> Steps:
        """SCardControl: the answer."""
        handle = self._handle(call, number)
        if len(data) > MAX_EXTENDED:
            raise ScardError(ScardCode.E_INSUFFICIENT_BUFFER)
        return card_calls.control(handle, code, data)

    def get_attribute(self, call: Call, number: int, attribute: int) -> Steps:
        """SCardGetAttrib: the value."""
        return card_calls.get_attribute(self._handle(call, number), attribute)

    def set_attribute(self, call: Call, number: int, attribute: int, value: bytes) -> Steps:
        """SCardSetAttrib."""
        handle = self._handle(call, number)
        if len(value) > MAX_ATTRIBUTE:
            raise ScardError(ScardCode.E_INSUFFICIENT_BUFFER)
        return card_calls.set_attribute(handle, attribute, value)
