"""PPS requests and responses, written by hand from ISO/IEC 7816-3:2006 9."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import PpsFailed
from ccid.iso7816.pps import confirmed, request


@pytest.mark.parametrize(
    ("protocol", "fidi", "expected"),
    [(0, None, "FF00FF"), (1, None, "FF01FE"), (1, 0x96, "FF119678"), (0, 0x18, "FF1018F7")],
)
def test_requests(protocol: int, fidi: int | None, expected: str) -> None:
    assert request(protocol, fidi).hex().upper() == expected


def test_pps2_stands_behind_pps0_where_there_is_no_pps1() -> None:
    """The reference driver leaves a gap in the place of PPS1."""
    assert request(1, None, 0x01).hex().upper() == "FF2101DF"
    assert request(1, 0x96, 0x01, 0x02).hex().upper() == "FF71960102" + "1B"


@pytest.mark.parametrize(
    ("asked", "response", "fidi"),
    [
        ("FF119678", "FF119678", 0x96),
        ("FF119678", "FF01FE", 0x11),  # the card does not accept PPS1: the default speed
        ("FF01FE", "FF01FE", 0x11),
    ],
)
def test_confirmations(asked: str, response: str, fidi: int) -> None:
    assert confirmed(bytes.fromhex(asked), bytes.fromhex(response)) == fidi


@pytest.mark.parametrize(
    ("response", "what"),
    [
        ("", "by 0"),
        ("FF", "by 1"),
        ("FF11", "by 2"),
        ("FF11967800", "by 5"),
        ("FF119679", "PCK"),
        ("FE119679", "PPSS"),
        ("FF11957B", "PPS1 was 0x96"),
        ("FF00FF", "T=1 was asked for"),
        ("FF01FF", "PCK"),
        ("FF11EE", "does not go with"),
        ("FF2100DE", "did not ask"),
        ("FF817E", "does not go with"),
    ],
)
def test_refusals(response: str, what: str) -> None:
    with pytest.raises(PpsFailed, match=what):
        confirmed(bytes.fromhex("FF119678"), bytes.fromhex(response))


@given(st.binary(max_size=8))
def test_whatever_comes(response: bytes) -> None:
    try:
        assert confirmed(bytes.fromhex("FF119678"), response) in (0x96, 0x11)
    except PpsFailed:
        return
    assert response in (bytes.fromhex("FF119678"), bytes.fromhex("FF01FE"))
