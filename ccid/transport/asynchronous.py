"""libusb's asynchronous side: its events, interrupt transfers that stay armed, the event thread.

pyusb has none of that, so the functions are bound from the library that pyusb has loaded.

Theory of operation. A transfer is submitted, and libusb calls back when it is done. The callback
submits it again, so it is always armed. Callbacks run wherever the events of the transfer's context
are handled: in any transfer of any thread (:mod:`ccid.transport.bulk`), or in
:class:`EventHandler`. So a program that only uses a reader needs no thread. A program that waits
for events registers with the :class:`Attendants` of the context (:mod:`ccid.transport.contexts`
tells which one a reader uses). While any function is registered, one thread handles the events of
that context for all.

A transfer that the event thread completes for another thread takes twice the time of an APDU: two
threads have to be woken. So the event thread stays out of libusb while any exchange is under way in
its context (:attr:`Attendants.under_way`) and for :data:`BUSY_S` after one began
(:meth:`Attendants.make_way`). The exchanging thread handles all events meanwhile. If it has handled
an event of somebody else (:attr:`Attendants.came`), it calls the registered functions itself.

A callback notes what came and does no more: it must neither block nor wait for a lock that a thread
in libusb may hold. The note is passed on outside libusb.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from ccid.errors import TransportError
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.ground.signal_safe_locks import new_rlock
from ccid.transport.libusb import (
    Buffer,
    Status,
    at,
    backend,
    callback_type,
    function,
    keeping_gil,
    plain,
)

logger = logging.getLogger("ccid.transport")

EVENT_SIZE = 64
"""Bytes asked for on interrupt-IN: a notification of many slots."""
END_S = 2.0
"""How long a cancelled transfer may take to end. Only a broken system takes any time."""
NUDGE_S = 0.01
"""How often a thread is told to end until it does."""
IDLE_S, TROUBLED_S = 3600, 0.02
"""How long the thread sleeps when nothing happens; and while a transfer cannot be armed."""
BUSY_S, LONG_S = 0.005, 0.2
"""The thread stays out of libusb for so long after an exchange began; and while exchanges take
longer it looks ever more seldom, up to so often, whether they have ended: each look costs the CPU
time of an APDU."""
INTERRUPT = 3
"""Type of a transfer."""

OUTCOMES = {
    1: Status.IO,
    2: Status.TIMEOUT,
    3: Status.INTERRUPTED,
    4: Status.PIPE,
    5: Status.NO_DEVICE,
    6: Status.OVERFLOW,
}
"""Statuses of a transfer (enum libusb_transfer_status) as return codes; 0 is done."""


class Transfer(ctypes.Structure):
    """struct libusb_transfer, as far as it is needed."""

    _fields_: ClassVar = [
        ("dev_handle", ctypes.c_void_p),
        ("flags", ctypes.c_uint8),
        ("endpoint", ctypes.c_ubyte),
        ("type", ctypes.c_ubyte),
        ("timeout", ctypes.c_uint),
        ("status", ctypes.c_int),
        ("length", ctypes.c_int),
        ("actual_length", ctypes.c_int),
        ("callback", ctypes.c_void_p),
        ("user_data", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("num_iso_packets", ctypes.c_int),
    ]


class Timeval(ctypes.Structure):
    """struct timeval."""

    _fields_: ClassVar = [("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long)]

    @classmethod
    def of(cls, wait_s: float) -> Any:
        """A pointer to ``wait_s`` seconds; none at all if that is not more than 0."""
        seconds = max(0.0, wait_s)
        return ctypes.byref(cls(int(seconds), int(seconds % 1 * 1_000_000)))


class Calls(NamedTuple):
    """Functions of the loaded libusb, bound by name.

    The first two and the last one are called for every message: they take pointers as
    :func:`ccid.transport.libusb.at` makes them. For the others pointers are integers. The last one
    is the first one without leaving the GIL to other threads (:mod:`ccid.transport.bulk`).
    """

    submit: Callable[[Any], int]
    handle_events: Callable[[Any, Any, Any], int]
    alloc_transfer: Callable[[int], int | None]
    free_transfer: Callable[[int], None]
    cancel_transfer: Callable[[int], int]
    interrupt_event_handler: Callable[[int], None]
    has_capability: Callable[[int], int]
    hotplug_register_callback: Callable[..., int]
    hotplug_deregister_callback: Callable[[int, int], None]
    submit_keeping_gil: Callable[[Any], int]


@Once
def calls() -> Calls:
    """Functions of the loaded libusb, bound by name."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    hotplug = (*[integer] * 5, pointer, pointer, pointer)
    found = Calls(
        plain("libusb_submit_transfer", pointer),
        plain("libusb_handle_events_timeout_completed", pointer, pointer, pointer),
        function("libusb_alloc_transfer", pointer, integer),
        function("libusb_free_transfer", None, pointer),
        function("libusb_cancel_transfer", integer, pointer),
        function("libusb_interrupt_event_handler", None, pointer),
        function("libusb_has_capability", integer, ctypes.c_uint32),
        function("libusb_hotplug_register_callback", integer, pointer, *hotplug),
        function("libusb_hotplug_deregister_callback", None, pointer, integer),
        keeping_gil("libusb_submit_transfer", pointer),
    )
    at_exit.add(_end_all)
    return found


