"""The IFD handler, every tag and every response code, on virtual readers."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import PC_to_RDR_IccPowerOn, PC_to_RDR_SetParameters, PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, Features, SlotError, VoltageSupport
from ccid.pcsc.ifd import Action, Code, IFDHandler, Tag
from ccid.pcsc.ifd.device_strings import DeviceName, find
from ccid.pcsc.ifd.ifd_codes import code_of
from ccid.pcsc.numbers.ifd_numbers import MAX_RESPONSE, PTS1, PTS2, Asker
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard, faults, make_descriptor
from ccid.virtual.models import make
from ccid.virtual.virtual_reader import AUTOMATIC

LUN = 0x0003_0000
PATTERN = bytes.fromhex("0010000004")
ANSWER = bytes.fromhex("00010203 9000")
T0, T1 = 1, 2
LEVELS = (ExchangeLevel.TPDU, ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)


class Bench:
    """A handler with one virtual reader, which every device string finds."""

    def __init__(self, virtual: ccid.VirtualReader, **options: Any) -> None:
        self.virtual = virtual
        self.events: list[int] = []
        self.told = threading.Event()
        self.names: list[DeviceName] = []
        self.handler = IFDHandler(self._event, find=self._find, **options)
        self.opened = self.handler.create_channel_by_name(LUN, "virtual:")

    def _event(self, lun: int) -> None:
        self.events.append(lun)
        self.told.set()

    def _find(self, name: DeviceName, taken: Collection[str]) -> ReaderInfo:
        self.names.append(name)
        return self.virtual.info

    def ready(self, protocol: int = T1) -> IFDHandler:
        """The handler, with the card powered up and a protocol agreed."""
        assert self.handler.icc_presence(LUN) is Code.ICC_PRESENT
        assert self.handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
        assert self.handler.set_protocol_parameters(LUN, protocol) is Code.SUCCESS
        return self.handler

    def until_told(self) -> None:
        assert self.told.wait(5)


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.handler.close()


@pytest.fixture
def bench(benches: list[Bench]) -> Any:
    def make_one(card: Any = None, *, options: Any = None, **reader: Any) -> Bench:
        one = Bench(ccid.VirtualReader(card or EchoCard(), **reader), **(options or {}))
        benches.append(one)
        return one

    return make_one


# Device strings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "usb:08e6/3437:libudev:0:/dev/bus/usb/001/004",
            DeviceName(0x08E6, 0x3437, 1, 4, 0),
        ),
        (
            "usb:08E6/3437:libudev:2:/dev/bus/usb/012/114",
            DeviceName(0x08E6, 0x3437, 12, 114, 2),
        ),
        ("usb:08e6/3437:libusb-1.0:1:4:2", DeviceName(0x08E6, 0x3437, 1, 4, 2)),
        ("usb:08e6/3437", DeviceName(0x08E6, 0x3437)),
        ("usb:08e6/3437:what:is:this", DeviceName(0x08E6, 0x3437)),
        ("virtual:", DeviceName(model="")),
        ("virtual:08E6:4433", DeviceName(model="08e6:4433")),
        ("", DeviceName()),
    ],
)
def test_device_strings(text: str, name: DeviceName) -> None:
    assert DeviceName.parse(text) == name


@pytest.mark.parametrize("text", ["usb:", "usb:xyz/1234", "/dev/ttyS0", "virtual:08e6", "usb0"])
def test_what_is_no_device_string(text: str) -> None:
    with pytest.raises(errors.ReaderNotFound):
        DeviceName.parse(text)
    assert IFDHandler().create_channel_by_name(LUN, text) is Code.NO_SUCH_DEVICE


def test_which_reader_a_device_string_means() -> None:
    info = replace(ccid.VirtualReader(vendor_id=0x08E6, product_id=0x3437).info, bus=1, address=4)
    for text in ("", "usb:08e6/3437", "usb:08e6/3437:libudev:0:/dev/bus/usb/001/004"):
        assert DeviceName.parse(text).fits(info)
    for text in (
        "usb:08e6/3438",
        "usb:08e7/3437",
        "usb:08e6/3437:libudev:1:/dev/bus/usb/001/004",
        "usb:08e6/3437:libudev:0:/dev/bus/usb/001/005",
        "usb:08e6/3437:libusb-1.0:2:4:0",
    ):
        assert not DeviceName.parse(text).fits(info), text


@pytest.fixture
def on_usb(monkeypatch: pytest.MonkeyPatch) -> list[ReaderInfo]:
    """Two readers of the same kind, and an interface whose descriptor is broken."""
    from ccid.transport import discovery

    readers = [
        replace(
            ccid.VirtualReader(vendor_id=0x08E6, product_id=0x3437).info,
            bus=1,
            address=address,
            path=f"usb:1-{address}:1.0",
        )
        for address in (4, 5)
    ]
    broken = discovery.Broken("usb:1-6:1.2", "08e6:3437", errors.MalformedDescriptor("it is short"))
    monkeypatch.setattr(discovery, "discover", lambda: discovery.Discovery(readers, [broken]))
    return readers


def test_readers_on_usb_are_found(on_usb: list[ReaderInfo]) -> None:
    first, second = on_usb
    assert find(DeviceName.parse("usb:08e6/3437:libudev:0:/dev/bus/usb/001/005")) is second
    assert find(DeviceName.parse("usb:08e6/3437")) is first
    assert find(DeviceName.parse("usb:08e6/3437"), [first.path]) is second
    for text, kind in (
        ("usb:08e6/3437:libudev:1:/dev/bus/usb/001/005", errors.ReaderNotFound),
        ("usb:08e6/3437:libudev:2:/dev/bus/usb/001/006", errors.ReaderUnsupported),
        ("usb:08e6/9999", errors.ReaderNotFound),
    ):
        with pytest.raises(kind):
            find(DeviceName.parse(text))


def test_no_reader_and_one_that_does_not_open(on_usb: list[ReaderInfo]) -> None:
    """NO_SUCH_DEVICE is the answer only if there is no such reader."""
    handler = IFDHandler()
    for text, code in (
        ("usb:08e6/3437:libudev:1:/dev/bus/usb/001/004", Code.NO_SUCH_DEVICE),
        ("usb:08e6/3437:libudev:2:/dev/bus/usb/001/006", Code.COMMUNICATION_ERROR),
    ):
        assert handler.create_channel_by_name(LUN, text) is code
    with ccid.open_reader(on_usb[0]):
        name = "usb:08e6/3437:libudev:0:/dev/bus/usb/001/004"
        assert handler.create_channel_by_name(LUN, name) is Code.COMMUNICATION_ERROR
        assert isinstance(handler.last_error, errors.ReaderBusy)
    assert handler.create_channel_by_name(LUN, name) is Code.SUCCESS
    handler.close()


def test_virtual_readers_by_name() -> None:
    handler = IFDHandler()
    assert handler.create_channel_by_name(LUN, "virtual:") is Code.SUCCESS
    assert handler.create_channel_by_name(0x0004_0000, "virtual:08e6:4433") is Code.SUCCESS
    assert handler.create_channel_by_name(0x0005_0000, "virtual:ffff:ffff") is Code.NO_SUCH_DEVICE
    atr = handler.power_icc(0x0004_0000, Action.POWER_UP)
    assert atr == (Code.SUCCESS, handler.get_capabilities(0x0004_0000, Tag.ATR, 33)[1])
    handler.close()


def test_opening_by_channel(on_usb: list[ReaderInfo]) -> None:
    handler = IFDHandler()
    assert handler.create_channel(LUN, 0x200000) is Code.SUCCESS
    assert handler.create_channel(0x0004_0000, 0x200001) is Code.SUCCESS
    assert handler.create_channel(0x0005_0000, 0x200002) is Code.NO_SUCH_DEVICE
    handler.close()


# Channels and slots ---------------------------------------------------------------------------


def test_a_lun_is_opened_once(bench: Any) -> None:
    one = bench()
    assert one.opened is Code.SUCCESS
    assert one.handler.create_channel_by_name(LUN, "virtual:") is Code.COMMUNICATION_ERROR
    assert one.handler.icc_presence(LUN) is Code.ICC_PRESENT


def test_the_same_string_again_is_the_next_slot(bench: Any) -> None:
    cards = [EchoCard(bytes.fromhex(f"3B6{i}0000") + b"slot!"[:i]) for i in range(3)]
    one = bench(cards, slots=3)
    for slot in (1, 2):
        assert one.handler.create_channel_by_name(LUN + slot, "virtual:") is Code.SUCCESS
    assert len(one.names) == 1, "one reader was opened"
    for slot in range(3):
        atr = one.handler.power_icc(LUN + slot, Action.POWER_UP)
        assert atr == (Code.SUCCESS, cards[slot].atr)
    assert one.handler.create_channel_by_name(LUN + 3, "virtual:") is Code.COMMUNICATION_ERROR
    assert isinstance(one.handler.last_error, errors.ReaderBusy)
    assert one.handler.close_channel(LUN + 1) is Code.SUCCESS
    assert one.handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert one.handler.create_channel_by_name(LUN + 1, "virtual:") is Code.SUCCESS


def test_a_slot_is_the_one_that_its_lun_names(bench: Any) -> None:
    """The order of opening does not matter. For a slot that is taken or does not exist, the next
    free slot is opened."""
    cards = [EchoCard(bytes.fromhex(f"3B6{i}0000") + b"slot!"[:i]) for i in range(3)]
    one = bench(cards, slots=3)
    assert one.handler.close_channel(LUN) is Code.SUCCESS
    for slot in (2, 0, 1):
        assert one.handler.create_channel_by_name(LUN + slot, "virtual:") is Code.SUCCESS
    for slot in range(3):
        assert one.handler.power_icc(LUN + slot, Action.POWER_UP)[1] == cards[slot].atr
    assert one.handler.close_channel(LUN + 1) is Code.SUCCESS
    assert one.handler.create_channel_by_name(LUN + 7, "virtual:") is Code.SUCCESS
    assert one.handler.power_icc(LUN + 7, Action.POWER_UP)[1] == cards[1].atr


def test_a_reader_that_is_gone(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    assert not handler.is_gone(LUN)
    one.virtual.remove()
    one.until_told()
    assert not handler.is_gone(LUN), "it was the card alone"
    one.told.clear()
    one.virtual.unplug()
    one.until_told()
    assert handler.is_gone(LUN)
    assert not handler.is_gone(LUN + 1)


def test_closing_powers_off_and_gives_back(bench: Any) -> None:
    one = bench()
    one.ready()
    assert one.virtual.functions[0].slots[0].powered
    assert one.handler.close_channel(LUN) is Code.SUCCESS
    assert not one.virtual.functions[0].slots[0].powered
    ccid.open_reader(one.virtual).close()
    assert one.handler.close_channel(LUN) is Code.COMMUNICATION_ERROR


def test_a_reader_that_is_not_supported(benches: list[Bench]) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwFeatures=0x60000)
    benches.append(Bench(ccid.VirtualReader(descriptor=descriptor)))
    assert benches[0].opened is Code.COMMUNICATION_ERROR
    assert isinstance(benches[0].handler.last_error, errors.ReaderUnsupported)


def test_every_function_refuses_a_lun_it_does_not_know() -> None:
    handler, bad = IFDHandler(), Code.COMMUNICATION_ERROR
    assert handler.close_channel(7) is bad
    assert handler.get_capabilities(7, Tag.ATR, 33) == (bad, b"")
    assert handler.set_capabilities(7, Tag.DEVICE_REMOVED, b"\x01") is bad
    assert handler.set_protocol_parameters(7, T0) is bad
    assert handler.power_icc(7, Action.POWER_UP) == (bad, b"")
    assert handler.transmit_to_icc(7, 0, PATTERN) == (bad, b"")
    assert handler.icc_presence(7) is bad
    assert handler.control(7, 0x42000D48, b"", 100) == (bad, b"")


# Capabilities ---------------------------------------------------------------------------------


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (Tag.SIMULTANEOUS_ACCESS, b"\xff"),
        (Tag.THREAD_SAFE, b"\x01"),
        (Tag.SLOTS_NUMBER, b"\x02"),
        (Tag.SLOT_THREAD_SAFE, b"\x00"),
        (Tag.ATR, b""),
        (Tag.ATTR_ATR_STRING, b""),
        (Tag.ATTR_ICC_PRESENCE, b"\x02"),
        (Tag.ATTR_ICC_INTERFACE_STATUS, b"\x01"),
        (Tag.ATTR_VENDOR_IFD_VERSION, u32(0x0123_0000)),
        (Tag.ATTR_MAXINPUT, u32(261)),
        (Tag.ATTR_VENDOR_NAME, b"ccid\0"),
        (Tag.POLLING_THREAD_WITH_TIMEOUT, b""),
        (Tag.STOP_POLLING_THREAD, b""),
        (Tag.POLLING_THREAD_KILLABLE, b""),
    ],
)
def test_capabilities(bench: Any, tag: Tag, value: bytes) -> None:
    one = bench(slots=2, bcdDevice=0x0123)
    assert one.handler.get_capabilities(LUN, tag, 300) == (Code.SUCCESS, value)


def test_capabilities_of_one_reader(bench: Any) -> None:
    one = bench()
    get, info = one.handler.get_capabilities, one.virtual.info
    assert get(LUN, Tag.ATTR_CHANNEL_ID, 4)[1] == u32(0x0020_0000 | info.address)
    assert get(LUN, Tag.ATTR_VENDOR_IFD_SERIAL_NO, 99)[1] == info.serial.encode() + b"\0"
    assert get(LUN, Tag.ATTR_VENDOR_NAME, 3) == (Code.SUCCESS, b"cc\0")
    assert get(LUN, Tag.ATTR_VENDOR_NAME, 0) == (Code.SUCCESS, b"")


@pytest.mark.parametrize("tag", [Tag.POLLING_THREAD, Tag.SLOTNUM, 0, 0x7FFF_0003, 0xFFFF_FFFF])
def test_unknown_tags(bench: Any, tag: int) -> None:
    assert bench().handler.get_capabilities(LUN, tag, 300) == (Code.ERROR_TAG, b"")


@pytest.mark.parametrize(
    ("tag", "size"),
    [
        (Tag.SIMULTANEOUS_ACCESS, 1),
        (Tag.THREAD_SAFE, 1),
        (Tag.SLOTS_NUMBER, 1),
        (Tag.SLOT_THREAD_SAFE, 1),
        (Tag.ATTR_ICC_PRESENCE, 1),
        (Tag.ATTR_ICC_INTERFACE_STATUS, 1),
        (Tag.ATTR_VENDOR_IFD_VERSION, 4),
        (Tag.ATTR_MAXINPUT, 4),
        (Tag.ATTR_CHANNEL_ID, 4),
    ],
)
def test_capabilities_that_do_not_fit(bench: Any, tag: Tag, size: int) -> None:
    """The application gives the room for the value."""
    get = bench().handler.get_capabilities
    assert get(LUN, tag, size - 1) == (Code.ERROR_INSUFFICIENT_BUFFER, b"")
    assert get(LUN, tag, size)[0] is Code.SUCCESS


@pytest.mark.parametrize(("busy", "value"), [(1, b"\0"), (2, b"\1")])
def test_slots_that_work_at_the_same_time(bench: Any, busy: int, value: bytes) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots=2, bMaxCCIDBusySlots=busy)
    one = bench([EchoCard(), EchoCard()], descriptor=descriptor)
    assert one.handler.get_capabilities(LUN, Tag.SLOT_THREAD_SAFE, 1) == (Code.SUCCESS, value)


def test_the_atr_is_remembered_while_there_is_power(bench: Any) -> None:
    one = bench()
    _, atr = one.handler.power_icc(LUN, Action.POWER_UP)
    for tag in (Tag.ATR, Tag.ATTR_ATR_STRING):
        assert one.handler.get_capabilities(LUN, tag, 33) == (Code.SUCCESS, atr)
        short = (Code.ERROR_INSUFFICIENT_BUFFER, b"")
        assert one.handler.get_capabilities(LUN, tag, len(atr) - 1) == short
    one.handler.power_icc(LUN, Action.POWER_DOWN)
    assert one.handler.get_capabilities(LUN, Tag.ATR, 33) == (Code.SUCCESS, b"")


def test_an_atr_that_does_not_fit(bench: Any) -> None:
    """The card still has power."""
    one = bench()
    handler, size = one.handler, len(EchoCard.atr)
    for action in (Action.POWER_UP, Action.RESET):
        for room in (0, 1, size - 1):
            short = (Code.ERROR_INSUFFICIENT_BUFFER, b"")
            assert handler.power_icc(LUN, action, room) == short
        assert handler.power_icc(LUN, action, size) == (Code.SUCCESS, EchoCard.atr)
    assert handler.power_icc(LUN, Action.POWER_UP, 0)[0] is Code.ERROR_INSUFFICIENT_BUFFER
    assert handler.set_protocol_parameters(LUN, T1) is Code.SUCCESS
    assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.SUCCESS, ANSWER)
    assert handler.power_icc(LUN, Action.POWER_DOWN, 0) == (Code.SUCCESS, b"")


def test_asking_for_presence_as_an_attribute_does_not_hide_a_removal(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    one.virtual.insert(EchoCard())
    for tag in (Tag.ATTR_ICC_PRESENCE, Tag.ATTR_ICC_INTERFACE_STATUS):
        assert handler.get_capabilities(LUN, tag, 1) == (Code.SUCCESS, b"\0")
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert handler.get_capabilities(LUN, Tag.ATTR_ICC_PRESENCE, 1) == (Code.SUCCESS, b"\2")


def test_what_can_be_set(bench: Any) -> None:
    one = bench()
    set_capabilities = one.handler.set_capabilities
    for tag in (Tag.ATR, Tag.SLOTS_NUMBER, 0x1234):
        assert set_capabilities(LUN, tag, b"\x01") is Code.ERROR_TAG
    for value in (b"", b"\0", b"\1\1"):
        assert set_capabilities(LUN, Tag.DEVICE_REMOVED, value) is Code.SUCCESS
        assert one.handler.icc_presence(LUN) is Code.ICC_PRESENT, value


def test_a_reader_that_is_said_to_be_gone_is_left_alone(bench: Any) -> None:
    one = bench([EchoCard(), EchoCard()], slots=2)
    handler = one.ready()
    assert handler.create_channel_by_name(LUN + 1, "virtual:") is Code.SUCCESS
    assert handler.get_capabilities(LUN, Tag.DEVICE_REMOVED, 1) == (Code.SUCCESS, b"\1")
    assert handler.set_capabilities(LUN, Tag.DEVICE_REMOVED, b"\1") is Code.SUCCESS
    before = dict(one.virtual.port.transfers)
    for lun in (LUN, LUN + 1):
        assert handler.icc_presence(lun) is Code.ICC_NOT_PRESENT
        assert handler.power_icc(lun, Action.POWER_UP) == (Code.ERROR_POWER_ACTION, b"")
        assert handler.power_icc(lun, Action.POWER_DOWN) == (Code.NO_SUCH_DEVICE, b"")
        assert handler.set_protocol_parameters(lun, T1) is Code.NO_SUCH_DEVICE
        assert handler.transmit_to_icc(lun, 1, PATTERN) == (Code.NO_SUCH_DEVICE, b"")
        assert handler.control(lun, 0x42000D48, b"", 100) == (Code.NO_SUCH_DEVICE, b"")
        assert handler.close_channel(lun) is Code.SUCCESS
    assert dict(one.virtual.port.transfers) == before


# Power ----------------------------------------------------------------------------------------


def test_up_down_and_reset(bench: Any) -> None:
    one = bench()
    slot = one.virtual.functions[0].slots[0]
    for action in (Action.POWER_UP, Action.RESET, Action.POWER_UP):
        assert one.handler.power_icc(LUN, action) == (Code.SUCCESS, EchoCard.atr)
        assert slot.powered
    assert slot.power_ons == 3
    assert one.handler.power_icc(LUN, Action.POWER_DOWN) == (Code.SUCCESS, b"")
    assert not slot.powered
    assert one.handler.power_icc(LUN, 503) == (Code.NOT_SUPPORTED, b"")


def test_power_for_no_card_and_for_a_mute_one(bench: Any) -> None:
    one = bench()
    one.virtual.functions[0].slots[0].mute = True
    assert one.handler.power_icc(LUN, Action.POWER_UP) == (Code.ERROR_POWER_ACTION, b"")
    assert one.handler.icc_presence(LUN) is Code.ICC_PRESENT, "it is there, and mute"
    one.virtual.remove()
    for action in (Action.POWER_UP, Action.RESET):
        assert one.handler.power_icc(LUN, action) == (Code.ERROR_POWER_ACTION, b"")
    assert one.handler.power_icc(LUN, Action.POWER_DOWN) == (Code.SUCCESS, b"")


def test_a_malformed_atr_comes_up_and_no_protocol_is_agreed(bench: Any) -> None:
    one = bench(EchoCard(bytes.fromhex("3B9F")))
    assert one.handler.power_icc(LUN, Action.POWER_UP) == (Code.SUCCESS, bytes.fromhex("3B9F"))
    assert one.handler.set_protocol_parameters(LUN, T0) is Code.PROTOCOL_NOT_SUPPORTED


def test_a_reader_pulled_out(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    one.virtual.unplug()
    assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.NO_SUCH_DEVICE, b"")
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert handler.power_icc(LUN, Action.POWER_UP) == (Code.ERROR_POWER_ACTION, b"")
    assert handler.power_icc(LUN, Action.POWER_DOWN) == (Code.NO_SUCH_DEVICE, b"")
    assert handler.close_channel(LUN) is Code.SUCCESS


# Protocol -------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_conversation(bench: Any, level: ExchangeLevel) -> None:
    one = bench(level=level)
    protocol = T0 if level is ExchangeLevel.TPDU else T1
    handler = one.ready(protocol)
    for _ in range(3):
        assert handler.transmit_to_icc(LUN, protocol - 1, PATTERN) == (Code.SUCCESS, ANSWER)


def test_protocols_that_cannot_be(bench: Any) -> None:
    t0_alone = make_descriptor(ExchangeLevel.TPDU, dwProtocols=1)
    both, t0 = bench(), bench(descriptor=t0_alone)
    only = bench(EchoCard(bytes.fromhex("3B00")))
    specific = bench(EchoCard(bytes.fromhex("3B9011110191")))
    for one in (both, t0, only, specific):
        assert one.handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert t0.handler.set_protocol_parameters(LUN, T1) is Code.ERROR_NOT_SUPPORTED
    assert only.handler.set_protocol_parameters(LUN, T1) is Code.PROTOCOL_NOT_SUPPORTED
    assert specific.handler.set_protocol_parameters(LUN, T0) is Code.PROTOCOL_NOT_SUPPORTED
    for number in (0, 3, 4, 0x10):
        refused = both.handler.set_protocol_parameters(LUN, number)
        assert refused is Code.PROTOCOL_NOT_SUPPORTED
    assert both.handler.set_protocol_parameters(LUN, T0, PTS2, 0, 1) is Code.ERROR_PTS_FAILURE
    assert both.handler.set_protocol_parameters(LUN, T1) is Code.SUCCESS


def test_a_protocol_without_power(bench: Any) -> None:
    one = bench()
    assert one.handler.set_protocol_parameters(LUN, T0) is Code.PROTOCOL_NOT_SUPPORTED, "no ATR"
    assert one.handler.transmit_to_icc(LUN, 0, PATTERN) == (Code.COMMUNICATION_ERROR, b"")
    one.virtual.remove()
    assert one.handler.transmit_to_icc(LUN, 0, PATTERN) == (Code.ICC_NOT_PRESENT, b"")


def negotiating(**fields: Any) -> Any:
    """A reader whose host does PPS."""
    features = Features.AUTO_VOLTAGE | Features.AUTO_IFSD | ExchangeLevel.TPDU
    return make_descriptor(
        ExchangeLevel.TPDU, **{"dwFeatures": features, "dwMaxDataRate": 344086, **fields}
    )


def test_the_speed_asked_for_is_the_one_that_pps_asks_for(bench: Any) -> None:
    one = bench(descriptor=negotiating())
    sent: list[bytes] = []
    function = one.virtual.functions[0]
    handle = function._handle

    def spy(message: bytes, now: float) -> Any:
        if message[0] == PC_to_RDR_XfrBlock.bMessageType:
            sent.append(message[10:])
        return handle(message, now)

    function._handle = spy
    assert one.handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    one.handler.set_protocol_parameters(LUN, T0, PTS1, 0x94)
    assert sent[0] == bytes.fromhex("FF10947B")


def test_parameters_that_the_reader_refuses(bench: Any) -> None:
    """bError 0 means "not supported": the card's default protocol stays in force."""
    one = bench(EchoCard(bytes.fromhex("3B80800101")), level=ExchangeLevel.TPDU)
    refuse = faults.failing(SlotError.CMD_NOT_SUPPORTED, on=PC_to_RDR_SetParameters)
    one.virtual.faults.append(refuse)
    assert one.handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert one.handler.set_protocol_parameters(LUN, T0) is Code.SUCCESS
    assert one.handler.transmit_to_icc(LUN, 0, PATTERN) == (Code.SUCCESS, ANSWER)


