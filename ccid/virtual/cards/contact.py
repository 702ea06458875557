"""The contacts of a card: reset, PPS, then T=0 or T=1, character by character. Pure.

    contact = Contact(EchoCard())
    contact.reset()                                        # the ATR
    contact.receive(bytes.fromhex("FF 11 96 78"))          # PPS: T=1, F = 512, D = 32
    contact.receive(bytes.fromhex("00 C1 01 FE 3E"), fidi=0x96)

The card knows the protocol and the F and D in force. With other F and D the card does not
understand the interface device, and the interface device receives nothing, or parity errors.
"""

from __future__ import annotations

from dataclasses import field

from ccid.errors import MalformedAtr
from ccid.ground.records import record
from ccid.iso7816 import pps
from ccid.iso7816.atr import DEFAULT_FIDI, Atr
from ccid.iso7816.pps import PPSS
from ccid.virtual.cards import pps_card
from ccid.virtual.cards.application import Application, Mute
from ccid.virtual.cards.contact_faults import ContactFault
from ccid.virtual.cards.line import DEFAULT_CLOCK_HZ, Line, Sent, clocks_per_etu
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Line, T0Options
from ccid.virtual.cards.t0_tpdus import T0Face
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Card, T1Options

IMPLICIT = 0x10
"""Bit 5 of TA2: F and D are implicit values, not those of TA1 (ISO/IEC 7816-3:2006 8.3)."""


@record
class ContactOptions:
    """The behaviour of a card on its contacts.

    Attributes:
        pps: How the card answers a PPS request.
        t0, t1: The behaviour of the card in T=0 and in T=1.
        implicit_fidi: F and D in specific mode if bit 5 of TA2 makes F and D implicit.
        atr: The ATR that the card sends; None for the application's.
    """

    pps: Pps = Pps.ECHO
    t0: T0Options = field(default_factory=T0Options)
    t1: T1Options = field(default_factory=T1Options)
    implicit_fidi: int = DEFAULT_FIDI
    atr: bytes | None = None


class Contact:
    """A card on its contacts.

    Args:
        application: The application on the card.
        options: The behaviour of the card.
        clock_hz: The clock that the reader gives to the card, Hz.

    Attributes:
        faults: The faults of the card, a list to append to
            (:mod:`~ccid.virtual.cards.contact_faults`).
        protocol: The protocol in force, 0 or 1.
        fidi: F and D in force, coded as TA1.
        line: The waiting times in force, seconds.
    """

    def __init__(
        self,
        application: Application,
        options: ContactOptions | None = None,
        *,
        clock_hz: float = DEFAULT_CLOCK_HZ,
    ) -> None:
        self.application = application
        self.options = options or ContactOptions()
        self.clock_hz = clock_hz
        self.faults: list[ContactFault] = []
        self._t0 = T0Line(T0Face(application), self.options.t0, faults=self.faults)
        self._t1 = T1Card(application.transmit, self.options.t1, faults=self.faults)
        self._begin()

    @property
    def raw_atr(self) -> bytes:
        """The answer to reset."""
        return self.options.atr or self.application.atr

    def _begin(self) -> None:
        """Set the state directly after the ATR (ISO/IEC 7816-3:2006 6.3.1)."""
        try:
            self._atr = Atr.parse(self.raw_atr)
        except MalformedAtr:
            self._atr = Atr.parse(b"\x3b\x00")
        self._t0.reset()
        self._t1.reset(self._atr.ifsc, Check.CRC if self._atr.crc else Check.LRC)
        self._heard = b""
        self._negotiable = not self._atr.specific_mode
        self._dead = False
        ta2 = self._atr.ta2
        self.protocol = self._atr.default_protocol
        if ta2 is None:
            fidi = DEFAULT_FIDI
        elif ta2 & IMPLICIT or self._atr.ta1 is None:
            fidi = self.options.implicit_fidi
        else:
            fidi = self._atr.ta1
        self._in_force(fidi)

    def _in_force(self, fidi: int) -> None:
        self.fidi = fidi
        self._clocks = clocks_per_etu(fidi) or clocks_per_etu(DEFAULT_FIDI)
        atr = self._atr
        self.line = Line.of(fidi, self.clock_hz, wi=atr.wi, bwi=min(atr.bwi, 9), cwi=atr.cwi)
        self._t0.line = self._t1.line = self.line

    @property
    def t0(self) -> T0Line:
        """The card's end of T=0."""
        return self._t0

    @property
    def t1(self) -> T1Card:
        """The card's end of T=1."""
        return self._t1

    def reset(self) -> bytes:
        """Cold or warm reset; return the ATR, empty from a mute card."""
        self._begin()
        try:
            self._t0.face.reset()
        except Mute:
            self._dead = True
            return b""
        return self.raw_atr

    def receive(self, characters: bytes, fidi: int | None = None) -> list[Sent]:
        """What the card sends when the interface device sends ``characters``.

        Args:
            characters: Sent without a pause. A PPS request, TPDU or block may come in several
                calls.
            fidi: F and D of the interface device, coded as TA1; None for those in force.

        Returns:
            Groups of characters; empty while the card waits for more, or if the card is mute.
        """
        try:
            return self._received(characters, fidi)
        except Mute:
            self._dead = True
            return []

    def _received(self, characters: bytes, fidi: int | None) -> list[Sent]:
        """What the card sends after ``characters``. Raises Mute if the application is mute."""
        if self._dead:
            return []
        if fidi is not None and fidi != self.fidi and clocks_per_etu(fidi) != self._clocks:
            return self._garbled(characters)
        if self._negotiable:
            self._heard += characters
            if self._heard[:1] == bytes((PPSS,)):
                return self._pps()
            characters, self._heard = self._heard, b""
            self._negotiable = characters == b""
        if self.protocol == 1:
            return self._on_t1(characters)
        return self._t0.receive(characters) if self.protocol == 0 else []

    def idle(self) -> list[Sent]:
        """What the card sends when nothing more comes: CWT ends for an incomplete T=1 block, and
        the block is invalid."""
        if self._dead or self.protocol != 1 or self._negotiable or not self._heard:
            return []
        heard, self._heard = self._heard, b""
        return self._t1.receive(heard)

    def _on_t1(self, characters: bytes) -> list[Sent]:
        self._heard += characters
        if not self._heard or self._t1.wanted(self._heard):
            return []
        return self.idle()

    def _pps(self) -> list[Sent]:
        if pps_card.wanted(self._heard):
            return []
        request = self._heard[: pps.length(self._heard[1])]  # the card answers; more gets lost
        chosen = pps_card.select(request, self._atr, self.options.pps)
        self._heard, self._negotiable = b"", False
        if chosen.protocol is None:
            self._dead = True  # until the next reset (9.3)
        else:
            self.protocol = chosen.protocol
            self._in_force(chosen.fidi)
        return [Sent(0.0, chosen.response)] if chosen.response else []

    def _garbled(self, characters: bytes) -> list[Sent]:
        """The card receives noise. In T=1 the card answers that, with parity errors for the
        interface device; in T=0 the card waits."""
        if self._negotiable or self.protocol != 1 or not characters:
            return []
        self._heard = b""
        return [one._replace(parity_error=True) for one in self._t1.receive(b"")]
