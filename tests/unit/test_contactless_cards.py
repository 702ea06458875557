"""Virtual contactless cards, by themselves: MIFARE Classic, Ultralight, NTAG, ISO/IEC 14443-4."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.iso7816.atr import Atr
from ccid.virtual.card_kinds import MAKERS, card_kind
from ccid.virtual.cards import EchoCard
from ccid.virtual.cards import mifare_classic as mifare
from ccid.virtual.cards.iso14443_card import Iso14443Card
from ccid.virtual.cards.mifare_classic import MifareClassic, access_bits, value_block
from ccid.virtual.cards.picc import Picc
from ccid.virtual.cards.type2_tags import NTAG213, NTAG215, NTAG216, ULTRALIGHT, Layout, Type2Tag

KEY_A, KEY_B = bytes.fromhex("A0A1A2A3A4A5"), bytes.fromhex("B0B1B2B3B4B5")


def sent(card: Picc, apdu: str) -> str:
    """The response to a command APDU, both in hexadecimal."""
    return card.transmit(bytes.fromhex(apdu)).apdu.hex().upper()


def access(*groups: int) -> bytes:
    """The access bits for C1 C2 C3 of the four groups of blocks, and the byte after them."""
    c1, c2, c3 = (sum((g >> bit & 1) << i for i, g in enumerate(groups)) for bit in (2, 1, 0))
    return bytes(((c2 ^ 15) << 4 | c1 ^ 15, c1 << 4 | c3 ^ 15, c3 << 4 | c2, 0x69))


def opened(card: MifareClassic, block: int, kind: str, key: bytes) -> str:
    """What the card answers to the authentication."""
    assert sent(card, f"FF82000006{key.hex()}") == "9000"
    return sent(card, f"FF860000050100{block:02X}{'60' if kind == 'A' else '61'}00")


def prepared(*groups: int) -> MifareClassic:
    """A card whose sector 1 has both keys, and these access conditions."""
    card = MifareClassic()
    assert opened(card, 4, "A", mifare.FACTORY_KEY) == "9000"
    trailer = KEY_A + access(*groups) + KEY_B
    assert sent(card, f"FFD6000710{trailer.hex()}") == "9000"
    return card


# ATRs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in MAKERS if n not in ("echo", "files", "piv", "none")])
def test_each_name_of_a_card_makes_one_with_a_sound_atr(name: str) -> None:
    make = card_kind(name).make
    assert make is not None
    card = make()
    assert isinstance(card, Picc)
    atr = Atr.parse(card.atr)
    assert (atr.warnings, atr.tck_right, atr.protocols) == ((), True, (0, 1))
    assert card.uid


@pytest.mark.parametrize(
    ("card", "atr"),
    [
        (MifareClassic(), "3B8F8001804F0CA000000306030001000000006A"),
        (MifareClassic(256), "3B8F8001804F0CA0000003060300020000000069"),
        (Type2Tag(), "3B8F8001804F0CA0000003060300030000000068"),
        (Iso14443Card(EchoCard(), historical=b""), "3B80800101"),
        (Iso14443Card(EchoCard(), historical=bytes.fromhex("80")), "3B8180018080"),
    ],
)
def test_atrs_as_real_readers_make_them(card: Picc, atr: str) -> None:
    assert card.atr == bytes.fromhex(atr)


# What the reader's part does --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apdu", "answer"),
    [
        ("FFCA000000", "DEADBEEF9000"),
        ("FFCA000004", "DEADBEEF9000"),
        ("FFCA00000A", "DEADBEEF6282"),
        ("FFCA000003", "6C04"),
        ("FFCA010000", "6A81"),
        ("FFCA020000", "6B00"),
        ("FFCA000100", "6B00"),
        ("FF82000006FFFFFFFFFFFF", "9000"),
        ("FF82000206FFFFFFFFFFFF", "6388"),
        ("FF82000005FFFFFFFFFF", "6389"),
        ("FF82200006FFFFFFFFFFFF", "6387"),
        ("FF82400006FFFFFFFFFFFF", "6B00"),
        ("FF8600000501000460", "6700"),
        ("FF860000050200046000", "6700"),
        ("FF860000050100046001", "6984"),
        ("FFB0000410", "6982"),
        ("FFB0004010", "6A82"),
        ("FFD6000410" + "00" * 16, "6982"),
        ("FFD60004" + "04" + "00" * 4, "6700"),
        ("FF000000", "6D00"),
        ("00A4000C023F00", "6E00"),
        ("FFCA", "6700"),
    ],
)
def test_pseudo_apdus(apdu: str, answer: str) -> None:
    assert sent(MifareClassic(), apdu) == answer


@given(st.binary(max_size=40))
def test_any_bytes_get_a_status_word(data: bytes) -> None:
    for card in (MifareClassic(), Type2Tag(NTAG213), Iso14443Card(EchoCard())):
        for head in (b"", b"\xff"):
            assert len(card.transmit(head + data).apdu) >= 2


# MIFARE Classic ---------------------------------------------------------------------------------


def test_a_new_card() -> None:
    for blocks, trailers in ((64, 16), (256, 40)):
        card = MifareClassic(blocks)
        found = [
            block
            for block in range(blocks)
            if card.memory[block * 16 + 6 :][:4] == mifare.FACTORY_ACCESS
        ]
        assert len(found) == trailers
        assert found[-1] == blocks - 1
        assert opened(card, blocks - 1, "A", mifare.FACTORY_KEY) == "9000"
        key_b = "FF" * 6
        assert sent(card, f"FFB000{blocks - 1:02X}10") == f"000000000000FF078069{key_b}9000"
    assert card.memory[:4] == card.uid
    assert opened(card, 0, "A", mifare.FACTORY_KEY) == "9000"
    assert sent(card, "FFD6000010" + "00" * 16) == "6982"


def test_a_large_sector_is_opened_as_a_whole() -> None:
    card = MifareClassic(256)
    assert opened(card, 0x80, "A", mifare.FACTORY_KEY) == "9000"
    assert sent(card, "FFB0008E10") == "00" * 16 + "9000"
    assert sent(card, "FFB0009010") == "6982"


def test_a_sector_is_open_alone_and_until_the_reset() -> None:
    card = MifareClassic()
    assert opened(card, 4, "A", mifare.FACTORY_KEY) == "9000"
    assert sent(card, "FFB0000430") == "00" * 48 + "9000"
    assert sent(card, "FFB0000810") == "6982"
    assert sent(card, "FFB0000410") == "6982"  # a command that failed ends it
    assert opened(card, 4, "A", mifare.FACTORY_KEY) == "9000"
    card.reset()
    assert sent(card, "FFB0000410") == "6982"
    assert sent(card, "FF860000050100046000") == "9000"  # the reader keeps its keys


def test_the_obsolete_authenticate() -> None:
    card = MifareClassic()
    sent(card, "FF82000006FFFFFFFFFFFF")
    assert sent(card, "FF8800046000") == "9000"
    assert sent(card, "FFB0000410") == "00" * 16 + "9000"


def test_a_readable_key_b_opens_nothing() -> None:
    card = MifareClassic()
    assert opened(card, 4, "B", mifare.FACTORY_KEY) == "9000"
    assert sent(card, "FFB0000410") == "6982"


DATA_ACCESS = {
    # C1 C2 C3: keys that may read, write, increment, decrement (MF1S50YYX, table 8)
    0b000: ("AB", "AB", "AB", "AB"),
    0b010: ("AB", "", "", ""),
    0b100: ("AB", "B", "", ""),
    0b110: ("AB", "B", "B", "AB"),
    0b001: ("AB", "", "", "AB"),
    0b011: ("B", "B", "", ""),
    0b101: ("B", "", "", ""),
    0b111: ("", "", "", ""),
}


@pytest.mark.parametrize(("bits", "kind"), list(product(DATA_ACCESS, "AB")))
def test_access_conditions_of_data(bits: int, kind: str) -> None:
    read, write, up, down = DATA_ACCESS[bits]
    key = KEY_A if kind == "A" else KEY_B
    for allowed, apdu in (
        (read, "FFB0000410"),
        (write, f"FFD6000410{value_block(7, 4).hex()}"),
        (up, "FFD70004050100000001"),
        (down, "FFD70004050200000001"),
        (down, "FFD70004020304"),
    ):
        card = prepared(bits, 0, 0, 0b011)
        card.memory[4 * 16 : 5 * 16] = value_block(5, 4)
        before = bytes(card.memory)
        assert opened(card, 4, kind, key) == "9000"
        answer = sent(card, apdu)
        assert (answer[-4:] == "9000") is (kind in allowed), apdu
        assert answer[-4:] in ("9000", "6982")
        if kind not in allowed:
            assert card.memory == before


TRAILER_ACCESS = {
    # C1 C2 C3: keys that write key A, read bits, write bits, read key B, write key B (table 7)
    0b000: ("A", "A", "", "A", "A"),
    0b010: ("", "A", "", "A", ""),
    0b100: ("B", "AB", "", "", "B"),
    0b110: ("", "AB", "", "", ""),
    0b001: ("A", "A", "A", "A", "A"),
    0b011: ("B", "AB", "B", "", "B"),
    0b101: ("", "AB", "B", "", ""),
    0b111: ("", "AB", "", "", ""),
}


@pytest.mark.parametrize(("bits", "kind"), list(product(TRAILER_ACCESS, "AB")))
def test_access_conditions_of_the_trailer(bits: int, kind: str) -> None:
    rights = TRAILER_ACCESS[bits]
    is_data = "A" in rights[3]  # a readable key B opens nothing
    allowed = [kind in keys and not (is_data and kind == "B") for keys in rights]
    card = prepared(0, 0, 0, bits)
    assert opened(card, 7, kind, KEY_A if kind == "A" else KEY_B) == "9000"
    answer = sent(card, "FFB0000710")
    if is_data and kind == "B":
        assert answer == "6982"
        return
    shown = bytes.fromhex(answer)[:-2]
    assert shown[:6] == bytes(6)
    assert (shown[6:10] == access(0, 0, 0, bits)) is allowed[1]
    assert (shown[10:] == KEY_B) is allowed[3]
    new = bytes.fromhex("111111111111") + access(0, 0, 0, 0b111) + bytes.fromhex("222222222222")
    answer = sent(card, f"FFD6000710{new.hex()}")
    assert (answer == "9000") is any((allowed[0], allowed[2], allowed[4]))
    now = card.memory[7 * 16 : 8 * 16]
    assert (now[:6] == new[:6]) is allowed[0]
    assert (now[6:10] == new[6:10]) is (allowed[2] or bits == 0b111)
    assert (now[10:] == new[10:]) is allowed[4]


def test_access_bits_that_contradict_themselves_close_the_sector() -> None:
    assert access_bits(bytes(16)) is None
    card = MifareClassic()
    opened(card, 4, "A", mifare.FACTORY_KEY)
    assert sent(card, "FFD6000710" + "FF" * 16) == "9000"
    assert sent(card, "FFB0000410") == "6982"


def test_access_bits_are_read_as_they_are_written() -> None:
    for groups in product(range(8), repeat=4):
        assert access_bits(KEY_A + access(*groups) + KEY_B) == groups


def test_value_blocks() -> None:
    card = MifareClassic()
    opened(card, 4, "A", mifare.FACTORY_KEY)
    assert sent(card, "FFB1000404") == "6300"  # no value block yet
    assert sent(card, "FFD700040500FFFFFFFC") == "9000"  # -4
    assert sent(card, "FFB1000404") == "FFFFFFFC9000"
    assert sent(card, "FFD70004050100000006") == "9000"
    assert sent(card, "FFD70004050200000001") == "9000"
    assert sent(card, "FFD70004020305") == "9000"
    assert sent(card, "FFB1000504") == "000000019000"
    assert sent(card, "FFB0000510") == "01000000FEFFFFFF0100000005FA05FA9000"
    assert sent(card, "FFD700040500") == "6700"
    assert sent(card, "FFD7000405007FFFFFFF") == "9000"
    assert sent(card, "FFD70004050100000001") == "9000"
    assert sent(card, "FFB1000404") == "800000009000"


# Ultralight and NTAG ----------------------------------------------------------------------------


def thru(tag: Type2Tag, frame: str) -> str:
    """The answer on the air, by Direct Transmit, after the status of the chip."""
    data = "D442" + frame
    direct = sent(tag, f"FF000000{len(data) // 2:02X}{data}")
    assert direct.startswith("D543")
    return direct[4:-4]


@pytest.mark.parametrize("layout", [ULTRALIGHT, NTAG213, NTAG215, NTAG216])
def test_pages(layout: Layout) -> None:
    tag = Type2Tag(layout)
    assert sent(tag, "FFB0000000")[:20] == "04A1B29FC3D4E5F60448"
    assert sent(tag, "FFD600050401020304") == "9000"
    assert sent(tag, "FFB0000504") == "010203049000"
    assert sent(tag, f"FFB000{layout.pages - 1:02X}10").endswith("6282")
    assert sent(tag, f"FFB000{layout.pages:02X}04") == "6A82"
    assert sent(tag, f"FFD600{layout.pages:02X}0400000000") == "6A82"
    assert sent(tag, "FFD600010400000000") == "6986"
    assert sent(tag, "FFD60005021234") == "6700"


def test_bits_of_page_3_and_lock_bits_are_set_for_ever() -> None:
    tag = Type2Tag()
    sent(tag, "FFD6000304F0000000")
    sent(tag, "FFD60003040F000001")
    assert sent(tag, "FFB0000304") == "FF0000019000"
    sent(tag, "FFD6000204FFFF2000")  # lock page 5
    sent(tag, "FFD600020400000001")  # lock page 8
    assert sent(tag, "FFD600050401020304") == "6986"
    assert sent(tag, "FFD600060401020304") == "9000"
    assert sent(tag, "FFD600080401020304") == "6986"
    assert sent(tag, "FFB0000204")[4:8] == "2001"


@pytest.mark.parametrize(
    ("layout", "version", "capability"),
    [
        (NTAG213, "0004040201000F03", "E1101200"),
        (NTAG215, "0004040201001103", "E1103E00"),
        (NTAG216, "0004040201001303", "E1106D00"),
    ],
)
def test_version_and_capability(layout: Layout, version: str, capability: str) -> None:
    tag = Type2Tag(layout)
    assert thru(tag, "60") == "00" + version
    assert sent(tag, "FFC2000103950160") == (f"C003009000920100960200009708{version}9000")
    assert sent(tag, "FFC200010A5F460400000000950160") == sent(tag, "FFC2000103950160")
    assert sent(tag, "FFC20000028100") == "C0030090009000"
    assert sent(tag, "FFB0000308") == f"{capability}0300FE009000"
    assert thru(tag, "3003") == f"00{capability}0300FE00" + "00" * 8
    assert thru(tag, "3A0304") == f"00{capability}0300FE00"
    assert thru(tag, "3A0403") == "0000"
    assert thru(tag, "A20741424344") == "000A"
    assert thru(tag, "3A0707") == "0041424344"
    assert thru(tag, "FE") == "01"  # no answer


def test_an_ultralight_has_neither_version_nor_password() -> None:
    for frame in ("60", "1BFFFFFFFF", "3A0001"):
        assert thru(Type2Tag(), frame) == "01"
    assert sent(Type2Tag(), "FFC20001039501FE") == "C0030164019000"


@pytest.mark.parametrize("layout", [NTAG213, NTAG215, NTAG216])
def test_a_password(layout: Layout) -> None:
    tag, page = Type2Tag(layout), layout.configuration
    sent(tag, f"FFD600{page + 2:02X}0411223344")
    sent(tag, f"FFD600{page + 3:02X}04AABB0000")
    assert sent(tag, f"FFB000{page + 2:02X}08") == "00" * 8 + "9000"  # neither is ever shown
    sent(tag, f"FFD600{page + 1:02X}0480000000")
    assert sent(tag, f"FFD600{page:02X}0404000006") == "9000"  # AUTH0: from page 6 on
    assert sent(tag, "FFB0000404") == "0300FE009000"
    assert sent(tag, "FFB0000604") == "6982"
    assert sent(tag, "FFB0000410") == "6982"
    assert sent(tag, "FFD600060401020304") == "6982"
    assert thru(tag, "1B11223345") == "0000"
    assert sent(tag, "FFB0000604") == "6982"
    assert thru(tag, "1B11223344") == "00AABB"
    assert sent(tag, "FFD600060401020304") == "9000"
    assert sent(tag, "FFB0000604") == "010203049000"
    tag.reset()
    assert sent(tag, "FFB0000604") == "6982"


# ISO/IEC 14443-4 --------------------------------------------------------------------------------


def test_apdus_go_to_the_application() -> None:
    application = EchoCard()
    card = Iso14443Card(application)
    resets = application.resets
    card.reset()
    assert application.resets == resets + 1
    assert (
        sent(card, "00A4000C023F00")
        == application.transmit(bytes.fromhex("00A4000C023F00")).apdu.hex().upper()
    )
    assert sent(card, "FFCA000000") == "041122334455669000"
    assert sent(card, "FFB0000410") == "6A81"
    assert sent(card, "FFD600040400000000") == "6A81"
