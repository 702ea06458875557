"""A place for a card in a reader."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ccid.codes import IccStatus, Protocol
from ccid.device.card import Card
from ccid.errors import (
    CardAbsent,
    CardRemoved,
    CommandFailed,
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
    """A place for a card.

    Attributes:
        reader: The reader it is part of.
        index: bSlot.
        commands: Every CCID command, for those who need one directly.
        card: The card connected here; None without.
        quirks: What the table of readers knows of this slot.
        descriptor: The reader's class descriptor, mended for this slot.
    """

    def __init__(self, reader: Reader, index: int, commands: SlotCommands, quirks: Quirks) -> None:
        self.reader = reader
        self.index = index
        self.quirks = quirks
        self.commands = commands
        self.descriptor = apply(quirks, reader.info.descriptor, reader.info.reader.protocol)
        self.card: Card | None = None

    def __repr__(self) -> str:
        return f"<ccid.Slot {self.index} of {self.reader.name!r}>"

    def status(self) -> IccStatus:
        """Is there a card, and is it active? Asks the reader (USB CCID rev 1.1, 6.1.3).

        ABSENT, once, if the card connected here was taken out and there is another by now: that
        is not connected.
        """
        with self.turn():
            card = self.card  # which a thread that met its removal forgets at any time
            if card is not None and isinstance(card.ended(), CardRemoved):
                return IccStatus.ABSENT
            status = self._asked_status()
            if card is not None and isinstance(card.ended(), CardRemoved):
                return IccStatus.ABSENT
            return status

    def _asked_status(self) -> IccStatus:
        """What the reader says. A reply that refuses the question tells of the card all the same
        (bmICCStatus, 6.2.6): so some readers answer after they were reset."""
        try:
            return self.commands.slot_status().icc
        except (CommandFailed, UnsupportedByReader) as error:
            if error.bStatus is None or isinstance(error, SlotBusy):
                raise
            status = IccStatus(error.bStatus & 0x03)
            self.reader.cards.saw(self.index, status)
            return status

    def connect(self, protocol: Protocol | None = None, *, auto_get_response: bool = False) -> Card:
        """Power the card up and agree on protocol and parameters.

        Args:
            protocol: T=0 or T=1. None takes TA2's in specific mode, else T=1 where card and
                reader have it, else T=0; and, if the reader refuses that, the card's default.
            auto_get_response: With T=0 on a reader at TPDU or character level: fetch responses
                by GET RESPONSE, repeat with the right Le, send long commands by ENVELOPE
                (ISO/IEC 7816-3:2006 12.2), instead of handing 61xx and 6Cxx up.

        Raises:
            SlotInUse: A card is connected here already, and nothing has happened to that.
            CardAbsent, CardMute: There is nothing that answers.
            MalformedAtr: It answers, but not with an ATR.
            UnsupportedByReader: Card and reader have no protocol in common.
        """
        with self.turn():
            card = self.card
            if card is not None and card.ended() is None:
                raise SlotInUse(
                    f"{self.reader.name}: slot {self.index} has a card connected already",
                    reader=self.reader.name,
                    slot=self.index,
                )
            by_power = self.quirks.presence_by_power  # then only the attempt tells
            if not by_power and self.status() is IccStatus.ABSENT:
                raise CardAbsent(
                    f"{self.reader.name}: slot {self.index}: there is no card",
                    reader=self.reader.name,
                    slot=self.index,
                )
            card = Card(self, protocol, auto_get_response)
            self.card = card
            return card

    def activation(self) -> Activation:
        """A power-up of the card here, to be done: for those who are asked for its steps one by
        one. :meth:`connect` does them all."""
        rates = data_rates(self.quirks, self.reader.listed_data_rates())
        return Activation(self.commands, self.descriptor, rates, self.reader.first_voltage)

    def escape(self, data: bytes) -> bytes:
        """Send ``data`` to the reader itself and return its answer (6.1.8).

        Raises:
            UnsupportedByReader: This reader has no Escape.
        """
        return self.commands.escape(data)

    def control(self, code: int, data: bytes = b"") -> bytes:
        """Carry out a control code of PC/SC: features, PIN pad, Escape.

        Args:
            code: One of :class:`ccid.device.control.ControlCode`.
            data: What it is given.

        Raises:
            UnsupportedByReader: This reader, or this library, does not know the code.
            MalformedMessage: The data are not what the code takes.
            CommandFailed, CardAbsent, CardMute, ProtocolError: It did not succeed.
        """
        from ccid.device.control import control

        return control(self, code, data)

    def verify_pin(self, structure: PinStructure) -> bytes:
        """Have a PIN entered at the reader's keys, for the command in ``structure``; the PIN
        never comes to this machine. What is known of the reader is heeded, as it is by
        :meth:`control`: the structure goes to it as it takes that.

        Args:
            structure: How it is entered and where it goes in the command: a
                :class:`ccid.codec.messages.PinVerification`, or a
                :class:`ccid.codec.messages.PinModification` to have it changed.

        Returns:
            The response APDU; 6400 if the PIN was not entered in time, 6401 if that was cancelled.

        Raises:
            UnsupportedByReader: The reader has no keys.
            MalformedMessage: A bNumberMessage that 6.1.11.2 has not.
            CommandFailed, CardAbsent, CardMute, ProtocolError: It did not succeed.
        """
        from ccid.device.control import verify_pin

        return verify_pin(self, structure)

    def cancel(self) -> bool:
        """End what another thread has under way here, by the ABORT pair (5.3.1 and 6.1.13).

        That thread gets :class:`ccid.errors.CommandCancelled`.

        Returns:
            False if nothing was under way.
        """
        return self.commands.cancel()

    def turn(self) -> AbstractContextManager[Any]:
        """Hold this to have several commands follow each other undisturbed."""
        turn: AbstractContextManager[Any] = self.reader.pipe.turn(self.index)
        return turn
