"""Wireshark's USBCCID dissector on our messages: an independent reading of every message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import ccid
from ccid.codec.messages import COMMANDS, REPLIES, PinVerification, ProtocolDataT0, ProtocolDataT1
from ccid.codes import ExchangeLevel, Features
from ccid.errors import CcidError
from ccid.iso7816.apdu import CommandApdu
from ccid.link.slot_commands import SlotCommands
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.virtual_reader import AUTOMATIC
from tests.integration.tools import tshark

PIN = PinVerification(
    bmFormatString=0x82,
    bmPINBlockString=0x08,
    bmPINLengthFormat=0,
    wPINMaxExtraDigit=0x0408,
    bEntryValidationCondition=2,
    bNumberMessage=1,
    wLangId=0x0409,
    abPINApdu=bytes.fromhex("0020000108FFFFFFFFFFFFFFFF"),
)

EVERY_COMMAND: tuple[Callable[[SlotCommands], object], ...] = (
    lambda c: c.power_on(),
    lambda c: c.slot_status(),
    lambda c: c.set_parameters(ProtocolDataT0()),
    lambda c: c.set_parameters(ProtocolDataT1()),
    lambda c: c.get_parameters(),
    lambda c: c.reset_parameters(),
    lambda c: c.set_data_rate_and_clock_frequency(4000, 9600),
    lambda c: c.icc_clock(0),
    lambda c: c.t0_apdu(bClassGetResponse=0),
    lambda c: c.escape(b"hello"),
    lambda c: c.mechanical(1),
    lambda c: c.secure(0, PIN, timeout_s=1),
    lambda c: c.xfr_block(bytes.fromhex("00A40400"), timeout_s=1),
    lambda c: c.abort(),
    lambda c: c.power_off(),
)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture of a session with every message of the specification."""
    file = tmp_path_factory.mktemp("trace") / "session.pcapng"
    features = AUTOMATIC | ExchangeLevel.EXTENDED_APDU | Features.CLOCK_STOP
    descriptor = make_descriptor(
        ExchangeLevel.EXTENDED_APDU, dwFeatures=features, dwMechanical=1, dwMaxCCIDMessageLength=300
    )
    virtual = ccid.VirtualReader(
        EchoCard(), descriptor=descriptor, data_rates=[9600], escape=lambda data: data
    )
    with ccid.open_reader(virtual) as reader, reader.trace(file):
        for command in EVERY_COMMAND:
            with suppress(CcidError):  # a refusal is a message as well
                command(reader.slots[0].commands)
        with reader.slots[0].connect() as card:
            card.transmit(bytes.fromhex("0020000104 31323334"))
            card.transmit(CommandApdu(0, 0x30, data=bytes(1000), ne=65536, extended=True).build())
            card.transmit(bytes.fromhex("00500640"))
        virtual.remove()
        reader.transport.take_events()
        with reader.trace(file.with_name("events.pcapng")):
            virtual.insert(EchoCard())
            reader.transport.take_events()
            reader.slots[0].status()
    return file


def test_nothing_is_malformed(capture: Path) -> None:
    assert tshark(capture, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []


def test_every_bulk_message_is_dissected(capture: Path) -> None:
    bulk = tshark(capture, "-Y", "usb.transfer_type == 3 && usb.data_len > 0")
    ccid_lines = tshark(capture, "-Y", "usbccid")
    assert len(bulk) > 40
    assert ccid_lines == bulk


def test_every_message_of_the_specification_is_recognized(capture: Path) -> None:
    fields = ("-T", "fields", "-e", "usbccid.bMessageType")
    seen = {int(line, 16) for line in tshark(capture, "-Y", "usbccid", *fields) if line}
    assert set(COMMANDS) <= seen
    assert set(REPLIES) <= seen


def test_fields_read_as_we_meant_them(capture: Path) -> None:
    """The dissector shows the fields of most commands; of some commands only the type."""
    names = ("usbccid.bMessageType", "usbccid.dwLength", "usbccid.bSlot", "usbccid.bSeq")
    options = [option for name in names for option in ("-e", name)]
    lines = tshark(capture, "-Y", "usbccid.bMessageType < 0x80", "-T", "fields", *options)
    shown = [(i, line.split("\t")) for i, line in enumerate(lines) if not line.endswith("\t")]
    assert len(shown) >= 18
    first = int(shown[0][1][3])
    for i, (kind, dwLength, bSlot, bSeq) in shown:
        assert int(kind, 0) in COMMANDS
        assert int(bSlot) == 0
        assert int(bSeq) == first + i, "every command in turn, none twice"
        assert int(dwLength) <= 290


def test_the_descriptor_is_read_as_ours(capture: Path) -> None:
    (line,) = tshark(
        capture, "-Y", "usbccid.dwFeatures", "-T", "fields",
        "-e", "usbccid.dwFeatures", "-e", "usbccid.dwMaxCCIDMessageLength",
    )  # fmt: skip
    features, length = line.split("\t")
    assert int(features, 0) == AUTOMATIC | ExchangeLevel.EXTENDED_APDU | Features.CLOCK_STOP
    assert int(length, 0) == 300


def test_pins_are_not_in_it(capture: Path) -> None:
    raw = capture.read_bytes()
    assert b"1234" not in raw
    assert bytes.fromhex("002000010 42A2A2A2A".replace(" ", "")) in raw


def test_events_are_in_it(capture: Path) -> None:
    events = capture.with_name("events.pcapng")
    assert tshark(events, "-Y", "_ws.malformed") == []
    fields = ("-T", "fields", "-e", "usb.capdata")
    assert tshark(events, "-Y", "usb.transfer_type == 1 && usb.capdata", *fields) == ["5003"]
