"""Test your own program with pytest, on a virtual reader instead of hardware.

    python -m pytest examples/test_with_virtual_reader.py

`card_label` is the program. In production its card is in a real reader (`ccid.open_reader()`). Here
the card is in a virtual reader, and a test can remove it at a bad moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ccid
from ccid.virtual import FileSystemCard


def card_label(card: ccid.Card) -> str:
    """The text in the first 25 bytes of the demo application's first file."""
    card.transmit(b"\x00\xa4\x04\x0c\x0a\xf0ccid demo")
    response = card.transmit(bytes.fromhex("00B0810019"))
    if response[-2:] != b"\x90\x00":
        raise ValueError(f"no label: {response[-2:].hex()}")
    return response[:-2].decode()


@pytest.fixture
def virtual() -> ccid.VirtualReader:
    return ccid.VirtualReader(FileSystemCard(), level=ccid.ExchangeLevel.TPDU)


@pytest.fixture
def card(virtual: ccid.VirtualReader) -> Iterator[ccid.Card]:
    with ccid.open_reader(virtual) as reader:
        yield reader.slots[0].connect()


def test_the_label(card: ccid.Card) -> None:
    assert card_label(card) == "hello from a virtual card"


def test_a_card_that_is_taken_out(virtual: ccid.VirtualReader, card: ccid.Card) -> None:
    virtual.remove()
    with pytest.raises(ccid.errors.CardRemoved):
        card_label(card)
