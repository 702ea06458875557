"""What a reader says on USB: descriptors, replies, notifications, and all of it at a power-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from ccid.codec.descriptors import (
    ClassControl,
    DeviceDescriptor,
    SmartCardDescriptor,
    SmartCardInterface,
    parse_configuration,
    parse_u32_list,
    smart_card_interfaces,
)
from ccid.codec.messages import COMMANDS, MESSAGE_HEADER, parse_command, parse_event, parse_reply
from ccid.codes import ExchangeLevel, Protocol
from ccid.device.verdict import judge
from ccid.errors import CcidError, ReaderRemoved, TransportError, TransportStall, TransportTimeout
from ccid.known.quirks import Quirks
from ccid.link.conversation import Conversation
from ccid.link.iccd_commands import IccdA, IccdB
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands, SlotCommands
from ccid.masking import censor
from ccid.masking.exchange_watch import Framing, framings
from ccid.session.activation import Activation
from ccid.session.exchange import choose
from ccid.trace.log import describe_message
from ccid.transport import IN_CAPACITY, OUT_CAPACITY, ReaderInfo, Transport, nothing_to_end
from ccid.transport.lifetime import Life
from ccid.transport.separate_transfers import SeparateTransfers
from ccid.virtual import make_descriptor
from ccid.virtual.iccd_function import make_iccd_descriptor
from tests.fuzz.taking import Taker

NO_QUIRKS = Quirks()
LONGEST_ANSWER = 271
FRAMINGS = [framings(level, p) for level in (None, *ExchangeLevel) for p in (None, *Protocol)]


def descriptors(data: bytes) -> None:
    """A device descriptor of 18 bytes, then a configuration."""
    device = DeviceDescriptor.parse(data[:18])
    configuration = parse_configuration(data[18:])
    for reader in smart_card_interfaces(configuration):
        raw = reader.smart_card.build()
        assert SmartCardDescriptor.parse(raw) == reader.smart_card
        _judged(device, reader, data[18:])


def _judged(device: DeviceDescriptor, reader: SmartCardInterface, raw: bytes) -> None:
    head = parse_configuration(raw).descriptor
    info = ReaderInfo("a reader", "fuzz:0", device, head, reader, _connect)
    verdict = judge(info, NO_QUIRKS)
    for reason in verdict.reasons:
        assert str(reason).isprintable()
    reader.smart_card.slot_count  # noqa: B018
    parse_u32_list(raw[: 4 * reader.smart_card.bNumDataRatesSupported], "GET_DATA_RATES")


def _connect(_: ReaderInfo) -> Transport:
    raise AssertionError("nobody opens it")


def commands(data: bytes) -> None:
    """A command, as the virtual reader takes it."""
    message = parse_command(data)
    assert message.build() == data


def replies(data: bytes) -> None:
    """Commands and replies, each with its length before it: what is written down of them masks as
    many bytes as there are, and a reply that can be parsed can be built."""
    taker = Taker(data)
    watched = censor.Censor(numbered=bool(taker.number() & 1))
    level: tuple[Framing, ...] = taker.one_of(FRAMINGS)
    while not taker.is_empty:
        is_reply, message = taker.number() & 1, taker.long_piece()
        shown = watched.reply(message) if is_reply else watched.command(message, level)
        assert len(shown) == len(message)
        assert describe_message(shown).isprintable()
        try:
            parsed = (parse_reply if is_reply else parse_command)(message)
        except CcidError as error:
            assert str(error).isprintable()
        else:
            assert parsed.build() == message


def notifications(data: bytes) -> None:
    """A transfer on the interrupt endpoint."""
    assert len(censor.notification(data)) == len(data)
    event = parse_event(data)
    assert event.build() == data[: len(event.build())]
    if hasattr(event, "slots"):
        for count in (0, 1, 4, 255, 256):
            changes = event.slots(count)
            assert [change.slot for change in changes] == list(range(len(changes)))
            assert len(changes) <= count


# A reader that says anything ----------------------------------------------------------------------


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Seconds pass."""
        self.now += max(0.0, seconds)


@contextmanager
def passing(clock: Clock) -> Iterator[None]:
    """All waits in this process are those of ``clock``."""
    with mock.patch.multiple(time, monotonic=clock.monotonic, sleep=clock.sleep):
        yield


