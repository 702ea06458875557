"""The verdict: whether a reader works, and the reasons."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import EndpointDescriptor
from ccid.codes import ExchangeLevel
from ccid.device.verdict import Level, Verdict, judge
from ccid.errors import ReaderUnsupported
from ccid.known.quirks import Quirks
from ccid.virtual import make_descriptor, models

KNOWN = Quirks("A reader", "supported")
IN, OUT = (EndpointDescriptor(bEndpointAddress=a, bmAttributes=2) for a in (0x81, 0x02))


def info(**fields: Any) -> ccid.ReaderInfo:
    """A good reader, with other values in these fields of its class descriptor."""
    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU, **fields)
    return ccid.VirtualReader(None, descriptor=descriptor).info


def with_interface(**fields: Any) -> ccid.ReaderInfo:
    good = info()
    interface = dataclasses.replace(good.reader.interface, **fields)
    return dataclasses.replace(good, reader=dataclasses.replace(good.reader, interface=interface))


def with_endpoints(*endpoints: EndpointDescriptor) -> ccid.ReaderInfo:
    good = info()
    return dataclasses.replace(good, reader=dataclasses.replace(good.reader, endpoints=endpoints))


def reasons(verdict: Verdict) -> list[tuple[str, str]]:
    return [(r.field, r.weight.value) for r in verdict.reasons]


def test_a_good_reader_works_without_a_word() -> None:
    assert judge(info(), KNOWN) == Verdict(Level.WORKS, ())


@pytest.mark.parametrize(
    ("fields", "level", "reason"),
    [
        ({"dwFeatures": 0x000604BA}, Level.UNSUPPORTED, ("dwFeatures", "fatal")),
        ({"dwFeatures": 0x000204BA}, Level.WORKS, ("dwFeatures", "note")),
        ({"dwProtocols": 0}, Level.UNSUPPORTED, ("dwProtocols", "fatal")),
        ({"dwProtocols": 0x00010000}, Level.UNSUPPORTED, ("dwProtocols", "fatal")),
        ({"dwProtocols": 1}, Level.LIMITS, ("dwProtocols", "limit")),
        ({"dwProtocols": 2}, Level.WORKS, ("dwProtocols", "note")),
        (
            {"dwMaxCCIDMessageLength": 10},
            Level.UNSUPPORTED,
            ("dwMaxCCIDMessageLength", "fatal"),
        ),
        (
            {"dwMaxCCIDMessageLength": 0},
            Level.UNSUPPORTED,
            ("dwMaxCCIDMessageLength", "fatal"),
        ),
        (
            {"dwMaxCCIDMessageLength": 261, "dwFeatures": 0x000204BA},
            Level.LIMITS,
            ("dwMaxCCIDMessageLength", "limit"),
        ),
        (
            {"bVoltageSupport": 0, "dwFeatures": 0x000404B2},
            Level.WORKS,
            ("bVoltageSupport", "note"),
        ),
        ({"dwDefaultClock": 0}, Level.WORKS, ("dwDefaultClock", "note")),
        ({"bMaxCCIDBusySlots": 9}, Level.WORKS, ("bMaxCCIDBusySlots", "note")),
    ],
)
def test_fields_that_matter(fields: dict[str, int], level: Level, reason: tuple[str, str]) -> None:
    verdict = judge(info(**fields), KNOWN)
    assert verdict.level is level
    assert reason in reasons(verdict)


TPDU, SHORT, CHARACTER = 0x000104BA, 0x000204BA, 0x000004BA


@pytest.mark.parametrize(
    ("features", "protocols", "text"),
    [
        (TPDU, 3, "TPDU level exchange: extended APDUs with T=1 only, in its blocks"),
        (TPDU, 2, "TPDU level exchange: extended APDUs with T=1 only, in its blocks"),
        (TPDU, 1, "TPDU level exchange: no extended APDU without T=1"),
        (CHARACTER, 3, "character level exchange: extended APDUs with T=1 only, in its blocks"),
        (CHARACTER, 1, "character level exchange: no extended APDU without T=1"),
        (SHORT, 3, "short APDU level exchange: no extended APDU"),
        (SHORT, 2, "short APDU level exchange: no extended APDU"),
        (0x000404BA, 3, None),
    ],
)
@pytest.mark.parametrize("length", [271, 64])
def test_extended_apdus(features: int, protocols: int, text: str | None, length: int) -> None:
    """With T=1 they go in chains of blocks if the host does the protocol, however short a message
    is."""
    made = info(dwFeatures=features, dwProtocols=protocols, dwMaxCCIDMessageLength=length)
    told = [r.text for r in judge(made, KNOWN).reasons if "extended" in r.text]
    assert told == ([] if text is None else [text])


def test_extended_apdus_by_the_makers_escape() -> None:
    known = dataclasses.replace(KNOWN, tpdu_escape=True)
    for protocols, text in ((3, "with T=1 only, by its maker's Escape"), (1, "no extended APDU")):
        verdict = judge(info(dwFeatures=SHORT, dwProtocols=protocols), known)
        assert [r.text for r in verdict.reasons if text in r.text]


@pytest.mark.parametrize(
    ("features", "protocols", "limit"),
    [(TPDU, 3, "64: with T=0 APDUs"), (TPDU, 2, None), (SHORT, 2, "64: APDUs"), (SHORT, 3, "64: ")],
)
def test_short_messages_limit_whole_apdus_alone(
    features: int, protocols: int, limit: str | None
) -> None:
    made = info(dwFeatures=features, dwProtocols=protocols, dwMaxCCIDMessageLength=64)
    told = [r.text for r in judge(made, KNOWN).reasons if r.field == "dwMaxCCIDMessageLength"]
    assert len(told) == (limit is not None)
    assert all(text.startswith(limit or "") for text in told)


def test_a_message_length_that_the_table_mends_is_no_limit() -> None:
    made = info(dwMaxCCIDMessageLength=263, dwFeatures=0x000204BA)
    assert judge(made, KNOWN).level is Level.LIMITS
    mended = dataclasses.replace(KNOWN, message_length=271)
    assert judge(made, mended).level is Level.WORKS


def test_extended_apdu_readers_may_have_short_messages() -> None:
    assert judge(info(dwMaxCCIDMessageLength=64), KNOWN).level is Level.WORKS


@pytest.mark.parametrize(
    ("protocol", "level"),
    [(1, Level.WORKS), (2, Level.WORKS), (3, Level.UNSUPPORTED), (0xFF, Level.UNSUPPORTED)],
)
@pytest.mark.parametrize("bulk", [True, False])
def test_interface_protocols(protocol: int, level: Level, bulk: bool) -> None:
    """The driver uses control requests for ICCD devices without bulk endpoints."""
    made = with_interface(bInterfaceProtocol=protocol)
    endpoints = made.reader.endpoints if bulk else ()
    made = dataclasses.replace(made, reader=dataclasses.replace(made.reader, endpoints=endpoints))
    verdict = judge(made, KNOWN)
    assert verdict.level is level
    assert verdict.reasons[0].field == "bInterfaceProtocol"
    assert made.reader.is_iccd is (protocol in (1, 2) and not bulk)


def test_proprietary_interfaces() -> None:
    verdict = judge(with_interface(bInterfaceClass=0xFF), KNOWN)
    assert verdict.level is Level.WORKS
    assert reasons(verdict) == [("bInterfaceClass", "note")]


@pytest.mark.parametrize(
    ("endpoints", "level"),
    [
        ((), Level.UNSUPPORTED),
        ((IN,), Level.UNSUPPORTED),
        ((OUT,), Level.UNSUPPORTED),
        ((IN, OUT), Level.WORKS),
        ((IN, dataclasses.replace(OUT, wMaxPacketSize=0)), Level.UNSUPPORTED),
    ],
)
def test_endpoints(endpoints: tuple[EndpointDescriptor, ...], level: Level) -> None:
    assert judge(with_endpoints(*endpoints), KNOWN).level is level


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ("supported", Level.WORKS),
        ("should-work", Level.WORKS),
        ("unknown", Level.WORKS),
        ("unsupported", Level.LIMITS),
        ("disabled", Level.UNSUPPORTED),
    ],
)
def test_the_tables_word(status: str, level: Level) -> None:
    verdict = judge(info(), Quirks("A reader", status, "its reason"))
    assert verdict.level is level


def test_old_firmware_in_the_table_stands_beside_the_readers_own() -> None:
    quirks = Quirks("A reader", "unsupported", "firmware before 2.06 fails", min_release=0x0206)
    reader = models.make("072f:2200").info
    (told,) = (r for r in judge(reader, quirks).reasons if r.field == "table")
    assert str(told).endswith("firmware before 2.06 fails (this one has 2.07)")


def test_the_weightiest_reason_comes_first() -> None:
    verdict = judge(info(dwProtocols=0, dwDefaultClock=0, dwMaxCCIDMessageLength=3), KNOWN)
    weights = [r.weight.value for r in verdict.reasons]
    assert weights == sorted(weights, key=["fatal", "limit", "note"].index)
    assert str(verdict.reasons[0]).startswith(("dwProtocols: ", "dwMaxCCIDMessageLength: "))


def test_open_reader_heeds_it() -> None:
    with pytest.raises(ReaderUnsupported, match="dwProtocols"):
        ccid.open_reader(info(dwProtocols=0))