def test_the_protocol_of_the_send_header(bench: Any) -> None:
    tpdu, apdu = bench(level=ExchangeLevel.TPDU), bench()
    tpdu.ready(T0)
    for number in (1, 2):
        refused = tpdu.handler.transmit_to_icc(LUN, number, PATTERN)
        assert refused == (Code.PROTOCOL_NOT_SUPPORTED, b"")
    apdu.ready(T1)
    for number in (0, 1, 2):
        assert apdu.handler.transmit_to_icc(LUN, number, PATTERN) == (Code.SUCCESS, ANSWER)


def test_agreeing_twice_resets_the_card_in_between(bench: Any) -> None:
    one = bench()
    handler = one.ready(T1)
    slot = one.virtual.functions[0].slots[0]
    before = slot.power_ons
    assert handler.set_protocol_parameters(LUN, T0) is Code.SUCCESS
    assert slot.power_ons == before + 1
    assert handler.transmit_to_icc(LUN, 0, PATTERN) == (Code.SUCCESS, ANSWER)


# APDUs ----------------------------------------------------------------------------------------


def test_apdus_that_fail(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    for apdu in (b"", b"\x00\xa4", bytes(262)):
        assert handler.transmit_to_icc(LUN, 1, apdu) == (Code.COMMUNICATION_ERROR, b"")
    assert handler.transmit_to_icc(LUN, 1, PATTERN, 5) == (Code.ERROR_INSUFFICIENT_BUFFER, b"")
    assert handler.transmit_to_icc(LUN, 1, PATTERN, 6) == (Code.SUCCESS, ANSWER)
    one.virtual.faults.append(faults.failing(SlotError.XFR_PARITY_ERROR, on=PC_to_RDR_XfrBlock))
    assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.COMMUNICATION_ERROR, b"")