class Liar(SeparateTransfers, Life):
    """A reader whose answers come from the input, until it is used up: then it is unplugged.

    An answer begins with a byte that tells its kind: a transfer with the right header, the data
    after it and other bytes of status (0 to 4); a transfer as it stands (5); silence (6); a stall
    (7); a failed transfer (8).
    """

    def __init__(self, taker: Taker, clock: Clock) -> None:
        super().__init__("a liar")
        self.out, self.inp = memoryview(bytearray(OUT_CAPACITY)), memoryview(bytearray(IN_CAPACITY))
        self.packet_size = 64
        self.taker, self.clock = taker, clock
        self.asked = bytes(MESSAGE_HEADER)
        self.tell: Callable[[bytes], None] = lambda message: None
        self._rest = b""

    def send(self, length: int, timeout_ms: int, /) -> None:
        """A command: most answers repeat its bSlot and bSeq."""
        self.check()
        self.asked, self._rest = bytes(self.out[:length]), b""
        assert self.asked[0] in COMMANDS

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """What the input says."""
        self.check()
        if not self._rest:
            if self.taker.is_empty:
                raise ReaderRemoved("a liar: unplugged")
            self._rest = self._answer(timeout_ms)
        part, self._rest = self._rest[:size], self._rest[size:]
        assert offset + len(part) <= IN_CAPACITY
        self.inp[offset : offset + len(part)] = part
        return len(part)

    def _answer(self, timeout_ms: int) -> bytes:
        taker = self.taker
        match taker.number() % 9:
            case 5:
                return taker.piece()
            case 6:
                self.clock.sleep(timeout_ms / 1000)
                raise TransportTimeout("a liar: nothing comes")
            case 7:
                raise TransportStall("a liar: stalled")
            case 8:
                raise TransportError("a liar: broken")
            case kind:
                status = taker.take(3).ljust(3, b"\0") if kind else bytes(3)
                body = taker.piece()
                head = bytes((self._reply_type(),)) + len(body).to_bytes(4, "little")
                return head + self.asked[5:7] + status + body

    def _reply_type(self) -> int:
        match self.asked[0]:
            case 0x62 | 0x6F | 0x69:
                return 0x80
            case 0x61 | 0x6C | 0x6D:
                return 0x82
            case 0x6B:
                return 0x83
            case 0x73:
                return 0x84
        return 0x81

    def listen(self, tell: Callable[[bytes], None]) -> None:
        """Notifications come when they are asked for."""
        self.tell = tell

    def take_events(self, wait_ms: int = 0, /) -> None:
        """One notification, sometimes."""
        if self.taker.number() == 0x50:
            self.tell(b"\x50" + self.taker.take(1))
        self.clock.sleep(wait_ms / 1000)

    def attend(self) -> Callable[[], None]:
        """Nothing comes by itself."""
        return nothing_to_end

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        """What the input says."""
        self.check()
        if self.taker.number() & 1:
            raise TransportStall("a liar: stalled")
        return self.taker.take(request.wLength) if request.bmRequestType & 0x80 else b""

    def close(self) -> None:
        """The end."""
        self.closed()


APDUS = [
    bytes.fromhex(text)
    for text in ("00A4000C023F00", "00B0000000", "00B00000000000", "0020000104" + "31323334")
] + [bytes.fromhex("00D60000FF") + bytes(255), bytes.fromhex("00D60000000200") + bytes(512)]
DESCRIPTORS = [
    make_descriptor(level, dwFeatures=features | level)
    for level in list(ExchangeLevel)
    for features in (0, 0x000000BA, 0x00000842, 0x0000047E)
]


def activation(data: bytes) -> None:
    """A card is powered up, protocol and speed are agreed on, and APDUs are exchanged, by a reader
    and a card that answer whatever is in the input. The time passes by itself."""
    taker = Taker(data)
    clock = Clock()
    descriptor = taker.one_of(DESCRIPTORS)
    wanted = taker.one_of([None, Protocol.T0, Protocol.T1])
    mapped = bool(taker.number() & 1)
    with passing(clock):
        reader = Pipe(Liar(taker, clock), name="a liar", longest_message=LONGEST_ANSWER)
        _used(Commands(reader, 0, NO_QUIRKS), descriptor, wanted, mapped, taker)


ICCDS = [(kind, make_iccd_descriptor(version)) for version, kind in ((1, IccdA), (2, IccdB))]


def iccd(data: bytes) -> None:
    """The same with a token that talks by the control pipe alone, and answers anything."""
    taker = Taker(data)
    clock = Clock()
    kind, descriptor = taker.one_of(ICCDS)
    with passing(clock):
        talk = Conversation(Liar(taker, clock), name="a liar")
        _used(kind(talk, LONGEST_ANSWER, NO_QUIRKS), descriptor, None, False, taker)


def _used(
    slot: SlotCommands,
    descriptor: SmartCardDescriptor,
    wanted: Protocol | None,
    mapped: bool,
    taker: Taker,
) -> None:
    atr, agreement = Activation(slot, descriptor, []).run(wanted)
    assert atr.explain()
    way = choose(slot, descriptor, agreement, mapped)
    while not taker.is_empty:
        try:
            response = way.transmit(taker.one_of(APDUS))
        except ReaderRemoved:
            raise
        except CcidError as error:
            assert "31323334" not in str(error)
        else:
            assert len(response) >= 2
