"""The reader's end of the contacts: sends characters, and receives the card's within time limits.

The caller passes time in: every method takes the moment of its begin and returns the moment of its
end, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ccid.codec.messages import ProtocolDataT0, ProtocolDataT1
from ccid.codes import Protocol, SlotError
from ccid.iso7816 import pps
from ccid.iso7816.atr import DEFAULT_FIDI
from ccid.virtual.cards.contact import Contact
from ccid.virtual.cards.line import BLOCK_GUARD_ETU, TURN_GUARD_ETU, Line, Sent

CHARACTER_ETU = 12
"""The least time from one character to the next, without extra guard time."""


class Refused(Exception):
    """The command fails with this bError.

    Args:
        bError: USB CCID rev 1.1, table 6.2-2, or the offset of the wrong field.
        at: When the reader knows of the failure, in seconds; None for at once.
    """

    def __init__(self, bError: int, at: float | None = None) -> None:
        super().__init__(bError)
        self.bError = bError
        self.at = at


class Arrival(NamedTuple):
    """A character of the card: its time of arrival, value and parity."""

    at: float
    value: int
    parity_error: bool


class Wire:
    """One card on one slot's contacts.

    Args:
        contact: The card.
        clock_hz: The clock that the reader gives to the card, Hz.
        real_time: Characters take their real time; otherwise only waiting takes time.

    Attributes:
        line: The reader's waiting times, by the parameters in force.
        fidi: The reader's F and D, coded as TA1.
        fresh: True until the reader sends something after a reset: PPS is possible.
    """

    def __init__(self, contact: Contact, clock_hz: float, *, real_time: bool = False) -> None:
        self.contact = contact
        self.clock_hz = clock_hz
        self.real_time = real_time
        contact.clock_hz = clock_hz
        self._coming: deque[Arrival] = deque()
        self._last = 0.0
        self._answers = False
        self.fresh = False
        self.use(ProtocolDataT0())

    def use(self, data: ProtocolDataT0 | ProtocolDataT1) -> None:
        """Take F, D and the waiting integers from ``data`` (USB CCID rev 1.1, 6.1.7)."""
        self.protocol = Protocol.T1 if isinstance(data, ProtocolDataT1) else Protocol.T0
        self.fidi = data.bmFindexDindex
        if isinstance(data, ProtocolDataT1):
            bwi, cwi = data.bmWaitingIntegersT1 >> 4, data.bmWaitingIntegersT1 & 0x0F
            self.line = Line.of(self.fidi, self.clock_hz, bwi=bwi, cwi=cwi)
        else:
            self.line = Line.of(self.fidi, self.clock_hz, wi=data.bWaitingIntegerT0)

    def reset(self, now: float) -> bytes:
        """Activate or reset the card; return the ATR, which always comes with Fd and Dd."""
        self.clear()
        self.fresh = True
        self._last = now
        return self.contact.reset()

    def clear(self) -> None:
        """Drop the characters that the reader has not fetched."""
        self._coming.clear()

    @property
    def waiting(self) -> int:
        """Number of characters that the reader has not fetched, arrived or on the way."""
        return len(self._coming)

    def send(self, characters: bytes, now: float) -> float:
        """Send ``characters``; return the time at which the last character is sent."""
        if not characters:
            return now
        self.fresh = False
        self._answers = True
        if self.real_time:
            now += CHARACTER_ETU * len(characters) * self.line.etu_s
        self._last = now
        self._hear(self.contact.receive(characters, self.fidi))
        return now

    def _hear(self, sent: list[Sent]) -> None:
        guard = BLOCK_GUARD_ETU if self.protocol is Protocol.T1 else TURN_GUARD_ETU
        at = self._coming[-1].at if self._coming else self._last
        if self.real_time:
            at += guard * self.line.etu_s
        for after_s, data, parity_error in sent:
            at += after_s
            for value in data:
                self._coming.append(Arrival(at, value, parity_error))
                at += CHARACTER_ETU * self.line.etu_s if self.real_time else 0.0

    def receive(self, count: int, now: float, multiplier: int = 1) -> tuple[bytes, float]:
        """The next ``count`` characters of the card, and the time at which the last arrives.

        Args:
            count: Number of characters.
            now: When the reader begins to wait.
            multiplier: T=1: number of BWT that the first character of an answer may take.

        Raises:
            Refused: ICC_MUTE if the card is silent for longer than WWT, BWT or CWT;
                XFR_PARITY_ERROR.
        """
        got, bad = bytearray(), False
        while len(got) < count:
            limit = self._limit(multiplier)
            since = max(now, self._last)
            if not self._coming:
                self._last = since + self.contact.line.cwt_s
                self._hear(self.contact.idle())
                if not self._coming:
                    raise Refused(SlotError.ICC_MUTE, since + limit)
                self._last = since
            arrival = self._coming[0]
            if arrival.at - since > limit:
                self.clear()
                raise Refused(SlotError.ICC_MUTE, since + limit)
            self._coming.popleft()
            self._answers = False
            self._last = arrival.at
            now = max(now, arrival.at)
            got.append(arrival.value)
            bad |= arrival.parity_error
        if bad:
            self.clear()
            raise Refused(SlotError.XFR_PARITY_ERROR, now)
        return bytes(got), now

    def _limit(self, multiplier: int) -> float:
        """The longest wait for the next character, seconds."""
        if self.protocol is Protocol.T0:
            return self.line.wwt_s
        return self.line.bwt_s * multiplier if self._answers else self.line.cwt_s

    def exchange_pps(self, request: bytes, now: float) -> tuple[bytes, float]:
        """Send a PPS request at Fd and Dd and fetch the response (ISO/IEC 7816-3:2006 9).

        Raises:
            Refused: ICC_MUTE or XFR_PARITY_ERROR.
        """
        in_force = self.protocol, self.fidi, self.line
        self.use(ProtocolDataT0(bmFindexDindex=DEFAULT_FIDI))
        try:
            head, at = self.receive(2, self.send(request, now))
            rest, at = self.receive(pps.length(head[1]) - len(head), at)
        finally:
            self.protocol, self.fidi, self.line = in_force
        return head + rest, at
