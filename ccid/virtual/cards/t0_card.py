"""A card that speaks T=0, character by character: ISO/IEC 7816-3:2006 clause 10, pure.

Header in; NULL, ACK or SW1 out; data in either direction. This module transports TPDUs;
:class:`T0Face` carries the TPDUs out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccid.iso7816.atr import DEFAULT_FIDI
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.contact_faults import ContactFault, strike
from ccid.virtual.cards.line import DEFAULT_CLOCK_HZ, Line, Sent
from ccid.virtual.cards.t0_tpdus import T0Face
from ccid.virtual.cards.t1_blocks import Check

HEADER = 5
NULL = 0x60
NULL_AT = 0.75
"""A card that needs more time sends NULL after this fraction of WWT."""


@dataclass(frozen=True, slots=True)
class T0Options:
    """The behaviour of a card in T=0.

    Attributes:
        nulls: Number of NULL bytes before every procedure byte.
        one_by_one: The card acknowledges each data byte separately, by INS ^ FF.
        null_when_slow: The card sends NULL while a command takes longer than WWT; otherwise the
            card is late.
    """

    nulls: int = 0
    one_by_one: bool = False
    null_when_slow: bool = True


class T0Line:
    """The card's end of T=0.

    Args:
        face: Carries out TPDUs.
        options: The behaviour of the card in T=0.
        line: The waiting times.
        faults: The faults of the card; the caller may append to the list later.
    """

    def __init__(
        self,
        face: T0Face,
        options: T0Options | None = None,
        *,
        line: Line | None = None,
        faults: list[ContactFault] | None = None,
    ) -> None:
        self.face = face
        self.options = options or T0Options()
        self.line = line or Line.of(DEFAULT_FIDI, DEFAULT_CLOCK_HZ)
        self.faults = [] if faults is None else faults
        self.reset()

    def reset(self) -> None:
        """Reset: forget the characters received so far."""
        self._heard = bytearray()
        self._granted = 0

    def receive(self, characters: bytes) -> list[Sent]:
        """What the card sends after ``characters``; empty while the card waits for more."""
        self._heard += characters
        sent: list[Sent] = []
        while (turn := self._turn()) is not None:
            sent += strike(self.faults, turn, Check.LRC) if self.faults else turn
        return sent

    def _turn(self) -> list[Sent] | None:
        """What the card sends in its turn; None while the interface device has the turn."""
        if len(self._heard) < HEADER:
            return None
        header = bytes(self._heard[:HEADER])
        ins, p3 = header[1], header[4]
        if ins >> 4 in (0x6, 0x9):
            self._done()
            return self._procedure(b"\x6d\x00")
        if not p3 or not self.face.takes_data(header):
            self._done()
            return self._respond(ins, self.face.transmit(header))
        if len(self._heard) < HEADER + self._granted:
            return None
        if self._granted == p3:
            tpdu = bytes(self._heard[: HEADER + p3])
            self._done()
            return self._respond(ins, self.face.transmit(tpdu))
        self._granted += 1 if self.options.one_by_one else p3
        return self._procedure(bytes((self._ack(ins),)))

    def _done(self) -> None:
        """End the command. Characters that come right behind get lost, as the card answers."""
        self._heard.clear()
        self._granted = 0

    def _ack(self, ins: int) -> int:
        return ins ^ 0xFF if self.options.one_by_one else ins

    def _procedure(self, first: bytes, after_s: float = 0.0) -> list[Sent]:
        """NULL bytes, then the procedure byte and what follows the procedure byte."""
        null = bytes((NULL,))
        wait = NULL_AT * self.line.wwt_s
        slow = int(after_s / wait) if self.options.null_when_slow else 0
        nulls = [Sent(0.0, null)] * self.options.nulls + [Sent(wait, null)] * slow
        return [*nulls, Sent(max(0.0, after_s - slow * wait), first)]

    def _respond(self, ins: int, answer: Answer) -> list[Sent]:
        sw = answer.sw.to_bytes(2, "big")
        if not answer.data:
            return self._procedure(sw, answer.after_s)
        ack = bytes((self._ack(ins),))
        if not self.options.one_by_one:
            return self._procedure(ack + answer.data + sw, answer.after_s)
        pairs = b"".join(ack + answer.data[i : i + 1] for i in range(len(answer.data)))
        return self._procedure(pairs + sw, answer.after_s)
