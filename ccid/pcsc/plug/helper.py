"""The helper: the process that drives one USB device for pcscd. ``plug.c`` starts it.

It is given a control socket as descriptor 3, over which come the channels, each with a request
and an event socket. Each channel has a thread, so that one slot's exchange never waits for
another's where the reader allows that. When the control socket ends pcscd is gone: cards are
powered off and the process ends, which gives the reader back.

While a request runs, the heart says once a second that all is well: that this process runs, and
that no wait of a reader has passed its deadline. When nothing runs it sleeps, too.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ccid.ground.safe_text import printable_lines
from ccid.pcsc.plug.frames import ALIVE, EVENT, GONE, LUN, Operation, Request, Requests, reply
from ccid.pcsc.plug.lazy_modules import later

if TYPE_CHECKING:
    from ccid.pcsc.ifd import IFDHandler

CONTROL_FD = 3
UNUSED = (
    *("hashlib", "inspect", "pdb", "pickle"),  # construct; dataclasses before Python 3.12
    *("shutil", "subprocess", "tempfile"),  # ctypes.util
    *("ipaddress", "locale", "traceback"),  # urllib.parse, subprocess, logging
)
"""What other modules import for functions that a driver hardly ever calls, and which modules."""
BEAT_S = 1.0
IDLE_BEATS = 3
"""After so many beats without a request the heart sleeps until the next one."""
GRACE_S = 10.0
"""A request may run so long beyond every deadline of its reader's: what has none of its own
(opening, writing, control transfers) is done in this time."""
END_S = 2.0
"""How long powering cards off may take when pcscd is gone."""


def say(text: str) -> None:
    """A line for pcscd's log."""
    with suppress(OSError):
        print(f"ccid[{os.getpid()}]: {printable_lines(text)}", file=sys.stderr, flush=True)


