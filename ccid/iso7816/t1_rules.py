"""The rules by which T=1 gets a command to a card and its response back, as one table: ISO/IEC
7816-3:2006 11.6.2 and 11.6.3.

:class:`State` says how far a command has come, :class:`Heard` what the card sent, :class:`Act` what
is done about it; :data:`TRANSITIONS` has one line for each pair of the first two.
:mod:`ccid.iso7816.t1` carries the acts out.
"""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """How far a command has come."""

    SENDING = auto()
    """Blocks of the command are left."""
    SENT = auto()
    """The last block of the command went out."""
    RECEIVING = auto()
    """The response has begun."""
    ABORTED = auto()
    """The card aborted a chain, and will say what it has instead."""
    RECEIVING_INSTEAD = auto()
    """The card says what it has instead."""


class Heard(IntEnum):
    """What the card sent, or what became of it on the way."""

    DAMAGED = auto()
    """A block with a wrong epilogue, or cut short, or a parity error."""
    NONSENSE = auto()
    """No block, or one that the standard does not have, or not here."""
    LAST = auto()
    """An I-block with the expected N(S), the last of its chain."""
    PART = auto()
    """An I-block with the expected N(S), and more follow."""
    NEXT = auto()
    """An R-block that asks for the next I-block."""
    AGAIN = auto()
    """An R-block that asks for the last I-block again."""
    WTX = auto()
    """S(WTX request)."""
    IFS = auto()
    """S(IFS request)."""
    ABORT = auto()
    """S(ABORT request)."""


class Act(IntEnum):
    """What is done about it."""

    ASK = auto()
    """Ask for what was lost, by an R-block (11.6.3.2, rules 7.1 and 7.2)."""
    REPEAT = auto()
    """Send the last I-block again (11.6.3.2, rule 7.3)."""
    CONTINUE = auto()
    """Send the next I-block (11.6.2.3, rule 2.2)."""
    TAKE = auto()
    """Take the part, acknowledge it by an R-block (11.6.2.3, rule 2.2)."""
    FINISH = auto()
    """Take the part: the response is complete."""
    GRANT = auto()
    """S(WTX response) (11.6.2.3, rule 3)."""
    AGREE = auto()
    """S(IFS response) (11.6.2.3, rule 4)."""
    GIVE_WAY = auto()
    """S(ABORT response) (11.6.2.3, rule 9)."""
    LOSE = auto()
    """End: the card wants nothing of the command any more."""


_ALWAYS = {
    Heard.DAMAGED: Act.ASK,
    Heard.NONSENSE: Act.ASK,
    Heard.WTX: Act.GRANT,
    Heard.IFS: Act.AGREE,
    Heard.ABORT: Act.GIVE_WAY,
}
_ACTS: dict[State, dict[Heard, Act]] = {
    State.SENDING: {
        Heard.NEXT: Act.CONTINUE,
        Heard.AGAIN: Act.REPEAT,
        Heard.PART: Act.ASK,  # no I-block acknowledges a part of a chain (11.6.2.3, rule 5)
        Heard.LAST: Act.ASK,
    },
    State.SENT: {
        Heard.NEXT: Act.ASK,  # there is no next one
        Heard.AGAIN: Act.REPEAT,
        Heard.PART: Act.TAKE,
        Heard.LAST: Act.FINISH,
    },
    State.RECEIVING: {
        Heard.NEXT: Act.ASK,
        Heard.AGAIN: Act.ASK,
        Heard.PART: Act.TAKE,
        Heard.LAST: Act.FINISH,
    },
    State.ABORTED: {
        Heard.NEXT: Act.LOSE,
        Heard.AGAIN: Act.LOSE,
        Heard.PART: Act.TAKE,
        Heard.LAST: Act.FINISH,
    },
    State.RECEIVING_INSTEAD: {
        Heard.NEXT: Act.LOSE,
        Heard.AGAIN: Act.LOSE,
        Heard.PART: Act.TAKE,
        Heard.LAST: Act.FINISH,
    },
}
_NEXT: dict[tuple[State, Act], State] = {
    (State.SENT, Act.TAKE): State.RECEIVING,
    (State.ABORTED, Act.TAKE): State.RECEIVING_INSTEAD,
    **{(state, Act.GIVE_WAY): State.ABORTED for state in State},
}
TRANSITIONS: dict[State, dict[Heard, tuple[Act, State]]] = {
    state: {
        heard: (act, _NEXT.get((state, act), state)) for heard, act in {**_ALWAYS, **acts}.items()
    }
    for state, acts in _ACTS.items()
}
"""What is done, and which state follows. With the last block CONTINUE leads to SENT."""


ACKNOWLEDGED = frozenset((State.SENT, State.ABORTED))
"""States in which an I-block of the card acknowledges the last one of ours (11.6.2.3, rule 2.1)."""
INSTEAD = frozenset((State.ABORTED, State.RECEIVING_INSTEAD))
"""States in which a response does not leave the two sides in step."""
