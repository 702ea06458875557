"""Where a virtual device meets threads and the clock: the port it is plugged into."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from ccid.codec.descriptors import ClassControl
from ccid.virtual.usb_device import UsbDevice

LONGEST_S = 3600.0
"""A thread that waits looks again after so long: the system takes no time of any length."""


class Unplugged(Exception):
    """The device is not in the port any more."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A thread that waits for an IN endpoint.

    Attributes:
        next_due: When the endpoint has something to say.
        due: The same when the thread looked last.
        is_over: It does not want to wait any more.
        woken: Gets something when the thread is to look again.
    """

    next_due: Callable[[], float | None]
    due: float | None
    is_over: Callable[[], bool]
    woken: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)


_ports: WeakSet[Port] = WeakSet()


class Port:
    """One device, any number of threads.

    A signal handler may raise between any two steps of Python code, in those of
    :class:`threading.Condition` and :class:`threading.Event` too, and leave their locks held. So a
    plain lock is entered here by ``with``, which is one step, and a thread waits without it, at a
    queue of its own.

    Attributes:
        device: What is plugged in.
        changed: Held while the device is touched.
        claims: By interface, who has it open in this process.
        transfers: How many transfers were completed, by endpoint.
        armed: Called when the device may have something to say: transfers that always wait.
    """

    def __init__(self, device: UsbDevice) -> None:
        self.device = device
        self._renew()
        _ports.add(self)
        self.transfers: Counter[int] = Counter()
        self.armed: list[Callable[[], None]] = []
        for function in device.functions:
            function.on_change = self.wake

    def _renew(self) -> None:
        """Nobody is about anything; in a forked child, whose threads none of those are."""
        self.changed = self._lock = threading.RLock()
        self._waiting: list[_Waiter] = []
        self.claims: dict[int, weakref.ref[object]] = {}

    now = staticmethod(time.monotonic)
    """The clock: seconds."""

    def wake(self) -> None:
        """Have those look again who wait for what may have come; nobody else: a thread that
        wakes for nothing is in the way of the one that works."""
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
            Fewer bytes than a whole transfer, and perhaps none, if the time ran out.

        Raises:
            TimeoutError: Not a packet came. Stall, Unplugged.
        """
        got, came = b"", False
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

    def _enlist(
        self, endpoint: int, due: float | None, is_over: Callable[[], bool] = bool
    ) -> _Waiter:
        """Be one of those who wait, with the lock held. :meth:`_wait` is to follow without it."""
        waiter = _Waiter(self.device.pipe(endpoint).next_due, due, is_over)
        self._waiting.append(waiter)
        return waiter

    def _wait(self, waiter: _Waiter, timeout_s: float | None) -> None:
        """Wait until :meth:`wake` sees that something changed, or it is time to look again."""
        try:
            limit_s = LONGEST_S if timeout_s is None else min(max(0.0, timeout_s), LONGEST_S)
            waiter.woken.get(timeout=limit_s)
        except queue.Empty:
            pass
        finally:
            with self._lock:
                if waiter in self._waiting:  # else a signal handler raised before, and this again
                    self._waiting.remove(waiter)

    def poll(self, endpoint: int, size: int) -> bytes | None:
        """One IN transfer if there is one; None else. Raises Stall, Unplugged."""
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
        """Wait until an IN endpoint has something to say; None for ever.

        Args:
            endpoint: Which.
            timeout_s: Seconds.
            is_over: Says that nobody wants to wait any more. :meth:`wake` has it looked at.

        Raises:
            Unplugged.
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
