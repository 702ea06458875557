"""Slot: one slot of an open reader."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ccid.codes import IccStatus, Protocol
from ccid.device.card import Card
from ccid.errors import (
    CardAbsent,
    CardRemoved,
    CommandFailed,
    ReaderReset,
    SlotBusy,
    SlotInUse,
    UnsupportedByReader,
)
from ccid.known.quirks.descriptor_fixups import apply, data_rates
from ccid.session.activation import Activation

if TYPE_CHECKING:
    from ccid.device.reader import Reader
    from ccid.known.quirks import Quirks
    from ccid.link.slot_commands import SlotCommands
    from ccid.session.exchange.pin_entry import PinStructure


class Slot:
    """A slot of an open reader. ``Reader.slots`` has them.

    Attributes:
        reader: The reader of this slot.
        index: bSlot, from 0.
        commands: One method for each CCID command to this slot.
        card: The connected card; None if no card is connected.
        quirks: The quirks of this slot, from the table of readers.
        descriptor: The class descriptor of the reader, corrected by the quirks of this slot.
    """

    def __init__(self, reader: Reader, index: int, commands: SlotCommands, quirks: Quirks) -> None:
        """Make the slot; :class:`~ccid.device.reader.Reader` does.

        Args:
            reader: The reader of this slot.
            index: bSlot, from 0.
            commands: Sends the CCID commands to this slot.
            quirks: The quirks of this slot.
        """
        self.reader = reader
        self.index = index
        self.quirks = quirks
        self.commands = commands
        self.descriptor = apply(quirks, reader.info.descriptor, reader.info.reader.protocol)
        self.card: Card | None = None

    def __repr__(self) -> str:
        return f"<ccid.Slot {self.index} of {self.reader.name!r}>"

    def status(self) -> IccStatus:
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
        with self.turn():
            card = self.card  # another thread that sees the removal may set None at any time
            if card is not None and isinstance(card.ended(), CardRemoved):
                return IccStatus.ABSENT
            status = self._asked_status()
            if card is not None and isinstance(card.ended(), CardRemoved):
                return IccStatus.ABSENT
            return status

    def _asked_status(self) -> IccStatus:
        """bmICCStatus of the reply to GetSlotStatus (6.2.6), even if the reply says that the
        command failed: some readers answer so after a reset of the reader."""
        try:
            return self.commands.slot_status().icc
        except (CommandFailed, UnsupportedByReader) as error:
            if error.bStatus is None or isinstance(error, SlotBusy):
                raise
            status = IccStatus(error.bStatus & 0x03)
            self.reader.cards.saw(self.index, status)
            return status

    def connect(self, protocol: Protocol | None = None, *, auto_get_response: bool = False) -> Card:
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
        with self.turn():
            card = self.card
            if card is not None and card.ended() is None:
                raise SlotInUse(
                    f"{self.reader.name}: slot {self.index} has a card connected already",
                    reader=self.reader.name,
                    slot=self.index,
                )
            by_power = self.quirks.presence_by_power  # only a power-up detects a card
            if not by_power and self.status() is IccStatus.ABSENT:
                raise CardAbsent(
                    f"{self.reader.name}: slot {self.index}: there is no card",
                    reader=self.reader.name,
                    slot=self.index,
                )
            try:
                card = Card(self, protocol, auto_get_response)
            except ReaderReset:  # the card has heard nothing of the application yet
                card = Card(self, protocol, auto_get_response)
            self.card = card
            return card

    def activation(self) -> Activation:
        """A power-up whose steps the caller does one by one; :meth:`connect` does all of them.

        Returns:
            The power-up. No command has been sent for it.

        Raises:
            ReaderClosed, ReaderRemoved, TransportError: The reader could not be asked for its data
                rates.
        """
        rates = data_rates(self.quirks, self.reader.listed_data_rates())
        return Activation(self.commands, self.descriptor, rates, self.reader.first_voltage)

    def escape(self, data: bytes) -> bytes:
        """Send a vendor-specific command to the reader (PC_to_RDR_Escape, USB CCID rev 1.1, 6.1.8).

        Args:
            data: abData of the command.

        Returns:
            abData of RDR_to_PC_Escape (6.2.4).

        Raises:
            UnsupportedByReader: The reader has no Escape, or does not know this one.
            CommandFailed, TransportTimeout, TransportError, ProtocolError: The reader failed.
        """
        return self.commands.escape(data)

    def control(self, code: int, data: bytes = b"") -> bytes:
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
        from ccid.device.control import control

        return control(self, code, data)

    def verify_pin(self, structure: PinStructure) -> bytes:
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
        from ccid.device.control import verify_pin

        return verify_pin(self, structure)

    def cancel(self) -> bool:
        """End the operation that another thread has under way in this slot, by the ABORT pair
        (USB CCID rev 1.1, 5.3.1 and 6.1.13).

        The other thread gets :class:`ccid.errors.CommandCancelled`.

        Returns:
            True if an operation was under way; False if none was.
        """
        return self.commands.cancel()

    def turn(self) -> AbstractContextManager[Any]:
        """A context in which only this thread sends commands to this slot.

        Returns:
            The context manager. The reader's other slots are blocked as well, unless several slots
            can be busy at the same time.
        """
        turn: AbstractContextManager[Any] = self.reader.pipe.turn(self.index)
        return turn
