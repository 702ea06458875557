"""Command APDUs: ISO/IEC 7816-3:2006 12.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import InvalidApdu
from ccid.iso7816.apdu import Case, CommandApdu
from ccid.iso7816.status_words import explain
from ccid.masking.secret_commands import is_secret, visible_length


@pytest.mark.parametrize(
    ("apdu", "case", "nc", "ne"),
    [
        ("00A40400", Case.C1, 0, 0),
        ("00B0000010", Case.C2S, 0, 16),
        ("00B0000000", Case.C2S, 0, 256),
        ("00A4040002 3F00", Case.C3S, 2, 0),
        ("00A4040002 3F00 10", Case.C4S, 2, 16),
        ("00A4040002 3F00 00", Case.C4S, 2, 256),
        ("00B00000 000100", Case.C2E, 0, 256),
        ("00B00000 000000", Case.C2E, 0, 65536),
        ("00A40400 000002 3F00", Case.C3E, 2, 0),
        ("00A40400 000002 3F00 0010", Case.C4E, 2, 16),
        ("00A40400 000002 3F00 0000", Case.C4E, 2, 65536),
    ],
)
def test_the_seven_cases(apdu: str, case: Case, nc: int, ne: int) -> None:
    raw = bytes.fromhex(apdu)
    command = CommandApdu.parse(raw)
    assert (command.case, len(command.data), command.ne) == (case, nc, ne)
    assert command.build() == raw


@given(
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=300),
    st.integers(0, 65536),
    st.booleans(),
)
def test_parse_undoes_build(header: bytes, data: bytes, ne: int, extended: bool) -> None:
    fits = len(data) <= 255 and ne <= 256
    cla, ins, p1, p2 = header
    command = CommandApdu(cla, ins, p1, p2, data=data, ne=ne, extended=extended)
    if not (extended or fits):
        with pytest.raises(InvalidApdu):
            command.build()
        return
    parsed = CommandApdu.parse(command.build())
    assert parsed.build() == command.build()
    assert (parsed.header, parsed.data, parsed.ne) == (header, data, ne)


@given(st.binary(max_size=40))
def test_what_parses_builds_to_the_same_bytes(raw: bytes) -> None:
    try:
        command = CommandApdu.parse(raw)
    except InvalidApdu:
        return
    assert command.build() == raw


@pytest.mark.parametrize(
    "apdu",
    ["", "00A404", "00A4040005 3F00", "00A4040001 3F0000", "00A40400 0000", "00A40400 000005 3F00",
     "00A40400 000001 3F000000", "00A40400 00000000"],
)  # fmt: skip
def test_what_is_no_apdu(apdu: str) -> None:
    with pytest.raises(InvalidApdu):
        CommandApdu.parse(bytes.fromhex(apdu))


def test_lengths_beyond_the_coding() -> None:
    with pytest.raises(InvalidApdu, match="65536 bytes"):
        CommandApdu(0, 0, data=bytes(65536), extended=True).build()
    with pytest.raises(InvalidApdu, match="Ne = 65537"):
        CommandApdu(0, 0, ne=65537, extended=True).build()
    assert len(CommandApdu(0, 0, data=bytes(65535), ne=65536, extended=True).build()) == 65544


@pytest.mark.parametrize(
    ("apdu", "secret"),
    [
        ("00200001", True),
        ("0020000104 31323334", True),
        ("8021000104 31323334", True),
        ("1020000104 31323334", True),
        ("0024000108", True),
        ("00250001", True),
        ("002C000108", True),
        ("002D0001", True),
        ("FF82000006 A0A1A2A3A4A5", True),
        ("0082000008", False),
        ("00A40400", False),
        ("00", False),
        ("", False),
    ],
)
def test_which_apdus_carry_secrets(apdu: str, secret: bool) -> None:
    assert is_secret(bytes.fromhex(apdu)) is secret


@pytest.mark.parametrize(
    ("apdu", "visible"),
    [("002000", 3), ("00200001", 4), ("0020000104 31323334", 5), ("00200001 000004 31323334", 7)],
)
def test_what_of_a_secret_apdu_may_be_seen(apdu: str, visible: int) -> None:
    assert visible_length(bytes.fromhex(apdu)) == visible


def test_repr_shows_no_data() -> None:
    assert "31" not in repr(CommandApdu(0, 0x20, data=b"1234")).replace("0x20", "")
    assert "1234" not in repr(CommandApdu(0, 0x20, data=b"1234"))


@pytest.mark.parametrize(
    ("sw", "text"),
    [
        (0x9000, "normal"),
        (0x6110, "16 bytes"),
        (0x6100, "256 bytes"),
        (0x6C05, "5 would be right"),
        (0x63C2, "2 tries left"),
        (0x6A82, "not found"),
        (0x1234, "not defined"),
    ],
)
def test_status_words(sw: int, text: str) -> None:
    assert text in explain(sw)
