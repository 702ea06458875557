"""The helper: the process that drives one USB device for pcscd. ``plug.c`` starts this process.

The helper has a control socket as descriptor 3. Each message on the control socket brings one
channel (Lun) with two sockets: one for requests, one for events. Each channel has a thread, so an
exchange in one slot does not wait for an exchange in another slot where the reader allows both at
the same time. When the control socket ends, pcscd has ended: the helper powers all cards off and
ends, which gives the reader back. ``systemctl stop`` signals pcscd and the helper at the same time.
Then the helper powers all cards off at once, and is there for pcscd, which may ask for the card
still, until pcscd has ended.

While a request runs, the heart thread sends :data:`~.frames.ALIVE` once a second, as long as no
wait for the reader has passed its deadline. While no request runs, the heart thread sleeps.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ccid.ground.safe_text import printable_lines
from ccid.ground.signal_safe_locks import new_lock
from ccid.pcsc.numbers.ifd_numbers import Code
from ccid.pcsc.plug.frames import (
    ALIVE,
    CONNECTION,
    CONTROL_FD,
    EVENT_CHANGE,
    EVENT_GONE,
    Operation,
    Request,
    Requests,
    reply,
)
from ccid.pcsc.plug.lazy_modules import load_lazily

if TYPE_CHECKING:
    from ccid.pcsc.ifd import IFDHandler

UNUSED = (
    *("hashlib", "inspect", "pdb", "pickle"),  # construct; dataclasses before Python 3.12
    "platform",  # pyusb
    *("shutil", "subprocess", "tempfile"),  # ctypes.util
    *("ipaddress", "locale", "traceback"),  # urllib.parse, subprocess, logging
)
"""Modules that other modules import for functions that a driver hardly ever calls."""
BEAT_S = 1.0
"""Time between two :data:`~.frames.ALIVE` frames; ``plug.c`` waits ``SILENCE_S`` for one."""
IDLE_BEATS = 3
"""After this many beats without a request the heart thread sleeps until the next request."""
GRACE_S = 10.0
"""A request may run this much longer than every deadline of its reader. Steps that have no deadline
(opening, writing, control transfers) end within this time."""
IMPORT_S = 120.0
"""Time in s to import the driver, which the first request does: as long as ``plug.c`` waits for the
interpreter to start (START_S), for the same reason. Disk and processor decide, not the reader."""
POWER_OFF_S = 2.0
"""Time to power all cards off when pcscd has ended; ``plug.c`` waits ``HELPER_END_S``."""
PCSCD_END_S, BUSY_END_S, GOES_ON = 1.5, 10.0, 8
"""After a signal, how long the helper is there for pcscd. Requests fail meanwhile; without it the
plug would start another, for a pcscd that ends. On a busy machine pcscd takes longer: so it is the
second time, unless by then so many requests came that pcscd goes on."""


def say(text: str) -> None:
    """Write one line to standard error, which pcscd's log receives."""
    with suppress(OSError, ValueError):  # the latter from a closed file
        print(f"ccid[{os.getpid()}]: {printable_lines(text)}", file=sys.stderr, flush=True)


