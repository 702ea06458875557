"""A channel: one slot, with the state that an IFD handler needs for it."""

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
from ccid.pcsc.ifd.ifd_codes import code_of
from ccid.pcsc.numbers.ifd_numbers import PTS1, PTS2, PTS3, Code
from ccid.session.activation import Activation
from ccid.session.negotiation import choose_protocol

SEEK_S = 2.0
"""Time between two power-on attempts in an empty slot with the quirk ``presence-by-power``."""


class Channel:
    """One slot, from the creation of its channel on.

    :mod:`ccid.link.card_state` decides what happened to the card. A channel knows which part of
    that pcscd has been told. pcscd knows a card only from these answers, so after a card was
    exchanged or lost its power, one answer has to be that there is no card.

    Args:
        slot: The slot.

    Attributes:
        slot: The slot.
        atr: ATR of the powered card; empty while no card has power.
        device_removed: The daemon has reported that the reader is gone: no command is sent to the
            reader any more.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.atr = b""
        self.device_removed = False
        self._activation: Activation | None = None
        self._state = slot.reader.cards[slot.index]
        self._told_losses = self._state.losses
        self._is_held = False
        """A thread was told that there is no card; the watcher must get the same answer."""
        self._sought_at = 0.0

    @property
    def reader(self) -> Reader:
        """The reader of the slot."""
        return self.slot.reader

    # Presence ---------------------------------------------------------------------------------

    @property
    def owes_absence(self) -> bool:
        """A card is gone, and the watcher has not been told yet."""
        return self._is_held or self._state.losses != self._told_losses

    def has_still(self, arrivals: int) -> bool:
        """The card is the one that ``arrivals`` counted last, and there is nothing to tell of it or
        of the reader."""
        state = self._state
        if not state.is_present or state.arrivals != arrivals or self._is_held:
            return False
        return state.losses == self._told_losses and self.slot.reader.transport.dead is None

    def missed(self) -> None:
        """Note that a thread was told that there is no card: the watcher must be told, too."""
        self._is_held = True

    def is_present(self) -> Code:
        """Is there a card? The answer does not count as a report of a removal."""
        return self._presence()[0]

    def _presence(self) -> tuple[Code, bool]:
        """The answer for pcscd, and whether the slot is known to be empty."""
        if self.device_removed:
            return Code.ICC_NOT_PRESENT, True
        try:
            self.reader.pipe.was_removed(self.slot.index)  # settles an unclear state first
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
        """Is there a card? After a card was taken out the answer is that there is none, even if
        another card is in: once, or until :meth:`told`.

        Args:
            hold: Give this answer until :meth:`told`, not once.

        Returns:
            The code, and whether the daemon has to ask again, because no event will come.
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
        """Whether a power-on finds a card, in a slot with the quirk ``presence-by-power``. The
        daemon never powers a slot that is reported to be empty, so the attempt is made here."""
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
        """Note that all clients know that there was no card: what was agreed with the old card is
        dropped."""
        losses = self._state.losses
        card = self.slot.card  # read once: another thread powers cards off when pcscd ends
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
        self.reader.pipe.was_removed(self.slot.index)  # settles an unclear state first
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
        """Deactivate the card; a failure is ignored."""
        if self.device_removed:
            self.reader.pipe.end(self._unplugged())  # closing the reader sends nothing, too
        else:
            with suppress(CcidError):
                self.power_down()
        self.slot.card = None

    # Protocol ---------------------------------------------------------------------------------

    def set_protocol(self, number: int, flags: int, pts1: int) -> Code:
        """Agree with the card on a protocol.

        Args:
            number: 1 for T=0, 2 for T=1 (the protocol numbers of PC/SC).
            flags: Which PTS bytes count: PTS1, PTS2, PTS3.
            pts1: Fi and Di to ask the card for, coded as TA1.
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
        except UnsupportedByReader as error:  # with bError: the card keeps its default parameters
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
            protocol: 0 for T=0, 1 for T=1. Not used at APDU level.
            apdu: The command APDU.

        Returns:
            The response APDU, or the response code of the failure.
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
            self._agree(None, None)  # after a refused T=1, pcscd sets no protocol for T=0
        return control(self.slot, code, data, escape=escape)

    def _check(self) -> None:
        if self.device_removed:
            raise self._unplugged()

    def _unplugged(self) -> ReaderRemoved:
        name = self.reader.name
        return ReaderRemoved(f"{name} was unplugged", reader=name)
