"""Readers and cards as they come and go, for tasks of asyncio: :func:`watch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from ccid.aio.job_thread import Job, JobThread
from ccid.aio.opening import Ending
from ccid.device import watching
from ccid.device.watching import Event


class Watch(Ending, AsyncIterator[Event]):
    """The events of a watch. Call :meth:`aclose` at the end, or use ``async with``.

    A task may give up waiting for the next event, by ``asyncio.timeout`` for example: that event
    is the next one then. No event is fetched before a task asks for it.

    Args:
        timeout: As for :func:`watch`.
    """

    def __init__(self, timeout: float | None) -> None:
        self._events, self._stop = watching.stoppable_watch(timeout)
        self._thread: JobThread | None = None
        self._next: Job | None = None
        """The request for the next event; None while no task asks."""
        self._is_over = False
        self._turn = asyncio.Lock()
        """Held by the task that asks: no two get the same event."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        async with self._turn:
            event = await self._fetched()
        if event is None:
            await self.aclose()
            raise StopAsyncIteration
        return event

    async def _fetched(self) -> Event | None:
        """The next event; None at the end."""
        if self._is_over:
            return None
        if self._thread is None:
            self._thread = JobThread("ccid.aio watch")
        job = self._next
        if job is None:
            job = self._next = Job(next, (self._events, None))
            self._thread.put(job)
        try:
            await asyncio.wait((job.future,))  # to cancel this leaves the request
            event: Event | None = job.future.result()
        finally:
            if job.future.done():
                self._next = None
        return event

    async def aclose(self) -> None:
        """End the watch; readers that it opened are closed. A second call has no effect. A task
        that waits for an event meanwhile gets no more."""
        if self._is_over:
            return
        self._is_over = True
        self._stop()
        if self._thread is None:
            return
        job = Job(self._events.close)
        self._thread.put(job)
        try:
            await job.future
        except asyncio.CancelledError:
            await job.finished()
            raise
        finally:
            self._thread.end()

    async def _leave(self, error: BaseException | None) -> None:
        await self.aclose()  # of a coroutine that is thrown away __del__ ends it

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._stop()  # the thread ends the watch, and then itself


def watch(timeout: float | None = None) -> Watch:
    """Yield an event for each reader and card that comes or goes; first for those that are present
    at the start. The watch begins with the first ``anext()``.

    The watch waits for notifications of readers and hot-plug events of libusb. It polls only in two
    cases: a reader without an interrupt endpoint gets GetSlotStatus twice a second (USB CCID rev
    1.1, 6.1.3); and where libusb reports no hot-plug events, or nobody may tell libusb of them (in
    a container, or without udev), the devices are listed once a second. No card is powered.

    A reader that leaves USB and comes back within 2 s while this process has it open
    (:func:`ccid.aio.open_reader` with ``reopen``) has no event, and neither has its card: the
    reader is open again. So has none that is reset and stays on USB. Another reader left and
    arrived.

    The watch shares the readers that this process has open. It opens all other readers, and closes
    a reader as soon as this process opens it. A reader that another process holds is reported
    without its cards, and tried again when a device is plugged in or unplugged. A reader that does
    not answer, or answers wrongly, is tried again after 1 s, then after 2 s, 4 s, at most 60 s.

    Args:
        timeout: Seconds without an event after which the iteration ends; None for no limit.

    Returns:
        The iterator.

    Raises:
        UsbUnavailable: libusb cannot be loaded.
        ReaderForked: The watch began in the parent of this process; the child gets no events.
        ValueError: ``timeout`` is negative or not a number (NaN).
    """
    return Watch(timeout)
