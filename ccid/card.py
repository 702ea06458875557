"""A card: powered, its ATR read, protocol and parameters agreed, ready for APDUs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from ccid.codes import IccStatus, Protocol
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
)
from ccid.exchange import answering, choose
from ccid.exchange.agreement import Agreement
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import Atr

if TYPE_CHECKING:
    from ccid.activation import Activation
    from ccid.slot import Slot


class Card:
    """A card, powered and ready for APDUs. Get one by :meth:`Slot.connect`.

    Attributes:
        slot: Where it is.
        atr: Its answer to reset.
        agreement: What card and reader agreed on: protocol, speed, times.
    """

    slot: Slot
    atr: Atr
    agreement: Agreement
    _transmit: Callable[[Bytes], bytes]

    def __init__(
        self,
        slot: Slot,
        protocol: Protocol | None,
        auto_get_response: bool = False,
        activation: Activation | None = None,
        fidi: int | None = None,
    ) -> None:
        """Power it up and agree with it; only agree where ``activation`` has powered it up."""
        self.slot = slot
        self._wanted = protocol
        self._auto_get_response = auto_get_response
        self._over: CcidError | None = None
        if activation is None:
            self._power_up()
        else:
            self.atr, self.agreement = activation.agree(protocol, fidi)
            self.arm()

    @property
    def protocol(self) -> Protocol:
        """T in force."""
        return self.agreement.protocol

    @property
    def fidi(self) -> int:
        """Fi and Di in force, coded as TA1; at APDU level and with automatic negotiation the
        reader knows better."""
        return self.agreement.fidi

    @property
    def timeout_s(self) -> float:
        """Seconds an answer may take, before extensions."""
        return self.agreement.timeout_s()

    def __repr__(self) -> str:
        return f"<ccid.Card {self.atr} {self.protocol} in {self.slot!r}>"

    # Talking to it ----------------------------------------------------------------------------

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU; returns the response APDU, data and SW1 SW2.

        With T=0 on a reader at TPDU or character level the status words 61xx and 6Cxx come up
        as they are, as they do through PC/SC, unless :meth:`Slot.connect` was told otherwise.

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
        except (CardAbsent, CardMute, CardRemoved, CommandFailed) as error:
            self._gone(error)

    def _gone(self, error: CcidError) -> NoReturn:
        """Raise ``error``, or that the card was removed if that is what it says."""
        icc = IccStatus.ABSENT if isinstance(error, CardRemoved) else (error.bStatus or 0) & 0x03
        if icc in (IccStatus.ABSENT, IccStatus.INACTIVE):
            self.removed(error)
            self._check()
        raise error

    def removed(self, error: CcidError | None = None) -> None:
        """Note that it was taken out, as ``error`` says: every later call raises
        :class:`~ccid.errors.CardRemoved`."""
        fields = (
            {} if error is None else {f: getattr(error, f) for f in ("bSeq", "bStatus", "bError")}
        )
        self._end(self.slot.reader.pipe.card_removed(self.slot.index, **fields))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold this to have several APDUs follow each other with nobody's between.

        Raises:
            CardRemoved: It was taken out since it was connected, even if one is back.
        """
        with self.slot.turn():
            self._look()
            yield

    # Its life ---------------------------------------------------------------------------------

    def reset(self, *, cold: bool = False) -> Atr:
        """Reset it and negotiate anew; returns the new ATR.

        Args:
            cold: Power it off first; else a warm reset (USB CCID rev 1.1, 6.1.1).
        """
        with self.slot.turn():
            self._look()
            if cold:
                self.slot.commands.power_off()
            try:
                self._power_up()
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

    def _look(self) -> None:
        """Raise why there can be no more APDUs, if there cannot."""
        if self._over is None and self.slot.reader.pipe.was_removed(self.slot.index):
            self.removed()
        self._check()

    def _check(self) -> None:
        if self._over is not None:
            raise copy.copy(self._over)

    def _refuse(self, apdu: Bytes) -> NoReturn:
        assert self._over is not None
        raise copy.copy(self._over)

    # Power and parameters ---------------------------------------------------------------------

    def _power_up(self) -> None:
        """Power on, parse the ATR, agree on protocol and parameters."""
        self.atr, self.agreement = self.slot.activation().run(self._wanted)
        self.arm()

    def arm(self) -> None:
        """Make :meth:`transmit` go as card and reader agreed."""
        slot = self.slot
        exchange = choose(slot.commands, slot.descriptor, self.agreement, self._auto_get_response)
        self._transmit = exchange.transmit
        if slot.quirks.pseudo_apdus:
            self._transmit = answering(self._transmit, self._pseudo_answers())

    def _pseudo_answers(self) -> dict[bytes, bytes]:
        """What the driver answers itself, by command APDU."""
        bcdDevice = self.slot.reader.info.device.bcdDevice
        release = f"{bcdDevice >> 8:x}.{bcdDevice & 0xFF:02x}"
        return {
            apdu: text.replace("{bcdDevice}", release).encode() + b"\x90\x00"
            for apdu, text in self.slot.quirks.pseudo_apdus
        }
