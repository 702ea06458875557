"""Readers on USB: notifications, control requests, failures, resets.

A reset, sleep, and a device that comes back: libusb ends all transfers with "no such device". A
:class:`~ccid.transport.recovery.Recovery` then claims the interface anew, at the device's new
address if it has one. Until then ``check`` waits, and no exchange goes past it: an exchange of the
short way is sent the long way as long as no reply came. So the path of an APDU looks at no flag.
"""

from __future__ import annotations

import array
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from ccid.codec.descriptors import ClassControl
from ccid.codes import DIRECTION_IN
from ccid.errors import (
    CcidError,
    ReaderForked,
    ReaderRemoved,
    TransportError,
    TransportStall,
    TransportTimeout,
)
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.ground.signal_safe_locks import new_lock, new_rlock
from ccid.transport import (
    ReaderInfo,
    Returns,
    contexts,
    libusb,
    linux,
    nothing_to_end,
    tell_first,
)
from ccid.transport.asynchronous import Interrupt
from ccid.transport.bulk import BulkPair
from ccid.transport.claim import Claim, has_no_node
from ccid.transport.contexts import Device
from ccid.transport.libusb import Status, backend, status_of, status_text, usb_errors
from ccid.transport.lifetime import living
from ccid.transport.recovery import PAUSE_S, Recovery

FIRST_RETRY_S, LAST_RETRY_S = 0.02, 1.0
"""After a failed interrupt transfer: pauses before it is armed again, each twice the one before."""
GONE_S = 1.0
"""How long after an input/output error to look whether the device is gone. Hubs are asked four
times a second."""
AGAIN_S = 10.0
"""A device that is lost again so soon after it was opened again, and answered nothing meanwhile, is
given up."""
SAME_S = 2.0
"""A bulk transfer that ends so soon after that, before any reply, ended by the same loss."""
LOST = frozenset((Status.NO_DEVICE, Status.NOT_FOUND))
"""Ends of a transfer whose device left the bus, was reset or slept, or whose claim is lost. libusb
tells a reset, and sleep, as it tells an unplugged device."""
MICROFRAME_S = 0.000125
FRESH_S = 0.0005
"""So long after a transfer ended, no command looks for notifications: that transfer has
fetched them, and the next one fetches what came since."""
INTERVAL_MORE_S = 0.02
"""A notification is fetched so long after its time at the latest."""
LINUX = sys.platform.startswith("linux")

Find = Callable[[ReaderInfo], tuple[ReaderInfo, Device] | None]

logger = logging.getLogger("ccid.transport")


