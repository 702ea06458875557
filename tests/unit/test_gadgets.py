"""Buzzer and LEDs: the commands of the table of readers, sent to virtual readers."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import aio
from ccid.errors import CommandFailed, ReaderTableError, UnsupportedByReader
from ccid.known.descriptor_figures import all_figures
from ccid.known.quirks import gadget_commands, known_readers, lookup
from ccid.virtual import models
from ccid.virtual.cards import FileSystemCard
from ccid.virtual.cards.mifare_classic import MifareClassic
from ccid.virtual.gadgets import Gadgets
from tests.unit.quirk_bench import Table, covers

ACR122U, ACR1252, ACR1255, H663, PUCK = (
    "072f:2200", "072f:223e", "072f:223f", "1c34:91b1", "1c34:6132",
)  # fmt: skip


def with_gadgets() -> list[str]:
    """The readers of the table with a command for buzzer or LEDs."""
    return [one.id for one in known_readers() if one.quirks.buzzer_escape or one.quirks.led_escape]


MODELS = sorted({figures.id for figures in all_figures()} & set(with_gadgets()))


def gadgets(virtual: ccid.VirtualReader) -> Gadgets:
    assert virtual.gadgets is not None
    return virtual.gadgets


# Commands with places ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "seconds", "bytes_"),
    [
        ("E0 00 00 28 01 {10ms}", 0.1, "E0 00 00 28 01 0A"),
        ("E0 00 00 28 01 {10ms}", 0, "E0 00 00 28 01 00"),
        ("E0 00 00 28 01 {10ms}", 0.0001, "E0 00 00 28 01 01"),
        ("E0 00 00 28 01 {10ms}", 2.55, "E0 00 00 28 01 FF"),
        ("FF 00 40 00 04 {100ms} 00 01 01", 0.5, "FF 00 40 00 04 05 00 01 01"),
        ("58 1C {1ms:2}", 1, "58 1C 03 E8"),
    ],
)
def test_a_duration_in_its_place(command: str, seconds: float, bytes_: str) -> None:
    data = bytes.fromhex(bytes_)
    assert gadget_commands.check(command) == command
    assert gadget_commands.buzzer_command(command, seconds) == data
    heard = gadget_commands.heard_duration(command, data)
    assert heard == pytest.approx(seconds, abs=0.01)
    assert gadget_commands.heard_duration(command, data + b"\0") is None
    assert gadget_commands.heard_duration(command, b"\0" + data[1:]) is None


@pytest.mark.parametrize(
    ("command", "lit", "bytes_"),
    [
        ("E0 00 00 29 01 {red=01|green=02}", [], "E0 00 00 29 01 00"),
        ("E0 00 00 29 01 {red=01|green=02}", ["green"], "E0 00 00 29 01 02"),
        ("FF 00 40 {0C|red=01|green=02} 04 00", ["red"], "FF 00 40 0D 04 00"),
        ("58 1E {red=01} {green=01}", ["red", "green"], "58 1E 01 01"),
        ("58 1E {red=01} {green=01}", ["green"], "58 1E 00 01"),
        ("29 {red=01|red-2=08}", ["red-2"], "29 08"),
    ],
)
def test_leds_in_their_places(command: str, lit: list[str], bytes_: str) -> None:
    data = bytes.fromhex(bytes_)
    assert gadget_commands.check(command) == command
    assert gadget_commands.led_command(command, lit) == data
    assert gadget_commands.heard_leds(command, data) == frozenset(lit)
    assert gadget_commands.heard_leds(command, data[:-1]) is None
    assert gadget_commands.heard_leds(command, b"\x01" + data[1:]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "E0", "E0 {ms}", "{0ms}", "{10ms} {10ms}", "{10ms} {red=01}", "{red}", "{red=1}"),
        *("e0 {10ms}", "{10ms:3}", "{10ms:0}", "{red=01", "E000 {10ms}", "{RED=01}", "{|red=01}"),
        *("{red=01|}", "{99999ms}", "{red=01||green=02}", "\\ud800 {10ms}"),
        *(1, None, True, ["{10ms}"], {"a": "{10ms}"}),
    ],
)
def test_what_is_no_command(wrong: Any, table: Table) -> None:
    with pytest.raises(ValueError, match="10ms"):
        gadget_commands.check(wrong)


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\x1f", "\n", "  "])
def test_any_blanks_are_between_the_bytes(blank: str) -> None:
    """A web page or a PDF from which a command is copied has other blanks."""
    command = gadget_commands.check(blank.join(("E0", "28", "{10ms}")))
    assert gadget_commands.buzzer_command(command, 0.1).hex() == "e0280a"
    assert gadget_commands.heard_duration(command, bytes.fromhex("e0280a")) == 0.1


def test_a_wrong_command_in_a_users_file_is_told_with_its_line(table: Table) -> None:
    table.only("1209:0001", 'buzzer-escape = "E0 {10s}"')
    with pytest.raises(ReaderTableError, match=r"buzzer-escape.*10ms.* is wanted here") as caught:
        lookup(0x1209, 0x0001)
    assert caught.value.line == 3


# The table --------------------------------------------------------------------------------------


def test_at_least_twenty_readers_are_known() -> None:
    known = set(with_gadgets())
    readers = [one for one in known_readers() if one.id in known]
    assert len(readers) >= 20
    assert len(MODELS) >= 12
    for reader in readers:
        quirks = reader.quirks
        assert quirks.gadgets_source, reader.id
        assert quirks.gadgets_reply, reader.id
        if quirks.buzzer_escape:
            assert gadget_commands.longest_s(quirks.buzzer_escape) >= 1
        if quirks.led_escape:
            assert len(gadget_commands.leds(quirks.led_escape)) >= 2


def test_the_page_names_the_readers_of_acs_that_are_known() -> None:
    page = (Path(__file__).parents[2] / "docs/beep-and-leds.md").read_text("utf-8")
    listed = page.partition("lists the readers: ")[2].partition("`")[0]
    names = {one.quirks.name for one in known_readers() if one.id in with_gadgets()}
    number = re.compile(r"ACR\d+")
    assert set(number.findall(listed)) == set(number.findall(" ".join(map(str, names))))


@pytest.mark.parametrize("model", MODELS)
def test_each_model_beeps_and_shines(model: str) -> None:
    virtual = models.make(model, None)
    with ccid.open_reader(virtual.info) as reader:
        if reader.quirks.buzzer_escape:
            reader.buzzer(0.3)
            assert gadgets(virtual).tones == [pytest.approx(0.3)]
        if reader.quirks.led_escape:
            for name in reader.leds:
                reader.led(name)
                assert gadgets(virtual).lit == {name}
            reader.led(*reader.leds)
            assert gadgets(virtual).lit == set(reader.leds)
            reader.led()
            assert gadgets(virtual).lit == set()


@pytest.mark.parametrize(
    ("model", "beep", "green", "leds"),
    [
        (ACR122U, "FF0040000405000101", "FF00400E0400000000", ("red", "green")),
        (ACR1252, "E00000280132", "E00000290102", ("red", "green")),
        (ACR1255, "E00000280132", "E00000290101", ("green", "red", "blue", "red-2")),
        ("072f:2224", "E00000280132", "E00000290102", ("red", "green")),
        ("072f:2308", "E00000280132", "E00000290102", ("blue", "green")),
        (H663, "", "581E0001", ("red", "green")),
        (PUCK, "589301F4", "", ()),
    ],
)
def test_what_the_manuals_say(model: str, beep: str, green: str, leds: tuple[str, ...]) -> None:
    virtual, sent = models.make(model, None), list[str]()
    function = virtual.functions[0]
    obey = gadgets(virtual).escape

    def listen(data: bytes) -> bytes:
        sent.append(data.hex().upper())
        return obey(data)

    function.escape = listen
    with ccid.open_reader(virtual.info) as reader:
        assert reader.leds == leds
        if beep:
            reader.buzzer(0.5)
        if green:
            reader.led("green")
    assert sent == [data for data in (beep, green) if data]


def test_the_pseudo_apdu_of_a_program_is_obeyed_as_well() -> None:
    virtual = models.make(ACR122U, MifareClassic)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.transmit(bytes.fromhex("FF00400F0400000000")) == b"\x90\x03"
        assert card.transmit(bytes.fromhex("FF0040000402000101")) == b"\x90\x03"
        assert card.uid() == bytes.fromhex("DEADBEEF")
    assert gadgets(virtual).lit == {"red", "green"}
    assert gadgets(virtual).tones == [0.2]


# Refusals ---------------------------------------------------------------------------------------


def test_a_reader_without_a_command() -> None:
    virtual = ccid.VirtualReader(name="Plain")
    assert virtual.gadgets is None
    with ccid.open_reader(virtual) as reader:
        assert reader.leds == ()
        with pytest.raises(UnsupportedByReader, match=r"Plain: the table .* the buzzer of") as told:
            reader.buzzer()
        assert told.value.reader == "Plain"
        with pytest.raises(UnsupportedByReader, match=r"Plain: the table .* the LEDs of"):
            reader.led("green")


@covers("gadgets-source")
def test_a_reader_with_one_of_both_says_what_is_known() -> None:
    with (
        ccid.open_reader(models.make(PUCK, None)) as reader,
        pytest.raises(UnsupportedByReader, match=r"LEDs .*its buzzer is known \(SpringCore doc"),
    ):
        reader.led("green")
    with (
        ccid.open_reader(models.make(H663, None)) as reader,
        pytest.raises(UnsupportedByReader, match=r"buzzer .*its LEDs is known \(SpringCard PMD"),
    ):
        reader.buzzer()


@covers("led-escape")
def test_a_led_that_is_not_there_and_a_tone_that_is_too_long() -> None:
    virtual = models.make(ACR1252, None)
    with ccid.open_reader(virtual) as reader:
        with pytest.raises(UnsupportedByReader, match=r"no LED 'blue\\x1b', there are red, green"):
            reader.led("blue\x1b")
        with pytest.raises(UnsupportedByReader, match=r"3 s is too long, 2\.55 s is the longest"):
            reader.buzzer(3)
        with pytest.raises(UnsupportedByReader, match=r"a number of 20001 bits s is too long"):
            reader.buzzer(HUGE)
    assert gadgets(virtual).lit == set()
    assert gadgets(virtual).tones == []


HUGE = 1 << 20_000
"""More than a float can be, with more digits than Python writes."""


@pytest.mark.parametrize(
    "seconds", [-1, math.nan, math.inf, -math.inf, pytest.param(-HUGE, id="huge")]
)
def test_what_is_no_duration(seconds: float) -> None:
    with (
        ccid.open_reader(models.make(ACR1252, None)) as reader,
        pytest.raises(ValueError, match="no duration"),
    ):
        reader.buzzer(seconds)


def test_what_has_the_wrong_type() -> None:
    wrong: Any
    with ccid.open_reader(models.make(ACR1252, None)) as reader:
        for wrong in ("1", True, None, b"\1"):
            with pytest.raises(TypeError, match="seconds"):
                reader.buzzer(wrong)
        for wrong in (1, None, ["red"]):
            with pytest.raises(TypeError, match="an LED has a name"):
                reader.led(wrong)


@covers("gadgets-reply")
@pytest.mark.parametrize("model", [ACR122U, ACR1252, H663])
def test_a_reader_that_refuses(model: str) -> None:
    virtual = models.make(model, None)
    gadgets(virtual).refuses = True
    with ccid.open_reader(virtual) as reader:
        if reader.quirks.buzzer_escape:
            with pytest.raises(CommandFailed, match="for its buzzer with 63 00"):
                reader.buzzer()
        with pytest.raises(CommandFailed, match="for its LEDs with 63 00"):
            reader.led("red")


def test_a_reader_whose_firmware_does_not_know_the_command() -> None:
    virtual = models.make(ACR1252, None)
    virtual.functions[0].escape = None
    with ccid.open_reader(virtual) as reader, pytest.raises(UnsupportedByReader):
        reader.buzzer()


@covers("buzzer-escape")
def test_a_user_adds_the_command_of_a_reader(table: Table) -> None:
    table.only(
        "1209:0001",
        'buzzer-escape = "E0 00 00 28 01 {10ms}"',
        'gadgets-reply = "E1 00 00 00 01 .."',
    )
    bell = Gadgets(lookup(0x1209, 0x0001))
    with ccid.open_reader(ccid.VirtualReader(FileSystemCard(), gadgets=bell)) as reader:
        reader.buzzer(1)
    assert bell.tones == [1.0]


def test_in_a_task() -> None:
    virtual = models.make(ACR1255, None)

    async def play() -> None:
        async with aio.open_reader(virtual.info) as reader:
            assert "blue" in reader.leds
            await reader.led("blue")
            await reader.buzzer(0.05)
            with pytest.raises(UnsupportedByReader, match=re.escape("no LED 'white'")):
                await reader.led("white")

    asyncio.run(play())
    assert gadgets(virtual).lit == {"blue"}
    assert gadgets(virtual).tones == [0.05]
