"""PIN entry: from the structures of PC/SC to the frame that a reader accepts, byte by byte.

:class:`Seen` stands for a reader with a quirk: the test shows that the reader makes a wrong APDU of
the frame without the quirk, and the right APDU of the frame with the quirk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_Secure, parse_command
from ccid.codes import PinOperation
from ccid.errors import CommandFailed, MalformedMessage, UnsupportedByReader
from ccid.known.quirks import Quirks, lookup
from ccid.pin import pad_structures as pin
from ccid.pin.pad_structures import PinPadFeatures, PinRequest
from ccid.pin.pad_texts import TEXTS, WIDTH, language, texts
from ccid.virtual import EchoCard
from tests.unit.quirk_bench import Table, covers, virtual

VERIFY = bytes.fromhex("0020000108FFFFFFFFFFFFFFFF")
CHANGE = bytes.fromhex("0024000110") + b"\xff" * 16
CASE_1 = bytes.fromhex("00200001")
NONE = Quirks()


def verify(apdu: bytes = VERIFY, **fields: int) -> bytes:
    """PIN_VERIFY_STRUCTURE, with the layout of an application in C."""
    f = {
        "timeout": 30, "timeout2": 0, "format": 0x82, "block": 0x08, "length": 0x00,
        "digits": 0x0408, "condition": 2, "messages": 1, "language": 0x0407, "index": 5,
    }  # fmt: skip
    f |= fields
    head = struct.pack("<5BH2BHB", *f.values())
    return head + bytes((1, 2, 3)) + struct.pack("<I", len(apdu)) + apdu


def modify(apdu: bytes = CHANGE, **fields: int) -> bytes:
    """PIN_MODIFY_STRUCTURE, with the layout of an application in C."""
    f = {
        "timeout": 30, "timeout2": 0, "format": 0x82, "block": 0x08, "length": 0x00, "old": 0,
        "new": 8, "digits": 0x0408, "confirm": 3, "condition": 2, "messages": 3,
        "language": 0x0407, "index1": 5, "index2": 6, "index3": 7,
    }  # fmt: skip
    f |= fields
    head = struct.pack("<7BH3BH3B", *f.values())
    return head + bytes((1, 2, 3)) + struct.pack("<I", len(apdu)) + apdu


def frame(request: PinRequest) -> bytes:
    """The bulk-OUT message."""
    return PC_to_RDR_Secure(
        bSeq=9, bPINOperation=request.bPINOperation, abPINDataStructure=request.structure
    ).build()


def known(reader: str, bcdDevice: int | None = None) -> Quirks:
    vendor_id, product_id = (int(part, 16) for part in reader.split(":"))
    return lookup(vendor_id, product_id, bcdDevice)


@pytest.fixture(autouse=True)
def the_table_alone(table: Table) -> None:
    """The table of readers without the user's file."""


# As the specifications define -------------------------------------------------------------------


def test_a_verification() -> None:
    request = pin.verification(verify(), NONE)
    assert request.bPINOperation is PinOperation.VERIFICATION
    expected = "69 1C000000 00 09 00 0000  00 1E 82 08 00 0804 02 01 0704 05 010203"
    assert frame(request) == bytes.fromhex(expected) + VERIFY
    assert (request.timeout_s, request.delay_s, request.escape) == (90.0, 0.0, None)


@pytest.mark.parametrize(
    ("messages", "indexes"), [(0, "05"), (1, "0506"), (2, "0506"), (3, "050607"), (0xFF, "050607")]
)
def test_a_modification(messages: int, indexes: str) -> None:
    request = pin.modification(modify(messages=messages), NONE)
    expected = bytes.fromhex("01 1E 82 08 00 00 08 0804 03 02") + bytes((messages,))
    expected += bytes.fromhex("0704" + indexes + "010203") + CHANGE
    sent = frame(request)
    assert sent[10:] == expected
    assert sent[1:5] == len(expected).to_bytes(4, "little")
    assert parse_command(sent) == PC_to_RDR_Secure(
        bSeq=9, bPINOperation=1, abPINDataStructure=request.structure
    )


def test_no_longer_than_the_application_says_and_ten_seconds() -> None:
    assert pin.verification(verify(timeout=80), NONE).timeout_s == 90.0
    assert pin.verification(verify(timeout=200), NONE).timeout_s == 210.0
    assert pin.modification(modify(timeout=200), NONE).timeout_s == 210.0