class UsbTransport(BulkPair):
    """An open interface on USB: a :class:`ccid.transport.Transport`.

    Args:
        info: The reader.
        device: Its device.
        find: Finds the reader at its port again, and its device, after it left; None if it is not
            there. Without it the device was given to this process, which cannot open it again.

    Raises:
        AccessDenied, ReaderBusy, ReaderRemoved, TransportError.
    """

    def __init__(self, info: ReaderInfo, device: Device, find: Find | None = None) -> None:
        self._context = contexts.taken_by(self, device)
        super().__init__(info, self._context.attendants)
        self._device, self._find = device, find
        self._events, self._controls = new_rlock(), new_lock()
        self._interrupt: Interrupt | None = None
        self._tell: Callable[[bytes], None] | None = None
        """Takes each notification; None before :meth:`listen`."""
        self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
        self._longest_rest_s = self._interval_s() + INTERVAL_MORE_S
        self._taken_at = 0.0
        self._is_asleep = info.reader.is_iccd
        """No request was made yet of a device that has but the control pipe: it may sleep."""
        self._recovery = Recovery(self.name, self._open_again, self._not_again, self._deliver)
        self._recovered_at = -math.inf
        self._left: Claim | None = None
        """The claim before, whose device stays open until no thread can use it any more."""
        self._claim = self._claim_of(info, device)
        try:
            self._claim.take()
            self._open_bulk(self._claim.address)
        except BaseException:
            self._claim.release()
            self._context.leave(self)
            raise
        _close_at_end()

    def _claim_of(self, info: ReaderInfo, device: Device, configures: bool = True) -> Claim:
        """The claim of the reader's interface, when it is taken."""
        return Claim(info, partial(self._context.open, device), configures)

    @property
    def _handle(self) -> Any:
        """pyusb's handle on the device."""
        return self._claim.handle

    # Closing ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the interface and give it back to the kernel driver it was taken from."""
        forked = isinstance(self.dead, ReaderForked)
        self.closed()
        if not forked:  # else the claim is the parent's
            with self._recovery.lock, self._events, self._controls:  # until none is under way
                self._release()
            self._attendants.leave(self._deliver)
            self._attendants.take()  # others' that were handled meanwhile
            self._context.leave(self)

    def _release(self) -> None:
        if libusb.is_over():  # and the handle with it
            self._claim.forget()
            self._interrupt = None
        elif self._end_transfers():
            self._claim.release()
        else:
            logger.error("%s: a transfer does not end; its handle stays open", self.name)
            self._claim.forget()
        left, self._left = self._left, None
        if left is not None:
            left.release()

    def _end_transfers(self) -> bool:
        """Have no transfer pending. False if one does not end: the handle must stay open then."""
        ended = self._end_bulk()
        interrupt, self._interrupt = self._interrupt, None
        return (interrupt is None or interrupt.end()) and ended

    # A reset, or the way from the bus and back -------------------------------------------------

    def is_away(self) -> bool:
        if self.dead is None and not self._recovery.is_under_way and self._has_no_node():
            self._lose()
        return self.dead is None and self._recovery.is_under_way

    def _lose(self) -> None:
        """The device left, or was reset: open it again, in another thread, if that may help."""
        again = time.monotonic() - self._recovered_at < AGAIN_S and self._is_waking
        if self._tell_reset is None or again or (self._returns is None and self._has_no_node()):
            self.removed()
            return
        self.__dict__["check"] = self._check_lost  # looks at no flag before
        self._is_waking = True  # no exchange goes past check()
        self._recovery.begin()

    def _check_lost(self) -> NoReturn:
        """Takes the place of :meth:`check` while the device is away. Waits until it is back."""
        raise self._reset_or_removed()

    def _reset_or_removed(self) -> CcidError:
        """Wait until the interface is open again, or will not be; the error for what was under
        way."""
        while self.dead is None and self._recovery.is_under_way:
            self._recovery.go_on()
            self._rounds.handle(PAUSE_S)  # other readers have events, too
        return self.reset_or_dead()

    def _lost(self) -> CcidError:
        """The error for a transfer that says that the device left, or lost its claim."""
        is_told = self._is_waking and time.monotonic() - self._recovered_at < SAME_S
        if self.dead is None and not is_told and not self._recovery.is_under_way:
            self._lose()
        return self._reset_or_removed()

    def _open_again(self) -> None:
        """Claim the interface anew; a thread of its own does. Raises what speaks against it."""
        if self.dead is not None:
            return
        if not self._end_transfers():
            self.removed(f"{self.name} was reset, and a transfer of before does not end")
            return
        info, returns = self.info, self._returns
        if self._has_no_node():
            self._follow(info, returns)
            return
        try:
            if self._find is None:
                claim = self._claim.renew()
            else:
                self._claim.let_go()
                claim = self._claim_of(info, self._device, self._claim.has_configured).take()
            self._renew(claim, info)
        except ReaderRemoved:
            if LINUX:
                raise  # its node is about to go
            self._follow(info, returns)

    def _follow(self, info: ReaderInfo, returns: Returns | None) -> None:
        """Open the device that came back at the same port."""
        if returns is None or self._find is None:
            raise self.removed()
        found = self._find(info)
        if found is None or has_no_node(found[0]):
            raise ReaderRemoved(f"{self.name} was unplugged", reader=self.name)
        info, device = found
        with returns(info):
            self._renew(self._claim_of(info, device, self._claim.has_configured).take(), info)
            self._device = device

    def _renew(self, claim: Claim, info: ReaderInfo) -> None:
        """Use ``claim`` from now on. No transfer is pending."""
        before = None
        with self._events:
            if claim is not self._claim:
                self._claim.pass_driver_to(claim)
                before, self._left, self._claim = self._left, self._claim, claim
            self.info = info
            for transfer in self._bulk:
                transfer.use(claim.address)
            if self._tell_reset is not None:
                self._tell_reset(info)
            self._recovered_at, self._is_waking = time.monotonic(), True
            self.__dict__.pop("check", None)
            self._arm()
        if before is not None:
            before.release()

    def _not_again(self, why: Exception) -> None:
        """It could not be opened again in time."""
        logger.info("%s is not opened again: %s", self.name, why)
        if isinstance(why, ReaderRemoved):
            self.removed()
        else:
            self.removed(f"{self.name} was reset, and could not be opened again: {why}")

    # Failures ---------------------------------------------------------------------------------

    def _fail(self, status: int, endpoint: int) -> NoReturn:
        """Raise what a failed transfer means; a halt is cleared first."""
        match status:
            case Status.TIMEOUT:
                raise TransportTimeout(f"{self.name}: nothing came or went", reader=self.name)
            case Status.NO_DEVICE | Status.NOT_FOUND:
                raise self._lost()
            case Status.PIPE:
                with suppress(*usb_errors()):
                    backend().clear_halt(self._handle, endpoint)
                raise TransportStall(
                    f"{self.name} halted endpoint 0x{endpoint:02X}", reader=self.name
                )
            case Status.IO if self._is_gone():
                raise self._lost()
        raise TransportError(
            f"{self.name}: endpoint 0x{endpoint:02X}: {status_text(status)}", reader=self.name
        )

    def _is_gone(self) -> bool:
        """An unplugged device ends its last transfers with an input/output error, and it takes
        the hub some time to notice why."""
        until = time.monotonic() + GONE_S
        while LINUX and not self._has_no_node() and not linux.is_unconfigured(self.info.path):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return LINUX

    def _has_no_node(self) -> bool:
        """Linux has taken the device's node away."""
        return has_no_node(self.info)

    # Events -----------------------------------------------------------------------------------

    def listen(self, tell: Callable[[bytes], None]) -> None:
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return
        with self._events:
            self.check()
            self._tell, self._taken_at = tell, time.monotonic()
            self._arm()

    def _arm(self) -> None:
        """Have a transfer wait for notifications, if anyone listens."""
        endpoint = self.info.reader.interrupt_in
        if endpoint is not None and self._tell is not None:
            address, number = self._claim.address, endpoint.bEndpointAddress
            interrupt = Interrupt(address, number, self._attendants)
            self._interrupt = interrupt
            interrupt.arm()

    def take_events(self, wait_ms: int = 0, /) -> None:
        interrupt = self._interrupt
        if interrupt is None or self.dead is not None:
            return
        if self._attendants.thread is not None:
            self._attendants.make_way()
        now = time.monotonic()
        is_fresh = now - self._handled_at < FRESH_S
        if is_fresh and not wait_ms and interrupt.is_armed and not interrupt.inbox:
            self._taken_at = now
            return
        self._rounds.handle(wait_ms / 1000)
        now = time.monotonic()
        rested_s, self._taken_at = now - self._taken_at, now
        if interrupt.inbox or not interrupt.is_armed:
            came = len(interrupt.inbox) > 0
            self._deliver()
            if came and rested_s > self._longest_rest_s:  # the reader may have more to say
                self._take_more(interrupt)
        if self._attendants.came:
            self._attendants.take()

    def _take_more(self, interrupt: Interrupt) -> None:
        """Wait, for the polling interval, for the notification that the reader may have held back
        while no transfer waited for it."""
        until = self._taken_at + self._longest_rest_s
        while not interrupt.inbox and interrupt.is_armed:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._rounds.handle(left_s)
        self._deliver()

    def _interval_s(self) -> float:
        """How long a notification may wait to be fetched (USB 2.0, table 9-13)."""
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return 0.0
        if self.info.speed in ("low", "full"):
            return endpoint.bInterval / 1000
        return float(2 ** (min(max(endpoint.bInterval, 1), 16) - 1)) * MICROFRAME_S

    def _deliver(self) -> bool:
        """Tell of what came. True if the transfer is not armed, and is to be looked after."""
        with self._events:
            interrupt = self._interrupt
            if interrupt is None or self.dead is not None:
                return False
            while interrupt.inbox and self._tell is not None:
                self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
                tell_first(interrupt.inbox, self._tell)
            if self._recovery.is_under_way:
                return False
            if not interrupt.is_armed:
                self._mend(interrupt)
            return self.dead is None and not interrupt.is_armed

    def _mend(self, interrupt: Interrupt) -> None:
        """Arm a transfer that failed, after a pause; or notice that the device left, or was
        reset."""
        if (
            interrupt.failure in LOST
            or self._has_no_node()
            or (LINUX and linux.is_unconfigured(self.info.path))
        ):
            self._lose()
            return
        now = time.monotonic()
        if now >= self._retry_at:
            logger.info("%s: event: %s", self.name, status_text(interrupt.failure))
            if interrupt.failure == Status.PIPE and self.info.reader.interrupt_in is not None:
                with suppress(*usb_errors()):
                    number = self.info.reader.interrupt_in.bEndpointAddress
                    backend().clear_halt(self._handle, number)
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
            interrupt.arm()

    def attend(self) -> Callable[[], None]:
        if self.dead is not None:  # in a forked child a thread of the parent's may hold the lock
            return nothing_to_end
        with self._events:
            if self._tell is None:
                return nothing_to_end
            return self._attendants.add(self._deliver)

    # The rest ---------------------------------------------------------------------------------

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        is_in = bool(request.bmRequestType & DIRECTION_IN)
        buffer = array.array("B", bytes(request.wLength) if is_in else data)

        thread = threading.get_ident()
        try:
            self._attendants.under_way.add(thread)
            with self._controls:
                self.check()
                transfer = partial(
                    backend().ctrl_transfer,
                    self._handle,
                    request.bmRequestType,
                    request.bRequest,
                    request.wValue,
                    request.wIndex,
                    buffer,
                    timeout_ms,
                )
                is_asleep, self._is_asleep = self._is_asleep, False
                count: int = self._claim.twice(transfer) if is_asleep else transfer()
        except CcidError:
            raise
        except Exception as error:
            status = status_of(error)
            if status == Status.PIPE:
                raise TransportStall(
                    f"{self.name} refuses request 0x{request.bRequest:02X}", reader=self.name
                ) from None
            self._fail(status, 0)
        finally:
            self._attendants.under_way.discard(thread)
            if self._attendants.came:
                self._attendants.take()
        return buffer.tobytes()[:count] if is_in else b""


def _close_all() -> None:
    """Python ends: no interface stays claimed."""
    for transport in living():
        if isinstance(transport, UsbTransport):
            try:
                transport.close()
            except Exception:
                logger.exception("%s cannot be closed", transport.name)


@Once
def _close_at_end() -> None:
    at_exit.add(_close_all)