def test_the_longest_response(bench: Any) -> None:
    one = bench(level=ExchangeLevel.EXTENDED_APDU)
    handler = one.ready()
    code, response = handler.transmit_to_icc(LUN, 1, bytes.fromhex("00100000000000"), MAX_RESPONSE)
    assert (code, len(response)) == (Code.SUCCESS, 65538)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ReaderRemoved(""), Code.NO_SUCH_DEVICE),
        (errors.CardRemoved(""), Code.ICC_NOT_PRESENT),
        (errors.CardAbsent(""), Code.ICC_NOT_PRESENT),
        (errors.PpsFailed(""), Code.ERROR_PTS_FAILURE),
        (errors.CardMute(""), Code.COMMUNICATION_ERROR),
        (errors.TransportTimeout(""), Code.COMMUNICATION_ERROR),
        (errors.TransportStall(""), Code.COMMUNICATION_ERROR),
        (errors.ProtocolError(""), Code.COMMUNICATION_ERROR),
        (errors.CommandCancelled(""), Code.COMMUNICATION_ERROR),
    ],
)
def test_errors_and_their_codes(error: errors.CcidError, code: Code) -> None:
    assert code_of(error) is code


# Removed is not reset -------------------------------------------------------------------------


def test_a_card_taken_out(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    one.virtual.remove()
    assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.ICC_NOT_PRESENT, b"")
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    one.virtual.insert(EchoCard())
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT


