"""The table of the rules of T=1 is complete."""

from __future__ import annotations

import itertools

from ccid.iso7816.t1_rules import ACKNOWLEDGED, INSTEAD, TRANSITIONS, Act, Heard, State


def test_every_state_has_an_act_for_everything_that_comes() -> None:
    found = {(state, heard) for state, acts in TRANSITIONS.items() for heard in acts}
    assert found == set(itertools.product(State, Heard))


def test_a_command_is_repeated_only_while_nothing_answered_it() -> None:
    """A card must not execute a command twice (ISO/IEC 7816-3:2006 11.6.3.2)."""
    for state, acts in TRANSITIONS.items():
        for heard, (act, _) in acts.items():
            if act is Act.REPEAT:
                assert heard is Heard.AGAIN
                assert state in (State.SENDING, State.SENT)


def test_a_response_ends_a_command_only_after_its_last_block() -> None:
    for state, acts in TRANSITIONS.items():
        assert (acts[Heard.LAST][0] is Act.FINISH) == (state is not State.SENDING)


def test_nothing_leads_back_to_sending_but_itself() -> None:
    for state, acts in TRANSITIONS.items():
        for _, after in acts.values():
            assert after is not State.SENDING or state is State.SENDING


def test_after_an_abort_the_two_sides_are_not_in_step() -> None:
    for state, acts in TRANSITIONS.items():
        assert acts[Heard.ABORT] == (Act.GIVE_WAY, State.ABORTED)
        if state in INSTEAD:
            assert {after for _, after in acts.values()} <= INSTEAD
    assert State.ABORTED in ACKNOWLEDGED
