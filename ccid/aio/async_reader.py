"""An open reader, for tasks of asyncio: the face of :class:`ccid.Reader` with the same names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ccid.aio.async_slot import Slot
from ccid.aio.async_trace import Trace
from ccid.aio.job_thread import apart, apart_to_the_end, start
from ccid.aio.opening import Ending, Opening
from ccid.aio.task_turn import TaskTurn, turn_of
from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import PowerSelect
from ccid.device import find
from ccid.device import reader as blocking
from ccid.device.listener import Slots
from ccid.device.unclosed_readers import unclosed
from ccid.known.quirks import Quirks
from ccid.link.conversation import MAX_COMMAND_S
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.device.tracing import TraceTarget
    from ccid.pin.pad_structures import PinPadFeatures
    from ccid.virtual import VirtualReader

R = TypeVar("R")


class Reader(Ending):
    """An open reader. :func:`ccid.aio.open_reader` makes one. Call :meth:`close` at the end, or
    use ``async with``.

    Attributes:
        slots: The slots, by bSlot.
        quirks: The quirks of the reader, from the table of readers.
        first_voltage: The voltage that a power-up tries first, where the host chooses; None for
            5 V.
    """

    def __init__(self, reader: blocking.Reader, loop: asyncio.AbstractEventLoop) -> None:
        """Make the face of an open reader; :func:`open_reader` does.

        Args:
            reader: The reader.
            loop: The loop of the tasks that use it.

        Raises:
            TransportError: The system has no thread left.
        """
        self._reader = reader
        self._loop = loop
        self.quirks: Quirks = reader.quirks
        self.first_voltage: PowerSelect | None = reader.first_voltage
        self._turns: list[TaskTurn] = []
        try:
            for slot in reader.slots:
                self._turns.append(turn_of(slot, loop))
        except BaseException:
            self._part()
            raise
        self.slots = tuple(map(partial(Slot, self), reader.slots, self._turns))

    def _part(self) -> None:
        """Give up the turns: their threads end."""
        while self._turns:
            self._turns.pop().part()

    def _undo(self) -> None:
        """Close the reader. No task got this object."""
        try:
            self._reader.close()
        finally:
            self._part()

    def _forget(self) -> None:
        """Have another thread close the reader: the coroutine that had it is thrown away, perhaps
        by the garbage collector, and may await nothing."""
        self._part()
        if not self.is_closed and not sys.is_finalizing():
            unclosed.forgotten(self._reader)

    # Description ------------------------------------------------------------------------------

    @property
    def info(self) -> ReaderInfo:
        """Description of the reader, made before the reader was opened; made anew if the reader
        left USB and came back with another address."""
        return self._reader.info

    @property
    def name(self) -> str:
        """The name of the reader, for people."""
        return self._reader.name

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor (USB CCID rev 1.1, 5.1), corrected by the quirks of the reader.
        ``info.descriptor`` is the descriptor without corrections."""
        return self._reader.descriptor

    @property
    async def pin_features(self) -> PinPadFeatures | None:
        """The features of the PIN pad, from the answer to the Escape of the quirk
        ``features-escape``, which is sent once. None if the reader has no such Escape or refuses
        it.

        Raises:
            ReaderClosed, ReaderRemoved, TransportTimeout, TransportError: The reader could not be
                asked.
        """
        return await self._asked(lambda: self._reader.pin_features)

    @property
    def max_message_length(self) -> int:
        """Bytes of the longest message that the reader takes, header included
        (dwMaxCCIDMessageLength, USB CCID rev 1.1, 5.1)."""
        return self._reader.max_message_length

    @property
    async def data_rates(self) -> list[int]:
        """The data rates (bit/s) between reader and card, as GET_DATA_RATES (USB CCID rev 1.1,
        5.3.3) lists them, corrected by the quirks of the reader. Empty if the reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        return await self._asked(lambda: self._reader.data_rates)

    async def listed_data_rates(self) -> list[int]:
        """The answer to GET_DATA_RATES (USB CCID rev 1.1, 5.3.3), which is sent once.

        Returns:
            The data rates (bit/s), without corrections by the quirks of the reader. Empty if the
            reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        return await self._asked(self._reader.listed_data_rates)

    @property
    async def clock_frequencies(self) -> list[int]:
        """The clock frequencies (kHz) for a card, as GET_CLOCK_FREQUENCIES (USB CCID rev 1.1,
        5.3.2), which is sent once, lists them. Empty if the reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        return await self._asked(lambda: self._reader.clock_frequencies)

    # Buzzer and LEDs --------------------------------------------------------------------------

    @property
    def leds(self) -> tuple[str, ...]:
        """The names of the LEDs that :meth:`led` can switch. Empty if no command is known."""
        return self._reader.leds

    async def led(self, *lit: str) -> None:
        """Switch LEDs on, and all other LEDs off (quirk ``led-escape``). The firmware may switch
        them again, for example when a card comes.

        Args:
            *lit: The LEDs to be lit, by their names in :attr:`leds`: ``led("green")``; ``led()``
                switches all off.

        Raises:
            UnsupportedByReader: The table of readers has no command for the LEDs of this reader,
                the reader has no such LED, or it does not take the command.
            CommandFailed: The reader refused.
            ReaderClosed, ReaderRemoved, TransportTimeout, TransportError, ProtocolError: The reader
                failed.
        """
        await self._asked(lambda: self._reader.led(*lit))

    async def buzzer(self, seconds: float = 0.1) -> None:
        """Sound the buzzer (quirk ``buzzer-escape``).

        Args:
            seconds: Length of the tone in seconds; 0 for silence. Rounded to what the reader can
                count, such as 10 ms. The longest tone of most readers is 2.55 s.

        Raises:
            UnsupportedByReader: The table of readers has no command for the buzzer of this reader,
                the tone is too long, or the reader does not take the command.
            CommandFailed: The reader refused.
            ReaderClosed, ReaderRemoved, TransportTimeout, TransportError, ProtocolError: The reader
                failed.
            ValueError, TypeError: ``seconds`` is no duration.
        """
        await self._asked(lambda: self._reader.buzzer(seconds))

    async def _asked(self, ask: Callable[[], R]) -> R:
        """What the reader says of itself, asked in the turn of its first slot."""
        slot = self.slots[0]
        return await slot._turn.do(slot.cancel, ask)

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<ccid.aio.Reader {self.name!r} at {self.info.path}{state}>"

    # Closing ----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Power all cards off, and release the interface. A second call has no effect.

        Commands under way in other tasks end with :class:`ccid.errors.CommandCancelled`, or with
        :class:`ccid.errors.ReaderClosed`. Closing never raises an error of the reader. If a signal
        handler raises meanwhile (Ctrl-C), call this method again.
        """
        self._part()
        await apart_to_the_end(f"closing {self.name}", self._reader.close)

    @property
    def is_away(self) -> bool:
        """True while the reader is not on USB, or was reset, and is not open again yet. It is, or
        :class:`ccid.errors.ReaderRemoved` ends it, within about 2 s."""
        return self._reader.is_away

    @property
    def is_closed(self) -> bool:
        """True after :meth:`close`."""
        return self._reader.is_closed

    async def _leave(self, error: BaseException | None) -> None:
        await self.close()

    # Notifications and traces -----------------------------------------------------------------

    async def listen(self, tell: Callable[[Slots], None]) -> Callable[[], None]:
        """Call ``tell`` for each notification, as soon as it comes.

        Args:
            tell: Called in the event loop, with the state of each slot that the notification
                reports (USB CCID rev 1.1, 6.3.1); with None if something else may have happened,
                as when the reader was unplugged. Must not block.

        Returns:
            A function that ends the calls, and does not block. A second call of that function has
            no effect.

        Raises:
            ReaderClosed, ReaderForked: The reader cannot be used any more.
            TransportError: No thread can be started.
        """
        name, loop = f"events of {self.name}", asyncio.get_running_loop()
        is_over = False

        def told(slots: Slots) -> None:
            if not is_over:
                tell(slots)

        def post(slots: Slots) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(told, slots)

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                start(end_calls, name)  # may wait for a thread

        end_calls = await apart(name, partial(self._reader.listen, post), lambda end: end())
        return end

    def trace(self, target: TraceTarget, *, secrets: bool = False) -> Opening[Trace]:
        """Record every USB transfer from now on, with time stamps.

        Args:
            target: A file name, or an open binary file, for a pcapng file that Wireshark reads; or
                a :class:`ccid.trace.Sink`. A new file belongs to this user alone (mode 0600).
                A symbolic link is not followed.
            secrets: True to record PINs and keys. False to mask all data that may be a PIN or a
                key, and all check bytes of the same exchange.

        Returns:
            The trace. Call :meth:`~ccid.aio.Trace.stop` at the end, or use ``async with``. A trace
            begins and ends at a time when no APDU is under way in any slot.

        Raises:
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
            TraceFailed: The file cannot be made, or written.
        """
        return Opening(partial(self._traced, target, secrets))

    async def _traced(self, target: TraceTarget, secrets: bool) -> Trace:
        begin = partial(self._reader.trace, target, secrets=secrets)
        trace = await apart(f"trace of {self.name}", begin, lambda trace: trace.stop())
        return Trace(self, trace)


