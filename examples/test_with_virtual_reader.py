"""Test your own program with pytest, on a virtual reader instead of hardware.

    python -m pytest examples/test_with_virtual_reader.py

`card_label` is the program. In production it gets a card of a real reader (`ccid.open_reader()`);
here one of a virtual reader, which can be taken out at a bad moment. The fixture `virtual_reader`
comes with pyccid (docs/ci.md); with `pcsc_service` it serves programs of libpcsclite, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ccid
from pytest_ccid import ReaderInHand


def card_label(card: ccid.Card) -> str:
    """The text in the first 25 bytes of the demo application's first file."""
    card.transmit(b"\x00\xa4\x04\x0c\x0a\xf0ccid demo")
    response = card.transmit(bytes.fromhex("00B0810019"))
    if response[-2:] != b"\x90\x00":
        raise ValueError(f"no label: {response[-2:].hex()}")
    return response[:-2].decode()


@pytest.fixture
def card(virtual_reader: ReaderInHand) -> Iterator[ccid.Card]:
    with ccid.open_reader(virtual_reader.reader) as reader:
        yield reader.slots[0].connect()


def test_the_label(card: ccid.Card) -> None:
    assert card_label(card) == "hello from a virtual card"


def test_a_card_without_a_label(virtual_reader: ReaderInHand, card: ccid.Card) -> None:
    virtual_reader.answer("00B0", "6A82")
    with pytest.raises(ValueError, match="6a82"):
        card_label(card)
    assert [apdu.sw for apdu in virtual_reader.apdus] == [0x9000, 0x6A82]


def test_a_card_that_is_taken_out(virtual_reader: ReaderInHand, card: ccid.Card) -> None:
    virtual_reader.remove()
    with pytest.raises(ccid.errors.CardRemoved):
        card_label(card)
