"""The port of a virtual device: the edge to threads and to the clock."""

from __future__ import annotations

import math
import os
import queue
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

from ccid.codec.descriptors import ClassControl
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import new_rlock
from ccid.virtual.usb_device import Request, UsbDevice

if TYPE_CHECKING:
    from ccid.virtual.virtual_transport import VirtualTransport

LONGEST_S = 3600.0
"""The longest single wait of a thread: the system refuses very long times."""


class Unplugged(Exception):
    """The device is unplugged."""


class WasReset(Exception):
    """The device was reset meanwhile."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A thread that waits for an IN endpoint.

    Attributes:
        next_due: Returns when the endpoint has its next message.
        due: The result of ``next_due`` when the thread looked last.
        is_over: Returns True to end the wait.
        woken: The queue at which the thread waits; an item wakes the thread.
    """

    next_due: Callable[[], float | None]
    due: float | None
    is_over: Callable[[], bool]
    woken: Mailbox[None] = field(default_factory=Mailbox)


_ports: WeakSet[Port] = WeakSet()


class Port:
    """One device, any number of threads.

    A signal handler may raise between any two steps of Python code, also inside
    :class:`threading.Condition` and :class:`threading.Event`, and leave their locks held. So this
    class enters a plain lock by ``with``, which is one step, and a thread waits without the lock,
    at a queue of its own.

    Attributes:
        device: The device.
        changed: The lock that a thread holds while it uses the device.
        claims: The transport that has an interface open in this process, by interface.
        transfers: Number of completed transfers, by endpoint.
        resets: How often the device was reset.
        armed: Functions to call when the device may have a new message, for transfers that are
            always pending.
    """

    def __init__(self, device: UsbDevice) -> None:
        self.device = device
        self._renew()
        _ports.add(self)
        self.transfers: Counter[int] = Counter()
        self.resets = 0
        self.armed: list[Callable[[], None]] = []
        for function in device.functions:
            function.on_change = self.wake

    def _renew(self) -> None:
        """Make a new lock without waiting threads and claims; a forked child needs that too."""
        self.changed = self._lock = new_rlock()
        self._waiting: list[_Waiter] = []
        self.claims: dict[int, weakref.ref[VirtualTransport]] = {}

    now = staticmethod(time.monotonic)
    """The clock: seconds."""

    def wake(self) -> None:
        """Wake the threads whose wait may be over, and no other threads: a thread that wakes for
        nothing delays the thread that works."""
        with self._lock:
            for look in tuple(self.armed):
                look()
            for waiter in self._waiting:
                if waiter.woken.empty() and (
                    self.device.is_unplugged or waiter.is_over() or waiter.due != waiter.next_due()
                ):
                    waiter.woken.put(None)

    def _check(self) -> None:
        if self.device.is_unplugged:
            raise Unplugged

    def out(self, endpoint: int, data: bytes) -> None:
        """One OUT transfer. Raises Stall, Unplugged."""
        with self._lock:
            device = self.device
            if device.is_unplugged:
                raise Unplugged
            device.submit_out(endpoint, data, self.now())
            self.transfers[endpoint] += 1

    def receive(self, endpoint: int, size: int, timeout_s: float) -> bytes:
        """One IN transfer of at most ``size`` bytes.

        Returns:
            The bytes; fewer than a whole transfer, or none, if the time ran out.

        Raises:
            TimeoutError: No packet came.
            Stall: The endpoint is halted.
            Unplugged: The device is unplugged.
            WasReset: The device was reset meanwhile.
        """
        got, came, resets = b"", False, self.resets
        device, now = self.device, self.now()
        deadline = now + timeout_s
        while True:
            with self._lock:
                if device.is_unplugged:
                    raise Unplugged
                while (pulled := device.submit_in(endpoint, size - len(got), now)) is not None:
                    part, over = pulled
                    got, came = got + part, True
                    if over:
                        self.transfers[endpoint] += 1
                        return got
                if now >= deadline:
                    if came:
                        return got
                    raise TimeoutError
                due = device.next_due(endpoint)
                waiter = self._enlist(endpoint, due)
            self._wait(waiter, (deadline if due is None else min(due, deadline)) - now)
            now = self.now()
            if resets != self.resets:
                raise WasReset

    def reset(self) -> None:
        """Reset the device, as the host's bus does, and configure it again. Threads that wait
        for it get WasReset."""
        with self._lock:
            self.resets += 1  # first: what the device says from now on is of after the reset
            self.device.control(
                ClassControl(0x00, Request.SET_CONFIGURATION, 1, 0), b"", self.now()
            )
            for waiter in self._waiting:
                waiter.woken.put(None)

    def _enlist(
        self, endpoint: int, due: float | None, is_over: Callable[[], bool] = bool
    ) -> _Waiter:
        """Register a waiting thread, with the lock held. :meth:`_wait` follows without the lock."""
        waiter = _Waiter(self.device.pipe(endpoint).next_due, due, is_over)
        self._waiting.append(waiter)
        return waiter

    def _wait(self, waiter: _Waiter, timeout_s: float | None) -> None:
        """Wait until :meth:`wake` wakes the thread, or the time is over."""
        try:
            limit_s = LONGEST_S if timeout_s is None else min(max(0.0, timeout_s), LONGEST_S)
            waiter.woken.get(timeout=limit_s)
        except queue.Empty:
            pass
        finally:
            with self._lock:
                if (
                    waiter in self._waiting
                ):  # not there if a signal handler raised and this code runs again
                    self._waiting.remove(waiter)

    def poll(self, endpoint: int, size: int) -> bytes | None:
        """One IN transfer, None if the device has no message. Raises Stall, Unplugged."""
        with self.changed:
            self._check()
            pulled = self.device.submit_in(endpoint, size, self.now())
            if pulled is None:
                return None
            self.transfers[endpoint] += 1
            return pulled[0]

    def wait(
        self, endpoint: int, timeout_s: float | None, is_over: Callable[[], bool] = bool
    ) -> None:
        """Wait until an IN endpoint has a message.

        Args:
            endpoint: Address of the endpoint.
            timeout_s: The longest wait, seconds; None for no limit.
            is_over: Returns True to end the wait. :meth:`wake` calls it.

        Raises:
            Unplugged: The device is unplugged.
        """
        deadline = math.inf if timeout_s is None else self.now() + timeout_s
        while True:
            with self._lock:
                if is_over():
                    return
                self._check()
                now, due = self.now(), self.device.next_due(endpoint)
                until = min(deadline, math.inf if due is None else due)
                if until <= now:
                    return
                waiter = self._enlist(endpoint, due, is_over)
            self._wait(waiter, None if until == math.inf else until - now)

    def control(self, request: ClassControl, data: bytes = b"") -> bytes:
        """One control transfer. Raises Stall, Unplugged."""
        with self._lock:
            self._check()
            self.transfers[0] += 1
            return self.device.control(request, data, self.now())


def _after_fork() -> None:
    for port in list(_ports):
        port._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
