"""What a card was asked, and answers that a test scripts."""

from __future__ import annotations

import pytest

from ccid.virtual import EchoCard
from ccid.virtual.card_watch import CardWatch, Scripted

ECHO = bytes.fromhex("0010000002")
VERIFY = bytes.fromhex("00200081043132333400")


@pytest.fixture
def watch() -> CardWatch:
    return CardWatch()


def test_what_a_card_is_asked(watch: CardWatch) -> None:
    card = EchoCard()
    watch.begin(card)
    answer = card.transmit(ECHO)
    (one,) = watch.exchanged
    assert (one.command, one.response, one.sw) == (ECHO, answer.apdu, 0x9000)
    assert "0010" not in repr(one)


def test_one_card_after_the_other(watch: CardWatch) -> None:
    first, second = EchoCard(), EchoCard()
    watch.begin(first)
    watch.begin(second)
    first.transmit(ECHO)
    assert watch.exchanged == []
    second.transmit(ECHO)
    assert len(watch.exchanged) == 1
    watch.end()
    watch.end()
    second.transmit(ECHO)
    assert len(watch.exchanged) == 1


def test_a_scripted_answer_is_given_so_often(watch: CardWatch) -> None:
    card = EchoCard()
    watch.begin(card)
    watch.scripted += [
        Scripted(ECHO[:2], bytes.fromhex("AA6A82"), times=2, after_s=0.5),
        Scripted(VERIFY[:2], bytes.fromhex("63C1")),
    ]
    for _ in range(2):
        answer = card.transmit(ECHO)
        assert (answer.data, answer.sw, answer.after_s) == (b"\xaa", 0x6A82, 0.5)
    assert card.transmit(ECHO).sw == 0x9000
    for _ in range(3):
        assert card.transmit(VERIFY).sw == 0x63C1
    assert [one.sw for one in watch.exchanged] == [0x6A82, 0x6A82, 0x9000] + [0x63C1] * 3
    assert "3132" not in repr(watch.scripted) + repr(watch.exchanged)
