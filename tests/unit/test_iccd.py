"""ICCD devices through the driver: version A by status bytes, version B by typed answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.codes import IccStatus, InterfaceProtocol, Protocol
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandCancelled,
    CommandFailed,
    InvalidApdu,
    MalformedMessage,
    ProtocolError,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import CommandApdu
from ccid.link.iccd_commands import IccdA, IccdB
from ccid.session.exchange.iccd_tpdu import IccdAT0
from ccid.virtual import EchoCard
from ccid.virtual.iccd_function import IccdFunction, make_iccd_descriptor
from tests.unit.scripted import ScriptedTransport

VERSIONS = [InterfaceProtocol.ICCD_A, InterfaceProtocol.ICCD_B]
T0 = bytes.fromhex("3B 15 96 63 63 69 64 21")
T1 = bytes.fromhex("3B 95 96 81 31 FE 45 63 63 69 64 21 24")


def device(version: InterfaceProtocol, **function: Any) -> ccid.VirtualReader:
    card = EchoCard(T0 if version is InterfaceProtocol.ICCD_A else T1)
    return ccid.VirtualReader(card, bInterfaceProtocol=version, **function)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("busy_s", [0.0, 0.03])
def test_a_conversation(version: InterfaceProtocol, busy_s: float) -> None:
    virtual = device(version, busy_s=busy_s)
    with ccid.open_reader(virtual) as reader:
        (slot,) = reader.slots
        with slot.connect(auto_get_response=True) as card:
            assert card.protocol is (Protocol.T1 if version is VERSIONS[1] else Protocol.T0)
            assert slot.status() is IccStatus.ACTIVE
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"
            assert card.transmit(bytes.fromhex("0010070004")) == b"\7\x08\x09\x0a\x90\x00"
            assert card.transmit(bytes.fromhex("0020000003 010203")) == b"\x90\x00"
            assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"
            assert len(card.transmit(bytes.fromhex("0010000000"))) == 258
            atr = card.atr.raw
            assert card.reset().raw == atr
            assert card.transmit(bytes.fromhex("00526A82")) == b"\x6a\x82"


@pytest.mark.parametrize("size", [250, 300, 2000, 5000])
def test_version_b_chains(size: int) -> None:
    data = bytes(i & 255 for i in range(size))
    apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
    with ccid.open_reader(device(VERSIONS[1])) as reader, reader.slots[0].connect() as card:
        assert card.transmit(apdu) == data + b"\x90\x00"


def test_version_a_hands_61xx_up() -> None:
    with ccid.open_reader(device(VERSIONS[0])) as reader, reader.slots[0].connect() as card:
        assert card.transmit(bytes.fromhex("0030000003 010203")) == b"\x61\x03"
        assert card.transmit(bytes.fromhex("00C0000003")) == b"\1\2\3\x90\x00"
        assert card.transmit(bytes.fromhex("0010000000"))[-2:] == b"\x90\x00"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_has_no_request_is_said_so(version: InterfaceProtocol) -> None:
    with ccid.open_reader(device(version)) as reader:
        with pytest.raises(UnsupportedByReader, match="no Escape"):
            reader.slots[0].escape(b"\0")
        with pytest.raises(UnsupportedByReader, match="no IccClock"):
            reader.slots[0].commands.icc_clock(0)


def test_a_failure_of_version_b() -> None:
    virtual = device(VERSIONS[1])
    function = virtual.functions[0]
    assert isinstance(function, IccdFunction)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        function.refusals.append(0xFB)
        with pytest.raises(CommandFailed) as error:
            card.transmit(bytes.fromhex("00400000"))
        assert error.value.bError == 0xFB
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


def test_a_card_that_falls_silent_in_version_a() -> None:
    virtual = device(VERSIONS[0])
    function = virtual.functions[0]
    assert isinstance(function, IccdFunction)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        function.refusals.append(0xFE)
        with pytest.raises(CardMute):
            card.transmit(bytes.fromhex("00400000"))


def test_no_card() -> None:
    virtual = ccid.VirtualReader(None, bInterfaceProtocol=InterfaceProtocol.ICCD_B)
    with ccid.open_reader(virtual) as reader:
        assert reader.slots[0].status() is IccStatus.ABSENT
        with pytest.raises(CardAbsent):
            reader.slots[0].connect()


@pytest.mark.parametrize("version", VERSIONS)
def test_busy_is_bounded_by_time(version: InterfaceProtocol) -> None:
    """The reference driver asks without end."""
    with ccid.open_reader(device(version), max_command_s=0.5) as reader:
        with reader.slots[0].connect() as card:
            with pytest.raises(TransportTimeout):
                card.transmit(bytes.fromhex("0038003C"))  # a minute


@pytest.mark.parametrize("version", VERSIONS)
def test_cancelled_and_the_late_answer_dropped(version: InterfaceProtocol) -> None:
    with ccid.open_reader(device(version)) as reader:
        (slot,) = reader.slots
        with slot.connect() as card:
            threading.Timer(0.1, slot.cancel).start()
            with pytest.raises(CommandCancelled):
                card.transmit(bytes.fromhex("005003E8"))  # 1 s
            assert card.transmit(bytes.fromhex("0010070002")) == b"\7\x08\x90\x00"


def test_secrets_on_the_control_pipe() -> None:
    import io

    for version in VERSIONS:
        file = io.BytesIO()
        with ccid.open_reader(device(version)) as reader, reader.slots[0].connect() as card:
            with reader.trace(file):
                assert card.transmit(bytes.fromhex("0020000108") + b"13579086") == b"\x90\x00"
        assert b"1357" not in file.getvalue()
        assert bytes.fromhex("0020000108") in file.getvalue()


# Malformed answers ----------------------------------------------------------------------------


def commands(version: InterfaceProtocol, answers: list[bytes]) -> IccdA | IccdB:
    from ccid.link.conversation import Conversation

    transport = ScriptedTransport(lambda _: None)

    def control(request: ClassControl) -> bytes:
        return answers.pop(0) if request.bmRequestType & 0x80 else b""

    transport.on_control = control
    made = IccdA if version is VERSIONS[0] else IccdB
    return made(Conversation(transport, name="script", max_command_s=0.5), 261)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([b""], MalformedMessage),
        ([b"\x55"], MalformedMessage),
        ([b"\x40"], CcidError),
        ([b"\x40\x02\xfe"], CardAbsent),
        ([b"\x80"] * 500, TransportTimeout),
    ],
)
def test_odd_answers_of_version_b(answers: list[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        commands(VERSIONS[1], answers).xfr_block(b"\0\xa4\4\0", timeout_s=1)


@pytest.mark.parametrize("answers", [[b""], [b"\x01"], [b"\1\xff\0"]])
def test_odd_status_of_version_b(answers: list[bytes]) -> None:
    made = commands(VERSIONS[1], answers)
    if len(answers[0]) < 2:
        with pytest.raises(MalformedMessage):
            made.slot_status()
    else:
        assert made.slot_status().icc is IccStatus.ABSENT


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([b""], MalformedMessage),
        ([b"\x80"], CardMute),
        ([b"\x00"], ProtocolError),
        ([b"\x20", b"\x90"], ProtocolError),
        ([b"\x10", b"\1\2", b"\0"], ProtocolError),
        ([b"\x40"] * 500, TransportTimeout),
    ],
)
def test_odd_answers_of_version_a(answers: list[bytes], error: type[Exception]) -> None:
    made = commands(VERSIONS[0], answers)
    assert isinstance(made, IccdA)
    with pytest.raises(error):
        IccdAT0(made).transmit(bytes.fromhex("0010000002"))


@pytest.mark.parametrize("apdu", ["00A404", "00A4040003AABB"])
def test_no_tpdu(apdu: str) -> None:
    made = commands(VERSIONS[0], [])
    assert isinstance(made, IccdA)
    with pytest.raises(InvalidApdu):
        IccdAT0(made).transmit(bytes.fromhex(apdu))


def test_too_long_for_a_control_transfer() -> None:
    with pytest.raises(UnsupportedByReader, match="control transfer"):
        commands(VERSIONS[1], []).xfr_block(bytes(4097), timeout_s=1)


def test_descriptors_say_what_they_are() -> None:
    for version in VERSIONS:
        virtual = device(version)
        assert virtual.info.reader.is_iccd
        assert virtual.info.descriptor == make_iccd_descriptor(version)