class Channel(threading.Thread):
    """Serves the requests of one channel.

    Args:
        helper: The helper that this channel belongs to.
        lun: Reader and slot.
        requests, events: The channel's sockets.
    """

    def __init__(
        self, helper: Helper, lun: int, requests: socket.socket, events: socket.socket
    ) -> None:
        super().__init__(name=f"lun {lun:#x}", daemon=True)
        self.helper = helper
        self.lun = lun
        self.requests = requests
        self.events = events
        self.since: float | None = None
        """Start of the running request (monotonic clock); None while no request runs."""
        self.writing = new_lock()
        self.is_open = False
        """This channel has opened the reader. A later channel of the same Lun opens the reader
        again."""

    def run(self) -> None:
        """Serve until the plug hangs up."""
        heart = self.helper.heart
        try:
            receive = Requests(self.requests).receive
            while (request := receive()) is not None:
                self.since = time.monotonic()
                if heart.is_asleep:
                    heart.wake()
                if self.helper.is_ending:
                    self.helper.refused += 1
                try:
                    frame = self._carry_out(self.helper.handler, request)
                except Exception as error:  # a fault of the driver fails this request alone
                    frame = self._failed(request, error)
                with self.writing:
                    self.since = None
                    self.requests.sendall(frame)
                del request, frame  # they may hold a secret: they are not kept while this waits
        except ConnectionError:
            pass  # the plug hung up on a running request; if pcscd goes on, the plug says why
        except (OSError, ValueError) as error:
            say(f"lun {self.lun:#x}: {error}")
        except MemoryError as error:  # costs this channel alone
            self._failed(None, error)
        finally:
            self.since = None
            self.helper.forget(self)

    def beat(self) -> None:
        """Send :data:`~.frames.ALIVE` if a request runs."""
        with self.writing:
            if self.since is not None:
                with suppress(OSError):
                    self.requests.send(ALIVE, socket.MSG_DONTWAIT)

    def tell(self, is_gone: bool = False) -> None:
        """Send an event: the slot may have changed, or the reader is gone."""
        try:
            self.events.send(EVENT_GONE if is_gone else EVENT_CHANGE, socket.MSG_DONTWAIT)
        except OSError:  # a full socket holds an event already
            if is_gone:  # the end of the socket wakes the polling function of the plug
                with suppress(OSError):
                    self.events.shutdown(socket.SHUT_WR)

    def _failed(self, request: Request | None, error: Exception) -> bytes:
        what = "" if request is None else f", operation {request[0]}"
        say(f"lun {self.lun:#x}{what}: {type(error).__name__}")
        self.helper.tell_fault(error)
        return reply(Code.COMMUNICATION_ERROR)

    def _carry_out(self, handler: IFDHandler, request: Request) -> bytes:
        lun, (operation, argument, capacity, data) = self.lun, request
        match operation:
            case Operation.TRANSMIT:
                code, response = handler.transmit_to_icc(lun, argument, data, capacity)
                return reply(code, response)
            case Operation.PRESENCE:
                return reply(handler.icc_presence(lun, argument))
            case Operation.POWER:
                return reply(*handler.power_icc(lun, argument, capacity))
            case Operation.PROTOCOL:
                return reply(handler.set_protocol_parameters(lun, argument, *data))
            case Operation.GET:
                return reply(*handler.get_capabilities(lun, argument, capacity))
            case Operation.SET:
                return reply(handler.set_capabilities(lun, argument, data))
            case Operation.CONTROL:
                return reply(*handler.control(lun, argument, data, capacity))
            case Operation.OPEN:
                return self._open(handler, data.decode("utf-8", "replace"))
            case Operation.CLOSE:
                self.is_open = False
                return reply(handler.close_channel(lun))
        raise ValueError(f"operation {operation}")

    def _open(self, handler: IFDHandler, name: str) -> bytes:
        try:
            code = handler.create_channel_by_name(self.lun, name)
            self.is_open = not code
        finally:
            if not self.is_open:  # the plug tries each second: free what the failed open leaves
                error, handler.last_error = handler.last_error, None
                if not self.helper.is_ending:
                    say(f"{name}: {error}")
                del error
                gc.collect()  # the traceback of the error holds the reader
        if code:
            return reply(code)
        self.helper.has_reader = True
        return reply(code, bytes([handler.has_events(self.lun)]))


class Heart(threading.Thread):
    """Sends :data:`~.frames.ALIVE` once a second for each running request.

    Args:
        helper: The helper whose channels this thread looks at.
    """

    def __init__(self, helper: Helper) -> None:
        super().__init__(name="heart", daemon=True)
        self._helper = helper
        self._woken = threading.Event()
        self.is_asleep = True

    def wake(self) -> None:
        """Start beating: a request begins."""
        self.is_asleep = False
        self._woken.set()

    def run(self) -> None:
        """Beat until the process ends."""
        while True:
            self._woken.wait()
            self._woken.clear()
            idle = 0
            while idle < IDLE_BEATS:
                time.sleep(BEAT_S)
                self._helper.settle()
                running = [c for c in self._helper.channels if c.since is not None]
                idle = 0 if running else idle + 1
                now = time.monotonic()
                for channel in running:
                    if self._helper.is_well(channel, now):
                        channel.beat()
            self.is_asleep = True
            if any(c.since is not None for c in self._helper.channels):
                self.wake()  # this request began before is_asleep was set