@pytest.mark.parametrize("asked", [False, True])
def test_a_card_exchanged_between_two_calls_is_absent_once(bench: Any, asked: bool) -> None:
    """Without an interrupt endpoint: a powered card that has no power now is another card."""
    one = bench(interrupt=False)
    handler = one.ready()
    one.virtual.insert(EchoCard())
    assert one.events == []
    if asked:
        assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.ICC_NOT_PRESENT, b"")
        assert one.events.pop() == LUN, "to be asked: the thread that tells all others"
        assert handler.transmit_to_icc(LUN, 1, PATTERN) == (Code.ICC_NOT_PRESENT, b"")
        assert one.events.pop() == LUN
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert one.events == [LUN], "to be asked again, for nothing else tells of the new card"
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert one.events == [LUN]
    assert handler.get_capabilities(LUN, Tag.ATR, 33) == (Code.SUCCESS, b"")


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("powered", [False, True])
def test_a_removed_card_is_absent_until_the_watcher_has_told_all(
    bench: Any, powered: bool, back: bool
) -> None:
    """pcscd also asks before it powers a card. That query does not use up a reported removal."""
    one = bench(interrupt=False)
    handler = one.ready()
    if not powered:
        handler.power_icc(LUN, Action.POWER_DOWN)
    one.virtual.remove()
    for _ in range(2):
        assert handler.icc_presence(LUN, Asker.OTHER) is Code.ICC_NOT_PRESENT
        assert one.events.pop() == LUN
    if back:
        one.virtual.insert(EchoCard())
        assert handler.icc_presence(LUN, Asker.OTHER) is Code.ICC_NOT_PRESENT
        one.events.clear()
    for _ in range(2):
        assert handler.icc_presence(LUN, Asker.WATCHER) is Code.ICC_NOT_PRESENT
    assert one.events == [LUN, LUN] * back, "to be asked again, if there is a card"
    expected = Code.ICC_PRESENT if back else Code.ICC_NOT_PRESENT
    assert handler.icc_presence(LUN, Asker.WATCHER_TOLD) is expected
    assert handler.icc_presence(LUN, Asker.WATCHER) is expected


