"""The rules of T=1 as one table of states (ISO/IEC 7816-3:2006 11.6.2 and 11.6.3). Pure.

:class:`State` is the progress of a command, :class:`Heard` the kind of block that the card sent,
:class:`Act` the action. :data:`TRANSITIONS` has one line for each pair of state and block.
:mod:`ccid.iso7816.t1` executes the actions.
"""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """The progress of a command."""

    SENDING = auto()
    """I-blocks of the command remain to be sent."""
    SENT = auto()
    """The last I-block of the command was sent."""
    RECEIVING = auto()
    """The first I-block of the response was received."""
    ABORTED = auto()
    """The card aborted a chain; another response follows."""
    RECEIVING_INSTEAD = auto()
    """The first I-block of the response after an aborted chain was received."""


class Heard(IntEnum):
    """The block that the card sent, or its failure."""

    DAMAGED = auto()
    """A block with a wrong epilogue, an incomplete block, or a parity error."""
    NONSENSE = auto()
    """No block, or a block that the standard does not allow here."""
    LAST = auto()
    """An I-block with the expected N(S) and M = 0: the last of its chain."""
    PART = auto()
    """An I-block with the expected N(S) and M = 1: more I-blocks follow."""
    NEXT = auto()
    """An R-block that requests the next I-block."""
    AGAIN = auto()
    """An R-block that requests the last I-block again."""
    WTX = auto()
    """S(WTX request)."""
    IFS = auto()
    """S(IFS request)."""
    ABORT = auto()
    """S(ABORT request)."""


class Act(IntEnum):
    """The action of the interface device."""

    ASK = auto()
    """Request the lost block by an R-block (11.6.3.2, rules 7.1 and 7.2)."""
    REPEAT = auto()
    """Send the last I-block again (11.6.3.2, rule 7.3)."""
    CONTINUE = auto()
    """Send the next I-block (11.6.2.3, rule 2.2)."""
    TAKE = auto()
    """Store the part of the response, and acknowledge it by an R-block (11.6.2.3, rule 2.2)."""
    FINISH = auto()
    """Store the last part of the response, and end."""
    GRANT = auto()
    """Send S(WTX response) (11.6.2.3, rule 3)."""
    AGREE = auto()
    """Send S(IFS response) (11.6.2.3, rule 4)."""
    GIVE_WAY = auto()
    """Send S(ABORT response) (11.6.2.3, rule 9)."""
    LOSE = auto()
    """End with an error: the card gave up the command."""


_ALWAYS = {
    Heard.DAMAGED: Act.ASK,
    Heard.NONSENSE: Act.ASK,
    Heard.WTX: Act.GRANT,
    Heard.IFS: Act.AGREE,
    Heard.ABORT: Act.GIVE_WAY,
}
"""Actions that are the same in every state."""
_ACTS: dict[State, dict[Heard, Act]] = {
    State.SENDING: {
        Heard.NEXT: Act.CONTINUE,
        Heard.AGAIN: Act.REPEAT,
        Heard.PART: Act.ASK,  # an R-block acknowledges a part of a chain (11.6.2.3, rule 5)
        Heard.LAST: Act.ASK,
    },
    State.SENT: {
        Heard.NEXT: Act.ASK,  # no next I-block exists
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
"""Actions that depend on the state."""
_NEXT: dict[tuple[State, Act], State] = {
    (State.SENT, Act.TAKE): State.RECEIVING,
    (State.ABORTED, Act.TAKE): State.RECEIVING_INSTEAD,
    **{(state, Act.GIVE_WAY): State.ABORTED for state in State},
}
"""The next state, where an action changes the state."""
TRANSITIONS: dict[State, dict[Heard, tuple[Act, State]]] = {
    state: {
        heard: (act, _NEXT.get((state, act), state)) for heard, act in {**_ALWAYS, **acts}.items()
    }
    for state, acts in _ACTS.items()
}
"""Action and next state for each state and each kind of block. CONTINUE with the last I-block leads
to SENT."""


ACKNOWLEDGED = frozenset((State.SENT, State.ABORTED))
"""States in which an I-block of the card acknowledges the last I-block of the interface device
(11.6.2.3, rule 2.1)."""
INSTEAD = frozenset((State.ABORTED, State.RECEIVING_INSTEAD))
"""States after which card and interface device have to resynchronise."""
