"""Classes of faults that had a CVE number in other software for smart cards: here each has a test.
docs/security.md has the list. The name of a test has the number of the first of its class."""

from __future__ import annotations

import gc
import re
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import (
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
)
from ccid.codes import ExchangeLevel, InterfaceProtocol, Protocol
from ccid.errors import CcidError, MalformedMessage
from ccid.iso7816.atr import MAX_ATR, Atr
from ccid.pcsc.ifd.handler import IFDHandler
from ccid.pcsc.numbers.ifd_numbers import Action, Code, Tag
from ccid.pcsc.service.client_messages import ENTRY, NO_ATR, Command
from ccid.pin.pad_structures import PinPadFeatures
from ccid.probe.dump_command import take_from
from ccid.virtual import EchoCard, FileSystemCard, VirtualReader, faults
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.faults import Fault
from ccid.virtual.models import make
from ccid.virtual.usb_device import Stall
from ccid.virtual.usbip_messages import MAX_TRANSFER, CommandStream
from ccid.virtual.virtual_reader import make_descriptor
from ccid.virtual.virtual_transport import VirtualTransport
from ccid.virtual.vpcd_messages import MessageStream
from tests.fuzz.bounds import largest
from tests.unit.fake_pcsc import FakeSlot
from tests.unit.pcsc_clients import Client, Server, connect_body, request, transmit_body

DEVICE = "usb:08e6/3437:libudev:0:/dev/bus/usb/001/002"
SELECT_MF = bytes.fromhex("00A4000C023F00")
ECHO = bytes.fromhex("0010000010")
LENGTHS = [0, 1, 9, 10, 255, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF5, 0xFFFF_FFF6, 0xFFFF_FFFF]
"""Lengths beside those that are right: with 10 added, and as signed numbers, some are small."""
INVALID_HANDLE = 0x8010_0003
LEVELS = [
    (level, protocol)
    for level in list(ExchangeLevel)[:4]
    for protocol in (Protocol.T0, Protocol.T1)
]


def says(length: int) -> Fault:
    """Replies with this dwLength."""

    def bend(function: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
        for one in said:
            one.message = one.message[:1] + struct.pack("<I", length) + one.message[5:]
        return said

    return Fault(bend, None, None)


# CVE-2010-4530: a length that the reader controls -------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "ask",
    [
        lambda slot: slot.commands.power_on(),
        lambda slot: slot.commands.get_parameters(),
        lambda slot: slot.commands.slot_status(),
        lambda slot: slot.escape(b"\1\2"),
        lambda slot: slot.commands.xfr_block(ECHO, timeout_s=1.0),
    ],
    ids=["power", "parameters", "status", "escape", "block"],
)
def test_cve_2010_4530_length_of_a_reply(
    length: int, ask: Callable[[ccid.Slot], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccid.link.inbox.REST_MS", 20)
    virtual = VirtualReader(EchoCard(), escape=lambda data: data)
    with ccid.open_reader(virtual) as reader:
        reader.slots[0].connect()
        before = largest()
        virtual.faults.append(says(length))
        with suppress(CcidError):
            got = ask(reader.slots[0])  # it says fewer than come: no more than that are taken
            assert not isinstance(got, bytes) or len(got) <= length
            assert length < 255
        assert largest() - before < 1 << 20
        virtual.faults.clear()
        reader.slots[0].status()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 254, 255])
