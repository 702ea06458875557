"""The command line of ``python -m ccid.virtual``."""

from __future__ import annotations

import argparse

import pytest

from ccid.codes import ExchangeLevel, Features
from ccid.virtual import VirtualReader
from ccid.virtual import __main__ as program
from ccid.virtual.cards.contact import Contact
from ccid.virtual.cards.line import joined
from ccid.virtual.contact_options import FAULTS, fault
from ccid.virtual.iccd_function import IccdFunction


def made(*words: str) -> VirtualReader:
    options = program._parser().parse_args(["--usbip", "127.0.0.1", *words])
    (reader,) = program._readers(options)
    return reader


def contact(reader: VirtualReader) -> Contact:
    card = reader.functions[0].slots[0].inserted
    assert isinstance(card, Contact)
    return card


@pytest.mark.parametrize("level", ["character", "tpdu", "short", "extended"])
def test_without_more_it_is_the_usual_reader(level: str) -> None:
    usual = VirtualReader(level=program.LEVELS[level])
    assert made("--level", level).info.descriptor == usual.info.descriptor


@pytest.mark.parametrize(
    ("words", "features"),
    [
        (["--manual"], Features(0)),
        (["--negotiating"], Features.AUTO_NEGOTIATION),
        ([], Features.AUTO_PPS | Features.AUTO_PARAMETERS | Features.AUTO_IFSD),
    ],
)
def test_who_does_what(words: list[str], features: Features) -> None:
    automatic = (
        Features.AUTO_NEGOTIATION
        | Features.AUTO_PPS
        | Features.AUTO_PARAMETERS
        | Features.AUTO_IFSD
    )
    descriptor = made("--level", "tpdu", *words).info.descriptor
    assert descriptor.features & automatic == features
    assert descriptor.exchange_level is ExchangeLevel.TPDU


def test_protocol_and_clock() -> None:
    reader = made("--level", "tpdu", "--protocol", "t1", "--clock", "4800")
    descriptor = reader.info.descriptor
    assert (descriptor.dwProtocols, descriptor.dwDefaultClock) == (2, 4800)
    assert contact(reader).clock_hz == 4.8e6


@pytest.mark.parametrize(("word", "version"), [("a", 1), ("b", 2)])
def test_iccd(word: str, version: int) -> None:
    reader = made("--iccd", word, "--card", "echo")
    assert isinstance(reader.functions[0], IccdFunction)
    assert reader.info.reader.interface.bInterfaceProtocol == version


def test_a_card_on_its_contacts() -> None:
    reader = made(
        "--card", "echo", "--atr", "3B 80 81 31 FE 45 8B", "--announce-ifsc", "64",
        "--fault", "corrupt:on=I,times=ever,after=1", "--fault", "asks-wtx:multiplier=0x3",
    )  # fmt: skip
    card = contact(reader)
    assert card.reset() == bytes.fromhex("3B8081 31FE45 8B")
    assert joined(card.receive(bytes.fromhex("00 00 04 00 40 00 00 44"))).hex() == "00c10140" + "80"
    assert [f.times for f in card.faults] == [None, 1]


def test_no_card() -> None:
    assert made("--card", "none").functions[0].slots[0].card is None


NEEDS = {
    "replaced": "data=00",
    "cut-short": "to=2",
    "followed-by": "noise=FF",
    "late": "by_s=0.5",
    "pause": "at=1,by_s=0.5",
    "wrong-pcb": "pcb=0x1F",
    "wrong-len": "by=-1",
    "wrong-inf": "inf=0102",
    "asks-ifs": "ifsc=255",
    "wrong-procedure-byte": "value=33",
    "nulls": "count=4000,every_s=0.8",
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_by_its_name(name: str) -> None:
    make = fault(f"{name}:{NEEDS.get(name, '')},times=ever,after=2")
    first, second = make(), make()
    assert first is not second
    assert (first.times, first.after) == (None, 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("melted", "no fault 'melted'"),
        ("corrupt:colour=red", "no 'colour'"),
        ("late", "needs by_s"),
        ("late:by_s=soon", "no number"),
        ("late:by_s=-1", "out of range"),
        ("asks-ifs:ifsc=256", "out of range"),
        ("corrupt:on=X", "I, R and S"),
        ("replaced:data=XY", "not hexadecimal"),
        ("corrupt:times=often", "no number"),
    ],
)
def test_faults_that_are_none(text: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        fault(text)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--atr", "3C 00"], "neither 3B"),
        (["--atr", "hello"], "not hexadecimal"),
        (["--clock", "5"], "not a clock"),
        (["--announce-ifsc", "300"], "out of range"),
    ],
)
def test_what_it_does_not_take(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        made(*words)
    assert why in capsys.readouterr().err
