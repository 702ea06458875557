"""A slot, for tasks of asyncio: the face of :class:`ccid.Slot` with the same names."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from ccid.aio.async_card import Card
from ccid.aio.opening import Opening
from ccid.aio.task_turn import Exclusive, TaskTurn
from ccid.codes import IccStatus, Protocol
from ccid.device import card as blocking_card
from ccid.device import slot as blocking

if TYPE_CHECKING:
    from ccid.aio.async_reader import Reader
    from ccid.codec.descriptors import SmartCardDescriptor
    from ccid.known.quirks import Quirks
    from ccid.session.exchange.pin_entry import PinStructure


class Slot:
    """A slot of an open reader. ``Reader.slots`` has them.

    Attributes:
        reader: The reader of this slot.
        index: bSlot, from 0.
        quirks: The quirks of this slot, from the table of readers.
    """

    def __init__(self, reader: Reader, slot: blocking.Slot, turn: TaskTurn) -> None:
        """Make the face of a slot; :class:`~ccid.aio.Reader` does.

        Args:
            reader: The reader of this slot.
            slot: The slot.
            turn: The turn of the slot.
        """
        self.reader = reader
        self.index = slot.index
        self.quirks: Quirks = slot.quirks
        self._slot = slot
        self._turn = turn
        self._card: Card | None = None

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor of the reader, corrected by the quirks of this slot."""
        return self._slot.descriptor

    @property
    def card(self) -> Card | None:
        """The connected card; None if no card is connected."""
        there = self._slot.card
        if there is None:
            self._card = None
        elif self._card is None or self._card._card is not there:
            self._card = Card(self, there)
        return self._card

    def __repr__(self) -> str:
        return f"<ccid.aio.Slot {self.index} of {self.reader.name!r}>"

    async def status(self) -> IccStatus:
        """Ask the reader whether a card is in the slot, and whether the card is active
        (PC_to_RDR_GetSlotStatus, USB CCID rev 1.1, 6.1.3).

        Returns:
            ACTIVE, INACTIVE or ABSENT. If the connected card was taken out and another card is in
            the slot by now, the first call returns ABSENT: the other card is not connected.

        Raises:
            ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
            TransportTimeout, TransportError, CommandFailed, ProtocolError: The reader did not
                answer the question.
        """
        return await self._turn.do(self._slot.cancel, self._slot.status)

    def connect(
        self, protocol: Protocol | None = None, *, auto_get_response: bool = False
    ) -> Opening[Card]:
        """Power the card up, and agree on protocol and parameters.

        Args:
            protocol: T=0 or T=1. None for the protocol of TA2 if the card is in specific mode;
                else T=1 if card and reader have T=1, else T=0; if the reader refuses that protocol,
                the card's default (ISO/IEC 7816-3:2006 6.3.1).
            auto_get_response: True, with T=0 on a reader at TPDU or character level: get the
                response data by GET RESPONSE, repeat the command APDU with the Le that the card
                asks for, send long command APDUs by ENVELOPE (ISO/IEC 7816-3:2006 12.2). False:
                return 61xx and 6Cxx to the caller.

        Returns:
            The connected card.

        Raises:
            SlotInUse: A card is connected in this slot, and was neither removed nor reset.
            CardAbsent: The slot has no card.
            CardMute: The card does not answer to reset.
            MalformedAtr: The answer of the card is no ATR.
            UnsupportedByReader: Card and reader have no protocol in common.
            CommandFailed, ProtocolError, TransportTimeout, TransportError: The reader, or the card,
                failed.
        """
        connect = partial(self._slot.connect, protocol, auto_get_response=auto_get_response)
        return Opening(partial(self._connected, connect))

    async def _connected(self, connect: partial[blocking_card.Card]) -> Card:
        made = await self._turn.make(self._slot.cancel, connect, blocking_card.Card.disconnect)
        if self._card is None or self._card._card is not made:
            self._card = Card(self, made)
        return self._card

    async def escape(self, data: bytes) -> bytes:
        """Send a vendor-specific command to the reader (PC_to_RDR_Escape, USB CCID rev 1.1, 6.1.8).

        Args:
            data: abData of the command.

        Returns:
            abData of RDR_to_PC_Escape (6.2.4).

        Raises:
            UnsupportedByReader: The reader has no Escape, or does not know this one.
            CommandFailed, TransportTimeout, TransportError, ProtocolError: The reader failed.
        """
        return await self._turn.do(self._slot.cancel, self._slot.escape, data)

    async def control(self, code: int, data: bytes = b"") -> bytes:
        """Carry out a control code of PC/SC part 10: features, PIN pad, Escape.

        Args:
            code: One of :class:`ccid.device.control.ControlCode`.
            data: The input data of the code.

        Returns:
            The output data of the code.

        Raises:
            UnsupportedByReader: The reader, or this library, does not have the code.
            MalformedMessage: ``data`` do not have the form that the code demands.
            CommandFailed, CardAbsent, CardMute, ProtocolError: The command to the reader or card
                failed.
        """
        return await self._turn.do(self._slot.cancel, self._slot.control, code, data)

    async def verify_pin(self, structure: PinStructure) -> bytes:
        """Let the user enter a PIN at the PIN pad of the reader (PC_to_RDR_Secure, USB CCID rev
        1.1, 6.1.11). The PIN never comes to this machine.

        The quirks of the reader are applied to the structure, as by :meth:`control`.

        Args:
            structure: How the user enters the PIN, and where the PIN goes in the command APDU: a
                :class:`ccid.codec.messages.PinVerification`, or a
                :class:`ccid.codec.messages.PinModification` to change the PIN.

        Returns:
            The response APDU; 6400 if the user did not enter the PIN in time, 6401 if the user
            cancelled the PIN entry.

        Raises:
            UnsupportedByReader: The reader has no PIN pad.
            MalformedMessage: ``structure`` is none of these, or a field has a wrong value, as a
                bNumberMessage that 6.1.11.2 does not define.
            CommandFailed, CardAbsent, CardMute, ProtocolError: The PIN entry failed.
        """
        return await self._turn.do(self._slot.cancel, self._slot.verify_pin, structure)

    def cancel(self) -> bool:
        """End the operation that another task has under way in this slot, by the ABORT pair
        (USB CCID rev 1.1, 5.3.1 and 6.1.13).

        The other task gets :class:`ccid.errors.CommandCancelled`.

        Returns:
            True if an operation was under way; False if none was.
        """
        return self._slot.cancel()

    def turn(self) -> AbstractAsyncContextManager[Any]:
        """A context in which only this task sends commands to this slot.

        Returns:
            The context manager. The reader's other slots are blocked as well, unless several slots
            can be busy at the same time.
        """
        return Exclusive(self._turn, self._slot.reader.pipe.check)
