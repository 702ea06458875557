"""A channel: one slot, as an IFD handler is asked about it."""

from __future__ import annotations

import time
from contextlib import suppress

from ccid.codes import BLOCKWISE, IccStatus, Protocol
from ccid.device.card import Card
from ccid.device.reader import Reader
from ccid.device.slot import Slot
from ccid.errors import (
    CardAbsent,
    CardMute,
    CardRemoved,
    CcidError,
    CommandFailed,
    MalformedAtr,
    ReaderRemoved,
    UnsupportedByReader,
)
from ccid.iso7816.atr import Atr
from ccid.pcsc.ifd.ifd_codes import PTS1, PTS2, PTS3, Code, code_of
from ccid.session.activation import Activation
from ccid.session.negotiation import choose_protocol

SEEK_S = 2.0
"""How often a slot that does not tell whether a card is in is tried by power while it is empty."""


class Channel:
    """One slot, from the creation of its channel on.

    What became of the card is decided in :mod:`ccid.link.card_state`. A channel knows how much of
    that pcscd was told: its answers are all that pcscd hears of a card, and a card that was
    exchanged, or lost its power, has to be told as absent once.

    Args:
        slot: Which.

    Attributes:
        slot: Which.
        atr: Of the card that is powered; empty without.
        device_removed: The reader was said to be gone: it is not talked to any more.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.atr = b""
        self.device_removed = False
        self._activation: Activation | None = None
        self._state = slot.reader.cards[slot.index]
        self._told_losses = self._state.losses
        self._is_held = False
        """Somebody was told that there is no card, and the watcher is to be told the same."""
        self._sought_at = 0.0

    @property
    def reader(self) -> Reader:
        """The reader it is a slot of."""
        return self.slot.reader

    # Presence ---------------------------------------------------------------------------------

    @property
    def owes_absence(self) -> bool:
        """A card is gone, and whoever tells all others was not told yet."""
        return self._is_held or self._state.losses != self._told_losses

    def missed(self) -> None:
        """Somebody was told that there is no card; whoever tells all others is to be told, too."""
        self._is_held = True

    def is_present(self) -> Code:
        """Is there a card? Does not count as having told of its removal."""
        return self._presence()[0]

    def _presence(self) -> tuple[Code, bool]:
        """Is there a card, as pcscd has to hear it; and is the slot empty, as far as is known."""
        if self.device_removed:
            return Code.ICC_NOT_PRESENT, True
        try:
            self.reader.pipe.was_removed(self.slot.index)  # a doubt is settled first
            icc = self.slot.commands.slot_status().icc
        except CardRemoved:
            self._is_held = True
            return Code.ICC_NOT_PRESENT, False
        except CcidError as error:
            gone = code_of(error) is Code.NO_SUCH_DEVICE
            return Code.ICC_NOT_PRESENT if gone else Code.COMMUNICATION_ERROR, True
        if icc is IccStatus.RFU:
            return Code.COMMUNICATION_ERROR, False
        is_empty = icc is IccStatus.ABSENT
        if is_empty or self.owes_absence:
            return Code.ICC_NOT_PRESENT, is_empty
        return Code.ICC_PRESENT, False

    def presence(self, hold: bool = False) -> tuple[Code, bool]:
        """Is there a card? Says that there is none after one was taken out, even if there is
        another by now: once, or until :meth:`told`.

        Args:
            hold: Until then.

        Returns:
            The code, and whether to be asked again: no event will tell.
        """
        code, is_empty = self._presence()
        if is_empty and code is Code.ICC_NOT_PRESENT and self._sought():
            code, is_empty = Code.ICC_PRESENT, False
        if code is Code.ICC_NOT_PRESENT:
            if hold:
                self._is_held = True
            else:
                self.told()
        return code, code is Code.ICC_NOT_PRESENT and not is_empty

    def _sought(self) -> bool:
        """There is a card after all, in a slot where only an attempt to power it tells: whoever
        asks here never tries a slot that is said to be empty."""
        now = time.monotonic()
        is_due = now - self._sought_at >= SEEK_S
        if not self.slot.quirks.presence_by_power or self.device_removed or not is_due:
            return False
        try:
            self.slot.activation().power_up()
            self.slot.commands.power_off()
        except CcidError:
            return False
        finally:
            self._sought_at = time.monotonic()
        return True

    def told(self) -> None:
        """Everybody knows by now that there was no card: there is none any more that anything was
        agreed with."""
        losses = self._state.losses
        card = self.slot.card  # which is powered off, in another thread, when pcscd ends
        if card is not None:
            card.removed()
        self._activation = None
        self._is_held, self._told_losses = False, losses
        self.reader.cards.told(self.slot.index)
        self.atr = b""

    # Power ------------------------------------------------------------------------------------

    def power_up(self) -> bytes:
        """Activate or reset the card; returns its ATR."""
        self._check()
        self.reader.pipe.was_removed(self.slot.index)  # a doubt is settled first
        self.atr, self.slot.card = b"", None
        activation = self.slot.activation()
        self._sought_at = time.monotonic()
        self.atr = activation.power_up()
        self._activation = activation
        return self.atr

    def power_down(self) -> None:
        """Deactivate the card."""
        self.atr, self.slot.card = b"", None
        self._activation = None
        self._check()
        with suppress(CardAbsent, CardMute):
            self.slot.commands.power_off()

    def close(self) -> None:
        """Deactivate the card, and do not mind if that fails."""
        if not self.device_removed:
            with suppress(CcidError):
                self.power_down()
        self.slot.card = None

    # Protocol ---------------------------------------------------------------------------------

    def set_protocol(self, number: int, flags: int, pts1: int) -> Code:
        """Agree with the card on a protocol.

        Args:
            number: 1 for T=0, 2 for T=1, as PC/SC numbers them.
            flags: Which PTS bytes count.
            pts1: Fi and Di to ask the card for.
        """
        self._check()
        wanted = {1: Protocol.T0, 2: Protocol.T1}.get(number)
        if wanted is None:
            return Code.PROTOCOL_NOT_SUPPORTED
        if not self.reader.descriptor.dwProtocols >> wanted & 1:
            return Code.ERROR_NOT_SUPPORTED
        if flags & (PTS2 | PTS3):
            return Code.ERROR_PTS_FAILURE
        try:
            choose_protocol(Atr.parse(self.atr), self.reader.descriptor, wanted)
        except (MalformedAtr, UnsupportedByReader):
            return Code.PROTOCOL_NOT_SUPPORTED
        try:
            self._agree(wanted, pts1 if flags & PTS1 else None)
        except UnsupportedByReader as error:  # by its own answer: then the card's default stands
            return Code.COMMUNICATION_ERROR if error.bError is None else Code.NOT_SUPPORTED
        return Code.SUCCESS

    def _agree(self, wanted: Protocol | None, fidi: int | None) -> Card:
        if self._activation is None:
            raise self._not_powered()
        self.slot.card = None
        card = Card(self.slot, wanted, activation=self._activation, fidi=fidi)
        self.slot.card = card
        return card

    def _not_powered(self) -> CcidError:
        absent = self.is_present() is Code.ICC_NOT_PRESENT
        kind = CardAbsent if absent else CommandFailed
        what = "there is no card" if absent else "the card has no power"
        name, index = self.reader.name, self.slot.index
        return kind(f"{name}: slot {index}: {what}", reader=name, slot=index)

    # APDUs ------------------------------------------------------------------------------------

    def transmit(self, protocol: int, apdu: bytes) -> bytes | Code:
        """Exchange an APDU.

        Args:
            protocol: 0 for T=0, 1 for T=1. At APDU level it means nothing.
            apdu: The command APDU.

        Returns:
            The response APDU, or why there is none.
        """
        card = self.slot.card
        if card is None or self.device_removed:
            self._check()
            if self.owes_absence:
                return Code.ICC_NOT_PRESENT
            card = self._agree(Protocol.T1 if protocol == 1 else Protocol.T0, None)
        if (
            protocol != card.agreement.protocol
            and self.reader.descriptor.exchange_level in BLOCKWISE
        ):
            return Code.PROTOCOL_NOT_SUPPORTED
        return card.transmit(apdu)

    def control(self, code: int, data: bytes, escape: bool) -> bytes:
        """Carry out a control code; see :func:`ccid.device.control.control`."""
        from ccid.device.control import ControlCode, control

        self._check()
        is_pin = code in (ControlCode.VERIFY_PIN_DIRECT, ControlCode.MODIFY_PIN_DIRECT)
        if is_pin and self.slot.card is None and self._activation is not None:
            self._agree(None, None)  # pcscd says nothing of T=0 where it did not get T=1
        return control(self.slot, code, data, escape=escape)

    def _check(self) -> None:
        if self.device_removed:
            name = self.reader.name
            raise ReaderRemoved(f"{name} was unplugged", reader=name)
