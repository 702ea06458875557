"""What a card is asked and what it answers, for a test to see; and answers that a test scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer, Application


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A command APDU that a card carried out. Not shown by ``repr``: it may hold a PIN.

    Attributes:
        command: Its bytes.
        response: Those of the response, with SW1 SW2.
    """

    command: bytes = field(repr=False)
    response: bytes = field(repr=False)

    @property
    def sw(self) -> int:
        """SW1 SW2."""
        return int.from_bytes(self.response[-2:], "big")


@dataclass(slots=True)
class Scripted:
    """An answer that is given instead of the card's own.

    Attributes:
        begins: With these bytes the commands begin that it is for.
        response: The response, with SW1 SW2.
        times: How often it is still given; None for ever.
        after_s: Seconds the card takes for it.
    """

    begins: bytes = field(repr=False)
    response: bytes = field(repr=False)
    times: int | None = None
    after_s: float = 0.0


class CardWatch:
    """Watches one card after the other.

    Attributes:
        exchanged: What the cards were asked, and what they answered.
        scripted: Answers to be given instead; the first that fits counts.
    """

    def __init__(self) -> None:
        self.exchanged: list[Exchanged] = []
        self.scripted: list[Scripted] = []
        self._card: Application | None = None
        self._process: Callable[[CommandApdu], Answer] | None = None

    def begin(self, card: Application) -> None:
        """Watch ``card`` from now on, and no other."""
        self.end()
        self._card, self._process = card, card.process
        card.process = self._carry_out  # type: ignore[method-assign]

    def end(self) -> None:
        """Watch no card any more."""
        if self._card is not None:
            del self._card.process
        self._card = self._process = None

    def _carry_out(self, command: CommandApdu) -> Answer:
        sent = command.build()
        answer = self._scripted(sent)
        if answer is None:
            assert self._process is not None
            answer = self._process(command)
        self.exchanged.append(Exchanged(sent, answer.apdu))
        return answer

    def _scripted(self, sent: bytes) -> Answer | None:
        for one in self.scripted:
            if sent.startswith(one.begins) and one.times != 0:
                if one.times is not None:
                    one.times -= 1
                data, sw = one.response[:-2], int.from_bytes(one.response[-2:], "big")
                return Answer(data, sw, one.after_s)
        return None
