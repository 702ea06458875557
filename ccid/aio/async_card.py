"""A card, for tasks of asyncio: the face of :class:`ccid.Card` with the same names."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ccid.aio.opening import Ending
from ccid.aio.task_turn import Exclusive
from ccid.codes import Protocol
from ccid.device import card as blocking
from ccid.errors import CcidError
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import Atr
from ccid.session.exchange.agreement import Agreement

if TYPE_CHECKING:
    from ccid.aio.async_slot import Slot
    from ccid.aio.async_storage_card import StorageCard

logger = logging.getLogger("ccid.aio")


class Card(Ending):
    """A card that has power and accepts APDUs. :meth:`Slot.connect` makes one.

    Attributes:
        slot: The slot of the card.
    """

    def __init__(self, slot: Slot, card: blocking.Card) -> None:
        """Make the face of a card; :class:`~ccid.aio.Slot` does.

        Args:
            slot: The slot of the card.
            card: The card.
        """
        self.slot = slot
        self._card = card
        self._turn = slot._turn
        self._cancel = slot._slot.cancel

    @property
    def atr(self) -> Atr:
        """The answer to reset of the card."""
        return self._card.atr

    @property
    def agreement(self) -> Agreement:
        """Protocol, speed and times that card and reader agreed on."""
        return self._card.agreement

    @property
    def protocol(self) -> Protocol:
        """The protocol in force: T=0 or T=1."""
        return self._card.protocol

    @property
    def fidi(self) -> int:
        """Fi and Di in force, coded as TA1 (ISO/IEC 7816-3:2006 8.3). At APDU level, and with
        automatic negotiation, the reader may use others and does not report them."""
        return self._card.fidi

    @property
    def timeout_s(self) -> float:
        """Seconds that a response may take, without time extensions."""
        return self._card.timeout_s

    def __repr__(self) -> str:
        return f"<ccid.aio.Card {self.atr} {self.protocol} in {self.slot!r}>"

    async def transmit(self, apdu: Bytes) -> bytes:
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
        return await self._turn.do(self._cancel, self._card.transmit, apdu)

    def exclusive(self) -> AbstractAsyncContextManager[Any]:
        """A context in which only this task sends commands to the card.

        Returns:
            The context manager; ``async with card.exclusive():`` surrounds APDUs that belong
            together.

        Raises:
            CardRemoved: The card was taken out after :meth:`Slot.connect`, even if a card is back.
            CardReset: Another holder reset the card, or the card lost its power.
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        """
        return Exclusive(self._turn, self._card.look)

    async def uid(self) -> bytes:
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
        return await self._turn.do(self._cancel, self._card.uid)

    async def ats(self) -> bytes:
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
        return await self._turn.do(self._cancel, self._card.ats)

    @property
    def storage(self) -> StorageCard:
        """Keys and memory of a storage card behind a contactless reader: MIFARE Classic and
        Ultralight, NTAG, ICODE (PC/SC part 3, 3.2.2.1)."""
        from ccid.aio.async_storage_card import StorageCard

        return StorageCard(self)

    async def reset(self, *, cold: bool = False) -> Atr:
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
        return await self._turn.do(self._cancel, partial(self._card.reset, cold=cold))

    async def disconnect(self) -> None:
        """Power the card off and free the slot for the next :meth:`Slot.connect`.

        A second call has no effect; nor has a call after card or reader are gone.

        Raises:
            CommandFailed, ProtocolError, TransportError: The card could not be powered off. The
                slot is free all the same.
        """
        with suppress(*blocking.NO_READER):
            await self._turn.do(None, self._card.disconnect)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self.disconnect()
        except CcidError as failed:
            if error is None:
                raise
            logger.warning("%s", failed)  # the caller gets the first error

    async def look(self) -> None:
        """Raise the error that ends this object, if there is one (:meth:`ended`).

        Raises:
            CardRemoved, CardReset, CardDisconnected: No more APDU can be sent to the card.
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        """
        await self._turn.do(self._cancel, self._card.look)
