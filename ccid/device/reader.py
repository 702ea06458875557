"""Reader: one CCID interface, opened.

A :class:`Reader` is one CCID interface, opened. It has :class:`Slot` objects, and a slot with a
card in it gives a :class:`Card` by :meth:`Slot.connect`. All may be used from several threads;
one APDU is atomic, and ``with card.exclusive():`` makes several so.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages.events import RDR_to_PC_NotifySlotChange, SlotChange, parse_event
from ccid.codes import Features, PowerSelect
from ccid.device.open_readers import opened
from ccid.device.reader_link import make_commands, make_conversation, shared_turns
from ccid.device.slot import Slot
from ccid.device.unclosed_readers import unclosed
from ccid.errors import (
    CcidError,
    CommandFailed,
    MalformedDescriptor,
    MalformedMessage,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    SlotBusy,
    TransportError,
    TransportStall,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.known.quirks import Quirks
from ccid.known.quirks.descriptor_fixups import apply, data_rates, takes_apdu_mode
from ccid.link.conversation import FAREWELL_S, MAX_COMMAND_S, WAKING_S, Conversation
from ccid.link.rate_lists import get_clock_frequencies, get_data_rates
from ccid.link.reader_cards import Cards
from ccid.transport import ReaderInfo, Transport, nothing_to_end

if TYPE_CHECKING:
    from ccid.device.tracing import Trace, TraceTarget
    from ccid.pin.pad_structures import PinPadFeatures
    from ccid.trace import Tap


logger = logging.getLogger("ccid.reader")

Slots = list[SlotChange] | None
"""What a notification says of each slot; None for anything else that it may mean."""


class Reader:
    """An open reader. Get one by :func:`ccid.open_reader`; close it, or use ``with``.

    Attributes:
        info: What it is and where.
        slots: Its slots.
        quirks: What the table of readers knows of it.
        cards: What happened to the cards in its slots.
        first_voltage: What a card is tried with first, where the choice is the host's.
        is_lent: A watcher opened it (:mod:`ccid.device.open_readers`).
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
    ) -> None:
        """Open the reader.

        Args:
            info: Which.
            max_command_s: Most seconds a command may take with all the time extensions that
                the reader asks for; None, or infinity, for no limit.
            apdu_mode: Have it switch to short APDU level.
            no_retry_counter: Keep its PIN pad from sending an empty VERIFY of its own.
            first_voltage: What a card is tried with first, where the choice is the host's.

        Raises:
            UnsupportedByReader: The table knows of no way to have it do what was asked for.
            AccessDenied, ReaderBusy, ReaderRemoved: It cannot be opened.
            ReaderUnsupported: It is no reader for this library.
            SlotBusy: It is at something that an earlier user began, and does not end it.
            TransportTimeout: It does not answer.
            ValueError, TypeError: ``max_command_s`` is no positive number.
        """
        self.info = info
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
        with opened.opening(info):
            self._open(max_command_s, apdu_mode, no_retry_counter)
        unclosed.opened(self)
        opened.opened(self)

    def _open(self, max_command_s: float | None, apdu_mode: bool, no_retry_counter: bool) -> None:
        self.transport: Transport = self._connected()
        self._closed = False
        self._listeners: list[Callable[[Slots], None]] = []
        interface = self.info.reader
        self.cards = Cards(
            auto_activating=bool(self._descriptor.dwFeatures & Features.AUTO_ACTIVATION),
            notifies=interface.interrupt_in is not None or interface.is_iccd,
        )
        try:
            self.transport.listen(self._notified)
            self.transport.when_dead(self._died)
            if self.quirks.open_delay_s:
                time.sleep(self.quirks.open_delay_s)
            self.pipe = make_conversation(
                self.transport,
                self.info,
                self._descriptor,
                self.cards,
                self._turns,
                max_command_s,
            )
            self.slots = tuple(map(self._make_slot, range(self.descriptor.slot_count)))
            self._configured_traces()
            self._wake()
            if apdu_mode:
                self._switch_to_apdus()
            if no_retry_counter or self.quirks.pin_messages_escape:
                from ccid.pin.pad_structures import prepare

                escape = self.slots[0].escape
                prepare(self.quirks, escape, no_retry_counter, self.name, os.environ)
        except BaseException:
            self.transport.close()
            self._closed = True
            raise

    def _make_slot(self, index: int) -> Slot:
        quirks = self.info.quirks(index)
        commands = make_commands(self.pipe, self.info, self._descriptor, index, quirks)
        return Slot(self, index, commands, quirks)

    def _connected(self) -> Transport:
        transport = self.info.connect(self.info)
        patience_s = self.quirks.drain_before_write_s
        if not patience_s:
            return transport
        from ccid.transport.draining import Draining

        return Draining(transport, patience_s)

    def _configured_traces(self) -> None:
        wanted = "CCID_TRACE" in os.environ or logging.getLogger("ccid.traffic").level
        if wanted:  # else that module is not even imported
            from ccid.device.tracing import attach_configured

            attach_configured(self)

    def _wake(self) -> None:
        """The first commands, in their own bounds of time. What an earlier user left unread is
        dropped on the way, and a reader that stumbles over it is asked again. One that tells
        nothing until its card is powered off, as some do after a power cut, has that done."""
        commands, at_least_s = self.slots[0].commands, self.quirks.first_timeout_s or 0.0
        usual_s = max(at_least_s, commands.status_timeout_s)
        self.pipe.latest = time.monotonic() + max(WAKING_S, 3 * usual_s)
        try:
            try:
                commands.slot_status(at_least_s)
                return
            except (TransportTimeout, TransportStall, MalformedMessage):
                pass
            except (CommandFailed, UnsupportedByReader) as error:
                self._wake_by_power(error)
            try:
                commands.slot_status(at_least_s)
            except (TransportError, MalformedMessage, CommandFailed, UnsupportedByReader) as error:
                self._wake_by_power(error)
                commands.slot_status(at_least_s)
        finally:
            self.pipe.latest = None

    def _wake_by_power(self, error: CcidError) -> None:
        """Power the card off, and do not mind if that is refused. Raises ``error`` where it does
        not help: the slot is busy, or there is no answer to this either."""
        if isinstance(error, SlotBusy):
            raise error
        try:
            self.slots[0].commands.power_off()
        except TransportTimeout:
            raise error from None
        except CcidError as other:
            if self.transport.dead is not None:
                raise other

    def _switch_to_apdus(self) -> None:
        """Have the reader change to short APDU level, and go by that."""
        escape = self.quirks.apdu_mode_escape
        if escape is None:
            raise UnsupportedByReader(
                f"{self.name}: no Escape is known that switches it to APDU level", reader=self.name
            )
        self.slots[0].escape(escape)
        self._descriptor = takes_apdu_mode(self._descriptor)
        for slot in self.slots:
            slot.descriptor = takes_apdu_mode(slot.descriptor)

    # What it is -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self.info.name

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """Its class descriptor (USB CCID rev 1.1, 5.1), mended where it is known to be wrong;
        ``info.descriptor`` is what the reader says."""
        return self._descriptor

    @property
    def pin_features(self) -> PinPadFeatures | None:
        """What the reader says of its PIN pad, in its maker's way, asked once; None for one that
        says nothing."""
        # No functools.cached_property: up to Python 3.11 that holds one lock for all readers while
        # it asks one. Two threads at once may ask twice, which does no harm.
        if not self._pin_features:
            from ccid.pin.pad_structures import features

            self._pin_features = (features(self.quirks, self.slots[0].escape),)
        return self._pin_features[0]

    @property
    def max_message_length(self) -> int:
        """Bytes of the longest message it takes, header included (dwMaxCCIDMessageLength)."""
        return self.descriptor.dwMaxCCIDMessageLength

    @property
    def data_rates(self) -> list[int]:
        """The rates (bit/s) it can talk to a card; empty where it lists none (5.3.3)."""
        return data_rates(self.quirks, self.listed_data_rates())

    def listed_data_rates(self) -> list[int]:
        """The rates (bit/s) that GET_DATA_RATES (5.3.3) lists, asked once; what the table of
        readers knows of them is not applied."""
        if self._rates is None:
            count = self.info.descriptor.bNumDataRatesSupported
            self._rates = self._list(get_data_rates, count)
        return self._rates

    @property
    def clock_frequencies(self) -> list[int]:
        """The clocks (kHz) it can give a card; empty where it lists none (5.3.2)."""
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
            return []  # it announces a list and does not give it

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<ccid.Reader {self.name!r} at {self.info.path}{state}>"

    # Its life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Power all cards off and give the reader back. More than once does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            if not isinstance(self.transport.dead, ReaderForked):  # else it is the parent's
                self._close()
        except BaseException:  # as Ctrl-C: what it kept from being done, the next one does
            self._closed = self.transport.dead is not None
            raise
        finally:
            if self._closed:
                unclosed.closed(self)

    def _close(self) -> None:
        self._cancel()
        with ExitStack() as stack:
            stack.callback(opened.closed, self)  # after all that follows
            for trace in self.traces:
                stack.callback(trace.stop)
            stack.callback(self.transport.close)
            quiet = self.pipe.quiet(self._cancel)
            stack.push(quiet)
            stack.push(quiet)
            if not quiet.__enter__():
                # a thread keeps its turn; whatever it does with it from now on, fails
                self.pipe.end(ReaderClosed(f"{self.name} was closed", reader=self.name))
                stack.enter_context(self.pipe.quiet())
                stack.callback(self.transport.close)
                return
            stack.callback(self.transport.close)  # while nobody else has a turn
            self._power_off()

    def _power_off(self) -> None:
        """Power all cards off, and have slots end what was given up; all within one time."""
        self.pipe.latest = time.monotonic() + FAREWELL_S
        for slot in self.slots:
            card = slot.card  # which a thread that met its removal forgets at any time
            with suppress(CcidError):
                if card is not None:
                    card.disconnect()
                elif slot.commands.is_given_up:
                    slot.commands.power_off()

    def _cancel(self) -> None:
        """End whatever is under way."""
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

    def __del__(self, _python_ends: Callable[[], bool] = sys.is_finalizing) -> None:
        """The collector may come within any lock, so this neither waits nor talks over USB."""
        if getattr(self, "_closed", True) or _python_ends():
            return
        if isinstance(self.transport.dead, ReaderForked):
            return  # it is the parent's to close
        unclosed.forgotten(self)
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)

    # What it says unasked ----------------------------------------------------------------------

    def _notified(self, message: bytes) -> None:
        """A transfer came on the interrupt endpoint (USB CCID rev 1.1, 6.3)."""
        tap = self.tap  # looked at once: a trace may end meanwhile
        if tap is not None:
            tap.event(message)
        slots: Slots = None
        with suppress(MalformedMessage):
            event = parse_event(message)
            if isinstance(event, RDR_to_PC_NotifySlotChange):
                slots = event.slots(self.descriptor.slot_count)
                self.cards.notify(slots)
        self._tell(slots)

    def _died(self, reason: CcidError) -> None:
        if isinstance(reason, ReaderRemoved):
            self._tell(None)

    def _tell(self, slots: Slots) -> None:
        for tell in tuple(self._listeners):
            try:
                tell(slots)
            except Exception:  # others are told still, and whoever exchanges something works on
                logger.exception("%s: an event could not be told", self.name)

    def listen(self, tell: Callable[[Slots], None]) -> Callable[[], None]:
        """Have ``tell`` called as soon as the reader says that something happened, from a thread
        of its own: with what it says of each slot, or None where that is unknown, as when it was
        unplugged. It must not call the reader, nor wait for anything.

        Returns:
            What ends this, at once.
        """
        one = functools.partial(tell)  # that may be told by somebody else, too
        leave: Callable[[], None] = nothing_to_end

        def end() -> None:
            with suppress(ValueError):  # called twice
                self._listeners.remove(one)
            leave()

        try:
            self._listeners.append(one)
            if isinstance(self.transport.dead, ReaderRemoved):
                tell(None)
            leave = self.transport.attend()
        except BaseException:
            end()
            raise

        return end

    # Looking over its shoulder ----------------------------------------------------------------

    def trace(self, target: TraceTarget, *, secrets: bool = False) -> Trace:
        """Write every USB message from now on, with time stamps.

        Args:
            target: A file name, or a binary file, for pcapng that Wireshark opens; or a
                :class:`ccid.trace.Sink`. A file is made for this user alone (mode 0600), and
                a symbolic link is not followed.
            secrets: Write PINs and keys as they are. Without it all data that may be one, and
                all check bytes of the same exchange, are masked.

        Returns:
            The trace. Stop it, or use ``with``. It begins when no APDU is under way on any slot,
            and ends so.

        Raises:
            ReaderClosed, ReaderRemoved, ReaderForked: There is nothing to trace any more.
            TraceFailed: The file cannot be made, or written.
        """
        from ccid.device.tracing import attach

        return attach(self, target, secrets)

    @property
    def is_closed(self) -> bool:
        """:meth:`close` was called."""
        return self._closed

    def retrace(self, tap: Tap | None, traces: list[Trace]) -> None:
        """Have all traffic go through ``tap``, or none; :mod:`ccid.device.tracing` calls this
        while it holds every turn. A thread that waits for a turn takes the transport of then."""
        self.pipe.transport = self.transport if tap is None else tap
        self.tap, self.traces = tap, traces
