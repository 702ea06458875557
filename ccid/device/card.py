"""A card: it has power, its ATR is read, protocol and parameters are agreed.

Theory of operation. A :class:`Card` object is valid for one power-up of the card: the session in
its agreement. The state machine :mod:`ccid.link.card_state` decides what happened to the card. The
object turns that decision into an error. The error ends the object: the slot is free for the next
card object, and every later call raises the same error. The object asks the state machine before
each command, and after each error that carries bmICCStatus. A reset that fails ends the object,
too: the card then has no power, or its protocol and parameters are unknown.
"""

from __future__ import annotations

import copy
import logging
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ccid.codes import IccStatus, Protocol
from ccid.errors import (
    CardAbsent,
    CardDisconnected,
    CardMute,
    CardRemoved,
    CardReset,
    CcidError,
    CommandFailed,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    ReaderReset,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import Atr
from ccid.iso7816.t0 import SW_OK
from ccid.session.exchange import Answering, Exchange, choose
from ccid.session.exchange.agreement import Agreement

if TYPE_CHECKING:
    from ccid.device.slot import Slot
    from ccid.device.storage_card import StorageCard
    from ccid.session.activation import Activation

logger = logging.getLogger("ccid.card")

NO_READER = (ReaderRemoved, ReaderClosed, ReaderForked)
"""Errors after which no card can be powered off."""
WITH_STATUS = (CardAbsent, CardMute, CommandFailed, UnsupportedByReader)
"""Errors whose bStatus, where there is one, holds bmICCStatus of the card (USB CCID rev 1.1,
6.2.6)."""


class NoExchange:
    """The exchange with a card that is gone: it raises the reason.

    Args:
        why: The reason.
    """

    def __init__(self, why: CcidError) -> None:
        self.why = why

    def transmit(self, apdu: Bytes) -> NoReturn:
        """Raise the reason."""
        raise copy.copy(self.why)


class Card:
    """A card that has power and accepts APDUs. :meth:`Slot.connect` makes one.

    Attributes:
        slot: The slot of the card.
        atr: The answer to reset of the card.
        agreement: Protocol, speed and times that card and reader agreed on.
    """

    slot: Slot
    atr: Atr
    agreement: Agreement
    _exchange: Exchange

    def __init__(
        self,
        slot: Slot,
        protocol: Protocol | None,
        auto_get_response: bool = False,
        activation: Activation | None = None,
        fidi: int | None = None,
    ) -> None:
        """Power the card up, and agree on protocol and parameters.

        Args:
            slot: The slot of the card.
            protocol: As for :meth:`Slot.connect`.
            auto_get_response: As for :meth:`Slot.connect`.
            activation: A power-up that is done; then the constructor only agrees on protocol and
                parameters. None to power the card up here.
            fidi: Fi and Di to insist on, coded as TA1; None for the fastest that works. Only
                together with ``activation``.

        Raises:
            CardAbsent, CardMute, MalformedAtr, UnsupportedByReader: As :meth:`Slot.connect`.
        """
        self.slot = slot
        self._wanted = protocol
        self._auto_get_response = auto_get_response
        self._ended_by: CcidError | None = None
        if activation is None:
            self._power_up()
        else:
            self.atr, self.agreement = activation.agree(protocol, fidi)
            self.arm()

    @property
    def protocol(self) -> Protocol:
        """The protocol in force: T=0 or T=1."""
        return self.agreement.protocol

    @property
    def fidi(self) -> int:
        """Fi and Di in force, coded as TA1 (ISO/IEC 7816-3:2006 8.3). At APDU level, and with
        automatic negotiation, the reader may use others and does not report them."""
        return self.agreement.fidi

    @property
    def timeout_s(self) -> float:
        """Seconds that a response may take, without time extensions."""
        return self.agreement.timeout_s()

    def __repr__(self) -> str:
        return f"<ccid.Card {self.atr} {self.protocol} in {self.slot!r}>"

    # APDUs ------------------------------------------------------------------------------------

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU and return the response APDU.

        With T=0 on a reader at TPDU or character level, the status words 61xx and 6Cxx are
        returned unchanged, as PC/SC does, unless :meth:`Slot.connect` got ``auto_get_response``.

        Args:
            apdu: The command APDU (ISO/IEC 7816-3:2006 12.1).

        Returns:
            The response APDU: data, if any, then SW1 SW2.

        Raises:
            CardRemoved: The card was taken out after :meth:`Slot.connect`, even if a card is back.
            CardReset: Another holder reset the card or powered the card off, or the card lost its
                power, perhaps while it executed this command. Connect again.
            CardMute, CommandFailed, ProtocolError: The card or the reader failed.
            CommandCancelled: :meth:`Slot.cancel` ended the exchange.
            TransportTimeout: The reader did not answer in time.
            InvalidApdu: ``apdu`` is no command APDU.
            UnsupportedByReader: The reader cannot send a command APDU of this kind or length.
        """
        try:
            return self._exchange.transmit(apdu)
        except CardReset:  # raised before a command was sent
            self.look()
        except CcidError as error:
            self.judge(error)
            raise
        return self.transmit(apdu)  # this object reset the card itself, in another thread

    def judge(self, error: CcidError) -> None:
        """End this object if ``error`` says that the card was removed, reset or lost its power.

        Args:
            error: The error that a command to this card raised.

        Raises:
            CardRemoved, CardReset: The card was removed, or reset; this replaces ``error``.
            ReaderRemoved, ReaderClosed: The reader is gone as well.
        """
        if isinstance(error, CardRemoved):
            self._end(error)
            return
        if isinstance(error, ReaderReset):
            self.look()
            return
        bStatus = error.bStatus
        if bStatus is None or not isinstance(error, WITH_STATUS):
            return
        status = IccStatus(bStatus & 0x03)
        if status in (IccStatus.ABSENT, IccStatus.INACTIVE):
            with self.slot.turn():  # raises ReaderRemoved if the reader is gone as well
                self.slot.reader.cards.saw(self.slot.index, status)
                reason = self.ended(bSeq=error.bSeq, bStatus=bStatus, bError=error.bError)
                if reason is not None:
                    raise copy.copy(reason) from error

    def removed(self) -> None:
        """Record that the card was taken out: every later call raises
        :class:`~ccid.errors.CardRemoved`."""
        self._end(self.slot.reader.pipe.card_removed(self.slot.index))

    def exclusive(self) -> AbstractContextManager[Any]:
        """A context in which only this thread sends commands to the card.

        Returns:
            The context manager; ``with card.exclusive():`` surrounds APDUs that belong together.

        Raises:
            CardRemoved: The card was taken out after :meth:`Slot.connect`, even if a card is back.
            CardReset: Another holder reset the card, or the card lost its power.
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        """
        turn = self.slot.turn()
        with turn:
            self.look()
        return turn

    # Contactless cards ------------------------------------------------------------------------

    def uid(self) -> bytes:
        """The UID of a contactless card, as the reader tells it (GET DATA, PC/SC part 3,
        3.2.2.1.3): 4, 7 or 10 bytes for ISO/IEC 14443 A, the PUPI for B, 8 bytes for ISO/IEC 15693
        and FeliCa. Some cards have another UID each time.

        Returns:
            The UID.

        Raises:
            CardRefused: The reader knows no UID: it is no contactless reader, for example.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
        """
        from ccid.device.storage_card import GET_UID, ask

        return ask(self, GET_UID, "UID of the card")

    def ats(self) -> bytes:
        """The ATS of a card of ISO/IEC 14443-4 type A, as the reader tells it (GET DATA, PC/SC part
        3, 3.2.2.1.3). By the standard these are the historical bytes of the ATS; many readers, such
        as those of ACS, return the whole ATS, whose first byte is its length.

        Returns:
            The historical bytes, or the whole ATS.

        Raises:
            CardRefused: The reader knows no ATS: the card is a storage card, or of type B.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
        """
        from ccid.device.storage_card import GET_ATS, ask

        return ask(self, GET_ATS, "ATS of the card")

    @property
    def storage(self) -> StorageCard:
        """Keys and memory of a storage card behind a contactless reader: MIFARE Classic and
        Ultralight, NTAG, ICODE (PC/SC part 3, 3.2.2.1)."""
        from ccid.device.storage_card import StorageCard

        return StorageCard(self)

    # Reset and disconnect ---------------------------------------------------------------------

    def reset(self, *, cold: bool = False) -> Atr:
        """Reset the card, and agree on protocol and parameters again.

        If that fails, the card has no power and this object is ended: every later call raises
        :class:`~ccid.errors.CardReset`.

        Args:
            cold: True for a cold reset: power the card off first. False for a warm reset (USB CCID
                rev 1.1, 6.1.1; ISO/IEC 7816-3:2006 6.2).

        Returns:
            The new ATR.

        Raises:
            CardRemoved: The card was taken out after :meth:`Slot.connect`, even if a card is back.
            CardReset: Another holder reset the card, or the card lost its power.
            CardMute, MalformedAtr, CommandFailed, ProtocolError: The card was reset, and then did
                not answer as the standard demands.
            UnsupportedByReader: Card and reader have no protocol in common.
        """
        with self.slot.turn():
            self.look()
            state = self.slot.reader.cards[self.slot.index]
            losses = state.losses
            try:
                if cold:
                    self.slot.commands.power_off()
                self._power_up()
                if state.losses != losses:  # removed during the reset
                    self.slot.commands.power_off()
                    raise self.slot.reader.pipe.card_removed(self.slot.index)
            except CcidError as error:
                if isinstance(error, NO_READER):
                    raise
                self._reset_failed(error)
            except BaseException:
                self._end(self._left_without_power())
                raise
            return self.atr

    def _reset_failed(self, error: CcidError) -> NoReturn:
        """End this object after a reset that failed with ``error``.

        Raises:
            CardRemoved: ``error`` says that the card was removed.
            CcidError: ``error``, if it says anything else.
        """
        bStatus = error.bStatus or 0
        if isinstance(error, CardAbsent | CardRemoved) or bStatus & 0x03 == IccStatus.ABSENT:
            fields = {f: getattr(error, f) for f in ("bSeq", "bStatus", "bError")}
            removed = self.slot.reader.pipe.card_removed(self.slot.index, **fields)
            self._end(removed)
            raise copy.copy(removed) from error
        self._end(self._left_without_power())
        raise error

    def _left_without_power(self) -> CardReset:
        name, index = self.slot.reader.name, self.slot.index
        return CardReset(
            f"{name}: the last reset of the card in slot {index} did not succeed; connect again",
            reader=name,
            slot=index,
        )

    def disconnect(self) -> None:
        """Power the card off and free the slot for the next :meth:`Slot.connect`.

        A second call has no effect; nor has a call after card or reader are gone.

        Raises:
            CommandFailed, ProtocolError, TransportError: The card could not be powered off. The
                slot is free all the same.
        """
        if self._ended_by is not None:
            return
        with suppress(*NO_READER), self.slot.turn():
            session = self.slot.reader.cards.session(self.slot.index)
            self._end(
                CardDisconnected(
                    f"{self.slot.reader.name}: this card was disconnected",
                    reader=self.slot.reader.name,
                    slot=self.slot.index,
                )
            )
            if session is self.agreement.session:  # else another holder powered the card up since
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
        try:
            self.disconnect()
        except CcidError as failed:
            if error is None:
                raise
            logger.warning("%s", failed)  # the caller gets the first error

    def _end(self, reason: CcidError) -> None:
        """End this object: every later call raises ``reason``."""
        self._ended_by = reason
        self._exchange = NoExchange(reason)
        if self.slot.card is self:
            self.slot.card = None

    def ended(self, **fields: int | None) -> CcidError | None:
        """The error that ends this object. Asks the state machine what happened to the card.

        Args:
            **fields: bSeq, bStatus and bError of the reply that is the reason to ask; they become
                attributes of the error.

        Returns:
            The error that every later call raises; None while APDUs can be sent.

        Raises:
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        """
        session = self.agreement.session
        if self._ended_by is None and session is not None:
            pipe, index = self.slot.reader.pipe, self.slot.index
            with self.slot.turn():
                fate = pipe.fate(index, session)
            if fate is not None:
                self._end(pipe.card_gone(index, fate, **fields))
        return self._ended_by

    def look(self) -> None:
        """Raise the error that ends this object, if there is one (:meth:`ended`).

        Raises:
            CardRemoved, CardReset, CardDisconnected: No more APDU can be sent to the card.
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        """
        reason = self.ended()
        if reason is not None:
            raise copy.copy(reason)

    # Power and parameters ---------------------------------------------------------------------

    def _power_up(self) -> None:
        """Power the card on, parse the ATR, agree on protocol and parameters."""
        self.atr, self.agreement = self.slot.activation().run(self._wanted)
        try:
            self.arm()
        except BaseException:
            with suppress(CcidError):
                self.slot.commands.power_off()
            raise

    def arm(self) -> None:
        """Choose the exchange for the agreed protocol and the reader's level of exchange."""
        slot = self.slot
        exchange = choose(slot.commands, slot.descriptor, self.agreement, self._auto_get_response)
        if slot.quirks.pseudo_apdus:
            exchange = Answering(exchange, self._pseudo_answers())
        self._exchange = exchange

    def _pseudo_answers(self) -> dict[bytes, bytes]:
        """Response APDUs that this library gives itself, by command APDU (``pseudo-apdus``)."""
        bcdDevice = self.slot.reader.info.device.bcdDevice
        release = f"{bcdDevice >> 8:x}.{bcdDevice & 0xFF:02x}"
        return {
            apdu: text.replace("{bcdDevice}", release).encode() + SW_OK
            for apdu, text in self.slot.quirks.pseudo_apdus
        }