@pytest.mark.parametrize("condition", [0, 8, 0xFF])
def test_conditions_that_crash_readers(condition: int) -> None:
    for request in (
        pin.verification(verify(condition=condition), NONE),
        pin.modification(modify(condition=condition), NONE),
    ):
        assert request.structure.bEntryValidationCondition == 2
    assert pin.verification(verify(condition=7), NONE).structure.bEntryValidationCondition == 7


Make = Callable[[bytes, Quirks], PinRequest]


@pytest.mark.parametrize(
    ("make", "data"), [(pin.verification, verify()), (pin.modification, modify())]
)
def test_structures_that_are_none(make: Make, data: bytes) -> None:
    for wrong in (b"", data[:10], data[:-1], data + b"\0"):
        with pytest.raises(MalformedMessage):
            make(wrong, NONE)


def test_less_than_an_apdu() -> None:
    for apdu in (b"", VERIFY[:3]):
        with pytest.raises(MalformedMessage, match="ulDataLength"):
            pin.verification(verify(apdu), NONE)
        with pytest.raises(MalformedMessage, match="ulDataLength"):
            pin.modification(modify(apdu), NONE)


@pytest.mark.parametrize("messages", [4, 0x80, 0xFE])
def test_numbers_of_messages_that_do_not_exist(messages: int) -> None:
    with pytest.raises(MalformedMessage) as raised:
        pin.modification(modify(messages=messages), NONE)
    assert raised.value.field == "bNumberMessage"


def test_an_application_on_a_big_endian_machine() -> None:
    swapped = bytearray(verify())
    for start, end in ((5, 7), (9, 11), (15, 19)):
        swapped[start:end] = swapped[start:end][::-1]
    there = pin.verification(bytes(swapped), NONE, byteorder="big")
    assert frame(there) == frame(pin.verification(verify(), NONE, byteorder="big"))
    with pytest.raises(MalformedMessage):
        pin.verification(bytes(swapped), NONE, byteorder="little")


def test_nothing_shows_the_apdu() -> None:
    for request in (pin.verification(verify(), NONE), pin.modification(modify(), NONE)):
        assert "ffff" not in repr(request).lower()


# Readers that differ --------------------------------------------------------------------------


class Seen:
    """The fields of a frame, read at the offsets where a reader reads them.

    Args:
        indexes: How many bMsgIndex it takes a modification to have; None for what bNumberMessage
            says.
    """

    def __init__(self, request: PinRequest, indexes: int | None = None) -> None:
        body = frame(request)[10:]
        at = 5 if body[0] == PinOperation.VERIFICATION else 7
        self.digits = body[at : at + 2]
        if body[0] == PinOperation.VERIFICATION:
            self.condition, self.messages, self.apdu = body[7], body[8], body[15:]
            return
        self.condition, self.messages = body[10], body[11]
        if indexes is None:
            indexes = {0: 1, 1: 2, 2: 2}.get(self.messages, 3)
        self.indexes = body[14 : 14 + indexes]
        self.apdu = body[14 + indexes + 3 :]


@covers("pin-verify-bNumberMessage")
def test_a_reader_that_takes_one_number_of_messages() -> None:
    for reader, wanted, asked in (("08e6:3478", 1, 0), ("413c:2101", 0, 1)):
        assert Seen(pin.verification(verify(messages=asked), NONE)).messages != wanted
        seen = Seen(pin.verification(verify(messages=asked), known(reader)))
        assert (seen.messages, seen.apdu) == (wanted, VERIFY)


@covers("pin-bEntryValidationCondition")
def test_a_reader_that_takes_the_enter_key_alone() -> None:
    vega = known("0982:0008")
    assert Seen(pin.verification(verify(condition=7), NONE)).condition == 7
    assert Seen(pin.verification(verify(condition=7), vega)).condition == 2
    assert Seen(pin.modification(modify(condition=7), NONE)).condition == 7
    assert Seen(pin.modification(modify(condition=7), vega)).condition == 2


@covers("pin-modify-all-indexes")
@pytest.mark.parametrize("messages", [0, 1, 2, 3, 0xFF])
def test_a_reader_that_looks_for_three_indexes_always(messages: int) -> None:
    for reader in ("0982:0008", "08e6:3437"):
        without = Seen(pin.modification(modify(messages=messages), NONE), indexes=3)
        assert (without.apdu == CHANGE) is (messages in (3, 0xFF))
        seen = Seen(pin.modification(modify(messages=messages), known(reader)), indexes=3)
        assert (seen.apdu, seen.indexes, seen.messages) == (CHANGE, b"\5\6\7", messages)


