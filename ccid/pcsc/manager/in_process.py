"""The resource manager in this process: functions of PC/SC that return or raise."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ccid.ground.mailbox import Mailbox
from ccid.ground.once import Once
from ccid.pcsc.manager.card_calls import CardStatus
from ccid.pcsc.manager.engine import Abandoned, Ended, Engine, Plugged, Settings
from ccid.pcsc.manager.pcsc_call import Call, Done, Steps
from ccid.pcsc.manager.resources import GRACE_S
from ccid.pcsc.manager.scard_codes import (
    INFINITE,
    INFINITE_OF_PYSCARD,
    Disposition,
    Proto,
    ScardCode,
    ScardError,
    Scope,
    Share,
)
from ccid.pcsc.manager.status_changes import ReaderState

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader

logger = logging.getLogger("ccid.pcsc")

MAX_SLOTS = 256
"""So many readers there are at most, where nobody says less."""
CLOSE_S = 10.0


class _Blocking(Call):
    """A call that a thread waits for."""

    def __init__(
        self,
        function: Callable[..., Steps | Done],
        arguments: tuple[Any, ...],
        timeout: float | None,
    ) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        super().__init__(function, arguments, deadline=deadline)
        self.over: Mailbox[None] = Mailbox()

    def finished(self) -> None:
        """Wake the thread."""
        self.over.put(None)


class Manager:
    """A PC/SC resource manager in this process. May be used from several threads.

    Contexts and handles are numbers, as PC/SC has them. Every function raises
    :class:`ScardError`, whose ``code`` is the return code of PC/SC, where that is not success.
    Those that may have to wait for another's transaction take ``timeout`` in seconds, None for no
    limit, and end with ``E_TIMEOUT`` when it is over; a command that a card is at work on is never
    ended by it.

    Args:
        virtual: Virtual readers to be had, besides those on USB.
        usb: Readers on USB are to be had.
        names: Of those only these: names or parts of them, ``vvvv:pppp``, paths.
        max_slots: So many readers there may be, each slot counted.
        escape: Escape commands may be sent.
        grace_s: So long a card keeps its power that nobody needs.
    """

    def __init__(
        self,
        virtual: Sequence[VirtualReader] = (),
        *,
        usb: bool = True,
        names: Sequence[str] = (),
        max_slots: int = MAX_SLOTS,
        escape: bool = True,
        grace_s: float = GRACE_S,
    ) -> None:
        infos = tuple(info for reader in virtual for info in reader.infos)
        settings = Settings(infos, usb, tuple(names), max_slots, escape, grace_s)
        self._engine = Engine(settings, _nobody_to_wake)
        self._functions = self._engine.functions
        self._calls: dict[_Blocking, None] = {}
        """Those that threads wait for."""
        self._is_over = False
        """The thread ends: nobody does a call any more."""
        self._process = _process
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="pcsc manager", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        engine = self._engine
        while not engine.is_ended:
            try:
                due = engine.run()
                if not engine.is_ended:  # the end may have come as one message of several
                    engine.wait(due)
            except Exception:  # a fault of ours must not keep all callers waiting for ever
                logger.exception("the resource manager goes on after a fault")
        try:
            engine.run()
        finally:
            self._is_over = True
            for call in list(self._calls):
                if call.code is None:
                    call.code = ScardCode.E_NO_SERVICE
                    call.finished()

    def plug(self, reader: VirtualReader) -> None:
        """Have one more virtual reader. It leaves by :meth:`ccid.VirtualReader.unplug`."""
        self._engine.post(Plugged(tuple(reader.infos)))

    def numbers(self) -> list[int]:
        """All contexts and handles that there are."""
        resources = self._engine.core.resources
        return [*resources.contexts, *resources.handles]

    def close(self) -> None:
        """Power all cards off and give all readers back. More than once does no harm."""
        if self._is_closed or self._process is not _process:
            return
        self._is_closed = True
        self._engine.post(Ended())
        self._thread.join(CLOSE_S)

    def _call(
        self,
        function: Callable[..., Steps | Done],
        *arguments: Any,
        timeout: float | None = None,
    ) -> Any:
        if self._process is not _process:
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        if self._is_closed:
            raise ScardError(ScardCode.E_NO_SERVICE)
        call = _Blocking(function, arguments, timeout)
        try:
            self._calls[call] = None  # before it is asked whether the thread is over: see _run
            if self._is_over:
                raise ScardError(ScardCode.E_NO_SERVICE)
            self._engine.post(call)
            try:
                call.over.get()
            except BaseException:  # as Ctrl-C
                self._engine.post(Abandoned(call))
                raise
        finally:
            self._calls.pop(call, None)
        assert call.code is not None
        if call.code is not ScardCode.S_SUCCESS:
            raise ScardError(call.code)
        return call.result

    # Contexts -------------------------------------------------------------------------------------

    def establish(self, scope: int = Scope.SYSTEM) -> int:
        """SCardEstablishContext: a context."""
        number: int = self._call(self._functions.establish, scope).number
        return number

    def release(self, context: int) -> None:
        """SCardReleaseContext: its handles are closed, its calls ended."""
        self._call(self._functions.release, context)
        self._engine.end_now(context)

    def is_valid(self, context: int) -> bool:
        """SCardIsValidContext."""
        try:
            self._call(self._functions.check, context)
        except ScardError:
            return False
        return True

    def cancel(self, context: int) -> None:
        """SCardCancel: a :meth:`get_status_change` of this context that waits ends with
        ``E_CANCELLED``."""
        self._call(self._functions.cancel, context)

    # Readers --------------------------------------------------------------------------------------

    def list_readers(self, context: int) -> list[str]:
        """SCardListReaders: the names, a new list.

        Raises:
            ScardError: E_NO_READERS_AVAILABLE: There are none.
        """
        views = self._call(self._functions.views, context)
        names = [view.name for view in views if view is not None]
        if not names:
            raise ScardError(ScardCode.E_NO_READERS_AVAILABLE)
        return names

    def get_status_change(
        self, context: int, timeout_ms: int, states: Sequence[ReaderState]
    ) -> tuple[ScardCode, list[ReaderState]]:
        """SCardGetStatusChange.

        Args:
            context: The context.
            timeout_ms: Milliseconds; 0 for one look, 0xFFFFFFFF, 0x7FFFFFFF or any negative
                number for ever.
            states: What is known of each reader.

        Returns:
            S_SUCCESS, E_TIMEOUT or E_CANCELLED; and what there is of each, in the same order.

        Raises:
            ScardError: E_INVALID_HANDLE, E_UNKNOWN_READER.
        """
        is_endless = timeout_ms < 0 or timeout_ms in (INFINITE, INFINITE_OF_PYSCARD)
        timeout = None if is_endless else timeout_ms / 1000
        result: tuple[ScardCode, list[ReaderState]] = self._call(
            self._functions.status_change, context, tuple(states), timeout=timeout
        )
        return result

    # Cards ----------------------------------------------------------------------------------------

    def connect(
        self,
        context: int,
        name: str,
        share: int = Share.SHARED,
        protocols: int = Proto.T0 | Proto.T1,
        timeout: float | None = None,
    ) -> tuple[int, int]:
        """SCardConnect: the handle, and the active protocol (0 for none)."""
        handle, protocol = self._call(
            self._functions.connect, context, name, share, protocols, timeout=timeout
        )
        return handle, int(protocol)

    def reconnect(
        self,
        handle: int,
        share: int = Share.SHARED,
        protocols: int = Proto.T0 | Proto.T1,
        initialization: int = Disposition.LEAVE,
        timeout: float | None = None,
    ) -> int:
        """SCardReconnect: the active protocol."""
        function = self._functions.reconnect
        return int(self._call(function, handle, share, protocols, initialization, timeout=timeout))

    def disconnect(
        self, handle: int, disposition: int = Disposition.LEAVE, timeout: float | None = None
    ) -> None:
        """SCardDisconnect."""
        self._call(self._functions.disconnect, handle, disposition, timeout=timeout)

    def begin(self, handle: int, timeout: float | None = None) -> None:
        """SCardBeginTransaction."""
        self._call(self._functions.begin, handle, timeout=timeout)

    def end(self, handle: int, disposition: int = Disposition.LEAVE) -> None:
        """SCardEndTransaction."""
        self._call(self._functions.end, handle, disposition)

    def status(self, handle: int, timeout: float | None = None) -> CardStatus:
        """SCardStatus."""
        status: CardStatus = self._call(self._functions.status, handle, timeout=timeout)
        return status

    def transmit(
        self, handle: int, protocol: int, apdu: bytes, timeout: float | None = None
    ) -> tuple[bytes, int]:
        """SCardTransmit.

        Args:
            handle: The handle.
            protocol: Of the send header: the active one, or RAW.
            apdu: The command APDU.
            timeout: Seconds to wait for another's transaction; None for no limit.

        Returns:
            The response APDU, and the protocol of the receive header (0 for T=0, 1 for T=1).
        """
        apdu = bytes(apdu)
        done = None
        if not self._is_closed and self._process is _process:
            done = self._engine.transmit_now(handle, protocol, apdu)
        if isinstance(done, tuple):
            return done
        if done is None:
            transmit = self._functions.transmit
            response, number = self._call(transmit, handle, protocol, apdu, timeout=timeout)
        else:
            told = self._functions.transmitted
            response, number = self._call(told, handle, done.job, done.card, done.outcome)
        return response, number

    def control(self, handle: int, code: int, data: bytes = b"") -> bytes:
        """SCardControl: the answer."""
        answer: bytes = self._call(self._functions.control, handle, code, bytes(data))
        return answer

    def get_attrib(self, handle: int, attribute: int) -> bytes:
        """SCardGetAttrib: the value."""
        value: bytes = self._call(self._functions.get_attribute, handle, attribute)
        return value

    def set_attrib(self, handle: int, attribute: int, value: bytes) -> None:
        """SCardSetAttrib."""
        self._call(self._functions.set_attribute, handle, attribute, bytes(value))


_process = object()
"""Stands for this process: a forked child has another. To ask for the number of the process is a
system call, and each APDU would."""


def _nobody_to_wake() -> None:
    """The thread of a manager waits for messages themselves."""


def _make() -> Manager:
    made = Manager()
    atexit.register(made.close)
    return made


_shared = Once(_make)


def _renew() -> None:
    """In a forked child: the parent's manager, its contexts and its handles are the parent's."""
    global _shared, _process
    _shared, _process = Once(_make), object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def shared_manager() -> Manager:
    """The manager that all of this process may share, made when it is first asked for: it has the
    readers on USB."""
    return _shared()