# Opening ----------------------------------------------------------------------------------------


async def list_readers() -> list[ReaderInfo]:
    """The readers on this machine's USB. No device is opened, and none gets a request.

    Returns:
        One :class:`ReaderInfo` for each CCID interface.

    Raises:
        UsbUnavailable: libusb cannot be loaded, or cannot list the devices.
    """
    return await apart("list_readers", find.list_readers, lambda _: None)


def open_reader(
    which: ReaderInfo | VirtualReader | str | None = None,
    *,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
    apdu_mode: bool = False,
    no_retry_counter: bool = False,
    first_voltage: PowerSelect | None = None,
    reopen: bool = True,
) -> Opening[Reader]:
    """Open a reader.

    Args:
        which: One of :func:`list_readers`, a :class:`ccid.VirtualReader`, the name of a reader (or
            a part of the name), ``vvvv:pppp`` or path; None for the first reader.
        max_command_s: Most seconds that a command may take, with all time extensions that the
            reader requests; None, or infinity, for no limit.
        old_firmware: True to open the reader even if its firmware is known to be faulty.
        apdu_mode: True to switch the reader to short APDU level (quirk ``apdu-mode-escape``).
        no_retry_counter: True to keep the PIN pad from sending an empty VERIFY of its own (quirk
            ``retry-counter-escape``).
        first_voltage: The voltage that a power-up tries first, where the host chooses; None for
            5 V. A reader with automatic voltage selection goes on choosing by itself.
        reopen: True to open a reader again that leaves USB and comes back at the same port within
            2 s; False if that is to be the end of the reader. A reader that is reset, or loses its
            power in sleep, and stays on USB is opened again in any case. The card is reset then:
            its next command raises :class:`ccid.errors.CardReset`.

    Returns:
        The open reader.

    Raises:
        ReaderNotFound: No reader, or more than one, fits ``which``.
        UnsupportedByReader: ``apdu_mode`` or ``no_retry_counter`` is True, and the table of readers
            has no Escape for that.
        ReaderUnsupported: The reader cannot work, judged by its descriptors; the message gives the
            reasons.
        AccessDenied: This user may not open the device.
        ReaderBusy: Another process holds the reader.
        SlotBusy: The reader does not end a command of an earlier process.
        ReaderRemoved, TransportTimeout, TransportError: The reader is gone, or does not answer.
        ReaderTableError: The user's table of readers has an error.
        ValueError, TypeError: ``max_command_s`` is no positive number.
    """
    begin = partial(
        find.open_reader,
        which,
        max_command_s=max_command_s,
        old_firmware=old_firmware,
        apdu_mode=apdu_mode,
        no_retry_counter=no_retry_counter,
        first_voltage=first_voltage,
        reopen=reopen,
    )
    return Opening(partial(_opened, begin))