def test_it_may_say_that_it_was_mended() -> None:
    gemalto = known("08e6:3437")
    mended = PinPadFeatures(7, True, 4, 8)
    assert Seen(pin.modification(modify(messages=0), gemalto, mended)).apdu == CHANGE
    faulty = PinPadFeatures(7, False, 4, 8)
    assert Seen(pin.modification(modify(messages=0), gemalto, faulty), 3).apdu == CHANGE


@covers("pin-modify-zero-indexes")
def test_a_reader_that_wants_no_messages_and_three_indexes() -> None:
    for reader in ("04e6:e003", "046a:003e"):
        assert Seen(pin.modification(modify(messages=0), NONE), 3).apdu != CHANGE
        for messages in (0, 2, 3):
            seen = Seen(pin.modification(modify(messages=messages), known(reader)), 3)
            assert (seen.messages, seen.indexes, seen.apdu) == (0, bytes(3), CHANGE)


@covers("pin-modify-bNumberMessage")
def test_a_reader_that_takes_three_messages_alone() -> None:
    assert Seen(pin.modification(modify(messages=1), NONE), 3).apdu != CHANGE
    seen = Seen(pin.modification(modify(messages=1), known("046a:0010")), 3)
    assert (seen.messages, seen.apdu) == (3, CHANGE)


@covers("pin-modify-bNumberMessage-for-0")
def test_a_reader_that_refuses_no_messages() -> None:
    kc1000 = known("046a:00a1")
    assert Seen(pin.modification(modify(messages=0), NONE)).messages == 0
    seen = Seen(pin.modification(modify(messages=0), kc1000))
    assert (seen.messages, seen.indexes, seen.apdu) == (0xFF, b"\5\6\7", CHANGE)
    assert Seen(pin.modification(modify(messages=1), kc1000)).messages == 1


@covers("pin-swap-extra-digit")
def test_a_reader_that_has_most_and_fewest_exchanged() -> None:
    """The reader takes the first byte for the fewest digits; the byte holds the most digits."""
    for quirks, digits in ((NONE, b"\x08\x04"), (known("413c:2100"), b"\x04\x08")):
        assert Seen(pin.verification(verify(digits=0x0408), quirks)).digits == digits
    assert Seen(pin.modification(modify(digits=0x0408), known("413c:2100"))).digits == b"\x08\x04"


@covers("pin-delay-s")
def test_a_keyboard_whose_enter_key_is_still_down() -> None:
    assert pin.verification(verify(), NONE).delay_s == 0
    assert pin.verification(verify(), known("413c:2101")).delay_s == 0.25
    assert pin.modification(modify(), known("413c:2101")).delay_s == 0


@covers("pin-case1-escape")
def test_a_reader_that_has_to_be_told_to_append_the_pin() -> None:
    spr532 = known("04e6:e003")
    assert pin.verification(verify(CASE_1, block=0), NONE).escape is None
    assert pin.verification(verify(CASE_1, block=0), spr532).escape == b"\x80\x02\x00"
    assert pin.verification(verify(CASE_1, block=8), spr532).escape is None
    assert pin.verification(verify(VERIFY, block=0), spr532).escape is None
    assert pin.modification(modify(CASE_1, block=0), spr532).escape is None


# Features that a reader reports ---------------------------------------------------------------

BLOCK = bytes((2, 16, 0, 0x02, 0, 0, 0, 0, 0x04, 0, 0, 0, 1, 4, 12, 0, 0, 0, 0, 0, 0))


def open_gemalto(answer: Callable[[bytes], bytes] | None) -> ccid.Reader:
    return ccid.open_reader(virtual("08e6:4433", escape=answer))


@covers("features-escape")
def test_the_features_of_a_pin_pad() -> None:
    asked = []

    def answer(data: bytes) -> bytes:
        asked.append(data)
        return BLOCK

    with open_gemalto(answer) as reader:
        slot = reader.slots[0]
        assert pin.features(NONE, slot.escape) is None
        assert asked == []
        found = pin.features(slot.quirks, slot.escape)
        assert asked == [b"\x6a"]
        assert found == PinPadFeatures(2, True, 4, 12)
    without = pin.verification(verify(condition=7), slot.quirks)
    bent = pin.verification(verify(condition=7), slot.quirks, found)
    assert Seen(without).condition == 7, "the reader refuses that"
    assert Seen(bent).condition == 2
    assert pin.properties(slot.quirks, found) == (2, (4, 12))


