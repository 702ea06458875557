"""A card: powered, its ATR read, protocol and parameters agreed, ready for APDUs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ccid.codes import Features, IccStatus, Protocol
from ccid.errors import (
    CardAbsent,
    CardDisconnected,
    CardMute,
    CardRemoved,
    CcidError,
    CommandFailed,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    UnsupportedByReader,
)
from ccid.exchange import choose, marking
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import Atr
from ccid.iso7816.timing import Timing, exchange_timeout
from ccid.negotiation import choose_fidi, choose_protocol, power_selects, protocol_data

if TYPE_CHECKING:
    from ccid.reader import Slot
    from ccid.trace import Tap


class Card:
    """A card, powered and ready for APDUs. Get one by :meth:`Slot.connect`.

    Attributes:
        slot: Where it is.
        atr: Its answer to reset.
        protocol: T in force.
        fidi: Fi and Di in force, coded as TA1; at APDU level and with automatic negotiation
            the reader knows better.
        timeout_s: Seconds an answer may take, before extensions.
    """

    slot: Slot
    atr: Atr
    protocol: Protocol
    fidi: int
    timeout_s: float
    _transmit: Callable[[Bytes], bytes]

    def __init__(self, slot: Slot, protocol: Protocol | None) -> None:
        self.slot = slot
        self._wanted = protocol
        self._over: CcidError | None = None
        self._power_up(reset=False)

    def __repr__(self) -> str:
        return f"<ccid.Card {self.atr} {self.protocol} in {self.slot!r}>"

    # Talking to it ----------------------------------------------------------------------------

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU; returns the response APDU, data and SW1 SW2.

        With T=0 on a reader at TPDU level the status words 61xx and 6Cxx come up as they are,
        as they do through PC/SC.

        Args:
            apdu: Its bytes (ISO/IEC 7816-3:2006 12.1).

        Raises:
            CardRemoved: It was taken out since it was connected, even if one is back.
            CardMute, CommandFailed, ProtocolError: It, or the reader, failed.
            CommandCancelled: :meth:`Slot.cancel` ended it.
            InvalidApdu, UnsupportedByReader: The reader cannot send that.
        """
        try:
            return self._transmit(apdu)
        except (CardAbsent, CardMute, CommandFailed) as error:
            self._gone(error)

    def _gone(self, error: CcidError) -> NoReturn:
        """Raise ``error``, or that the card was removed if that is what it says."""
        if (error.bStatus or 0) & 0x03 in (IccStatus.ABSENT, IccStatus.INACTIVE):
            self._end(
                CardRemoved(
                    f"{self.slot.reader.name}: the card was taken out of slot {self.slot.index}",
                    reader=self.slot.reader.name,
                    slot=self.slot.index,
                    bSeq=error.bSeq,
                    bStatus=error.bStatus,
                    bError=error.bError,
                )
            )
            self._check()
        raise error

    def exclusive(self) -> AbstractContextManager[Any]:
        """Hold this to have several APDUs follow each other with nobody's between."""
        return self.slot.turn()

    # Its life ---------------------------------------------------------------------------------

    def reset(self, *, cold: bool = False) -> Atr:
        """Reset it and negotiate anew; returns the new ATR.

        Args:
            cold: Power it off first; else a warm reset (USB CCID rev 1.1, 6.1.1).
        """
        with self.slot.turn():
            self._check()
            if cold:
                self.slot.commands.power_off()
            try:
                self._power_up(reset=True)
            except (CardAbsent, CardMute, CommandFailed) as error:
                self._gone(error)
            return self.atr

    def disconnect(self) -> None:
        """Power it off and leave the slot to the next. More than once does no harm, nor after
        card or reader are gone."""
        if self._over is not None:
            return
        with suppress(ReaderRemoved, ReaderClosed, ReaderForked), self.slot.turn():
            self._end(
                CardDisconnected(
                    f"{self.slot.reader.name}: this card was disconnected",
                    reader=self.slot.reader.name,
                    slot=self.slot.index,
                )
            )
            with suppress(CardAbsent, CardMute):
                self.slot.commands.power_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

    def _end(self, why: CcidError) -> None:
        """No more APDUs: every later call raises ``why``."""
        self._over = why
        self._transmit = self._refuse
        if self.slot.card is self:
            self.slot.card = None

    def _check(self) -> None:
        if self._over is not None:
            raise copy.copy(self._over)

    def _refuse(self, apdu: Bytes) -> NoReturn:
        assert self._over is not None
        raise copy.copy(self._over)

    # Power and parameters ---------------------------------------------------------------------

    def _power_up(self, reset: bool) -> None:
        """Power on, parse the ATR, agree on protocol and parameters."""
        commands, descriptor = self.slot.commands, self.slot.reader.descriptor
        raw = self._activate(power_selects(descriptor))
        if not raw:
            raise CardMute(
                f"{self.slot.reader.name}: the card in slot {self.slot.index} is active and "
                f"sent no ATR: a memory card?",
                reader=self.slot.reader.name,
                slot=self.slot.index,
            )
        try:
            self.atr = Atr.parse(raw)
            self._negotiate()
        except BaseException:
            with suppress(CcidError):
                commands.power_off()
            raise
        self.arm(self.slot.reader.tap)

    def _activate(self, selects: list[int]) -> bytes:
        """IccPowerOn with one voltage after the other until the card answers."""
        commands = self.slot.commands
        *others, last = selects
        for select in others:
            try:
                return commands.power_on(select)
            except CardAbsent:
                raise
            except (CardMute, CommandFailed):
                commands.power_off()
        return commands.power_on(last)

    def _negotiate(self) -> None:
        reader = self.slot.reader
        descriptor = reader.descriptor
        first, *others = choose_protocol(self.atr, descriptor, self._wanted)
        self.fidi = choose_fidi(self.atr, descriptor, reader.data_rates)
        try:
            self._set(first)
        except (CommandFailed, UnsupportedByReader):
            if not others:
                raise
            self._set(others[0])
        clock_hz = descriptor.dwDefaultClock * 1000
        timing = Timing.of(self.atr, clock_hz, self.fidi)
        self.timeout_s = exchange_timeout(timing, self.protocol)

    def _set(self, protocol: Protocol) -> None:
        self.protocol = protocol
        if self.slot.reader.descriptor.features & Features.AUTO_NEGOTIATION:
            return
        try:
            self.slot.commands.set_parameters(protocol_data(self.atr, protocol, self.fidi))
        except UnsupportedByReader:
            if protocol is not self.atr.default_protocol and not self._is_apdu_level():
                raise
        except CommandFailed as error:
            if not 1 <= (error.bError or 0) <= 127:  # a value that cannot be changed is as it is
                raise

    def _is_apdu_level(self) -> bool:
        level = Features.SHORT_APDU_LEVEL | Features.EXTENDED_APDU_LEVEL
        return bool(self.slot.reader.descriptor.features & level)

    def arm(self, tap: Tap | None = None) -> None:
        """Make :meth:`transmit` go by the reader's present transport, through ``tap`` if that
        is a trace's."""
        reader, slot = self.slot.reader, self.slot
        exchange = choose(slot.commands, reader.descriptor, self.protocol, self.timeout_s)
        self._transmit = exchange.transmit if tap is None else marking(exchange, tap, slot.index)