def context() -> int:
    """Address of the context of libusb's that finds devices."""
    value: int = backend().ctx.value
    return value


class EventHandler:
    """Has libusb handle the events of a context.

    Args:
        called: A pointer to an int: while that is not 0, libusb does not begin to wait.
        where: Address of the context; 0 for that which finds devices.
    """

    def __init__(self, called: Any = None, where: int = 0) -> None:
        self._handle_events = calls().handle_events
        self._context = at(where or context())
        self._called = called
        self._at_once = Timeval.of(0.0)

    def handle(self, wait_s: float, called: Any = None) -> None:
        """Handle what is due.

        Args:
            wait_s: Seconds to wait for the first event; 0 for not at all.
            called: A pointer to an int as above, for this call.
        """
        wait = Timeval.of(wait_s) if wait_s > 0 else self._at_once
        code = self._handle_events(self._context, wait, called or self._called)
        if code < 0 and code != Status.INTERRUPTED and wait_s > 0:
            time.sleep(min(wait_s, NUDGE_S))  # it did not wait; the caller may be in a loop


# Interrupt transfers ----------------------------------------------------------------------------


class Interrupt:
    """An interrupt-IN transfer that stays armed.

    There is one per reader. With several, Linux leaves no-op entries in an xHCI ring when they are
    cancelled. QEMU (seen with 7.2) takes those for transfers without room, and aborts at the next
    notification.

    Args:
        handle: Address of libusb's handle on the device.
        endpoint: bEndpointAddress.
        those: Are told that something came.

    Attributes:
        inbox: Notifications that came and were not taken yet.
        is_armed: The transfer waits. If not, :attr:`failure` tells why.
        failure: A return code of libusb.
    """

    def __init__(self, handle: int, endpoint: int, those: Attendants) -> None:
        self.inbox: deque[bytes] = deque()
        self.is_armed = False
        self.failure: int = Status.SUCCESS
        self._calls = calls()
        self._attendants = those
        self._events = EventHandler(where=those.context())
        self._ends = False
        self._buffer = Buffer(EVENT_SIZE)
        self._callback = callback_type(None, ctypes.c_void_p)(self._done)
        address = self._calls.alloc_transfer(0)
        if not address:
            raise TransportError("libusb has no memory for a transfer")
        self._address, self._pointer = address, at(address)
        self._transfer = made = Transfer.from_address(address)
        made.dev_handle, made.endpoint, made.type = handle, endpoint, INTERRUPT
        made.callback = ctypes.cast(self._callback, ctypes.c_void_p).value
        made.buffer, made.length = self._buffer.address, EVENT_SIZE
        _living.add(self)

    def arm(self) -> None:
        """Submit it, unless it waits already."""
        if not self.is_armed and not self._ends:
            self._submit()

    def _submit(self) -> None:
        self.is_armed = True  # it may be done before this returns
        code = self._calls.submit(self._pointer)
        if code and code != Status.BUSY:  # busy: it is submitted already
            self.failure, self.is_armed = code, False

    def _done(self, _transfer: int) -> None:
        """libusb calls this, from any thread."""
        try:
            status = self._transfer.status
            if status:
                self.failure, self.is_armed = OUTCOMES.get(status, Status.OTHER), False
            else:
                self.inbox.append(self._buffer.view[: self._transfer.actual_length].tobytes())
                if self._ends:
                    self.is_armed = False
                else:
                    self._submit()
        except BaseException as error:
            # An exception of a signal handler would get lost in libusb: it is raised outside.
            self._attendants.interrupted.append(error)
            self._submit()  # if it was submitted, libusb says so
        self._attendants.came = True  # last: another thread may look at once, and must see all

    def end(self) -> bool:
        """Disarm it for good. False if it does not end: then the handle must stay open."""
        self._ends = True
        until = time.monotonic() + END_S
        while self.is_armed:
            if time.monotonic() > until:
                _lost.append(self)
                return False
            self._calls.cancel_transfer(self._address)
            self._events.handle(NUDGE_S)
        _living.discard(self)
        address, self._address = self._address, 0
        if address:
            self._calls.free_transfer(address)
        return True


_living: set[Interrupt] = set()
"""Transfers that libusb may call back: they must stay in memory until then."""
_lost: list[Interrupt] = []
"""Transfers that never ended: libusb may call them back at any time, so they are kept."""


# Functions that wait for events -----------------------------------------------------------------