@pytest.mark.parametrize("block", [b"", BLOCK[:-1], BLOCK + b"\0"])
def test_features_of_another_length(block: bytes) -> None:
    with open_gemalto(lambda _: block) as reader:
        assert pin.features(reader.quirks, reader.slots[0].escape) is None


@pytest.mark.parametrize("card", [EchoCard, None])
def test_no_features_are_no_error(card: Any) -> None:
    with ccid.open_reader(virtual("08e6:4433", card=card)) as reader:
        assert pin.features(reader.quirks, reader.slots[0].escape) is None


@covers("pin-validation-reported")
def test_what_applications_are_told_of_conditions() -> None:
    assert pin.properties(NONE).bEntryValidationCondition == 7
    assert pin.properties(known("046a:003e")).bEntryValidationCondition == 2


@covers("pin-sizes")
def test_what_applications_are_told_of_sizes() -> None:
    assert pin.properties(NONE).sizes is None
    assert pin.properties(known("046a:00a1")).sizes == (0, 32)
    assert pin.properties(known("08e6:3478", 0x0100)).sizes == (4, 8)


# When a reader is opened ----------------------------------------------------------------------


class PinPad:
    """A PIN pad with a display; only its Escapes are simulated."""

    def __init__(self) -> None:
        self.shown = [""] * 10
        self.asks_for_retries = True

    def __call__(self, data: bytes) -> bytes:
        if data[:5] == bytes.fromhex("B2A0004D4C"):
            assert len(data) == 165
            rows = range(5, 165, WIDTH)
            self.shown = [data[i : i + WIDTH].decode("ascii").rstrip() for i in rows]
        if data == b"\xb5\x00":
            self.asks_for_retries = False
        return b"\0"


VEGA = "0982:0008"
TEXTS_ESCAPE = 'pin-messages-escape = "B2 A0 00 4D 4C"'
RETRIES_ESCAPE = 'retry-counter-escape = "B5 00"'


@covers("pin-messages-escape")
def test_a_display_that_shows_nothing_of_use(table: Table, monkeypatch: Any) -> None:
    monkeypatch.setenv("LC_ALL", "de_AT.UTF-8")
    pad = PinPad()
    table.without(VEGA)
    ccid.open_reader(virtual(VEGA, escape=pad)).close()
    assert pad.shown == [""] * 10
    table.only(VEGA, TEXTS_ESCAPE)
    ccid.open_reader(virtual(VEGA, escape=pad)).close()
    assert pad.shown == list(TEXTS["de"])
    assert pad.asks_for_retries
    ccid.open_reader(virtual(VEGA)).close()  # a reader that refuses these Escapes still works
    ccid.open_reader(virtual(VEGA, card=None)).close()


@covers("retry-counter-escape")
def test_a_reader_that_asks_the_card_for_its_retry_counter(table: Table) -> None:
    pad = PinPad()
    table.only(VEGA, TEXTS_ESCAPE)
    with pytest.raises(UnsupportedByReader, match="retry counter"):
        ccid.open_reader(virtual(VEGA, escape=pad), no_retry_counter=True)
    assert pad.asks_for_retries
    table.only(VEGA, RETRIES_ESCAPE)
    ccid.open_reader(virtual(VEGA, escape=pad)).close()
    assert pad.asks_for_retries, "only on the user's wish"
    ccid.open_reader(virtual(VEGA, escape=pad), no_retry_counter=True).close()
    assert not pad.asks_for_retries
    with pytest.raises((CommandFailed, UnsupportedByReader)):
        ccid.open_reader(virtual(VEGA), no_retry_counter=True)


def test_texts_fit_the_display() -> None:
    for name, lines in TEXTS.items():
        assert len(lines) == 10
        assert all(len(line) <= WIDTH and line.isascii() for line in lines), name
        assert lines[6].startswith("*")
        assert len(texts(name)) == 160


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "fr_CH.UTF-8"}, "fr"),
        ({"LANG": "fr_CH", "LC_MESSAGES": "tr"}, "tr"),
        ({"LANG": "fr_CH", "LC_ALL": "nl_BE", "LC_MESSAGES": "tr"}, "nl"),
        ({"LANG": "sv_SE", "LC_ALL": ""}, "en"),
    ],
)
def test_the_language_of_the_texts(environment: dict[str, str], expected: str) -> None:
    assert language(pin._locale(environment)) == expected
