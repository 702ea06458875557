"""A card that a program elsewhere provides over the vpcd protocol, as an :class:`Application`.

Theory of operation. The card is a client of a connection, the :class:`Link`. The card queues
control messages and command APDUs on the link, and gets the messages of the other end by
:meth:`VpcdCard.take`. The protocol has no numbers: response APDUs come in the order of the command
APDUs. Therefore the card keeps one entry for each response APDU that is still to come, also for a
command that the host has cancelled.

A reader at an APDU level calls :meth:`VpcdCard.begin`, and the response APDU comes later. On the
contacts of a card (TPDU and character level) the T=0 and T=1 machines need the response APDU at
once: :meth:`VpcdCard.transmit` waits for it, with a time limit.

The connection ends the card: afterwards the card is mute.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from ccid.errors import MalformedMessage
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer, Application, Later, Mute
from ccid.virtual.vpcd_messages import (
    MAX_MESSAGE,
    MIN_RESPONSE,
    Control,
    checked_response,
    control,
    frame,
)

RESPONSE_LIMIT_S = 120.0
"""A card whose response APDU takes longer counts as removed."""
WAIT_LIMIT_S = 30.0
"""The same on the contacts, where the whole virtual reader waits for the response APDU."""
MAX_EXPECTED = 16
"""The largest number of response APDUs that may be still to come: cancelled commands add up."""
WRONG_LENGTH = Answer(sw=0x6700)


class Link(Protocol):
    """The connection of a card."""

    def send(self, data: bytes) -> None:
        """Queue ``data`` for the other end. Never blocks."""

    def wait(self, timeout_s: float) -> bytes | None:
        """The next message of the other end; None after ``timeout_s`` seconds, or if the
        connection ends."""

    def close(self) -> None:
        """Ask for the end of the connection. Never blocks."""


class _Box:
    """Keeps the answer to a command APDU that :meth:`VpcdCard.transmit` waits for."""

    def __init__(self) -> None:
        self.is_full = False
        self.answer: Answer | None = None

    def __call__(self, answer: Answer | None, now: float) -> None:
        self.is_full, self.answer = True, answer


class VpcdCard(Application):
    """A card behind a connection. The caller serializes all calls.

    Args:
        atr: The ATR that the other end has sent.
        link: The connection.

    Attributes:
        is_lost: The connection is closed.
        deadline: The time by which the next response APDU must come; None if none is expected.
    """

    def __init__(self, atr: bytes, link: Link) -> None:
        super().__init__(atr)
        self.is_lost = False
        self._link = link
        self._is_powered = False
        self.deadline: float | None = None
        self._expected: deque[tuple[float, Later]] = deque()

    def reset(self) -> None:
        """Power-up or reset. Raises Mute if the connection is closed."""
        super().reset()
        if self.is_lost:
            raise Mute
        self._link.send(control(Control.RESET if self._is_powered else Control.POWER_ON))
        self._is_powered = True

    def power_off(self) -> None:
        if self._is_powered and not self.is_lost:
            self._link.send(control(Control.POWER_OFF))
        self._is_powered = False

    def begin(self, apdu: bytes, now: float, later: Later) -> Answer | None:
        """Send a command APDU, unchanged; ``later`` gets the response APDU.

        An APDU of less than 2 or more than 65,535 bytes cannot be sent: 6700.

        Raises:
            Mute: The connection is closed, or too many response APDUs are still to come.
        """
        if self.is_lost or len(self._expected) >= MAX_EXPECTED:
            raise Mute
        if not 1 < len(apdu) <= MAX_MESSAGE:
            return WRONG_LENGTH
        self.commands += 1
        self._expect(now + RESPONSE_LIMIT_S, later)
        self._link.send(frame(apdu))
        return None

    def _expect(self, deadline: float, later: Later) -> None:
        self._expected.append((deadline, later))
        self.deadline = self._expected[0][0]

    def _next(self) -> Later:
        _, later = self._expected.popleft()
        self.deadline = self._expected[0][0] if self._expected else None
        return later

    def transmit(self, apdu: bytes) -> Answer:
        """Send a command APDU and wait for the response APDU, 30 s at most.

        Raises:
            Mute: No response APDU came; the card is lost afterwards.
        """
        box = _Box()
        answer = self.begin(apdu, math.inf, box)  # wait() below has the time limit
        if answer is not None:
            return answer
        while not box.is_full:
            message = self._link.wait(WAIT_LIMIT_S)
            try:
                if message is None:
                    raise MalformedMessage("vpcd: no response APDU")
                self.take(message, math.inf)
            except MalformedMessage:
                self.lose(math.inf)
                self._link.close()
        if box.answer is None:
            raise Mute
        return box.answer

    def process(self, command: CommandApdu) -> Answer:
        """As :meth:`transmit`, for a command APDU that came in TPDUs."""
        return self.transmit(command.build())

    def take(self, content: bytes, now: float) -> None:
        """Take a message of the other end: the next response APDU.

        Raises:
            MalformedMessage: No response APDU is expected, or the message is too short for one.
        """
        if not self._expected:
            raise MalformedMessage("vpcd: a response APDU without a command APDU")
        response = checked_response(content)
        later = self._next()
        sw = int.from_bytes(response[-MIN_RESPONSE:], "big")
        later(Answer(response[:-MIN_RESPONSE], sw), now)

    def lose(self, now: float) -> None:
        """The connection is closed: the commands under way get no response APDU."""
        self.is_lost = True
        while self._expected:
            self._next()(None, now)