def test_a_card_that_we_powered_down_is_present(bench: Any) -> None:
    one = bench(interrupt=False)
    handler = one.ready()
    handler.power_icc(LUN, Action.POWER_DOWN)
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT


def test_a_removal_notified_is_absent_once(bench: Any) -> None:
    """With a reader that activates cards by itself, only the notification shows the removal."""
    descriptor = make_descriptor(
        ExchangeLevel.SHORT_APDU,
        dwFeatures=AUTOMATIC | Features.AUTO_ACTIVATION | ExchangeLevel.SHORT_APDU,
    )
    one = bench(descriptor=descriptor)
    handler = one.ready()
    time.sleep(0.1)
    one.told.clear()
    one.virtual.remove()
    one.until_told()
    one.virtual.insert(EchoCard())
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT


@pytest.mark.parametrize("back", ["before it is powered", "after that failed"])
def test_a_card_taken_out_as_it_is_powered_is_told(
    bench: Any, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    """Without this event pcscd would treat the slot as one without power, and its clients would not
    see the removal until the next card comes."""
    one = bench()
    handler = one.ready()
    time.sleep(0.1)
    pipe = handler._channels[LUN].reader.pipe
    powering = pipe.powering

    def moved(slot: int) -> None:
        one.virtual.remove()
        if back == "before it is powered":
            one.virtual.insert(EchoCard())
        powering(slot)

    with monkeypatch.context() as patched:
        patched.setattr(pipe, "powering", moved)
        code, _ = handler.power_icc(LUN, Action.RESET)
    if back == "before it is powered":
        assert code is Code.SUCCESS
    else:
        assert code is Code.ERROR_POWER_ACTION
        one.virtual.insert(EchoCard())
        time.sleep(0.1)
    assert handler.icc_presence(LUN, Asker.OTHER) is Code.ICC_NOT_PRESENT
    assert handler.icc_presence(LUN, Asker.WATCHER) is Code.ICC_NOT_PRESENT
    assert LUN in one.events, "for the watcher may have asked before"
    assert handler.icc_presence(LUN, Asker.WATCHER_TOLD) is Code.ICC_PRESENT


def test_events_name_the_slot(bench: Any) -> None:
    one = bench([EchoCard(), EchoCard()], slots=2)
    assert one.handler.create_channel_by_name(LUN + 1, "virtual:") is Code.SUCCESS
    time.sleep(0.1)
    one.events.clear()
    one.told.clear()
    one.virtual.remove(1)
    one.until_told()
    assert one.events == [LUN + 1]


def test_a_reader_that_is_gone_is_an_event_for_all_its_slots(bench: Any) -> None:
    one = bench([EchoCard(), EchoCard()], slots=2)
    assert one.handler.create_channel_by_name(LUN + 1, "virtual:") is Code.SUCCESS
    time.sleep(0.1)
    one.events.clear()
    one.virtual.unplug()
    deadline = time.monotonic() + 5
    while len(one.events) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(one.events) == [LUN, LUN + 1]


def test_which_readers_have_events(bench: Any) -> None:
    assert bench().handler.has_events(LUN)
    assert not bench(interrupt=False).handler.has_events(LUN)


# Watching -------------------------------------------------------------------------------------


def test_the_deadline_of_a_running_exchange(bench: Any) -> None:
    one = bench(level=ExchangeLevel.SHORT_APDU)
    handler = one.ready()
    thread = threading.Thread(target=handler.transmit_to_icc, args=(LUN, 1, b"\0\x50\x06\0"))
    thread.start()
    time.sleep(0.6)
    assert handler.patient_until() > time.monotonic()
    thread.join()
    assert handler.patient_until() <= time.monotonic(), "whatever comes now has its own time"


def test_power_off_all_cancels_running_exchanges(bench: Any) -> None:
    one = bench()
    handler = one.ready()
    codes: list[Code] = []
    thread = threading.Thread(
        target=lambda: codes.append(handler.transmit_to_icc(LUN, 1, b"\0\x38\0\x3c")[0])
    )
    thread.start()
    time.sleep(0.3)
    handler.power_off_all()
    thread.join(5)
    assert codes == [Code.COMMUNICATION_ERROR]
    assert not one.virtual.functions[0].slots[0].powered


@pytest.mark.parametrize("has_protocol", [False, True])
def test_power_off_all_waits_for_a_channel_that_is_being_closed(
    bench: Any, monkeypatch: pytest.MonkeyPatch, has_protocol: bool
) -> None:
    """Two channels of a reader with one command at a time: the other slot is at an exchange."""
    one = bench([EchoCard(), EchoCard()], slots=2)
    slots = one.virtual.functions[0].slots
    one.ready()
    assert one.handler.create_channel_by_name(LUN + 1, "virtual:") is Code.SUCCESS
    assert one.handler.power_icc(LUN + 1, Action.POWER_UP)[0] is Code.SUCCESS
    if has_protocol:
        one.handler.set_protocol_parameters(LUN + 1, T1)
    work = [
        threading.Thread(target=one.handler.transmit_to_icc, args=(LUN, 1, b"\0\x38\0\x3c")),
        threading.Thread(target=one.handler.close_channel, args=(LUN + 1,)),
    ]
    for thread in work:
        thread.start()
        time.sleep(0.05)
    assert slots[0].powered
    assert slots[1].powered
    one.handler.power_off_all()
    assert not slots[0].powered
    assert not slots[1].powered
    for thread in work:
        thread.join(5)


def test_after_power_off_all_no_card_gets_power(bench: Any) -> None:
    """pcscd goes on while its helper ends by a signal."""
    one = bench()
    handler = one.ready()
    handler.power_off_all()
    assert handler.power_icc(LUN, Action.POWER_UP)[0] is Code.ERROR_POWER_ACTION
    assert handler.create_channel_by_name(LUN + 0x10000, "virtual:") is Code.COMMUNICATION_ERROR
    assert not one.virtual.functions[0].slots[0].powered
    assert handler.close_channel(LUN) is Code.SUCCESS
    with ccid.open_reader(one.virtual):
        pass  # nobody has it open


def test_voltages_are_tried(bench: Any) -> None:
    """The handler tries voltages as connect() does."""
    card = EchoCard()
    card.voltages = VoltageSupport.V1_8
    features = Features.AUTO_PPS | ExchangeLevel.SHORT_APDU
    descriptor = make_descriptor(
        ExchangeLevel.SHORT_APDU, dwFeatures=features, bVoltageSupport=0x07
    )
    one = bench(card, descriptor=descriptor)
    assert one.handler.power_icc(LUN, Action.POWER_UP) == (Code.SUCCESS, EchoCard.atr)


@pytest.mark.parametrize("action", [Action.POWER_UP, Action.RESET])
def test_a_power_on_that_fails_once(bench: Any, action: Action) -> None:
    one = bench()
    one.virtual.faults.append(faults.failing(SlotError.HW_ERROR, on=PC_to_RDR_IccPowerOn, times=1))
    assert one.handler.power_icc(LUN, action) == (Code.SUCCESS, EchoCard.atr)


@pytest.mark.parametrize("action", [Action.POWER_UP, Action.RESET])
def test_a_power_on_that_fails_twice(bench: Any, action: Action) -> None:
    """The handler tries twice; the caller decides about another attempt."""
    one = bench()
    one.virtual.faults.append(faults.failing(SlotError.HW_ERROR, on=PC_to_RDR_IccPowerOn, times=2))
    assert one.handler.power_icc(LUN, action) == (Code.ERROR_POWER_ACTION, b"")
    assert not one.virtual.functions[0].slots[0].powered
    assert one.virtual.functions[0].slots[0].power_ons == 2
    assert one.handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert one.handler.power_icc(LUN, action) == (Code.SUCCESS, EchoCard.atr)
    assert one.virtual.functions[0].slots[0].power_ons == 3


def test_models_of_virtual_readers() -> None:
    assert make("08e6:4433").info.id == "08e6:4433"