def test_cve_2010_4530_length_of_a_string(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of iSerialNumber, for example: bLength may say anything."""
    control = VirtualTransport.control

    def lies(self: Any, asked: ClassControl, timeout_ms: int = 0, data: bytes = b"") -> bytes:
        came = control(self, asked, timeout_ms, data)
        return bytes((length,)) + came[1:] if asked.bRequest == 6 else came

    monkeypatch.setattr(VirtualTransport, "control", lies)
    with ccid.open_reader(VirtualReader()) as reader:
        serial = take_from(reader).info.serial
    assert serial is None or len(serial) < 128


@pytest.mark.parametrize("count", [0, 1, 255])
def test_cve_2010_4530_length_of_a_list(count: int) -> None:
    """bNumDataRatesSupported says another number than come."""
    descriptor = make_descriptor(ExchangeLevel.TPDU, bNumDataRatesSupported=count)
    virtual = VirtualReader(descriptor=descriptor, data_rates=[10752, 21505])
    with ccid.open_reader(virtual) as reader:
        assert len(reader.data_rates) <= max(count, 1)
        with suppress(CcidError):  # a card may want a rate that is not there
            reader.slots[0].connect().transmit(SELECT_MF)


# CVE-2010-4531: an ATR of more than 33 bytes ------------------------------------------------------


def finds(virtual: VirtualReader) -> Any:
    """Finds this reader by any name."""
    return lambda *_: virtual.info


ENDLESS_ATR = bytes.fromhex("3BF0") + bytes.fromhex("010101F1") * 60
"""Each TD announces one more group."""
LONG_ATRS = [ENDLESS_ATR[:n] for n in (34, 35, 64, 100, 242)] + [
    bytes.fromhex("3B0F") + bytes(200),
    bytes.fromhex("3BFF") + bytes.fromhex("110000F1") * 40,
]


@pytest.mark.parametrize("atr", LONG_ATRS, ids=lambda atr: str(len(atr)))
def test_cve_2010_4531_a_long_atr(atr: bytes) -> None:
    """It is refused or cut, in all that shows it."""
    virtual = VirtualReader(EchoCard())
    virtual.faults.append(faults.altered(lambda _: atr, on=PC_to_RDR_IccPowerOn, times=None))
    with suppress(CcidError):
        assert Atr.parse(atr).explain()
    handler = IFDHandler(find=finds(virtual))
    try:
        assert handler.create_channel_by_name(0, DEVICE) is Code.SUCCESS
        for capacity in (0, MAX_ATR, 1 << 16):
            _, said = handler.power_icc(0, Action.POWER_UP, capacity)
            assert len(said) <= min(capacity, MAX_ATR)
            _, said = handler.get_capabilities(0, Tag.ATR, capacity)
            assert len(said) <= min(capacity, MAX_ATR)
    finally:
        handler.close()


@pytest.mark.parametrize("atr", LONG_ATRS, ids=lambda atr: str(len(atr)))
def test_cve_2010_4531_a_long_atr_for_clients(atr: bytes) -> None:
    """The structure that libpcsclite reads has room for 33 bytes, and says at most 33."""
    server = Server(FakeSlot(atr))
    client = server.client()
    client.establish()
    array = client.ask(Command.GETSTATE)
    for at in range(0, len(array), ENTRY.size):
        name, *_, shown, length, _ = ENTRY.unpack_from(array, at)
        assert len(shown) == MAX_ATR
        assert length <= MAX_ATR if name.strip(b"\0") else length == NO_ATR


# CVE-2010-0407: a malformed message of a client ---------------------------------------------------


@pytest.fixture
def server() -> Server:
    return Server(FakeSlot(), FakeSlot())


@pytest.fixture
def client(server: Server) -> Client:
    made = server.client()
    made.establish()
    return made


def others_are_served(server: Server) -> bool:
    honest = server.client()
    honest.establish()
    card = honest.connect(name="Reader 01 00")
    reply = honest.ask(Command.TRANSMIT, body=transmit_body(card, 4), data=b"\0\xa4\0\0")
    honest.hang_up()
    return reply[-2:] == b"\x90\0"


@pytest.mark.parametrize("length", [65549, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_cve_2010_0407_a_client_that_announces_too_much(
    server: Server, client: Client, length: int
) -> None:
    """It is hung up on at once: its data are not waited for."""
    card = client.connect()
    client.say(request(Command.TRANSMIT, transmit_body(card, length), bytes(64)))
    assert client not in server.clients
    assert others_are_served(server)


@pytest.mark.parametrize("room", [0, 1, 2, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_cve_2010_0407_room_that_a_client_has(server: Server, client: Client, room: int) -> None:
    """No reply is longer than the client says that it has room, nor than there is to say."""
    card = client.connect()
    for body in (transmit_body(card, 4, room=room),):
        reply = client.ask(Command.TRANSMIT, body=body, data=b"\0\xa4\0\0")
        assert len(reply) in (32, 34)
    assert others_are_served(server)


@pytest.mark.parametrize("length", [265, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize("command", [Command.GETATTRIB, Command.SETATTRIB])
def test_cve_2010_0407_an_attribute_that_is_too_long(
    server: Server, client: Client, command: Command, length: int
) -> None:
    body = struct.pack("=II264sII", client.connect(), 1, b"", length, 0)
    client.say(request(command, body))
    assert client not in server.clients
    assert others_are_served(server)


@pytest.mark.parametrize("name", ["A" * 128, "\u00e9" * 64, "%s%n", ""])
def test_cve_2010_0407_a_name_without_an_end(server: Server, client: Client, name: str) -> None:
    reply = client.ask(Command.CONNECT, body=connect_body(client.context, name, 2))
    assert struct.unpack("=I", reply[-4:])[0] != 0
    assert client in server.clients


# CVE-2016-10109: a handle that is used after its release ------------------------------------------

USES: dict[str, Callable[[int], bytes]] = {
    "begin": lambda card: request(Command.BEGIN, struct.pack("=II", card, 0)),
    "end": lambda card: request(Command.END, struct.pack("=III", card, 0, 0)),
    "transmit": lambda card: request(Command.TRANSMIT, transmit_body(card, 4), b"\0\xa4\0\0"),
    "control": lambda card: request(Command.CONTROL, struct.pack("=6I", card, 1, 1, 9, 0, 0), b"a"),
    "status": lambda card: request(Command.STATUS, struct.pack("=II", card, 0)),
    "reconnect": lambda card: request(Command.RECONNECT, struct.pack("=6I", card, 2, 3, 1, 0, 0)),
    "disconnect": lambda card: request(Command.DISCONNECT, struct.pack("=III", card, 0, 0)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("how", ["disconnect", "release"])
def test_cve_2016_10109_a_handle_after_its_release(
    server: Server, client: Client, use: str, how: str
) -> None:
    card = client.connect()
    if how == "disconnect":
        assert client.rv(Command.DISCONNECT, card, 0, 0) == 0
    else:
        assert client.rv(Command.RELEASE, client.context, 0) == 0
    client.say(USES[use](card))
    reply = client.take()
    assert INVALID_HANDLE in [code for (code,) in struct.iter_unpack("=I", reply)]
    assert others_are_served(server)


@pytest.mark.parametrize("use", USES)
def test_cve_2016_10109_a_handle_of_somebody_else(server: Server, client: Client, use: str) -> None:
    card = server.client()
    card.establish()
    number = card.connect()
    client.say(USES[use](number))
    reply = client.take()
    assert INVALID_HANDLE in [code for (code,) in struct.iter_unpack("=I", reply)]
    assert card.rv(Command.BEGIN, number, 0) == 0


@pytest.mark.parametrize("use", USES)
def test_cve_2016_10109_a_client_that_leaves_in_the_middle(
    server: Server, client: Client, use: str
) -> None:
    """Its work is under way while its context goes."""
    card = client.connect()
    client.say(USES[use](card), jobs=0)
    client.hang_up()
    assert not server.core.resources.handles
    assert others_are_served(server)


# CVE-2024-45616 and kin: a short reply that is used unchecked -------------------------------------


@pytest.mark.parametrize(("level", "protocol"), LEVELS)
@pytest.mark.parametrize("length", range(6))
def test_cve_2024_45616_a_short_response(
    level: ExchangeLevel, protocol: Protocol, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls transmit may rely on SW1 SW2: shorter answers are errors."""
    monkeypatch.setattr("ccid.link.pipe.ABORT_S", 0.05)
    virtual = VirtualReader(level=level)
    with ccid.open_reader(virtual, max_command_s=0.5) as reader:
        card = reader.slots[0].connect(protocol, auto_get_response=True)
        virtual.faults.append(
            faults.altered(lambda data: data[:length], on=PC_to_RDR_XfrBlock, times=None)
        )
        with suppress(CcidError):
            assert len(card.transmit(SELECT_MF)) >= 2
        virtual.faults.clear()


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("command", [PC_to_RDR_GetParameters, PC_to_RDR_GetSlotStatus,
                                     PC_to_RDR_IccPowerOn, PC_to_RDR_Escape])  # fmt: skip
def test_cve_2024_45616_a_short_reply(command: Any, length: int) -> None:
    virtual = VirtualReader(EchoCard(), escape=lambda data: data)
    with ccid.open_reader(virtual) as reader:
        slot = reader.slots[0]
        slot.connect()
        virtual.faults.append(faults.altered(lambda data: data[:length], on=command, times=None))
        for ask in slot.commands.get_parameters, slot.status, slot.commands.power_on:
            with suppress(CcidError):
                ask()
        assert len(slot.escape(bytes(20))) == (length if command is PC_to_RDR_Escape else 20)


@pytest.mark.parametrize("version", [InterfaceProtocol.ICCD_A, InterfaceProtocol.ICCD_B])
@pytest.mark.parametrize("length", range(4))
def test_cve_2024_45616_a_short_reply_of_a_token(
    version: InterfaceProtocol, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccid.link.iccd_commands.STATUS_S", 0.05)
    is_a = version is InterfaceProtocol.ICCD_A
    atr = bytes.fromhex("3B159663636964" + "21" if is_a else "3B95968131FE45636369642124")
    virtual = VirtualReader(EchoCard(atr), bInterfaceProtocol=version)
    control = VirtualTransport.control

    def short(self: Any, asked: ClassControl, timeout_ms: int = 0, data: bytes = b"") -> bytes:
        came = control(self, asked, timeout_ms, data)
        return came[:length] if is_short and asked.bmRequestType & 0x80 else came

    is_short = False
    monkeypatch.setattr(VirtualTransport, "control", short)
    with ccid.open_reader(virtual, max_command_s=0.3) as reader:
        card = reader.slots[0].connect()
        is_short = True
        for ask in (lambda: card.transmit(ECHO), reader.slots[0].status, card.reset):
            with suppress(CcidError):
                ask()
        is_short = False


@pytest.mark.parametrize("length", range(30))
def test_cve_2024_45616_a_short_block_of_features(length: int) -> None:
    known = PinPadFeatures.parse(bytes(length))
    assert (known is not None) == (length == 21)


# CVE-2017-5898, CVE-2016-0749: a length from the host that overflows ------------------------------


@pytest.mark.parametrize("length", LENGTHS[4:])
def test_cve_2017_5898_length_of_a_command(length: int) -> None:
    """A command announces more than it has: the virtual reader does not collect it without end."""
    function = CcidFunction(make_descriptor(ExchangeLevel.EXTENDED_APDU), [EchoCard()])
    head = b"\x6f" + struct.pack("<I", length) + bytes(5)
    function.bulk_out(head + bytes(54), 0.0)
    for _ in range(2000):
        try:
            function.bulk_out(bytes(64), 0.0)
        except Stall:
            function.bulk_in.drop_all()
        assert len(function._partial) < 70_000
    assert function.bulk_in.next_due() is not None


@pytest.mark.parametrize("length", [MAX_TRANSFER + 1, 0x7FFF_FFFF, -1, -0x8000_0000])
def test_cve_2016_0749_length_of_a_transfer(length: int) -> None:
    """USB/IP: refused with the header; no byte of it is waited for."""
    submit = struct.pack(">6I4i8s", 1, 1, 1, 0, 1, 0, length, 0, 0, 0, bytes(8))
    stream = CommandStream()
    with pytest.raises(MalformedMessage, match="transfer_buffer_length"):
        list(stream.feed(submit))


def test_cve_2016_0749_length_of_a_message() -> None:
    """vpcd: what is collected is bounded by the two bytes of the length."""
    stream = MessageStream()
    assert list(stream.feed(b"\xff\xff")) == []
    for _ in range(64):
        for content in stream.feed(bytes(1024)):
            assert len(content) == 0xFFFF
            return
    raise AssertionError("the message does not end")


# CVE-2017-6414: something is left of each APDU ----------------------------------------------------

APDUS_SMALL, APDUS_FULL = 300, 30_000


def blocks_left(work: Callable[[], object], count: int) -> int:
    """How many blocks of memory are allocated more after ``count`` times, the least of three: what
    is left by each ``work`` is left each time, and what another thread makes meanwhile is not."""
    for _ in range(20):
        work()
    left = []
    for _ in range(3):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(count):
            work()
        gc.collect()
        left.append(sys.getallocatedblocks() - before)
        if left[-1] < count / 4:
            break
    return min(left)


@pytest.fixture
def count(full: bool, collects_little: None) -> int:
    return APDUS_FULL if full else APDUS_SMALL


@pytest.mark.parametrize(("level", "protocol"), LEVELS)
def test_cve_2017_6414_apdus_leave_nothing(
    level: ExchangeLevel, protocol: Protocol, count: int
) -> None:
    with ccid.open_reader(VirtualReader(FileSystemCard(), level=level)) as reader:
        card = reader.slots[0].connect(protocol)
        assert blocks_left(lambda: card.transmit(SELECT_MF), count) < count / 4


def failing_apdu(card: ccid.Card) -> None:
    with pytest.raises(CcidError):
        card.transmit(bytes(3))


def test_cve_2017_6414_apdus_that_fail_leave_nothing(count: int) -> None:
    virtual = VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        assert blocks_left(lambda: failing_apdu(card), count) < count / 4


def test_cve_2017_6414_apdus_of_clients_leave_nothing(server: Server, count: int) -> None:
    client = server.client()
    client.establish()
    card = client.connect()
    body = transmit_body(card, 4)

    def work() -> None:
        client.ask(Command.TRANSMIT, body=body, data=b"\0\xa4\0\0")
        for fake in server.world._fakes.values():
            fake.log.clear()
        server.sleep(100.0)  # alarms for calls that have ended go

    assert blocks_left(work, count) < count / 4


def test_cve_2017_6414_sessions_leave_nothing(count: int) -> None:
    """Nor do cards that are connected and disconnected, and models of readers."""
    virtual = VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:

        def work() -> None:
            with reader.slots[0].connect() as card:
                card.transmit(ECHO)

        assert blocks_left(work, count // 3) < count / 4
    assert make().info


# The list -----------------------------------------------------------------------------------------


def named_tests() -> Iterator[tuple[str, str]]:
    """The numbers in docs/security.md, and the tests that it names with them."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    for row in re.findall(r"^\| CVE-[^\n]+$", text, re.MULTILINE):
        yield from ((row, name) for name in re.findall(r"`(test_cve_\w+)`", row))


def test_each_class_is_in_the_document() -> None:
    here = {name for name in globals() if name.startswith("test_cve_")}
    named = {name for _, name in named_tests()}
    assert {name for name in here if not any(name.startswith(n) for n in named)} == set()
    for row, name in named_tests():
        number = "-".join(name.split("_")[1:4]).upper()
        assert number in row
        assert any(one.startswith(name) for one in here)
