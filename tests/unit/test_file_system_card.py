"""The virtual card with files: its responses to the commands of ISO/IEC 7816-4."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.atr import Atr
from ccid.virtual.cards import Answer, FileSystemCard, tlv
from ccid.virtual.cards.card_files import (
    MF,
    Access,
    AfterPassword,
    DedicatedFile,
    RecordFile,
    RecordStructure,
    TransparentFile,
)
from ccid.virtual.cards.passwords import Password
from ccid.virtual.cards.sample_files import DEMO_AID, PIN, SCRATCH_AID, sample_master_file
from ccid.virtual.cards.t0_tpdus import T0Face

RIGHT, WRONG, CODE = b"1234", b"9999", b"12345678"
ALL = 256
"""Ne of an Le field of 00."""


def send(
    card: FileSystemCard, header: str, data: bytes = b"", ne: int = 0, *, extended: bool = False
) -> Answer:
    cla, ins, p1, p2 = bytes.fromhex(header)
    return card.transmit(CommandApdu(cla, ins, p1, p2, data, ne, extended).build())


def sw(card: FileSystemCard, header: str, data: bytes = b"", ne: int = 0) -> int:
    return send(card, header, data, ne).sw


def ok(card: FileSystemCard, header: str, data: bytes = b"", ne: int = 0) -> bytes:
    answer = send(card, header, data, ne)
    assert f"{answer.sw:04X}" == "9000"
    return answer.data


def select(card: FileSystemCard, *fids: int) -> None:
    """SELECT by path from the MF."""
    path = b"".join(fid.to_bytes(2, "big") for fid in fids)
    ok(card, "00A4080C", path) if path else ok(card, "00A4000C")


def fcp(card: FileSystemCard, header: str, data: bytes = b"") -> dict[int, bytes]:
    """The file control parameters that a SELECT returns."""
    [(tag, value)] = tlv.decode(ok(card, header, data, ALL))
    assert tag == 0x62
    return dict(tlv.decode(value))


def selected(card: FileSystemCard, header: str, data: bytes = b"") -> int:
    """The identifier of the file that a SELECT command selects."""
    return int.from_bytes(fcp(card, header, data)[0x83], "big")


@pytest.fixture
def card() -> FileSystemCard:
    return FileSystemCard()


@pytest.fixture
def demo(card: FileSystemCard) -> FileSystemCard:
    ok(card, "00A4040C", DEMO_AID)
    return card


LINEAR = [b"one", b"two", b"six"]


def small_card() -> FileSystemCard:
    """MF 3F00: passwords 01 and 02, EFs, DF 1000 with password 81, EFs and DF 1100."""
    pin, never = AfterPassword(0x81), Access.NEVER
    inner = DedicatedFile(
        0x1100,
        [TransparentFile(0x1101, b"inner", sfi=1, read=pin)],
        name=b"\xf0app two",
    )
    outer = DedicatedFile(
        0x1000,
        [
            TransparentFile(0x1001, b"outer", sfi=1, read=pin, update=never),
            TransparentFile(0x1002, b"global", sfi=2, read=AfterPassword(0x01)),
            TransparentFile(0x1003, b"locked", sfi=3, read=never, update=never),
            TransparentFile(0x1004, b"no sfi"),
            inner,
        ],
        name=b"\xf0app one",
        label="One",
        passwords=[Password(0x81, RIGHT), Password(0x82, resetting_code=b"0000")],
        data_objects={0x0101: b"of the DF"},
    )
    return FileSystemCard(
        master_file=DedicatedFile(
            MF,
            [
                TransparentFile(0x0001, bytes(range(100)), sfi=1),
                RecordFile(0x0002, RecordStructure.LINEAR_FIXED, LINEAR, max_records=4, sfi=2),
                RecordFile(
                    0x0003,
                    RecordStructure.LINEAR_VARIABLE,
                    [b"a", b"bc"],
                    record_size=5,
                    max_records=3,
                    sfi=3,
                ),
                RecordFile(0x0004, RecordStructure.CYCLIC, LINEAR, sfi=4),
                TransparentFile(0x0005, sfi=5),
                TransparentFile(0x0006, size=40000, sfi=6),
                RecordFile(
                    0x0007,
                    RecordStructure.LINEAR_FIXED,
                    record_size=3,
                    max_records=1,
                    sfi=7,
                    update=AfterPassword(0x01),
                ),
                outer,
                DedicatedFile(0x2000, [TransparentFile(0x2001, b"y")], name=b"\xf0app three"),
                DedicatedFile(0x3000, name=b"16 bytes of name"),
            ],
            passwords=[Password(0x01, b"globe", tries=2), Password(0x02, b"other")],
            data_objects={0x0101: b"of the MF", 0x0102: b"everywhere"},
        ),
    )


@pytest.fixture
def small() -> FileSystemCard:
    return small_card()


# The sample card ------------------------------------------------------------------------------


def test_the_atr_is_right_and_offers_both_protocols(card: FileSystemCard) -> None:
    atr = Atr.parse(card.atr)

    assert atr.warnings == ()
    assert atr.protocols == (0, 1)
    assert (atr.ta1, atr.ifsc, atr.bwi, atr.cwi) == (0x96, 254, 4, 5)
    assert (atr.clock_stop, atr.classes) == (3, 0b111)


def test_historical_bytes_say_the_same_as_ef_atr(card: FileSystemCard) -> None:
    historical = Atr.parse(card.atr).historical
    ef_atr = dict(tlv.decode(ok(card, "00B2010C", ne=ALL)))

    assert historical == (
        b"\x80\x31" + ef_atr[0x43] + b"\x73" + ef_atr[0x47] + bytes.fromhex("83059000")
    )
    assert [int.from_bytes(v, "big") for _, v in tlv.decode(ef_atr[0x7F66])] == [65544, 65538]


def test_ef_dir_lists_the_applications_and_where_they_are(card: FileSystemCard) -> None:
    listed = []
    for number in (1, 2):
        [(tag, template)] = tlv.decode(ok(card, f"00B2{number:02X}F4", ne=ALL))
        assert tag == 0x61
        listed.append(dict(tlv.decode(template)))

    assert sw(card, "00B203F4", ne=ALL) == 0x6A83
    assert [entry[0x4F] for entry in listed] == [DEMO_AID, SCRATCH_AID]
    assert [entry[0x50] for entry in listed] == [b"ccid demo", b"ccid scratch"]
    for entry in listed:
        by_name = selected(card, "00A40404", entry[0x4F])
        assert entry[0x51] == MF.to_bytes(2, "big") + by_name.to_bytes(2, "big")


def test_a_text_longer_than_a_short_le_field(demo: FileSystemCard) -> None:
    begin = ok(demo, "00B08100", ne=ALL)
    rest = ok(demo, "00B00100", ne=ALL)
    whole = send(demo, "00B00000", ne=65536, extended=True)

    assert begin.startswith(b"hello from a virtual card")
    assert len(begin) == 256
    assert len(rest) > 0
    assert (whole.data, whole.sw) == (begin + rest, 0x9000)


def test_each_short_identifier_resets_the_record_pointer(card: FileSystemCard) -> None:
    first = ok(card, "00B20008", ne=ALL)

    assert ok(card, "00B2000A", ne=ALL) == first
    assert sw(card, "00B20002", ne=ALL) == 0x6A83


def test_the_log_is_cyclic_and_names_are_records(demo: FileSystemCard) -> None:
    ok(demo, "00E20018", b"visited".ljust(16))

    assert ok(demo, "00B2011C", ne=ALL).strip() == b"visited"
    assert ok(demo, "00B2021C", ne=ALL).strip() == b"card made"
    assert ok(demo, "00B20114", ne=16).strip() == b"Ada"


def test_the_secret_wants_the_pin(demo: FileSystemCard) -> None:
    assert sw(demo, "00B08400", ne=ALL) == 0x6982
    ok(demo, f"002000{PIN:02X}", RIGHT)
    assert ok(demo, "00B08400", ne=ALL).startswith(b"the treasure")


def test_sample_cards_share_nothing() -> None:
    one, other = FileSystemCard(), FileSystemCard()
    for card in (one, other):
        ok(card, "00A4040C", SCRATCH_AID)
    ok(one, "00D68100", b"written")

    assert ok(other, "00B08100", ne=7) == b"\xff" * 7


def test_contents_survive_a_reset_and_the_rest_does_not(demo: FileSystemCard) -> None:
    ok(demo, f"002000{PIN:02X}", RIGHT)
    ok(demo, "00D68400", b"changed")
    sw(demo, "10D68400", b"begun")
    demo.reset()

    assert demo.resets == 1
    assert sw(demo, "00B00000", ne=1) == 0x6986
    assert selected(demo, "00A40004", b"\x3f\x00") == MF
    ok(demo, "00A4040C", DEMO_AID)
    assert sw(demo, "00B08400", ne=7) == 0x6982
    ok(demo, f"002000{PIN:02X}", RIGHT)
    assert ok(demo, "00B08400", ne=7) == b"changed"


# Class and instruction ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("80A40000", 0x6E00),
        ("FFA40000", 0x6E00),
        ("20A40000", 0x6E00),
        ("01A40000", 0x6881),
        ("03A40000", 0x6881),
        ("40A40000", 0x6881),
        ("04A40000", 0x6882),
        ("0CA40000", 0x6882),
        ("00FE0000", 0x6D00),
        ("00A20000", 0x6D00),
        ("00B30104", 0x6D00),
        ("10FE0000", 0x6D00),
        ("00700000", 0x6881),
        ("00C00000", 0x6985),
    ],
)
def test_what_it_does_not_do(card: FileSystemCard, header: str, expected: int) -> None:
    assert sw(card, header) == expected


@pytest.mark.parametrize("apdu", ["", "00", "00A404", "00A4040003AA", "00A4040000000201"])
def test_no_command_apdu_at_all(card: FileSystemCard, apdu: str) -> None:
    assert card.transmit(bytes.fromhex(apdu)).apdu == b"\x67\x00"


def test_a_custom_atr() -> None:
    card = FileSystemCard(bytes.fromhex("3B02 8031"))

    assert card.atr == bytes.fromhex("3B028031")
    assert ok(card, "00CA5F52", ne=ALL) == bytes.fromhex("8031")


# Command chaining -----------------------------------------------------------------------------


def test_a_chain_is_one_command_with_all_the_data(small: FileSystemCard) -> None:
    ok(small, "10D68600", b"a" * 255)
    ok(small, "10D68600", b"b" * 255)
    ok(small, "00D68600", b"c" * 3)

    assert send(small, "00B08600", ne=514, extended=True).data == (
        b"a" * 255 + b"b" * 255 + b"c" * 3 + b"\xff"
    )


def test_nothing_is_carried_out_before_the_last_part(small: FileSystemCard) -> None:
    file = small.master_file.child(0x0001)
    assert isinstance(file, TransparentFile)
    ok(small, "10D68100", b"zzz")
    assert file.data[:3] == bytes((0, 1, 2))
    ok(small, "00D68100")
    assert file.data[:3] == b"zzz"


@pytest.mark.parametrize("other", ["00D68101", "00D60100", "00A4000C", "10B08100", "00FE8100"])
def test_another_command_within_a_chain_ends_it(small: FileSystemCard, other: str) -> None:
    ok(small, "10D68100", b"abc")

    assert sw(small, other) == 0x6883
    ok(small, "00D68100", b"def")
    assert ok(small, "00B08100", ne=4) == b"def\x03"


def test_a_chain_can_be_longer_than_any_command_only_up_to_a_limit(small: FileSystemCard) -> None:
    for _ in range(257):
        ok(small, "10D68100", bytes(255))

    assert sw(small, "10D68100", b"x") == 0x6700
    ok(small, "00D68100", b"new chain")


def test_verify_in_a_chain(demo: FileSystemCard) -> None:
    ok(demo, f"102000{PIN:02X}", b"12")
    ok(demo, f"002000{PIN:02X}", b"34")

    ok(demo, "00B08400", ne=ALL)


# SELECT ---------------------------------------------------------------------------------------


def test_the_mf_is_selected_at_first_and_by_no_data_at_all(small: FileSystemCard) -> None:
    assert selected(small, "00A40004") == MF
    select(small, 0x1000, 0x1100)
    assert selected(small, "00A40004") == MF


@pytest.mark.parametrize(
    ("start", "header", "data", "found"),
    [
        ([], "00A40004", "3F00", 0x3F00),
        ([], "00A40004", "0001", 0x0001),
        ([], "00A40004", "1000", 0x1000),
        ([0x1000], "00A40004", "1000", 0x1000),
        ([0x1000], "00A40004", "2000", 0x2000),
        ([0x1000, 0x1100], "00A40004", "1000", 0x1000),
        ([0x1000, 0x1100], "00A40004", "3F00", 0x3F00),
        ([0x1000, 0x1001], "00A40004", "1002", 0x1002),
        ([], "00A40104", "1000", 0x1000),
        ([], "00A40204", "0002", 0x0002),
        ([0x1000, 0x1100], "00A40304", "", 0x1000),
        ([0x1000, 0x1001], "00A40304", "", 0x3F00),
        ([0x2000], "00A40804", "10001100", 0x1100),
        ([0x2000], "00A40804", "100011001101", 0x1101),
        ([0x1000], "00A40904", "1100", 0x1100),
        ([0x1000], "00A40904", "11001101", 0x1101),
    ],
)
def test_select_by_identifier_and_path(
    small: FileSystemCard, start: list[int], header: str, data: str, found: int
) -> None:
    select(small, *start)

    assert selected(small, header, bytes.fromhex(data)) == found


@pytest.mark.parametrize(
    ("start", "header", "data"),
    [
        ([], "00A40000", "9999"),
        ([], "00A40000", "1001"),
        ([0x1000], "00A40000", "0001"),
        ([0x1000], "00A40000", "2001"),
        ([], "00A40100", "0001"),
        ([], "00A40100", "3F00"),
        ([], "00A40200", "1000"),
        ([], "00A40200", "0009"),
        ([], "00A40300", ""),
        ([], "00A40800", "3F001000"),
        ([], "00A40800", "10009999"),
        ([], "00A40800", "00010002"),
        ([], "00A40900", "1100"),
        ([], "00A40400", "F0FF"),
        ([], "00A40400", "F0617070206F6E6521"),
    ],
)
def test_no_such_file(small: FileSystemCard, start: list[int], header: str, data: str) -> None:
    select(small, *start)

    assert sw(small, header, bytes.fromhex(data), ALL) == 0x6A82


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        ("00A40500", "1000", 0x6A86),
        ("00A40010", "1000", 0x6A86),
        ("00A40002", "1000", 0x6A86),
        ("00A40801", "1000", 0x6A86),
        ("00A40000", "10", 0x6A87),
        ("00A40000", "100011", 0x6A87),
        ("00A40000", "10001100", 0x6A87),
        ("00A40100", "", 0x6A87),
        ("00A40200", "", 0x6A87),
        ("00A40300", "1000", 0x6A87),
        ("00A40400", "", 0x6A87),
        ("00A40400", "F0" * 17, 0x6A87),
        ("00A40800", "", 0x6A87),
        ("00A40800", "100011", 0x6A87),
    ],
)
def test_select_that_makes_no_sense(
    small: FileSystemCard, header: str, data: str, expected: int
) -> None:
    assert sw(small, header, bytes.fromhex(data), ALL) == expected


def test_select_by_partial_name_and_occurrence(small: FileSystemCard) -> None:
    def find(occurrence: int) -> int:
        answer = send(small, f"00A4040{4 | occurrence:X}", b"\xf0app", ALL)
        if answer.sw != 0x9000:
            return answer.sw
        [(_, value)] = tlv.decode(answer.data)
        return int.from_bytes(dict(tlv.decode(value))[0x83], "big")

    first, last, following, previous = range(4)
    assert find(first) == 0x1000
    assert find(last) == 0x2000
    assert find(previous) == 0x1100
    assert find(previous) == 0x1000
    assert find(previous) == 0x6A82
    assert find(following) == 0x1100
    assert find(following) == 0x2000
    assert find(following) == 0x6A82
    ok(small, "00A4000C")
    assert find(following) == 0x1000


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"\xf0app three", 0x2000),
        (b"\xf0app t", 0x1100),
        (b"\xf0", 0x1000),
        (b"16 bytes of name", 0x3000),
    ],
)
def test_select_by_name(small: FileSystemCard, name: bytes, found: int) -> None:
    assert selected(small, "00A40404", name) == found


def test_other_names_are_passed_over(small: FileSystemCard) -> None:
    select(small, 0x2000)
    assert selected(small, "00A40407", b"\xf0app o") == 0x1000
    assert selected(small, "00A40406", b"\xf0app th") == 0x2000


def test_a_df_has_no_current_ef_until_one_is_selected(small: FileSystemCard) -> None:
    select(small, 0x0001)
    ok(small, "00B00000", ne=1)
    select(small, 0x1000)

    assert sw(small, "00B00000", ne=1) == 0x6986


def test_a_failed_select_leaves_what_is_selected(small: FileSystemCard) -> None:
    select(small, 0x0001)
    assert sw(small, "00A4000C", b"\x99\x99") == 0x6A82

    assert ok(small, "00B00001", ne=1) == b"\x01"


# Control information --------------------------------------------------------------------------


def test_control_parameters_of_an_application(small: FileSystemCard) -> None:
    assert fcp(small, "00A40404", b"\xf0app one") == {
        0x82: b"\x38",
        0x83: b"\x10\x00",
        0x84: b"\xf0app one",
        0x8A: b"\x05",
    }


def test_control_parameters_of_the_mf_have_no_name(small: FileSystemCard) -> None:
    assert fcp(small, "00A40004") == {0x82: b"\x38", 0x83: b"\x3f\x00", 0x8A: b"\x05"}


@pytest.mark.parametrize(
    ("path", "size", "descriptor", "sfi", "security"),
    [
        ("0001", 100, "01", "08", "030000"),
        ("0002", 9, "0221000303", "10", "07000000"),
        ("0003", 3, "0421000502", "18", "07000000"),
        ("0004", 9, "0621000303", "20", "07000000"),
        ("0006", 40000, "01", "30", "030000"),
        ("0007", 0, "0221000300", "38", "07101000"),
        ("10001001", 5, "01", "08", "03FF10"),
        ("10001003", 6, "01", "18", "03FFFF"),
        ("10001004", 6, "01", "", "030000"),
    ],
)
def test_control_parameters_of_an_ef(
    small: FileSystemCard, path: str, size: int, descriptor: str, sfi: str, security: str
) -> None:
    assert fcp(small, "00A40804", bytes.fromhex(path)) == {
        0x80: size.to_bytes(2, "big"),
        0x82: bytes.fromhex(descriptor),
        0x83: bytes.fromhex(path[-4:]),
        0x88: bytes.fromhex(sfi),
        0x8A: b"\x05",
        0x8C: bytes.fromhex(security),
    }


def test_the_form_of_control_information(small: FileSystemCard) -> None:
    name = b"\xf0app one"
    parameters = ok(small, "00A40404", name, ALL)[2:]
    label = b"\x50\x03One"

    assert ok(small, "00A40408", name, ALL) == b"\x64" + bytes((len(label),)) + label
    both = parameters + label
    assert ok(small, "00A40400", name, ALL) == b"\x6f" + bytes((len(both),)) + both
    assert ok(small, "00A4040C", name, ALL) == b""
    assert ok(small, "00A40408", b"\xf0app three", ALL) == b"\x64\x00"
    assert ok(small, "00A40808", b"\x00\x01", ALL) == b"\x64\x00"


@pytest.mark.parametrize("p2", ["00", "04", "08", "0C"])
def test_without_le_select_returns_nothing(small: FileSystemCard, p2: str) -> None:
    assert ok(small, "00A404" + p2, b"\xf0app one") == b""


# READ BINARY and UPDATE BINARY ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ne", "extended", "data", "expected"),
    [
        ("00B00000", 5, False, bytes(range(5)), 0x9000),
        ("00B0000A", 90, False, bytes(range(10, 100)), 0x9000),
        ("00B00060", 4, False, bytes(range(96, 100)), 0x9000),
        ("00B00060", 5, False, bytes(range(96, 100)), 0x6282),
        ("00B00000", 256, False, bytes(range(100)), 0x9000),
        ("00B00000", 65536, True, bytes(range(100)), 0x9000),
        ("00B00000", 256, True, bytes(range(100)), 0x6282),
        ("00B08103", 2, False, b"\x03\x04", 0x9000),
        ("00B00064", 1, False, b"", 0x6B00),
        ("00B07FFF", 1, False, b"", 0x6B00),
        ("00B081FF", 1, False, b"", 0x6B00),
        ("00B0A100", 1, False, b"", 0x6A86),
        ("00B0C100", 1, False, b"", 0x6A86),
        ("00B09F00", 1, False, b"", 0x6A86),
        ("00B08F00", 1, False, b"", 0x6A82),
        ("00B08200", 1, False, b"", 0x6981),
        ("00B08500", 1, False, b"", 0x6B00),
    ],
)
def test_read_binary(
    small: FileSystemCard, header: str, ne: int, extended: bool, data: bytes, expected: int
) -> None:
    select(small, 0x0001)
    answer = send(small, header, ne=ne, extended=extended)

    assert (answer.data, answer.sw) == (data, expected)


@pytest.mark.parametrize(
    ("header", "data", "ne"), [("00B00000", b"", 0), ("00B00000", b"x", 4), ("00D60000", b"", 0)]
)
def test_binary_commands_with_wrong_fields(
    small: FileSystemCard, header: str, data: bytes, ne: int
) -> None:
    select(small, 0x0001)

    assert sw(small, header, data, ne) == 0x6700


@pytest.mark.parametrize("header", ["00B00000", "00B08000", "00B20004", "00B20000"])
def test_reading_without_a_current_ef(small: FileSystemCard, header: str) -> None:
    assert sw(small, header, ne=1) == 0x6986


def test_a_short_identifier_selects_the_ef(small: FileSystemCard) -> None:
    ok(small, "00B08100", ne=1)

    assert ok(small, "00B00002", ne=1) == b"\x02"


def test_updating_selects_the_ef_too(small: FileSystemCard) -> None:
    ok(small, "00D68100", b"x")

    assert ok(small, "00B00000", ne=2) == b"x\x01"


def test_a_refused_command_selects_no_ef(small: FileSystemCard) -> None:
    select(small, 0x0001)
    assert sw(small, "00B08200", ne=1) == 0x6981
    assert sw(small, "00B08500", ne=1) == 0x6B00

    assert ok(small, "00B00001", ne=1) == b"\x01"


@pytest.mark.parametrize(
    ("header", "length", "expected"),
    [
        ("00D60000", 3, 0x00),
        ("00D60061", 3, 0x61),
        ("00D68110", 3, 0x10),
        ("00D60062", 3, "6A84"),
        ("00D60064", 1, "6B00"),
        ("00D68200", 3, "6981"),
        ("00D68F00", 3, "6A82"),
        ("00D6A100", 3, "6A86"),
    ],
)
def test_update_binary(
    small: FileSystemCard, header: str, length: int, expected: int | str
) -> None:
    select(small, 0x0001)
    answer = send(small, header, b"\xee" * length)
    content = bytearray(range(100))
    if isinstance(expected, int):
        content[expected : expected + length] = b"\xee" * length

    assert f"{answer.sw:04X}" == ("9000" if isinstance(expected, int) else expected)
    assert ok(small, "00B08100", ne=ALL) == content


@given(offset=st.integers(0, 99), data=st.binary(min_size=1, max_size=120), odd=st.booleans())
def test_what_update_binary_writes_read_binary_reads(offset: int, data: bytes, odd: bool) -> None:
    card = small_card()
    before = ok(card, "00B08100", ne=ALL)
    at = tlv.encode(0x54, bytes((offset,)))
    if odd:
        answer = send(card, "00D70001", at + tlv.encode(0x53, data))
    else:
        answer = send(card, f"00D681{offset:02X}", data)
    after = ok(card, "00B08100", ne=ALL)

    if offset + len(data) > 100:
        assert (answer.sw, after) == (0x6A84, before)
        return
    assert answer.sw == 0x9000
    assert after == before[:offset] + data + before[offset + len(data) :]
    assert send(card, f"00B081{offset:02X}", ne=len(data)).data == data
    assert ok(card, "00B10001", at, ALL) == tlv.encode(0x53, after[offset:])


@pytest.mark.parametrize("p1_p2", ["0000", "0001", "3F00"])
def test_odd_instruction_refers_to_the_ef(small: FileSystemCard, p1_p2: str) -> None:
    select(small, 0x0001)
    expected = 0x6A82 if p1_p2 == "3F00" else 0x9000

    assert sw(small, "00B1" + p1_p2, bytes.fromhex("540110"), 3) == expected


def test_odd_instruction_with_a_file_identifier(small: FileSystemCard) -> None:
    select(small, 0x1000)

    assert ok(small, "00B11004", bytes.fromhex("540103"), ALL) == b"\x53\x03sfi"
    assert sw(small, "00B11100", bytes.fromhex("540103"), ALL) == 0x6A82
    assert sw(small, "00B1001F", bytes.fromhex("540103"), ALL) == 0x6A86


def test_odd_update_with_a_file_identifier(small: FileSystemCard) -> None:
    select(small, 0x1000)
    ok(small, "00D71004", bytes.fromhex("540100 53024E4F"))

    assert ok(small, "00B00000", ne=ALL) == b"NO sfi"


def test_offsets_beyond_what_p1_p2_can_say(small: FileSystemCard) -> None:
    ok(small, "00D70006", bytes.fromhex("54029C3E 5302AABB"))

    assert ok(small, "00B10006", bytes.fromhex("5403009C3E"), ALL) == bytes.fromhex("5302AABB")
    assert sw(small, "00B10006", bytes.fromhex("54029C40"), ALL) == 0x6B00
    assert sw(small, "00D70006", bytes.fromhex("54029C40 5301AA")) == 0x6B00


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "5300"),
        (0x7F, "537F"),
        (0x80, "538180"),
        (0xFF, "5381FF"),
        (0x100, "53820100"),
        (0xFFFF, "5382FFFF"),
        (0x10000, "5383010000"),
    ],
)
def test_length_fields_are_as_short_as_can_be(length: int, header: str) -> None:
    coded = bytes.fromhex(header) + bytes(length)

    assert tlv.encode(0x53, bytes(length)) == coded
    assert tlv.decode(coded) == [(0x53, bytes(length))]


def test_an_indefinite_length_is_refused() -> None:
    with pytest.raises(ValueError, match="reserved"):
        tlv.decode(b"\x53\x80" + bytes(0x80))


@given(ne=st.integers(3, 40003))
@example(ne=129)
@example(ne=130)
@example(ne=131)
@example(ne=258)
@example(ne=259)
@example(ne=260)
def test_odd_read_fills_ne_as_far_as_length_fields_allow(ne: int) -> None:
    card = small_card()
    answer = send(card, "00B10006", b"\x54\x01\x00", ne, extended=True)
    [(tag, value)] = tlv.decode(answer.data)

    assert (tag, answer.sw) == (0x53, 0x9000)
    assert len(answer.data) <= ne < len(tlv.encode(0x53, value + b"\xff"))


@given(
    st.lists(
        st.tuples(st.sampled_from((0x53, 0x5F52, 0x7F66, 0x9F8101)), st.binary(max_size=300)),
        max_size=4,
    )
)
def test_data_objects_come_apart_as_they_were_put_together(
    objects: list[tuple[int, bytes]],
) -> None:
    assert tlv.decode(b"".join(tlv.encode(tag, value) for tag, value in objects)) == objects


def test_odd_read_of_more_than_there_is(small: FileSystemCard) -> None:
    answer = send(small, "00B10001", bytes.fromhex("540162"), 5)

    assert (answer.data, answer.sw) == (b"\x53\x02bc", 0x6282)
    answer = send(small, "00B10001", bytes.fromhex("540162"), 4)
    assert (answer.data, answer.sw) == (b"\x53\x02bc", 0x9000)


@pytest.mark.parametrize(
    ("header", "data", "ne", "expected"),
    [
        ("00B10001", "", ALL, 0x6A80),
        ("00B10001", "54", ALL, 0x6A80),
        ("00B10001", "540200", ALL, 0x6A80),
        ("00B10001", "5480", ALL, 0x6A80),
        ("00B10001", "548500", ALL, 0x6A80),
        ("00B10001", "530100", ALL, 0x6A80),
        ("00B10001", "540100540100", ALL, 0x6A80),
        ("00B10001", "7F", ALL, 0x6A80),
        ("00B10001", "540100", 0, 0x6700),
        ("00B10001", "540100", 2, 0x6700),
        ("00B10002", "540100", ALL, 0x6981),
        ("00B1000F", "540100", ALL, 0x6A82),
        ("00B10020", "540100", ALL, 0x6A82),
        ("00D70001", "", 0, 0x6700),
        ("00D70001", "540100", 0, 0x6A80),
        ("00D70001", "5301AA540100", 0, 0x6A80),
        ("00D70001", "5401005300", 0, 0x6A80),
        ("00D70001", "5401635302AABB", 0, 0x6A84),
        ("00D70002", "5401005301AA", 0, 0x6981),
    ],
)
def test_odd_instructions_refused(
    small: FileSystemCard, header: str, data: str, ne: int, expected: int
) -> None:
    assert sw(small, header, bytes.fromhex(data), ne) == expected


# Records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ne", "data", "expected"),
    [
        ("00B20114", ALL, b"one", 0x9000),
        ("00B20314", 3, b"six", 0x9000),
        ("00B20314", 4, b"six", 0x6282),
        ("00B20314", 2, b"si", 0x9000),
        ("00B20115", ALL, b"onetwosix", 0x9000),
        ("00B20215", ALL, b"twosix", 0x9000),
        ("00B20216", ALL, b"sixtwo", 0x9000),
        ("00B20414", ALL, b"", 0x6A83),
        ("00B2FE14", ALL, b"", 0x6A83),
        ("00B20014", ALL, b"", 0x6A83),
        ("00B20015", ALL, b"", 0x6A83),
        ("00B2FF14", ALL, b"", 0x6A86),
        ("00B20117", ALL, b"", 0x6A86),
        ("00B201FC", ALL, b"", 0x6A86),
        ("00B20110", ALL, b"", 0x6A81),
        ("00B20112", ALL, b"", 0x6A81),
        ("00B2010C", ALL, b"", 0x6981),
        ("00B20154", ALL, b"", 0x6A82),
        ("00B20114", 0, b"", 0x6700),
        ("00B20010", ALL, b"one", 0x9000),
        ("00B20011", ALL, b"six", 0x9000),
        ("00B20012", ALL, b"one", 0x9000),
        ("00B20013", ALL, b"six", 0x9000),
        ("00B20038", ALL, b"", 0x6A83),
        ("00B20039", ALL, b"", 0x6A83),
    ],
)
def test_read_record_with_short_identifier(
    small: FileSystemCard, header: str, ne: int, data: bytes, expected: int
) -> None:
    answer = send(small, header, ne=ne)

    assert (answer.data, answer.sw) == (data, expected)


def test_read_record_takes_no_data(small: FileSystemCard) -> None:
    assert sw(small, "00B20114", b"x", ALL) == 0x6700


def test_the_record_pointer(small: FileSystemCard) -> None:
    def read(p1_p2: str) -> bytes | int:
        answer = send(small, "00B2" + p1_p2, ne=ALL)
        return answer.data if answer.sw == 0x9000 else answer.sw

    select(small, 0x0002)
    current, first, last, following, previous = "0004", "0000", "0001", "0002", "0003"
    assert read(current) == 0x6A83
    assert read(following) == b"one"
    assert read(following) == b"two"
    assert read(current) == b"two"
    assert read("0304") == b"six"
    assert read(current) == b"two", "a record number does not move it"
    assert read("0005") == b"twosix"
    assert read(following) == b"six"
    assert read(following) == 0x6A83
    assert read(current) == b"six"
    assert read(previous) == b"two"
    assert read(first) == b"one"
    assert read(previous) == 0x6A83
    assert read(last) == b"six"
    assert read("0112") == 0x6A81
    assert read("0012") == b"one", "a short EF identifier resets it"
    assert read("0114") == b"one"
    assert read(current) == 0x6A83
    assert read(previous) == b"six"


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        ("00DC0214", b"TWO", [b"one", b"TWO", b"six"]),
        ("00DC0010", b"ONE", [b"ONE", b"two", b"six"]),
        ("00DC0011", b"SIX", [b"one", b"two", b"SIX"]),
        ("00DC0012", b"ONE", [b"ONE", b"two", b"six"]),
        ("00DC0013", b"SIX", [b"one", b"two", b"SIX"]),
        ("00DC0119", b"", 0x6700),
        ("00DC0214", b"TWOO", 0x6700),
        ("00DC0214", b"TW", 0x6700),
        ("00DC0414", b"TWO", 0x6A83),
        ("00DC0014", b"TWO", 0x6A83),
        ("00DC0215", b"TWO", 0x6A86),
        ("00DCFF14", b"TWO", 0x6A86),
        ("00DC0210", b"TWO", 0x6A81),
        ("00DC020C", b"TWO", 0x6981),
        ("00DC0154", b"TWO", 0x6A82),
    ],
)
def test_update_record(
    small: FileSystemCard, header: str, data: bytes, expected: list[bytes] | int
) -> None:
    answer = send(small, header, data)
    records = [ok(small, f"00B2{n:02X}14", ne=ALL) for n in (1, 2, 3)]

    if isinstance(expected, int):
        assert (answer.sw, records) == (expected, LINEAR)
    else:
        assert (answer.sw, records) == (0x9000, expected)


def test_update_record_moves_the_pointer(small: FileSystemCard) -> None:
    select(small, 0x0002)
    ok(small, "00DC0002", b"ONE")
    ok(small, "00DC0002", b"TWO")
    ok(small, "00DC0004", b"two")

    assert ok(small, "00B20004", ne=ALL) == b"two"


def test_records_of_variable_size(small: FileSystemCard) -> None:
    ok(small, "00DC011C", b"alpha")
    assert ok(small, "00B2011D", ne=ALL) == b"alphabc"
    assert sw(small, "00DC011C", b"too long") == 0x6700
    ok(small, "00E20018", b"new")

    assert ok(small, "00B2031C", ne=ALL) == b"new"
    assert sw(small, "00E20018", b"full") == 0x6A84


def test_append_record_to_a_linear_ef(small: FileSystemCard) -> None:
    select(small, 0x0002)
    ok(small, "00E20000", b"ten")

    assert ok(small, "00B20404", ne=ALL) == b"ten"
    assert ok(small, "00B20004", ne=ALL) == b"ten", "it is current"
    assert sw(small, "00E20000", b"nil") == 0x6A84


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        ("00E20010", b"", 0x6700),
        ("00E20010", b"four", 0x6700),
        ("00E20110", b"new", 0x6A86),
        ("00E20014", b"new", 0x6A86),
        ("00E20008", b"new", 0x6981),
        ("00E20050", b"new", 0x6A82),
        ("00E20000", b"new", 0x6986),
        ("00E20038", b"new", 0x6982),
        ("00E20038", b"", 0x6700),
    ],
)
def test_append_record_refused(
    small: FileSystemCard, header: str, data: bytes, expected: int
) -> None:
    assert sw(small, header, data) == expected


def test_a_cyclic_ef_forgets_the_oldest(small: FileSystemCard) -> None:
    ok(small, "00E20020", b"new")
    assert ok(small, "00B20125", ne=ALL) == b"newonetwo"
    select(small, 0x0004)
    ok(small, "00E20000", b"now")
    assert ok(small, "00B20004", ne=ALL) == b"now", "it is current"

    ok(small, "00DC0023", b"day")
    assert ok(small, "00B20125", ne=ALL) == b"daynownew"
    assert ok(small, "00B20020", ne=ALL) == b"day", "the first is the newest"
    assert ok(small, "00B20002", ne=ALL) == b"now"


def test_a_record_of_a_cyclic_ef_can_be_updated_in_place(small: FileSystemCard) -> None:
    ok(small, "00DC0224", b"TWO")

    assert ok(small, "00B20125", ne=ALL) == b"oneTWOsix"


# Access conditions ----------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["00B08300", "00B10003", "00B08100", "00B08200"])
def test_reading_what_is_not_allowed(small: FileSystemCard, header: str) -> None:
    select(small, 0x1000)

    assert sw(small, header, bytes.fromhex("540100") if header[3] == "1" else b"", 3) == 0x6982


@pytest.mark.parametrize("header", ["00D68300", "00D68100"])
def test_updating_what_is_not_allowed(small: FileSystemCard, header: str) -> None:
    select(small, 0x1000)
    ok(small, "00200081", RIGHT)

    assert sw(small, header, b"x") == 0x6982


def test_each_ef_wants_its_own_password(small: FileSystemCard) -> None:
    select(small, 0x1000)
    ok(small, "00200081", RIGHT)
    assert ok(small, "00B08100", ne=ALL) == b"outer"
    assert sw(small, "00B08200", ne=ALL) == 0x6982
    ok(small, "00200002", b"other")
    assert sw(small, "00B08200", ne=ALL) == 0x6982
    ok(small, "00200001", b"globe")
    assert ok(small, "00B08200", ne=ALL) == b"global"


@pytest.mark.parametrize(
    ("header", "right", "counter", "read"),
    [("00200081", RIGHT, 0x63C2, "00B08100"), ("00200001", b"globe", 0x63C1, "00B08200")],
)
def test_a_failed_verify_ends_the_access(
    small: FileSystemCard, header: str, right: bytes, counter: int, read: str
) -> None:
    select(small, 0x1000)
    ok(small, header, right)
    ok(small, read, ne=ALL)
    assert sw(small, header, WRONG) == counter

    assert sw(small, read, ne=ALL) == 0x6982


def test_a_reset_ends_the_access(small: FileSystemCard) -> None:
    ok(small, "00200001", b"globe")
    small.reset()
    select(small, 0x1000)

    assert sw(small, "00B08200", ne=ALL) == 0x6982


@pytest.mark.parametrize("then", [["00A4000C"], ["00A4000C", "00A4010C"], ["00A4040C"]])
def test_specific_passwords_count_in_their_df_only(small: FileSystemCard, then: list[str]) -> None:
    data = {"00A4000C": b"", "00A4010C": b"\x10\x00", "00A4040C": b"\xf0app one"}
    ok(small, "00200001", b"globe")
    select(small, 0x1000)
    ok(small, "00200081", RIGHT)
    for header in then:
        ok(small, header, data[header])
    select(small, 0x1000)

    assert sw(small, "00B08100", ne=ALL) == 0x6982
    assert ok(small, "00B08200", ne=ALL) == b"global", "a global one counts everywhere"


def test_specific_passwords_count_below_their_df(small: FileSystemCard) -> None:
    select(small, 0x1000)
    ok(small, "00200081", RIGHT)
    select(small, 0x1000, 0x1001)
    select(small, 0x1000, 0x1100)

    assert ok(small, "00B08100", ne=ALL) == b"inner"
    ok(small, "00A4030C")
    assert ok(small, "00B08100", ne=ALL) == b"outer"


def test_updating_records_after_a_password(small: FileSystemCard) -> None:
    assert sw(small, "00E20038", b"abc") == 0x6982
    ok(small, "00200001", b"globe")
    ok(small, "00E20038", b"abc")

    assert ok(small, "00B2013C", ne=ALL) == b"abc"


# VERIFY ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("presented", [b"1234", b"1234\xff\xff\xff\xff"])
def test_verify(demo: FileSystemCard, presented: bytes) -> None:
    ok(demo, "00200081", presented)

    ok(demo, "00B08400", ne=ALL)


@pytest.mark.parametrize("presented", [b"1", b"12345", b"1234\xff", b"\xff" * 8, b"1234\0\0\0\0"])
def test_verify_with_another_password(demo: FileSystemCard, presented: bytes) -> None:
    assert sw(demo, "00200081", presented) == 0x63C2


def test_verify_without_data_asks_and_costs_nothing(demo: FileSystemCard) -> None:
    assert [sw(demo, "00200081") for _ in range(4)] == [0x63C3] * 4
    sw(demo, "00200081", WRONG)
    assert sw(demo, "00200081") == 0x63C2
    ok(demo, "00200081", RIGHT)
    assert sw(demo, "00200081") == 0x9000


def test_the_retry_counter_down_to_blocked(demo: FileSystemCard) -> None:
    assert [sw(demo, "00200081", WRONG) for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]

    assert sw(demo, "00200081", RIGHT) == 0x6983
    assert sw(demo, "00200081") == 0x6983
    assert sw(demo, "00240081", RIGHT + b"4321") == 0x6983
    assert sw(demo, "00B08400", ne=ALL) == 0x6982
    demo.reset()
    ok(demo, "00A4040C", DEMO_AID)
    assert sw(demo, "00200081", RIGHT) == 0x6983


def test_the_right_password_restores_the_counter(demo: FileSystemCard) -> None:
    for _ in range(3):
        assert sw(demo, "00200081", WRONG) == 0x63C2
        assert sw(demo, "00200081", WRONG) == 0x63C1
        ok(demo, "00200081", RIGHT)


def test_a_password_has_its_own_counter(small: FileSystemCard) -> None:
    assert sw(small, "00200001", WRONG) == 0x63C1
    assert sw(small, "00200001", WRONG) == 0x63C0

    assert sw(small, "00200001") == 0x6983
    assert sw(small, "00200002") == 0x63C3


def test_verify_can_be_taken_back(demo: FileSystemCard) -> None:
    ok(demo, "00200081", RIGHT)
    ok(demo, "0020FF81")

    assert sw(demo, "00B08400", ne=ALL) == 0x6982
    assert sw(demo, "00200081") == 0x63C3


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        ("00200181", RIGHT, 0x6A86),
        ("002000C1", RIGHT, 0x6A86),
        ("002000A1", RIGHT, 0x6A86),
        ("0020FF81", RIGHT, 0x6A87),
        ("00200082", RIGHT, 0x6A88),
        ("00200001", RIGHT, 0x6A88),
        ("00200000", RIGHT, 0x6A88),
        ("00200081", b"123456789", 0x6700),
        ("00210081", RIGHT, 0x6D00),
        ("00240281", RIGHT + RIGHT, 0x6A86),
        ("00240082", RIGHT + RIGHT, 0x6A88),
        ("00240081", b"", 0x6700),
        ("00240081", RIGHT, 0x6700),
        ("00240081", RIGHT + b"123456789", 0x6700),
        ("00240081", RIGHT + b"123", 0x6A80),
        ("00240081", RIGHT.ljust(8, b"\xff") + b"\xff" * 8, 0x6A80),
        ("002C0281", RIGHT, 0x6A86),
        ("002C0381", b"", 0x6A86),
        ("002C0082", CODE + RIGHT, 0x6A88),
        ("002C0081", CODE, 0x6700),
        ("002C0081", CODE + b"12", 0x6A80),
        ("002C0181", b"", 0x6700),
        ("002C0181", CODE + b"9", 0x6700),
    ],
)
def test_password_commands_that_cost_no_try(
    demo: FileSystemCard, header: str, data: bytes, expected: int
) -> None:
    assert sw(demo, header, data) == expected
    assert sw(demo, "00200081") == 0x63C3


def test_specific_passwords_are_known_in_their_df_only(card: FileSystemCard) -> None:
    assert sw(card, "00200081", RIGHT) == 0x6A88


# CHANGE REFERENCE DATA ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        RIGHT + b"567890",
        b"1234\xff\xff\xff\xff567890\xff\xff",
    ],
)
def test_change_password_with_the_old_one(demo: FileSystemCard, data: bytes) -> None:
    ok(demo, "00240081", data)
    ok(demo, "00B08400", ne=ALL)
    ok(demo, "0020FF81")

    assert sw(demo, "00200081", RIGHT) == 0x63C2
    ok(demo, "00200081", b"567890")
    ok(demo, "00240081", b"567890" + RIGHT)
    ok(demo, "00200081", RIGHT)


def test_a_password_as_long_as_can_be(demo: FileSystemCard) -> None:
    ok(demo, "00240081", RIGHT + b"12345678")
    ok(demo, "0020FF81")
    ok(demo, "00200081", b"12345678")
    ok(demo, "00240081", b"12345678" + b"87654321")

    ok(demo, "00200081", b"87654321")


def test_change_password_with_a_wrong_old_one(demo: FileSystemCard) -> None:
    ok(demo, "00200081", RIGHT)
    assert [sw(demo, "00240081", WRONG + b"5678") for _ in range(4)] == [
        0x63C2,
        0x63C1,
        0x63C0,
        0x6983,
    ]
    assert sw(demo, "00B08400", ne=ALL) == 0x6982


def test_change_password_after_verify(demo: FileSystemCard) -> None:
    assert sw(demo, "00240181", b"5678") == 0x6982
    ok(demo, "00200081", RIGHT)
    assert sw(demo, "00240181", b"") == 0x6700
    assert sw(demo, "00240181", b"567") == 0x6A80
    ok(demo, "00240181", b"5678")
    ok(demo, "0020FF81")

    assert sw(demo, "00200081", RIGHT) == 0x63C2
    ok(demo, "00200081", b"5678")


# RESET RETRY COUNTER --------------------------------------------------------------------------


def block(card: FileSystemCard) -> None:
    while sw(card, "00200081", WRONG) != 0x6983:
        pass


def test_unblock_with_a_new_password(demo: FileSystemCard) -> None:
    block(demo)
    ok(demo, "002C0081", CODE + b"5678")

    assert sw(demo, "00200081") == 0x63C3, "it is not verified by that"
    assert sw(demo, "00200081", RIGHT) == 0x63C2
    ok(demo, "00200081", b"5678")


def test_unblock_and_keep_the_password(demo: FileSystemCard) -> None:
    block(demo)
    ok(demo, "002C0181", CODE)

    ok(demo, "00200081", RIGHT)


def test_unblocking_ends_the_access(demo: FileSystemCard) -> None:
    ok(demo, "00200081", RIGHT)
    ok(demo, "002C0181", CODE)

    assert sw(demo, "00B08400", ne=ALL) == 0x6982


@pytest.mark.parametrize(("p1", "new"), [("00", RIGHT), ("01", b"")])
def test_the_resetting_code_has_a_retry_counter(demo: FileSystemCard, p1: str, new: bytes) -> None:
    block(demo)
    header = f"002C{p1}81"
    tries = [sw(demo, header, b"00000000" + new) for _ in range(11)]

    assert tries == [*(0x63C0 | left for left in range(9, -1, -1)), 0x6983]
    assert sw(demo, header, CODE + new) == 0x6983
    assert sw(demo, "00200081", RIGHT) == 0x6983


def test_a_password_without_resetting_code_stays_blocked(small: FileSystemCard) -> None:
    select(small, 0x1000)
    block(small)

    assert sw(small, "002C0081", CODE + RIGHT) == 0x6985
    assert sw(small, "002C0181", CODE) == 0x6985


def test_a_password_without_value_is_not_usable_until_it_has_one(small: FileSystemCard) -> None:
    select(small, 0x1000)
    for header, data in (
        ("00200082", b""),
        ("00200082", RIGHT),
        ("00240082", RIGHT + RIGHT),
        ("00240182", RIGHT),
    ):
        assert sw(small, header, data) == 0x6984
    ok(small, "002C0082", b"0000" + RIGHT)

    ok(small, "00200082", RIGHT)


# GET CHALLENGE and GET DATA -------------------------------------------------------------------


def test_challenges_are_as_long_as_asked_and_not_the_same(card: FileSystemCard) -> None:
    challenges = [ok(card, "00840000", ne=8) for _ in range(3)]

    assert {len(c) for c in challenges} == {8}
    assert len(set(challenges)) == 3
    assert len(ok(card, "00840000", ne=ALL)) == 256
    assert len(send(card, "00840000", ne=4000, extended=True).data) == 4000


def test_challenges_come_from_the_given_generator() -> None:
    card = FileSystemCard(rng=random.Random(7))

    assert ok(card, "00840000", ne=16) == random.Random(7).randbytes(16)


@pytest.mark.parametrize(
    ("header", "data", "ne", "expected"),
    [
        ("00840100", b"", 8, 0x6A86),
        ("00840001", b"", 8, 0x6A86),
        ("00840000", b"", 0, 0x6700),
        ("00840000", b"x", 8, 0x6700),
        ("00CA5F52", b"", 0, 0x6700),
        ("00CA5F52", b"x", 8, 0x6700),
        ("00CA1234", b"", 8, 0x6A88),
        ("00CA0045", b"", 8, 0x6A88),
        ("00CA004F", b"", 8, 0x6A88),
    ],
)
def test_get_challenge_and_get_data_refused(
    card: FileSystemCard, header: str, data: bytes, ne: int, expected: int
) -> None:
    assert sw(card, header, data, ne) == expected


def test_get_data_about_the_card(card: FileSystemCard) -> None:
    assert ok(card, "00CA5F51", ne=ALL) == card.atr
    assert ok(card, "00CA5F52", ne=ALL) == Atr.parse(card.atr).historical
    assert ok(card, "00CA0043", ne=ALL) == bytes.fromhex("F0")
    assert ok(card, "00CA0047", ne=ALL) == bytes.fromhex("F621E0")
    assert ok(card, "00CA0048", ne=ALL) == bytes.fromhex("059000")
    assert ok(card, "00CA0101", ne=ALL) == b"ccid virtual card"


def test_get_data_of_the_current_df(small: FileSystemCard) -> None:
    assert ok(small, "00CA0101", ne=ALL) == b"of the MF"
    select(small, 0x1000, 0x1100)

    assert ok(small, "00CA0101", ne=ALL) == b"of the DF"
    assert ok(small, "00CA0102", ne=ALL) == b"everywhere"
    assert ok(small, "00CA004F", ne=ALL) == b"\xf0app two"


@pytest.mark.parametrize("atr", ["3B", "3B 02 00 31", "3B 02 80 3F", "3B 00"])
def test_data_objects_of_odd_atrs(atr: str) -> None:
    card = FileSystemCard(bytes.fromhex(atr))

    assert sw(card, "00CA0043", ne=ALL) == 0x6A88


# The length of a response ---------------------------------------------------------------------


@pytest.mark.parametrize("header", ["00CA5F51", "00B20115", "00A40000"])
def test_no_more_data_than_ne(small: FileSystemCard, header: str) -> None:
    whole = ok(small, header, ne=ALL)

    assert ok(small, header, ne=5) == whole[:5]


# T=0 ------------------------------------------------------------------------------------------


def test_select_and_get_response_in_t0(card: FileSystemCard) -> None:
    face = T0Face(card)
    waiting = face.transmit(bytes.fromhex("00A40404 0A") + DEMO_AID).sw
    assert waiting >> 8 == 0x61
    answer = face.transmit(bytes((0x00, 0xC0, 0, 0, waiting & 0xFF)))

    assert answer.sw == 0x9000
    assert DEMO_AID in answer.data


def test_wrong_le_in_t0(card: FileSystemCard) -> None:
    face = T0Face(card)
    length = len(Atr.parse(card.atr).historical)
    wrong = face.transmit(bytes.fromhex("00CA5F5200"))
    assert (wrong.data, wrong.sw) == (b"", 0x6C00 | length)

    assert face.transmit(bytes((0x00, 0xCA, 0x5F, 0x52, length))).data == (
        Atr.parse(card.atr).historical
    )


def test_chaining_verify_and_update_in_t0(card: FileSystemCard) -> None:
    face = T0Face(card)
    face.transmit(bytes.fromhex("00A4040C 0A") + DEMO_AID)

    assert face.transmit(bytes.fromhex("00200081")).sw == 0x63C3
    assert face.transmit(bytes.fromhex("10200081 02") + b"12").sw == 0x9000
    assert face.transmit(bytes.fromhex("00200081 02") + b"34").sw == 0x9000
    assert face.transmit(bytes.fromhex("00D68400 03") + b"new").sw == 0x9000
    assert face.transmit(bytes.fromhex("00B0840003")).apdu == b"new\x90\x00"
    assert face.transmit(bytes.fromhex("00C0000003")).sw == 0x6985


# Random commands ------------------------------------------------------------------------------

HEADERS = st.builds(
    lambda cla, ins, p1, p2: bytes((cla, ins, p1, p2)),
    st.sampled_from((0x00, 0x00, 0x10, 0x80)),
    st.sampled_from(bytes.fromhex("20242C7084A4B0B1B2C0CAD6D7DCE2FE")),
    st.sampled_from(bytes.fromhex("0001020304080981828384FF")) | st.integers(0, 255),
    st.sampled_from(bytes.fromhex("00010204050C0F0C141C8182")) | st.integers(0, 255),
)
BODIES = (
    st.just(b"")
    | st.binary(max_size=30)
    | st.builds(lambda data: bytes((len(data),)) + data, st.binary(min_size=1, max_size=20))
    | st.builds(lambda data: bytes((len(data),)) + data + b"\0", st.binary(min_size=1, max_size=20))
)


@given(apdus=st.lists(st.builds(bytes.__add__, HEADERS, BODIES) | st.binary(max_size=20)))
def test_it_always_answers(apdus: list[bytes]) -> None:
    card = small_card()
    face = T0Face(small_card())
    for apdu in apdus:
        answer = card.transmit(apdu)
        assert answer.apdu == answer.data + answer.apdu[-2:]
        assert answer.apdu[-2] >> 4 in (0x6, 0x9)
        assert face.transmit(apdu).apdu[-2] >> 4 in (0x6, 0x9)


# Secrets --------------------------------------------------------------------------------------


def test_no_repr_tells_a_password() -> None:
    password = Password(0x81, b"24680", resetting_code=b"13579")
    df = DedicatedFile(0x1000, [TransparentFile(1, b"content")], passwords=[password])
    shown = " ".join(map(repr, (password, df, df.children, FileSystemCard())))

    assert "tries" in repr(password)
    assert "24680" not in shown
    assert "13579" not in shown
    assert "content" not in shown


@pytest.mark.parametrize(
    ("value", "code"), [(b"24680" * 2, b""), (b"1234", b"24680" * 2), (b"246", b"")]
)
def test_no_exception_tells_a_password(value: bytes, code: bytes) -> None:
    with pytest.raises(ValueError, match="4 to 8 bytes") as caught:
        Password(0x81, value, resetting_code=code)

    assert "246" not in str(caught.value)


# A card with files of the application's own ---------------------------------------------------


def test_a_file_is_filled_up_to_its_size() -> None:
    assert TransparentFile(1, b"ab", size=4).data == b"ab\xff\xff"


def test_contents_as_large_as_can_be() -> None:
    longest = RecordStructure.LINEAR_VARIABLE
    card = FileSystemCard(
        master_file=DedicatedFile(
            MF,
            [
                TransparentFile(0xFFFE, b"end", size=3, sfi=30),
                TransparentFile(0x0002, size=70000, sfi=2),
                RecordFile(0x0003, longest, [b"r"] * 254, sfi=3),
                RecordFile(0x0004, longest, [bytes(0xFFFF)], sfi=4),
                RecordFile(0x0005, RecordStructure.CYCLIC, [b"r"], max_records=1, sfi=5),
            ],
            passwords=[Password(31, CODE, tries=15), Password(1, RIGHT, tries=1)],
        )
    )

    assert ok(card, "00B09E00", ne=ALL) == b"end"
    assert fcp(card, "00A40004", b"\0\2")[0x80] == (70000).to_bytes(3, "big")
    assert ok(card, "00B10002", bytes.fromhex("540301116F"), ALL) == b"\x53\x01\xff"
    assert ok(card, "00B2FE1C", ne=ALL) == b"r"
    assert len(send(card, "00B20124", ne=65536, extended=True).data) == 0xFFFF
    assert sw(card, "0020001F") == 0x63CF
    assert sw(card, "00200001", WRONG) == 0x63C0


@pytest.mark.parametrize(
    ("structure", "coded"),
    [
        (RecordStructure.LINEAR_FIXED, 0x02),
        (RecordStructure.LINEAR_FIXED_TLV, 0x03),
        (RecordStructure.LINEAR_VARIABLE, 0x04),
        (RecordStructure.LINEAR_VARIABLE_TLV, 0x05),
        (RecordStructure.CYCLIC, 0x06),
        (RecordStructure.CYCLIC_TLV, 0x07),
    ],
)
def test_the_structure_is_in_the_file_descriptor(structure: RecordStructure, coded: int) -> None:
    file = RecordFile(0x0001, structure, [b"ab", b"cd"], max_records=3)
    card = FileSystemCard(master_file=DedicatedFile(MF, [file]))

    assert fcp(card, "00A40004", b"\0\1")[0x82] == bytes((coded, 0x21, 0, 2, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TransparentFile(0x0000),
        lambda: TransparentFile(0x3FFF),
        lambda: TransparentFile(0xFFFF),
        lambda: TransparentFile(0x10000),
        lambda: TransparentFile(-1),
        lambda: TransparentFile(1, sfi=0),
        lambda: TransparentFile(1, sfi=31),
        lambda: TransparentFile(1, b"long", size=3),
        lambda: RecordFile(1, RecordStructure.LINEAR_FIXED),
        lambda: RecordFile(1, RecordStructure.LINEAR_FIXED, [b"a", b"bc"]),
        lambda: RecordFile(1, RecordStructure.LINEAR_VARIABLE, [b"abc"], record_size=2),
        lambda: RecordFile(1, RecordStructure.LINEAR_VARIABLE, [b""], record_size=2),
        lambda: RecordFile(1, RecordStructure.CYCLIC, [b"a", b"b"], max_records=1),
        lambda: RecordFile(1, RecordStructure.CYCLIC, record_size=1, max_records=255),
        lambda: RecordFile(1, RecordStructure.CYCLIC, record_size=0x10000, max_records=1),
        lambda: DedicatedFile(1, name=bytes(17)),
        lambda: DedicatedFile(1, [TransparentFile(2), TransparentFile(2)]),
        lambda: DedicatedFile(1, [TransparentFile(2, sfi=1), TransparentFile(3, sfi=1)]),
        lambda: DedicatedFile(1, [DedicatedFile(MF)]),
        lambda: DedicatedFile(1, passwords=[Password(0x01, RIGHT)]),
        lambda: DedicatedFile(MF, passwords=[Password(0x81, RIGHT)]),
        lambda: DedicatedFile(1, sample_master_file().children),
        lambda: Password(0x80, RIGHT),
        lambda: Password(0x20, RIGHT),
        lambda: Password(0x81, RIGHT, tries=0),
        lambda: Password(0x81, RIGHT, tries=16),
        lambda: FileSystemCard(master_file=DedicatedFile(1)),
        lambda: FileSystemCard(
            master_file=DedicatedFile(MF, [TransparentFile(1, update=AfterPassword(1))])
        ),
    ],
)
def test_contents_that_cannot_be(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()
