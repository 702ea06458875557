"""Reader: one open CCID interface.

A :class:`Reader` has :class:`Slot` objects. :meth:`Slot.connect` makes a :class:`Card` of the card
in the slot. Several threads may use the same objects. One APDU is atomic;
``with card.exclusive():`` makes several APDUs atomic.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages.events import RDR_to_PC_NotifySlotChange, parse_event
from ccid.codes import Features, PowerSelect
from ccid.device.first_commands import wake
from ccid.device.listener import Listener, Slots
from ccid.device.open_readers import key_of, opened
from ccid.device.reader_link import make_commands, make_conversation, shared_turns
from ccid.device.slot import Slot
from ccid.device.unclosed_readers import unclosed
from ccid.errors import (
    CcidError,
    MalformedDescriptor,
    MalformedMessage,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    TransportStall,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.known.quirks import Quirks
from ccid.known.quirks.descriptor_fixups import apply, data_rates, takes_apdu_mode
from ccid.link import locks
from ccid.link.conversation import FAREWELL_S, MAX_COMMAND_S, Conversation
from ccid.link.rate_lists import get_clock_frequencies, get_data_rates
from ccid.link.reader_cards import Cards
from ccid.transport import ReaderInfo, Transport

if TYPE_CHECKING:
    from ccid.device.tracing import Trace, TraceTarget
    from ccid.pin.pad_structures import PinPadFeatures
    from ccid.trace import Tap


logger = logging.getLogger("ccid.reader")


class Wants(NamedTuple):
    """What was asked for when a reader was opened, and is asked for again after a reset."""

    apdu_mode: bool
    no_retry_counter: bool
    reopen: bool


class Reader:
    """An open reader. :func:`ccid.open_reader` makes one. Call :meth:`close` at the end, or use
    ``with``.

    Attributes:
        slots: The slots, by bSlot.
        quirks: The quirks of the reader, from the table of readers.
        cards: The states of the cards in the slots.
        transport: The open interface.
        pipe: The conversation: sends commands and matches replies.
        first_voltage: The voltage that a power-up tries first, where the host chooses; None for
            5 V.
        traces: The traces under way.
        tap: The tap that tells the traces of each transfer; None without traces.
        is_lent: True if the reader is open for a watch only (:mod:`ccid.device.open_readers`).
    """

    is_lent = False

    def __init__(
        self,
        info: ReaderInfo,
        *,
        max_command_s: float | None = MAX_COMMAND_S,
        apdu_mode: bool = False,
        no_retry_counter: bool = False,
        first_voltage: PowerSelect | None = None,
        reopen: bool = True,
    ) -> None:
        """Open the reader.

        Args:
            info: The reader.
            max_command_s: Most seconds that a command may take, with all time extensions that
                the reader requests; None, or infinity, for no limit.
            apdu_mode: True to switch the reader to short APDU level.
            no_retry_counter: True to keep the PIN pad from sending an empty VERIFY of its own.
            first_voltage: The voltage that a power-up tries first, where the host chooses; None
                for 5 V.
            reopen: True to open a reader again that leaves USB and comes back within 2 s.

        Raises:
            UnsupportedByReader: ``apdu_mode`` or ``no_retry_counter`` is True, and the table of
                readers has no Escape for that.
            AccessDenied: This user may not open the device.
            ReaderBusy: Another process holds the reader.
            ReaderRemoved, TransportError: The reader cannot be opened.
            ReaderUnsupported: The interface has no bulk endpoints, or an unknown
                bInterfaceProtocol.
            SlotBusy: The reader does not end a command of an earlier process.
            TransportTimeout: The reader does not answer.
            ReaderClosed: Python ends: no reader is opened any more.
            ValueError, TypeError: ``max_command_s`` is no positive number.
        """
        self._info = info
        self.quirks: Quirks = info.quirks()
        self._descriptor = apply(self.quirks, info.descriptor, info.reader.protocol)
        self._turns = shared_turns(info, self.quirks)
        self.first_voltage = first_voltage
        self._rates: list[int] | None = None
        self._clocks: list[int] | None = None
        self._pin_features: tuple[()] | tuple[PinPadFeatures | None] = ()
        self.traces: list[Trace] = []
        self.tap: Tap | None = None
        self._closed = True
        unclosed.before_opening()
        self._wants = Wants(apdu_mode, no_retry_counter, reopen)
        with opened.opening(info):
            self._open(max_command_s)
        unclosed.opened(self)
        opened.opened(self)

    def _open(self, max_command_s: float | None) -> None:
        """Open the transport, and send the first commands. Closes the transport on any error."""
        self.transport: Transport = self._connected()
        self._closed = False
        self._listeners: list[Listener] = []
        interface = self.info.reader
        self.cards = Cards(
            auto_activating=bool(self._descriptor.dwFeatures & Features.AUTO_ACTIVATION),
            notifies=interface.interrupt_in is not None or interface.is_iccd,
        )
        try:
            self.transport.listen(self._notified)
            self.transport.when_dead(self._died)
            self.pipe = make_conversation(
                self.transport,
                self.info,
                self._descriptor,
                self.cards,
                self._turns,
                max_command_s,
            )
            self.slots = tuple(map(self._make_slot, range(self.descriptor.slot_count)))
            self.transport.on_reset(self._was_reset, opened.opening if self._wants.reopen else None)
            self._configured_traces()
            self._make_ready()
            self.pipe.make_ready = None  # a reset meanwhile was followed by what was left
            if self._wants.apdu_mode:
                self._descriptor = takes_apdu_mode(self._descriptor)
                for slot in self.slots:
                    slot.descriptor = takes_apdu_mode(slot.descriptor)
        except BaseException:
            self.transport.close()
            self._closed = True
            raise

    def _make_ready(self) -> None:
        """Send the first commands to a reader that was opened, or reset."""
        if self.quirks.open_delay_s:
            time.sleep(self.quirks.open_delay_s)
        escape = self.slots[0].escape
        wake(self.pipe, self.slots[0].commands, self.quirks.first_timeout_s or 0.0)
        if self._wants.apdu_mode:
            self._switch_to_apdus()
        if self._wants.no_retry_counter or self.quirks.pin_messages_escape:
            from ccid.pin.pad_structures import prepare

            prepare(self.quirks, escape, self._wants.no_retry_counter, self.name, os.environ)

    def _make_slot(self, index: int) -> Slot:
        quirks = self.info.quirks(index)
        commands = make_commands(self.pipe, self.info, self._descriptor, index, quirks)
        return Slot(self, index, commands, quirks)

    def _connected(self) -> Transport:
        """The open transport; with the quirk ``drain-before-write-s``, one that first reads what
        the reader still has to send."""
        transport = self.info.connect(self.info)
        patience_s = self.quirks.drain_before_write_s
        if not patience_s:
            return transport
        from ccid.transport.draining import Draining

        return Draining(transport, patience_s)

    def _configured_traces(self) -> None:
        """Begin the traces that the environment and the level of ``ccid.traffic`` ask for."""
        is_traced = "CCID_TRACE" in os.environ or logging.getLogger("ccid.traffic").level
        if is_traced:  # without a trace the module is not imported: that costs start-up time
            from ccid.device.tracing import attach_configured

            attach_configured(self)

    def _switch_to_apdus(self) -> None:
        """Switch the reader to short APDU level by its Escape."""
        escape = self.quirks.apdu_mode_escape
        if escape is None:
            raise UnsupportedByReader(
                f"{self.name}: no Escape is known that switches it to APDU level", reader=self.name
            )
        self.slots[0].escape(escape)

    # Description ------------------------------------------------------------------------------

    @property
    def info(self) -> ReaderInfo:
        """Description of the reader, made before the reader was opened; made anew if the reader
        left USB and came back with another address."""
        return self._info

    @property
    def name(self) -> str:
        """The name of the reader, for people."""
        return self.info.name

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor (USB CCID rev 1.1, 5.1), corrected by the quirks of the reader.
        ``info.descriptor`` is the descriptor without corrections."""
        return self._descriptor

    @property
    def pin_features(self) -> PinPadFeatures | None:
        """The features of the PIN pad, from the answer to the Escape of the quirk
        ``features-escape``, which is sent once. None if the reader has no such Escape or refuses
        it.

        Raises:
            ReaderClosed, ReaderRemoved, TransportTimeout, TransportError: The reader could not be
                asked.
        """
        # functools.cached_property is no choice: up to Python 3.11 all readers share its lock, and
        # the lock is held during the Escape. Two threads may send the Escape twice; that is safe.
        if not self._pin_features:
            from ccid.pin.pad_structures import features

            self._pin_features = (features(self.quirks, self.slots[0].escape),)
        return self._pin_features[0]

    @property
    def max_message_length(self) -> int:
        """Bytes of the longest message that the reader takes, header included
        (dwMaxCCIDMessageLength, USB CCID rev 1.1, 5.1)."""
        return self.descriptor.dwMaxCCIDMessageLength

    @property
    def data_rates(self) -> list[int]:
        """The data rates (bit/s) between reader and card, as GET_DATA_RATES (USB CCID rev 1.1,
        5.3.3) lists them, corrected by the quirks of the reader. Empty if the reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        return data_rates(self.quirks, self.listed_data_rates())

    def listed_data_rates(self) -> list[int]:
        """The answer to GET_DATA_RATES (USB CCID rev 1.1, 5.3.3), which is sent once.

        Returns:
            The data rates (bit/s), without corrections by the quirks of the reader. Empty if the
            reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        if self._rates is None:
            count = self.info.descriptor.bNumDataRatesSupported
            self._rates = self._list(get_data_rates, count)
        return self._rates

    @property
    def clock_frequencies(self) -> list[int]:
        """The clock frequencies (kHz) for a card, as GET_CLOCK_FREQUENCIES (USB CCID rev 1.1,
        5.3.2), which is sent once, lists them. Empty if the reader lists none.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked.
        """
        if self._clocks is None:
            count = self.descriptor.bNumClockSupported
            self._clocks = self._list(get_clock_frequencies, count)
        return self._clocks

    def _list(self, get: Callable[[Conversation, int], list[int]], count: int) -> list[int]:
        if not count:
            return []
        try:
            return [value for value in get(self.pipe, count) if value]
        except (TransportStall, TransportTimeout, MalformedDescriptor):
            return []  # the class descriptor announces a list that the reader does not have

    # Buzzer and LEDs --------------------------------------------------------------------------

    @property
    def leds(self) -> tuple[str, ...]:
        """The names of the LEDs that :meth:`led` can switch. Empty if no command is known."""
        if self.quirks.led_escape is None:
            return ()
        from ccid.known.quirks import gadget_commands

        return gadget_commands.leds(self.quirks.led_escape)

    def led(self, *lit: str) -> None:
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
        from ccid.device.buzzer_and_leds import light

        light(self, lit)

    def buzzer(self, seconds: float = 0.1) -> None:
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
        from ccid.device.buzzer_and_leds import buzz

        buzz(self, seconds)

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<ccid.Reader {self.name!r} at {self.info.path}{state}>"

    # Closing ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Power all cards off, and release the interface. A second call has no effect.

        Commands under way in other threads end with :class:`ccid.errors.CommandCancelled`, or with
        :class:`ccid.errors.ReaderClosed`. Closing never raises an error of the reader. If a signal
        handler raises meanwhile (Ctrl-C), call this method again.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not isinstance(self.transport.dead, ReaderForked):  # the parent closes that reader
                self._close()
        except BaseException:  # Ctrl-C: the next call of close() does what is left
            self._closed = self.transport.dead is not None
            raise
        finally:
            if self._closed:
                unclosed.closed(self)

    def _close(self) -> None:
        self._cancel()
        with ExitStack() as stack:
            stack.callback(opened.closed, self)  # at the very end
            for trace in self.traces:
                stack.callback(trace.stop)
            self._close_transport()

    def _close_transport(self) -> None:
        """Power all cards off and close the transport, while no other thread has a turn."""
        if self.transport.is_away():  # no card has power, and nobody is waited for
            self.transport.close()
            return
        # interfaces that take turns: another one may be busy, which this pipe does not know
        idle_s = locks.IDLE_S if self._turns is None else locks.QUIET_S
        turns = self.pipe.quiet(self._cancel, idle_s)
        try:
            with turns as is_quiet:
                if is_quiet:
                    self._power_off_and_close()
                else:
                    self._end_commands()
        finally:  # a signal handler may raise as ``__exit__`` begins: a second call is safe
            turns.__exit__()
            self.transport.close()

    def _power_off_and_close(self) -> None:
        try:
            self._power_off()
        finally:
            self.transport.close()

    def _end_commands(self) -> None:
        """A thread keeps its turn: every command that the thread sends from now on fails."""
        self.pipe.end(ReaderClosed(f"{self.name} was closed", reader=self.name))
        with self.pipe.quiet(idle_s=0.0 if self._turns is None else locks.QUIET_S):
            if self._turns is None and not self.pipe.is_busy():
                self._power_off_by_another_conversation()
            self.transport.close()

    def _power_off_by_another_conversation(self) -> None:
        """Power off all cards although a thread keeps its turn. No command is under way, and none
        can be sent by the conversation that ended."""
        transport = self.tap or self.transport
        farewell = make_conversation(
            transport, self.info, self._descriptor, self.cards, None, FAREWELL_S
        )
        farewell.count = self.pipe.count  # real readers ignore a number that repeats
        farewell.latest = time.monotonic() + FAREWELL_S
        for slot in self.slots:
            if slot.commands.may_have_power:
                commands = make_commands(
                    farewell, self.info, self._descriptor, slot.index, slot.quirks
                )
                with suppress(CcidError):
                    commands.power_off()

    def _power_off(self) -> None:
        """Power off all cards, connected or not, and all slots that still work on a command that
        was given up. All of that within one time limit."""
        self.pipe.latest = time.monotonic() + FAREWELL_S
        for slot in self.slots:
            card = slot.card  # another thread that sees the removal may set None at any time
            with suppress(CcidError):
                if card is not None:
                    card.disconnect()
            with suppress(CcidError):
                if slot.commands.may_have_power:
                    slot.commands.power_off()

    def _cancel(self) -> None:
        """End the commands under way in all slots."""
        for slot in self.slots:
            with suppress(CcidError):
                slot.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        """Have another thread close the reader. The garbage collector may call this while a lock
        is held, so this method neither blocks nor uses USB."""
        if getattr(self, "_closed", True) or sys is None or sys.is_finalizing():
            return
        if isinstance(self.transport.dead, ReaderForked):
            return  # the parent closes that reader
        unclosed.forgotten(self)
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)

    # Notifications ----------------------------------------------------------------------------

    def _notified(self, message: bytes) -> None:
        """Handle a transfer on the interrupt endpoint (USB CCID rev 1.1, 6.3)."""
        tap = self.tap  # read once: a trace may end meanwhile
        if tap is not None:
            tap.event(message)
        slots: Slots = None
        with suppress(MalformedMessage):
            event = parse_event(message)
            if isinstance(event, RDR_to_PC_NotifySlotChange):
                slots = event.slots(self.descriptor.slot_count)
                self.cards.notify(slots)
        self._tell(slots)

    def _was_reset(self, info: ReaderInfo) -> None:
        """The reader was reset, or left USB and came back as ``info``; it is open again."""
        before, self._info = self._info, info
        if key_of(info) != key_of(before):
            opened.moved(self, before)
            if self.tap is not None:
                self.tap.info = info
        for slot in self.slots:
            slot.commands.was_reset()
        self.pipe.make_ready = self._make_ready
        self.pipe.was_reset()
        self._tell(None)

    @property
    def is_away(self) -> bool:
        """True while the reader is not on USB, or was reset, and is not open again yet. It is, or
        :class:`ccid.errors.ReaderRemoved` ends it, within about 2 s."""
        return self.transport.is_away()

    def _died(self, reason: CcidError) -> None:
        """The transport cannot be used any more."""
        if isinstance(reason, ReaderRemoved):
            self._tell(None)

    def _tell(self, slots: Slots) -> None:
        for listener in tuple(self._listeners):
            try:
                listener.tell(slots)
            except Exception:  # the other listeners, and the command under way, are not affected
                logger.exception("%s: an event could not be told", self.name)

    def listen(self, tell: Callable[[Slots], None]) -> Callable[[], None]:
        """Call ``tell`` for each notification, as soon as it comes.

        Args:
            tell: Called from a thread of the library, with the state of each slot that the
                notification reports (USB CCID rev 1.1, 6.3.1); with None if something else may have
                happened, as when the reader was unplugged. Must neither block nor call the reader.

        Returns:
            A function that ends the calls. A second call of that function has no effect.

        Raises:
            ReaderClosed, ReaderForked: The reader cannot be used any more.
            TransportError: No thread can be started.
        """
        listener = Listener(self._listeners, tell)
        try:
            self._listeners.append(listener)
            if isinstance(self.transport.dead, ReaderRemoved):
                tell(None)
            listener.wait_for_events(self.transport)
        except BaseException:
            listener.end()
            raise
        return listener.end

    # Traces -----------------------------------------------------------------------------------

    def trace(self, target: TraceTarget, *, secrets: bool = False) -> Trace:
        """Record every USB transfer from now on, with time stamps.

        Args:
            target: A file name, or an open binary file, for a pcapng file that Wireshark reads; or
                a :class:`ccid.trace.Sink`. A new file belongs to this user alone (mode 0600).
                A symbolic link is not followed.
            secrets: True to record PINs and keys. False to mask all data that may be a PIN or a
                key, and all check bytes of the same exchange.

        Returns:
            The trace. Call :meth:`~ccid.device.tracing.Trace.stop` at the end, or use ``with``. A
            trace begins and ends at a time when no APDU is under way in any slot.

        Raises:
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
            TraceFailed: The file cannot be made, or written.
        """
        from ccid.device.tracing import attach

        return attach(self, target, secrets)

    @property
    def is_closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    def retrace(self, tap: Tap | None, traces: list[Trace]) -> None:
        """Put a tap before the transport, or remove the tap. :mod:`ccid.device.tracing` calls this
        while it holds the turns of all slots; a thread that waits for a turn uses the tap then.

        Args:
            tap: The tap; None for no tap.
            traces: The traces under way from now on.
        """
        self.pipe.transport = self.transport if tap is None else tap
        self.tap, self.traces = tap, traces
