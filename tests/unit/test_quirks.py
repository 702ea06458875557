"""Quirks: the entries of the table and of the user's file, their conditions, and the
corrections."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codes import ExchangeLevel, Features, InterfaceProtocol, PowerSelect
from ccid.device.verdict import Level, judge
from ccid.errors import ReaderTableError, ReaderUnsupported
from ccid.known import card_quirks
from ccid.known.quirks import VOCABULARY, Quirks, known_readers, lookup, reader_table
from ccid.known.quirks.descriptor_fixups import apply, data_rates, takes_apdu_mode
from ccid.known.quirks.table_entries import STATUSES, Source
from ccid.known.quirks.toml_lines import line_of
from ccid.virtual import make_descriptor


@pytest.fixture(autouse=True)
def no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table of readers without the user's file."""
    monkeypatch.delenv(reader_table.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


# Entries of the table -------------------------------------------------------------------------

TABLE = [
    # reader, bcdDevice, slot, interface, quirk, value
    ("09be:0002", None, 0, 0, "max_ifsd", 254),
    ("09be:0002", None, 0, 0, "protocols", 3),
    ("0b97:7762", None, 0, 0, "max_data_rate", 9600),
    ("0b97:7772", None, 0, 0, "no_pps", True),
    ("0b97:7772", None, 0, 0, "split_full_packets", True),
    ("058f:9540", None, 0, 0, "max_data_rate", 200_000),
    ("058f:9540", None, 0, 0, "reset_if_parameters_fail", True),
    ("03f0:1024", None, 0, 0, "no_pin_support", True),
    ("03f0:0036", None, 0, 0, "no_pin_support", True),
    ("0bf8:1017", None, 0, 0, "no_pin_support", True),
    ("04f2:1469", None, 0, 0, "no_pin_support", True),
    ("0783:0006", None, 0, 0, "no_pin_support", True),
    ("25dd:3111", None, 0, 0, "no_pin_support", True),
    ("076b:3a21", None, 0, 0, "no_pin_support", True),
    ("076b:3031", None, 0, 0, "exchange_level", ExchangeLevel.EXTENDED_APDU),
    ("076b:6632", None, 0, 0, "exchange_level", ExchangeLevel.EXTENDED_APDU),
    ("046a:00a7", None, 0, 0, "exchange_level", ExchangeLevel.EXTENDED_APDU),
    ("0bf8:1024", None, 0, 0, "no_pin_support", True),
    ("2f7c:6007", None, 0, 0, "exchange_level", ExchangeLevel.EXTENDED_APDU),
    ("046a:00a1", 0x0100, 0, 0, "exchange_level", ExchangeLevel.EXTENDED_APDU),
    ("046a:00a1", 0x0101, 0, 0, "exchange_level", None),
    ("0d46:3010", None, 0, 0, "exchange_level", ExchangeLevel.SHORT_APDU),
    ("0529:0620", 0x0012, 0, 0, "features_set", 0x400),
    ("0529:0620", 0x0013, 0, 0, "features_set", 0x400),
    ("0529:0620", 0x0100, 0, 0, "features_set", 0),
    ("08e6:3437", None, 0, 0, "apdu_mode_escape", b"\x1f\x02"),
    ("08e6:3479", None, 1, 0, "data_rates", (10753, 21505, 43011, 125_000)),
    ("08e6:3479", None, 0, 0, "data_rates", None),
    ("08e6:3480", 0x01FF, 1, 0, "max_data_rate", 125_000),
    ("08e6:3480", 0x0200, 1, 0, "max_data_rate", None),
    ("08e6:3480", 0x01FF, 0, 0, "max_data_rate", None),
    ("0b81:0200", None, 0, 0, "open_delay_s", 1.0),
    ("0b81:0200", None, 0, 0, "first_timeout_s", 60.0),
    ("09d8:0427", None, 0, 0, "status_timeout_s", 1.0),
    ("072f:2200", None, 0, 0, "first_timeout_s", 30.0),
    ("04e6:5293", None, 0, 0, "status_timeout_s", 0.4),
    ("04e6:5724", None, 0, 0, "first_timeout_s", 12.0),
    ("08e6:3478", None, 0, 0, "pin_messages_escape", bytes.fromhex("B2A0004D4C")),
    ("0982:0008", None, 0, 0, "retry_counter_escape", b"\xb5\x00"),
    ("08e6:4433", None, 0, 0, "features_escape", b"\x6a"),
    ("413c:2101", 0x0200, 0, 0, "drain_before_write_s", 0.01),
    ("413c:2101", 0x0201, 0, 0, "drain_before_write_s", 0.0),
    ("0424:1104", None, 0, 0, "event_before_status_s", 0.01),
    ("076b:5422", None, 0, 0, "composite_interfaces", (0, 1)),
    ("08e6:5504", None, 0, 0, "composite_interfaces", (1, 2)),
    ("072f:2301", None, 0, 0, "composite_interfaces", (0, 1, 2)),
    ("096e:060d", None, 0, 0, "composite_interfaces", (0, 1, 2, 3)),
    ("2947:0112", None, 0, 0, "composite_interfaces", (0,)),
    ("2947:0199", None, 0, 0, "composite_interfaces", tuple(range(256))),
    ("08e6:5503", None, 0, 0, "interfaces_take_turns", True),
    ("0424:1202", None, 0, 1, "presence_of_interface", 0),
    ("0424:1202", None, 0, 0, "presence_of_interface", None),
    ("0424:1202", None, 0, 1, "power_off_before_on", True),
    ("08e6:3478", None, 0, 0, "pin_verify_messages", 1),
    ("08e6:3478", None, 0, 0, "pin_entry_validation", 2),
    ("08e6:3478", None, 0, 0, "pin_sizes", None),
    ("08e6:3478", 0x0100, 0, 0, "pin_sizes", (4, 8)),
    ("0982:0008", None, 0, 0, "pin_modify_all_indexes", True),
    ("08e6:3437", None, 0, 0, "pin_modify_all_indexes", True),
    ("413c:2100", None, 0, 0, "pin_swap_extra_digit", True),
    ("413c:2101", None, 0, 0, "pin_verify_messages", 0),
    ("413c:2101", None, 0, 0, "pin_delay_s", 0.25),
    ("04e6:e003", None, 0, 0, "pin_case1_escape", b"\x80\x02\x00"),
    ("04e6:e003", None, 0, 0, "pin_modify_zero_indexes", True),
    ("046a:003e", None, 0, 0, "pin_validation_reported", 2),
    ("046a:0010", None, 0, 0, "pin_modify_messages", 3),
    ("046a:00a1", None, 0, 0, "pin_modify_messages_for_0", 0xFF),
    ("046a:00a1", None, 0, 0, "pin_sizes", (0, 32)),
    ("076b:3821", None, 0, 0, "pin_sizes", (1, 31)),
    ("0d46:4289", None, 0, 0, "mct_reader_direct", True),
    ("046a:0005", None, 0, 0, "power_on_escape", b"\x1f\x01"),
    ("08e6:4433", None, 0, 0, "power_on_escape_error", 0xBB),
    ("0d46:301d", None, 0, 0, "power_off_before_on", True),
    ("08e6:3480", 0x0100, 0, 0, "presence_by_power", True),
    ("08e6:3480", 0x0200, 0, 0, "presence_by_power", False),
    ("08e6:34d2", None, 0, 0, "t1_timeout_extra_s", 300.0),
    ("04e6:e001", None, 0, 0, "min_release", 0x0516),
    ("08c3:0401", None, 0, 0, "min_release", 0x5000),
    ("058f:9520", None, 0, 0, "autosuspend_breaks", True),
    ("0d46:4081", None, 0, 0, "needs_mode_switch", True),
]


@pytest.mark.parametrize(("reader", "bcdDevice", "slot", "interface", "quirk", "value"), TABLE)
def test_what_the_table_says(
    reader: str, bcdDevice: int | None, slot: int, interface: int, quirk: str, value: object
) -> None:
    vendor_id, product_id = (int(part, 16) for part in reader.split(":"))
    found = lookup(vendor_id, product_id, bcdDevice, slot=slot, interface=interface)
    assert getattr(found, quirk) == value


FIRMWARE = {
    "04e6:e001": 0x0516, "04e6:5111": 0x0620, "04e6:e003": 0x0510, "0d46:3001": 0x0037,
    "0d46:3002": 0x0037, "09c3:0008": 0x0203, "0dc3:1004": 0x0502, "0dc3:1102": 0x0607,
    "058f:9520": 0x0102, "072f:2200": 0x0206, "08c3:0402": 0x5000, "08c3:0401": 0x5000,
    "0b0c:0050": 0x0101, "0dc3:0900": 0x0200, "03f0:0036": 0x0124, "062d:0001": 0x0102,
    "04e6:5291": 0x0112,
}  # fmt: skip


def test_firmware_too_old() -> None:
    found = {k.id: k.quirks.min_release for k in known_readers() if k.quirks.min_release}
    assert found == FIRMWARE


def test_the_pseudo_apdus_of_the_id_token() -> None:
    answers = dict(lookup(0x0D46, 0x301D).pseudo_apdus)
    assert answers[bytes.fromhex("FF9A010100")] == "KOBIL systems"
    assert answers[bytes.fromhex("FF9A010600")] == "{bcdDevice}"
    assert len(answers) == 4


@pytest.mark.parametrize(
    ("reader", "escape", "allowed"),
    [
        ("08e6:3437", "02", True),
        ("08e6:3437", "0200", False),
        ("08e6:3437", "6A", False),
        ("08e6:5503", "02", True),
        ("08e6:5503", "52F804010077", True),
        ("08e6:5503", "52F8040100", False),
        ("08e6:5503", "52F804020077", False),
        ("076b:5427", "FF00", True),
        ("04e6:5116", "02", False),
    ],
)
def test_escapes_that_applications_may_send(reader: str, escape: str, allowed: bool) -> None:
    vendor_id, product_id = (int(part, 16) for part in reader.split(":"))
    assert lookup(vendor_id, product_id).allows_escape(bytes.fromhex(escape)) is allowed


def test_the_openpgp_card_takes_longer_than_it_says() -> None:
    atr = bytes.fromhex("3BFA1300FF813180450031C173C00100009000B1")
    assert card_quirks.waiting_times(atr) == 0x75
    assert card_quirks.waiting_times(atr[:-1]) is None


def test_every_quirk_is_described() -> None:
    fields = {f.name for f in dataclasses.fields(Quirks)} - {"name", "status", "reason"}
    assert {d.field for d in VOCABULARY.values()} == fields
    for description in VOCABULARY.values():
        assert description.why.endswith(".")
        assert description.where.startswith("ccid.")


def test_every_quirk_is_used_or_for_the_user() -> None:
    used = {field for known in known_readers() for case in known.cases for field in case.values}
    assert {d.field for d in VOCABULARY.values()} - used == {"power_on_voltage"}


def test_statuses() -> None:
    assert {known.quirks.status for known in known_readers()} == set(STATUSES)


# The user's file ------------------------------------------------------------------------------


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Writes the user's own file."""

    def call(text: str) -> Path:
        return write(tmp_path / "config/ccid/readers.toml", text)

    return call


def test_the_user_adds_a_reader(user: Any) -> None:
    user('[reader."1234:5678"]\nname = "Mine"\nquirks.power-on-voltage = "3V"\n')
    found = lookup(0x1234, 0x5678)
    assert (found.name, found.status) == ("Mine", "should-work")
    assert found.power_on_voltage is PowerSelect.V3_0
    assert "1234:5678" in {known.id for known in known_readers()}


def test_the_user_overrides_quirk_by_quirk(user: Any) -> None:
    before = lookup(0x076B, 0x3A21)
    user('[reader."076b:3a21"]\nquirks.no-pin-support = false\n')
    after = lookup(0x076B, 0x3A21)
    assert before.no_pin_support
    assert not after.no_pin_support
    assert (after.name, after.status) == (before.name, before.status)
    assert after.exchange_level is ExchangeLevel.EXTENDED_APDU


def test_the_user_wins_over_conditions_of_the_table(user: Any) -> None:
    user('[reader."08e6:3480"]\nquirks.presence-by-power = false\n')
    assert not lookup(0x08E6, 0x3480, 0x0100).presence_by_power


def test_the_user_starts_afresh(user: Any) -> None:
    user('[reader."08e6:3437"]\nreplace = true\nname = "Mine"\n')
    assert lookup(0x08E6, 0x3437) == Quirks("Mine", "should-work")


def test_a_reason_goes_with_its_status(user: Any) -> None:
    user('[reader."0c4b:0500"]\nstatus = "should-work"\n')
    assert lookup(0x0C4B, 0x0500).reason == ""


def test_a_changed_file_is_read_again(user: Any) -> None:
    user('[reader."1234:5678"]\nname = "Mine"\n')
    assert lookup(0x1234, 0x5678).name == "Mine"
    user('[reader."1234:5678"]\nname = "Yours now"\n')
    assert lookup(0x1234, 0x5678).name == "Yours now"


def test_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: Any) -> None:
    user('[reader."1234:5678"]\nname = "Not read"\n')
    first = write(tmp_path / "1.toml", '[reader."1234:5678"]\nname = "1"\nreason = "r"\n')
    second = write(tmp_path / "2.toml", '[reader."1234:5678"]\nname = "2"\n')
    monkeypatch.setenv("CCID_READERS", f"{first}:{second}")
    found = lookup(0x1234, 0x5678)
    assert (found.name, found.reason) == ("2", "r")