class Channel(threading.Thread):
    """Serves the requests of one channel.

    Args:
        helper: Whose.
        lun: Reader and slot.
        requests, events: Its sockets.
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
        """When the request that runs began; None if none does."""
        self.writing = threading.Lock()
        self.is_open = False
        """It has the reader; another channel of the same Lun may have it after it."""

    def run(self) -> None:
        """Serve until the plug hangs up."""
        heart = self.helper.heart
        try:
            receive = Requests(self.requests).receive
            while (request := receive()) is not None:
                self.since = time.monotonic()
                if heart.is_asleep:
                    heart.wake()
                try:
                    frame = self._carry_out(self.helper.handler, request)
                except Exception as error:  # a fault of ours is this request's failure and no more
                    frame = self._failed(request, error)
                with self.writing:
                    self.since = None
                    self.requests.sendall(frame)
        except (OSError, ValueError) as error:
            say(f"lun {self.lun:#x}: {error}")
        except MemoryError as error:  # which costs this channel and no other
            self._failed(None, error)
        finally:
            self.since = None
            self.helper.forget(self)

    def beat(self) -> None:
        """Say that the request that runs is well."""
        with self.writing:
            if self.since is not None:
                with suppress(OSError):
                    self.requests.send(ALIVE, socket.MSG_DONTWAIT)

    def tell(self, is_gone: bool = False) -> None:
        """Say that something happened at the reader, or that the reader is gone."""
        try:
            self.events.send(GONE if is_gone else EVENT, socket.MSG_DONTWAIT)
        except OSError:  # a full socket tells of an event already
            if is_gone:
                with suppress(OSError):
                    self.events.shutdown(socket.SHUT_WR)

    def _failed(self, request: Request | None, error: Exception) -> bytes:
        what = "" if request is None else f", operation {request[0]}"
        say(f"lun {self.lun:#x}{what}: {type(error).__name__}")
        self.helper.tell_fault(error)
        return reply(612)

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
            if not self.is_open:  # it is asked again each second, and what it leaves is large:
                error, handler.last_error = handler.last_error, None
                say(f"{name}: {error}")
                del error
                gc.collect()  # the reader in the traceback of the error
        if code:
            return reply(code)
        self.helper.has_reader = True
        return reply(code, bytes([handler.has_events(self.lun)]))


class Heart(threading.Thread):
    """Says once a second, for each request that runs, that all is well.

    Args:
        helper: Whose.
    """

    def __init__(self, helper: Helper) -> None:
        super().__init__(name="heart", daemon=True)
        self._helper = helper
        self._woken = threading.Event()
        self.is_asleep = True

    def wake(self) -> None:
        """A request begins."""
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
                self.wake()  # it began before it could see that we sleep


class Helper:
    """All there is in this process.

    Args:
        control: The control socket.
        folder: Where the shared object is that started it.
    """

    def __init__(self, control: socket.socket, folder: str) -> None:
        self._control = control
        self._folder = folder
        self._making = threading.Lock()
        self._handler: IFDHandler | None = None
        self.has_reader = False
        """A reader was opened."""
        self._is_settled = False
        self.channels: list[Channel] = []
        self.heart = Heart(self)
        self.heart.start()

    @property
    def handler(self) -> IFDHandler:
        """The driver; fetched by the first request, while the heart beats already."""
        if self._handler is not None:
            return self._handler
        with self._making:
            if self._handler is None:
                later(*UNUSED)
                from ccid.pcsc.ifd import IFDHandler
                from ccid.pcsc.plug.plist_options import read_options

                options = read_options(self._folder).as_arguments()
                self._handler = IFDHandler(self._on_event, **options)
        return self._handler

    def settle(self) -> None:
        """Once a reader is open, what there is now stays, and need not be looked through again and
        again. Later readers go again. The heart calls this, and not the channel that opens the
        reader: to look through everything takes some 10 ms, for which the first response would
        wait."""
        if self.has_reader and not self._is_settled:
            self._is_settled = True
            gc.collect()
            gc.freeze()
            gc.enable()

    def _on_event(self, lun: int) -> None:
        is_gone = self._handler is not None and self._handler.is_gone(lun)
        for channel in tuple(self.channels):  # one may be forgotten meanwhile
            if channel.lun == lun:
                channel.tell(is_gone)

    def is_well(self, channel: Channel, now: float) -> bool:
        """The request that runs may still be waiting for its reader."""
        since = channel.since or now
        until = self._handler.patient_until() if self._handler is not None else 0.0
        return now < max(since, until) + GRACE_S

    def forget(self, channel: Channel) -> None:
        """The plug has hung up on a channel."""
        if channel in self.channels:
            self.channels.remove(channel)
        if self._handler is not None and channel.is_open:
            self._handler.close_channel(channel.lun)
        channel.requests.close()
        channel.events.close()

    @staticmethod
    def tell_fault(error: Exception) -> None:
        """Where in this program a fault is: the places alone, for what was said may hold a PIN."""
        place = error.__traceback__
        while place is not None:
            code = place.tb_frame.f_code
            say(f"  {code.co_filename}:{place.tb_lineno} {code.co_name}")
            place = place.tb_next

    def serve(self) -> None:
        """Take channels until pcscd is gone."""
        while True:
            message, fds, _, _ = socket.recv_fds(self._control, LUN.size, 2)
            if len(message) != LUN.size:
                return
            (lun,) = LUN.unpack(message)
            try:
                self._begin(lun, fds)
            except (OSError, RuntimeError, MemoryError) as error:  # the plug sees it hung up
                say(f"lun {lun:#x}: {error}")

    def _begin(self, lun: int, fds: list[int]) -> None:
        """Serve another channel.

        Raises:
            OSError: There is no room for its descriptors.
            RuntimeError: Nor for its thread.
        """
        sockets = [socket.socket(fileno=fd) for fd in fds]
        try:
            if len(sockets) != 2:
                raise OSError(f"{len(sockets)} of its 2 sockets came")
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
        """Power all cards off; whatever else there is ends with the process."""
        if self._handler is not None:
            thread = threading.Thread(target=self._handler.power_off_all, daemon=True)
            thread.start()
            thread.join(END_S)


def main() -> None:
    """Serve the plug that started this process."""
    gc.disable()  # until the helper settles: imports leave nothing to collect
    os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for pcscd, whose end we notice
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    control = socket.socket(fileno=CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    helper = Helper(control, sys.argv[1] if len(sys.argv) > 1 else "")
    try:
        helper.serve()
    except OSError as error:
        say(str(error))
    finally:
        helper.end()
        os._exit(0)


if __name__ == "__main__":
    main()