class Attendants:
    """The functions to call after events of a context. While there is one, a thread handles these
    events.

    Args:
        where: Address of the context; 0 for that which finds devices.

    Attributes:
        thread: That thread; None while no function is registered.
        came: Something came, in any thread, and was not passed on yet. A thread that has handled
            events then calls :meth:`take`.
        interrupted: Exceptions of signal handlers in callbacks; :meth:`take` raises them.
        under_way: Threads (``threading.get_ident``) that have an exchange under way: the event
            thread stays out of libusb.
    """

    def __init__(self, where: int = 0) -> None:
        self._where = where
        self.reset()

    def context(self) -> int:
        """Address of the context."""
        return self._where or context()

    def reset(self) -> None:
        """Begin anew; in a forked child, where all of this is the parent's."""
        self._lock = new_rlock()  # within it a forgotten reader may be collected, and closed
        self._takers: tuple[Callable[[], bool], ...] = ()
        self.thread: _EventThread | None = None
        self.came = False
        self.interrupted: list[BaseException] = []
        self.under_way: set[int] = set()

    def add(self, take: Callable[[], bool]) -> Callable[[], None]:
        """Register ``take``, to be called after events were handled. It returns True to be called
        again soon. Returns a function that ends that.

        Raises:
            TransportError: The system has no thread left.
        """

        def end() -> None:
            self._keep(lambda one: one is not take)

        try:
            with self._lock:
                self._takers = (*self._takers, take)
                if self.thread is None:
                    self.thread = _EventThread(self)
                    self.thread.start()
                else:
                    self.thread.nudge()
        except RuntimeError as error:
            end()
            raise TransportError(
                f"no thread can be started that waits for events: {error}"
            ) from None
        except BaseException:
            end()
            raise
        return end

    def leave(self, take: Callable[[], bool]) -> None:
        """``take`` is not to be called any more, however often it was added."""
        self._keep(lambda one: one != take)

    def take(self) -> bool:
        """Call all registered functions. True if one is to be called again soon."""
        self.came = again = False
        if self.interrupted:
            if threading.current_thread() is threading.main_thread():  # where signals are handled
                raise self.interrupted.pop()
            self.came = True
        for take in self._takers:
            try:
                again |= take()
            except Exception:  # it serves others, too
                logger.exception("an event could not be told")
            except BaseException:  # a signal: the others are still to be told
                self.came = True
                raise
        thread = self.thread
        if again and thread is not None and thread is not threading.current_thread():
            thread.nudge()  # it asks again until all is well
        return again

    def _keep(self, wanted: Callable[[Callable[[], bool]], bool]) -> None:
        ending: _EventThread | None = None
        try:
            with self._lock:
                takers, thread = tuple(filter(wanted, self._takers)), self.thread
                if takers or thread is None:
                    self._takers = takers
                    return
                # nothing is called here, so no signal can come in between; on leaving it can
                ending = thread
                thread.ends, self.thread, self._takers = True, None, takers
            ending.end()
        except BaseException:
            if ending is not None:
                ending.nudge()  # it sees that it is to end
            raise

    def make_way(self) -> None:
        """An exchange is about to begin: the event thread is to leave libusb, and to stay out."""
        thread = self.thread
        if thread is not None:
            thread.busy_until = time.monotonic() + BUSY_S
            if thread.is_inside:
                thread.nudge()
            else:
                thread.called.value = 1  # it may be about to enter

    def end(self) -> None:
        """Drop all registered functions, and end the thread."""
        self._keep(lambda _: False)


class _EventThread(threading.Thread):
    """Handles the events of a context until told to end.

    Args:
        those: Take what came, after each round.
    """

    def __init__(self, those: Attendants) -> None:
        super().__init__(name="ccid events", daemon=True)
        self._attendants = those
        self.ends = False
        """It is to end when it looks around."""
        self.called = ctypes.c_int()
        """Not 0: the thread is to leave libusb. libusb reads this while it holds the lock by which
        another thread could take the interruption for its own."""
        self.is_inside = False
        """It waits in libusb."""
        self.busy_until = 0.0

    def run(self) -> None:
        those, pause_s = self._attendants, BUSY_S
        events = EventHandler(ctypes.byref(self.called), those.context())
        while True:
            self.called.value = 0
            again = those.take()
            if self.ends:
                return
            if those.under_way:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONG_S)
                continue
            busy_s = self.busy_until - time.monotonic()
            if busy_s > 0:
                time.sleep(busy_s)
                continue
            pause_s = BUSY_S
            self.is_inside = True
            events.handle(TROUBLED_S if again else IDLE_S)
            self.is_inside = False

    def nudge(self) -> None:
        """Have it leave libusb, even if it is about to wait and another thread that handles events
        takes the interruption for its own."""
        self.called.value = 1
        calls().interrupt_event_handler(self._attendants.context())

    def end(self) -> None:
        """End it; when this returns it has ended, unless it is itself that calls."""
        self.ends = True
        while self is not threading.current_thread() and self.is_alive():
            self.nudge()
            self.join(NUDGE_S)


attendants = Attendants()
"""Those of the context that finds devices."""


# The end ----------------------------------------------------------------------------------------


def _end_all() -> None:
    """Python ends: libusb must not call back any more."""
    attendants.end()
    for interrupt in list(_living):
        with contextlib.suppress(Exception):
            interrupt.end()


def _after_fork() -> None:
    """All of this belongs to the parent process."""
    _living.clear()
    attendants.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