def test_no_file_at_all(monkeypatch: pytest.MonkeyPatch, user: Any) -> None:
    user('[reader."1234:5678"]\nname = "Mine"\n')
    monkeypatch.setenv("CCID_READERS", "")
    assert lookup(0x1234, 0x5678).name is None


def test_home_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".config/ccid/readers.toml", '[reader."1234:5678"]\nname = "At home"\n')
    assert lookup(0x1234, 0x5678).name == "At home"


def test_a_file_that_is_named_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCID_READERS", "/nowhere/readers.toml")
    with pytest.raises(ReaderTableError, match=r"/nowhere/readers\.toml: CCID_READERS names it"):
        lookup(0x1234, 0x5678)


READER = '[reader."1234:5678"]\nname = "x"\n'
WRONG = [
    ("[reader\n", 1, "", "Expected ']'"),
    ("x = 1\n", 1, "x", "not known; there are reader, figures"),
    ("reader = 1\n", 1, "reader", "a table is wanted"),
    ('# one\n[reader."12:34"]\n', 2, 'reader."12:34"', "vvvv:pppp"),
    ('[reader."1234:ABCD"]\n', 1, 'reader."1234:ABCD"', "small letters"),
    (READER + "nam = 1\n", 3, 'reader."1234:5678".nam', "not known; there are name"),
    (READER + "status = 'good'\n", 3, 'reader."1234:5678".status', "is none of supported"),
    (READER + "reason = 1\n", 3, 'reader."1234:5678".reason', "a string is wanted"),
    (READER + "replace = 1\n", 3, 'reader."1234:5678".replace', "true or false"),
    (READER + "quirks.frob = 1\n", 3, 'reader."1234:5678".quirks.frob', "no such quirk"),
    (READER + "quirks = { a = 1 }\n", 3, 'reader."1234:5678".quirks.a', "no such quirk"),
    (
        READER + '\n[reader."1234:5678".quirks]\n\nno-pps = 1\n',
        6, 'reader."1234:5678".quirks.no-pps', "1: true or false is wanted",
    ),
    (READER + "when = 1\n", 3, 'reader."1234:5678".when', "[[…when]]"),
    (
        READER + '[[reader."1234:5678".when]]\nmin-slot = 1\nquirks.no-pps = true\n'
        + '[[reader."1234:5678".when]]\nmin-slot = -1\nquirks.no-pps = true\n',
        7, 'reader."1234:5678".when.1.min-slot', "-1: a number from 0 to 255",
    ),
    (
        READER + '[[reader."1234:5678".when]]\nquirks.no-pps = true\n',
        3, 'reader."1234:5678".when.0', "a condition and quirks",
    ),
    (
        READER + '[[reader."1234:5678".when]]\nfrob = 1\n',
        4, 'reader."1234:5678".when.0.frob', "not known; there are bcdDevice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "words"), WRONG)
def test_an_error_names_file_line_and_key(
    user: Any, text: str, line: int, key: str, words: str
) -> None:
    file = user(text)
    with pytest.raises(ReaderTableError) as caught:
        lookup(0x1234, 0x5678)
    error = caught.value
    assert (error.file, error.line, error.key) == (str(file), line, key)
    assert words in str(error)
    assert str(error).startswith(f"{file}:{line}: {key}")


BAD_VALUES = [
    ("no-pin-support", "1"), ("no-pin-support", '"yes"'), ("dwMaxIFSD", "true"),
    ("dwMaxIFSD", "-1"), ("dwMaxIFSD", "0x100000000"), ("dwMaxIFSD", "1.5"),
    ("data-rates", "9600"), ("data-rates", "[]"), ("data-rates", '["9600"]'),
    ("exchange-level", '"apdu"'), ("exchange-level", "1"), ("min-bcdDevice", "0x10000"),
    ("open-delay-s", '"1"'), ("open-delay-s", "-1"), ("open-delay-s", "true"),
    ("features-escape", '"6"'), ("features-escape", "6"), ("features-escape", '"6G"'),
    ("power-on-voltage", '"2V"'), ("composite-interfaces", '"some"'),
    ("composite-interfaces", "[256]"), ("composite-interfaces", "[]"),
    ("pin-sizes", "[4]"), ("pin-sizes", "[8, 4]"), ("pin-sizes", "4"),
    ("escapes-allowed", '"02"'), ("escapes-allowed", '["2"]'), ("escapes-allowed", '["0G"]'),
    ("escapes-allowed", "[2]"), ("pseudo-apdus", '"FF"'), ("pseudo-apdus", "{ FF = 1 }"),
    ("pseudo-apdus", '{ FG = "x" }'), ("power-on-escape-bError", "256"),
]  # fmt: skip


@pytest.mark.parametrize(("quirk", "value"), BAD_VALUES)
def test_values_that_are_none(user: Any, quirk: str, value: str) -> None:
    user(f"{READER}quirks.{quirk} = {value}\n")
    with pytest.raises(ReaderTableError, match="is wanted here") as caught:
        lookup(0x1234, 0x5678)
    assert caught.value.line == 3


def test_a_file_of_the_table_has_to_be_complete() -> None:
    source = Source("1234-x.toml", '[reader.5678]\nname = "x"\n')
    with pytest.raises(ReaderTableError, match=r"1234-x\.toml:1: reader\.5678: status is missing"):
        source.entry("5678")


@pytest.mark.parametrize("product", [None, "0002"])
def test_a_file_of_the_table_that_is_no_toml(product: str | None) -> None:
    text = '[reader.0001]\nname = "x"\n\n[reader.0002]\nname = x\n'
    with pytest.raises(ReaderTableError) as caught:
        Source("1234-x.toml", text, product)
    assert caught.value.line == 5


def test_lines_of_keys() -> None:
    text = "a.b = 1\n[c]\n'd' = 2\n\n[[e.f]]\ng = 1\n[e.f.h]\ni = 1\n[[e.f]]\ng = 2\n"
    places = {
        ("a", "b"): 1, ("c",): 2, ("c", "d"): 3, ("e", "f", 0, "g"): 6,
        ("e", "f", 0, "h", "i"): 8, ("e", "f", 1, "g"): 10, ("e", "f", 1): 9, ("z",): 0,
        ("c", "d", "deeper"): 3,
    }  # fmt: skip
    assert {key: line_of(text, key) for key in places} == places


# Corrections of the class descriptor ----------------------------------------------------------

SHORT = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3, dwMaxIFSD=0)


def test_no_quirk_changes_nothing() -> None:
    assert apply(Quirks(), SHORT) is SHORT


@pytest.mark.parametrize(
    ("quirks", "field", "value"),
    [
        (Quirks(no_pin_support=True), "bPINSupport", 0),
        (Quirks(protocols=1), "dwProtocols", 1),
        (Quirks(max_ifsd=254), "dwMaxIFSD", 254),
        (Quirks(message_length=300), "dwMaxCCIDMessageLength", 300),
        (Quirks(max_data_rate=9600), "dwMaxDataRate", 9600),
        (Quirks(data_rates=(1, 2, 3)), "bNumDataRatesSupported", 3),
        (Quirks(features_set=0x100), "dwFeatures", SHORT.dwFeatures | 0x100),
        (
            Quirks(exchange_level=ExchangeLevel.EXTENDED_APDU),
            "dwFeatures",
            SHORT.dwFeatures & ~0x70000 | 0x40000,
        ),
        (
            Quirks(exchange_level=ExchangeLevel.CHARACTER),
            "dwFeatures",
            SHORT.dwFeatures & ~0x70000,
        ),
    ],
)
def test_one_field_is_mended_and_no_other(quirks: Quirks, field: str, value: int) -> None:
    mended = apply(quirks, SHORT)
    assert getattr(mended, field) == value
    assert dataclasses.replace(mended, **{field: getattr(SHORT, field)}) == SHORT
    assert apply(quirks, mended) is mended


def test_a_declared_message_length_that_is_larger_stays() -> None:
    assert apply(Quirks(message_length=200), SHORT) is SHORT


def test_a_level_only_instead_of_another() -> None:
    quirks = Quirks(
        exchange_level=ExchangeLevel.EXTENDED_APDU, exchange_level_if=ExchangeLevel.SHORT_APDU
    )
    tpdu = make_descriptor(ExchangeLevel.TPDU)
    assert apply(quirks, SHORT).exchange_level is ExchangeLevel.EXTENDED_APDU
    assert apply(quirks, tpdu) is tpdu


@pytest.mark.parametrize(
    ("protocol", "level"),
    [
        (InterfaceProtocol.ICCD_B, ExchangeLevel.EXTENDED_APDU),
        (InterfaceProtocol.ICCD_A, ExchangeLevel.SHORT_APDU),
        (InterfaceProtocol.CCID, ExchangeLevel.SHORT_APDU),
        (None, ExchangeLevel.SHORT_APDU),
    ],
)
def test_iccd_version_b_chains(protocol: InterfaceProtocol | None, level: ExchangeLevel) -> None:
    assert apply(Quirks(), SHORT, protocol).exchange_level is level


def test_data_rates() -> None:
    assert data_rates(Quirks(), [1, 2, 3]) == [1, 2, 3]
    assert data_rates(Quirks(max_data_rate=2), [1, 2, 3]) == [1, 2]
    assert data_rates(Quirks(data_rates=(5, 9), max_data_rate=8), []) == [5]
    assert data_rates(Quirks(max_data_rate=200_000), []) == []


def test_apdu_mode() -> None:
    tpdu = make_descriptor(ExchangeLevel.TPDU)
    mended = takes_apdu_mode(tpdu)
    assert mended.exchange_level is ExchangeLevel.SHORT_APDU
    assert mended.features & ~Features.SHORT_APDU_LEVEL == tpdu.features & ~Features.TPDU_LEVEL


# Effect on the verdict ------------------------------------------------------------------------


def test_old_firmware_is_refused_and_the_user_may_insist(user: Any) -> None:
    old = ccid.VirtualReader(vendor_id=0x04E6, product_id=0xE003, bcdDevice=0x0509)
    new = ccid.VirtualReader(vendor_id=0x04E6, product_id=0xE003, bcdDevice=0x0510)
    assert judge(new.info).level is Level.WORKS
    with pytest.raises(ReaderUnsupported, match=r"bcdDevice: firmware 5\.09 .* 5\.10 mends"):
        ccid.open_reader(old)
    user('[reader."04e6:e003"]\nquirks.min-bcdDevice = 0\n')
    assert judge(old.info).level is Level.WORKS


def test_the_verdict_goes_by_the_mended_level() -> None:
    declared = make_descriptor(ExchangeLevel.SHORT_APDU)
    reader = ccid.VirtualReader(descriptor=declared, vendor_id=0x076B, product_id=0x3A21)
    assert not any("extended APDU" in reason.text for reason in judge(reader.info).reasons)
