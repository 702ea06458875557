"""What a header costs: construct's interpreted parse, and the struct made from the declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_XfrBlock, RDR_to_PC_DataBlock, parse_reply
from ccid.codec.messages.headers import reply_header, xfr_block_header
from ccid.codes import ExchangeLevel
from ccid.virtual import EchoCard

REPLY = RDR_to_PC_DataBlock(bSeq=7, abData=bytes(4)).build()


@pytest.mark.benchmark(group="reply header")
def test_parse_by_declaration(benchmark: Any) -> None:
    assert benchmark(RDR_to_PC_DataBlock.header.parse, REPLY[:10]).bSeq == 7


@pytest.mark.benchmark(group="reply header")
def test_parse_by_struct(benchmark: Any) -> None:
    assert benchmark(reply_header.unpack_from, REPLY)[3] == 7


@pytest.mark.benchmark(group="whole message")
def test_parse_a_message(benchmark: Any) -> None:
    assert benchmark(parse_reply, REPLY).bSeq == 7


@pytest.mark.benchmark(group="whole message")
def test_build_a_message(benchmark: Any) -> None:
    message = PC_to_RDR_XfrBlock(bSeq=7, abData=bytes(5))
    assert len(benchmark(message.build)) == 15


@pytest.mark.benchmark(group="command header")
def test_build_by_struct(benchmark: Any) -> None:
    out = bytearray(10)
    benchmark(xfr_block_header.pack_into, out, 0, 0x6F, 5, 0, 7, 0, 0)
    assert out[6] == 7


@pytest.fixture
def card() -> Iterator[ccid.Card]:
    """A card at extended APDU level, in this process."""
    virtual = ccid.VirtualReader(EchoCard(), level=ExchangeLevel.EXTENDED_APDU)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as connected:
        yield connected


@pytest.mark.benchmark(group="virtual reader")
def test_a_short_apdu(benchmark: Any, card: ccid.Card) -> None:
    assert benchmark(card.transmit, bytes.fromhex("0010000002")) == b"\0\1\x90\0"


@pytest.mark.benchmark(group="virtual reader")
def test_the_longest_apdu(benchmark: Any, card: ccid.Card) -> None:
    apdu = bytes.fromhex("00300000 00FFFF") + bytes(65535) + b"\0\0"
    assert len(benchmark(card.transmit, apdu)) == 65537