class Helper:
    """The state of this process: the driver, the channels and the heart thread.

    Args:
        control: The control socket.
        folder: The folder of the shared object that started this process.
    """

    def __init__(self, control: socket.socket, folder: str) -> None:
        self._control = control
        self._folder = folder
        self._making = new_lock()
        self._handler: IFDHandler | None = None
        self._imported = 0.0  # when that was (monotonic clock)
        self.has_reader = False
        """A reader was opened."""
        self.is_ending = False
        """All cards are being powered off: what fails from now on is no fault."""
        self.refused = 0
        """Requests since then."""
        self._is_settled = False
        self.channels: list[Channel] = []
        self.heart = Heart(self)
        self.heart.start()

    @property
    def handler(self) -> IFDHandler:
        """The driver. The first request imports it, while the heart thread beats already."""
        if self._handler is not None:
            return self._handler
        with self._making:
            if self._handler is None:
                load_lazily(*UNUSED)
                from ccid.pcsc.ifd import IFDHandler
                from ccid.pcsc.plug.plist_options import read_options

                self._imported = time.monotonic()
                options = read_options(self._folder).as_arguments()
                self._handler = IFDHandler(self._on_event, **options)
        return self._handler

    def settle(self) -> None:
        """After a reader is open, exclude all present objects from garbage collection: they stay
        until the process ends. Objects of later readers are collected. The heart thread calls this,
        not the channel that opens the reader: the collection takes about 10 ms, and the first
        response would wait for it."""
        if self.has_reader and not self._is_settled:
            self._is_settled = True
            gc.collect()
            gc.freeze()
            gc.enable()

    def _on_event(self, lun: int) -> None:
        is_gone = self._handler is not None and self._handler.is_gone(lun)
        for channel in tuple(self.channels):  # another thread may remove one
            if channel.lun == lun:
                channel.tell(is_gone)

    def is_well(self, channel: Channel, now: float) -> bool:
        """The running request of ``channel`` is within its time: the driver is being imported, or
        the reader may still answer."""
        since = channel.since or now
        if self._handler is None:
            return now < since + IMPORT_S
        until = self._handler.patient_until()
        return now < max(since, self._imported, until) + GRACE_S

    def forget(self, channel: Channel) -> None:
        """Remove a channel: the plug has hung up."""
        if channel in self.channels:
            self.channels.remove(channel)
        if self._handler is not None and channel.is_open:
            self._handler.close_channel(channel.lun)
        channel.requests.close()
        channel.events.close()

    @staticmethod
    def tell_fault(error: Exception) -> None:
        """Log the places of a traceback, without the message: the message may hold a PIN."""
        place = error.__traceback__
        while place is not None:
            code = place.tb_frame.f_code
            say(f"  {code.co_filename}:{place.tb_lineno} {code.co_name}")
            place = place.tb_next

    def serve(self) -> None:
        """Accept channels until the control socket ends."""
        while True:
            message, fds, _, _ = socket.recv_fds(self._control, CONNECTION.size, 2)
            if len(message) != CONNECTION.size:
                return
            (lun,) = CONNECTION.unpack(message)
            try:
                self._begin(lun, fds)
            except (OSError, RuntimeError, MemoryError) as error:  # the sockets are closed
                say(f"lun {lun:#x}: {error}")

    def _begin(self, lun: int, fds: list[int]) -> None:
        """Start the thread of a new channel.

        Raises:
            OSError: Not both sockets came: this process has no free descriptor.
            RuntimeError: No thread can be started.
        """
        sockets = [socket.socket(fileno=fd) for fd in fds]
        try:
            if len(sockets) != 2:
                raise OSError(f"{len(sockets)} of 2 sockets came")
            channel = Channel(self, lun, *sockets)
            self.channels.append(channel)
            try:
                channel.start()
            except BaseException:
                self.channels.remove(channel)
                raise
        except BaseException:
            for one in sockets:
                one.close()
            raise

    def end(self) -> None:
        """Power all cards off, within :data:`POWER_OFF_S`."""
        self.is_ending = True
        if self._handler is not None:
            thread = threading.Thread(target=self._handler.power_off_all, daemon=True)
            thread.start()
            thread.join(POWER_OFF_S)


def stop_serving(control: socket.socket) -> None:
    """Read no more from the control socket, which ends :meth:`Helper.serve`: what a signal does. A
    signal may come at any moment, also a second one while the cards are powered off. So its handler
    raises nothing."""
    with suppress(OSError):
        control.shutdown(socket.SHUT_RD)


def await_end_of_pcscd(control: socket.socket, helper: Helper) -> None:
    """Wait until pcscd has closed its end of the control socket, for :data:`PCSCD_END_S`; on a busy
    machine for :data:`BUSY_END_S`."""
    poll, began = select.poll(), time.monotonic()
    poll.register(control, 0)  # which leaves POLLHUP
    wait_s = PCSCD_END_S
    while not poll.poll(wait_s * 1000):
        if helper.refused >= GOES_ON or time.monotonic() - began > BUSY_END_S:
            return
        wait_s = PCSCD_END_S / 5


def main() -> None:
    """Serve the plug that started this process."""
    gc.disable()  # until settle(): imports leave nothing to collect
    os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for pcscd: the control socket ends then
    control = socket.socket(fileno=CONTROL_FD)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop_serving(control))
    os.set_inheritable(CONTROL_FD, False)
    helper = Helper(control, sys.argv[1] if len(sys.argv) > 1 else "")
    try:
        helper.serve()
    except OSError as error:
        say(str(error))
    finally:
        try:
            helper.end()
            await_end_of_pcscd(control, helper)
        finally:  # Python's own end would free what threads of libusb still use
            os._exit(0)


if __name__ == "__main__":
    main()