def open_fd(
    fd: int,
    *,
    interface: int | None = None,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
    apdu_mode: bool = False,
    no_retry_counter: bool = False,
    first_voltage: PowerSelect | None = None,
) -> Opening[Reader]:
    """Open a reader whose USB device another process opened: Android's ``termux-usb``, or a broker
    that passes file descriptors. This process needs no rights of its own.

    Args:
        fd: The file descriptor of the device's node (``/dev/bus/usb/…``), open for reading and
            writing. The reader uses a duplicate; the descriptor stays the caller's.
        interface: bInterfaceNumber of the reader, on a device with several; None for the first.
        max_command_s, old_firmware, apdu_mode, no_retry_counter, first_voltage: As for
            :func:`open_reader`.

    Returns:
        The open reader. After a reset of the device it is open again, as one of
        :func:`open_reader`; a device that leaves USB is gone for good.

    Raises:
        ReaderNotFound: The device has no CCID interface of this number.
        TransportError: ``fd`` is no open descriptor of a USB device.
        UsbUnavailable: libusb cannot be loaded, or takes no descriptors: it is older than 1.0.23,
            or this is neither Linux nor Android.
        TypeError: ``fd`` is no number.
        CcidError: As :func:`open_reader`.
    """
    begin = partial(
        find.open_fd,
        fd,
        interface=interface,
        max_command_s=max_command_s,
        old_firmware=old_firmware,
        apdu_mode=apdu_mode,
        no_retry_counter=no_retry_counter,
        first_voltage=first_voltage,
    )
    return Opening(partial(_opened, begin))


async def _opened(begin: Callable[[], blocking.Reader]) -> Reader:
    loop = asyncio.get_running_loop()

    def opened() -> Reader:
        reader = begin()
        try:
            return Reader(reader, loop)
        except BaseException:
            reader.close()
            raise

    return await apart("open_reader", opened, Reader._undo)
