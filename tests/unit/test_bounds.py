"""Everything ends in time: silence, endless extensions, replies that drip, a device that is
stuck."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_GetSlotStatus, PC_to_RDR_IccPowerOff, PC_to_RDR_XfrBlock
from ccid.codes import BLOCKWISE, ExchangeLevel, InterfaceProtocol, Protocol
from ccid.device import first_commands
from ccid.device import reader as reader_module
from ccid.errors import (
    CcidError,
    CommandCancelled,
    MalformedMessage,
    ProtocolError,
    ReaderClosed,
    TransportTimeout,
)
from ccid.iso7816.atr import Atr
from ccid.iso7816.t1 import Block
from ccid.iso7816.timing import LONGEST_PPS_S, UNKNOWN_BWT_S, Timing, pps_timeout
from ccid.known.descriptor_figures import figures
from ccid.link import conversation as conversation_module
from ccid.link import iccd_commands as iccd_module
from ccid.link import inbox
from ccid.link import pipe as pipe_module
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands
from ccid.session.exchange import choose
from ccid.session.exchange.agreement import APDU_LEVEL_S, BLOCK_LEVEL_S, Agreement
from ccid.session.exchange.block_links import BlockLink
from ccid.session.exchange.one_block import as_it_came
from ccid.transport import Transport
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.virtual_transport import VirtualTransport
from tests.unit.scripted import Answer, ScriptedTransport
from tests.unit.test_pipe import APDU, WAYS, both_ways, data_block, extension

# The first wait -------------------------------------------------------------------------------

ATRS = [
    "3B8F8001804F0CA0000003060300030000000068",
    "3B00",
    "3B40FF",
    "3B60 0000 FF".replace(" ", ""),
    "3B8080 21FF".replace(" ", "") + "DE",
    "3BF01100FF91 81 31 FE 9D".replace(" ", "") + "00",
    "3B808131 FE F9".replace(" ", "") + "47",
]
"""ATRs of an ordinary card of type A, and ATRs that promise hours."""
KNOWN = [(0x0C4B, 0x9102), (0x31AA, 0x0324), (0x072F, 0x2200), (0x04E6, 0x5790), (0x076B, 0x5022)]


@pytest.mark.parametrize("protocol", [Protocol.T0, Protocol.T1])
@pytest.mark.parametrize("level", list(ExchangeLevel)[:4], ids=lambda level: level.name)
def test_no_first_wait_is_longer_than_minutes(level: ExchangeLevel, protocol: Protocol) -> None:
    longest = BLOCK_LEVEL_S if level in BLOCKWISE else APDU_LEVEL_S
    assert longest <= 120
    for atr in ATRS:
        for clock_hz in (0, 1, 1000, 1_000_000, 4_000_000):
            timing = Timing.of(_atr(atr), clock_hz)
            agreement = Agreement(protocol, timing=timing)
            if level not in BLOCKWISE:
                commands = Commands(Pipe(ScriptedTransport(lambda _: None), name="script"), 0)
                choose(commands, make_descriptor(level), agreement)
            assert agreement.timeout_s() <= longest
            assert 3 <= pps_timeout(timing) <= LONGEST_PPS_S


def _atr(text: str) -> Atr:
    return Atr.parse(bytes.fromhex(text))


@pytest.mark.parametrize(("vid", "pid"), KNOWN)
def test_known_readers_at_apdu_level(vid: int, pid: int) -> None:
    for one in figures(vid, pid):
        descriptor = one.interfaces[0].descriptor
        timing = Timing.of(_atr(ATRS[0]), descriptor.dwDefaultClock * 1000)
        agreement = Agreement(Protocol.T1, timing=timing)
        choose(
            Commands(Pipe(ScriptedTransport(lambda _: None), name="s"), 0), descriptor, agreement
        )
        assert agreement.timeout_s() == 60


def test_a_multiplier_is_of_the_block_waiting_time() -> None:
    """BWT is 1.4 s, and the characters of two blocks take 201 s: the multiplier 255 applies to BWT
    only."""
    timing = Timing.of(_atr("3B80810001"), 4_000_000)
    assert timing is not None
    agreement = Agreement(Protocol.T1, timing=timing)
    assert agreement.timeout_s(1) == agreement.timeout_s() == BLOCK_LEVEL_S
    assert agreement.timeout_s(255) == pytest.approx(BLOCK_LEVEL_S + 254 * timing.bwt_s)
    unknown = Agreement(Protocol.T1)
    assert unknown.timeout_s(255) == pytest.approx(60 + 254 * UNKNOWN_BWT_S)


def test_a_block_carries_its_multiplier() -> None:
    asked: list[tuple[float, int]] = []

    class Asked:
        def xfr_block(self, data: bytes, *, timeout_s: float, bBWI: int) -> tuple[bytes, int]:
            asked.append((timeout_s, bBWI))
            return data, 0

    agreement = Agreement(Protocol.T1, timing=Timing.of(_atr("3B80810001"), 4_000_000))
    BlockLink(Asked(), agreement)(Block(b"\0\0\0\0", 7))  # type: ignore[arg-type]
    assert asked == [(agreement.timeout_s(7), 7)]


# Extensions, drops and stale messages ---------------------------------------------------------


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "SLICE_MS", 20)
    monkeypatch.setattr(pipe_module, "ABORT_S", 0.2)
    monkeypatch.setattr(first_commands, "WAKING_S", 0.4)
    monkeypatch.setattr(reader_module, "FAREWELL_S", 0.3)


class Streaming(ScriptedTransport):
    """Repeats an answer to the last command without end.

    Args:
        say: Called with the last command; returns the answer.
        pause_s: Seconds between two answers.
    """

    def __init__(self, say: Callable[[Any], Answer], pause_s: float = 0.0) -> None:
        super().__init__(lambda _: None)
        self.say, self.pause_s = say, pause_s

    def receive(self, offset: int, size: int, timeout_ms: int) -> int:
        if not self.pending:
            if self.pause_s * 1000 > timeout_ms:
                time.sleep(timeout_ms / 1000)
                raise TransportTimeout("script: nothing comes")
            time.sleep(self.pause_s)
            said = self.say(self.commands[-1])
            assert isinstance(said, bytes)
            self.pending.append(said)
        return super().receive(offset, size, timeout_ms)


FLOODS: dict[str, Callable[[Any], bytes]] = {
    "extensions": lambda c: extension(c, 0),
    "extensions of minutes": lambda c: extension(c, 255),
    "stale": lambda c: data_block(c, bSeq=(c.bSeq - 1) & 0xFF),
    "stale and wrong": lambda c: data_block(c, bSeq=(c.bSeq - 1) & 0xFF)[:-1],
    "of another slot": lambda c: data_block(c, bSlot=1),
    "empty": lambda _: b"",
}


@WAYS
@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.01])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends(flood: str, pause_s: float, way: int) -> None:
    pipe = Pipe(Streaming(FLOODS[flood], pause_s), name="script", max_command_s=0.1)
    began = time.monotonic()
    with pytest.raises(TransportTimeout):
        both_ways(pipe)[way]()
    assert time.monotonic() - began < 3


@WAYS
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_cancelled(flood: str, way: int) -> None:
    pipe = Pipe(Streaming(FLOODS[flood], 0.001), name="script")
    commands = Commands(pipe, 0)
    quick = commands.apdu_way(lambda _: 60.0, as_it_came).transmit
    until = time.monotonic() + 10

    def cancel() -> None:
        while not pipe.cancel(0) and time.monotonic() < until:
            time.sleep(0.01)

    threading.Timer(0.05, cancel).start()
    with pytest.raises(CommandCancelled):
        quick(APDU) if way else commands.xfr_block(APDU, timeout_s=60)
    assert time.monotonic() < until


def test_the_abort_pair_is_bounded_too() -> None:
    pipe = Pipe(Streaming(lambda c: extension(c, 255), 0.01), name="script")
    with pytest.raises((TransportTimeout, ProtocolError)):
        pipe.abort(0)


class Dripping(ScriptedTransport):
    """Announces 130,000 bytes, and sends one packet every 20 ms."""

    def receive(self, offset: int, size: int, timeout_ms: int) -> int:
        if not self.commands or not isinstance(self.commands[-1], PC_to_RDR_XfrBlock):
            return super().receive(offset, size, timeout_ms)
        time.sleep(min(timeout_ms / 1000, 0.02))
        message = data_block(self.commands[-1])
        head = message[:1] + (130000).to_bytes(4, "little") + message[5:10] + bytes(54)
        self.inp[offset : offset + 64] = head if offset == 0 else bytes(64)
        return 64


@WAYS
def test_a_reply_that_drips(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "REST_MS", 100)
    pipe = Pipe(Dripping(lambda c: None), name="script")
    began = time.monotonic()
    with pytest.raises(MalformedMessage):
        both_ways(pipe)[way]()
    assert time.monotonic() - began < 3


@WAYS
def test_a_reply_that_drips_within_the_limit_of_a_command(way: int) -> None:
    pipe = Pipe(Dripping(lambda c: None), name="script", max_command_s=0.2)
    began = time.monotonic()
    with pytest.raises((MalformedMessage, TransportTimeout)):
        both_ways(pipe)[way]()
    assert time.monotonic() - began < 3


@WAYS
def test_a_reply_that_drips_is_cancelled(way: int) -> None:
    pipe = Pipe(Dripping(lambda c: None), name="script")
    threading.Timer(0.1, pipe.cancel, (0,)).start()
    began = time.monotonic()
    with pytest.raises(CommandCancelled):
        both_ways(pipe)[way]()
    assert time.monotonic() - began < 3


# Opening and closing --------------------------------------------------------------------------


class Slow(VirtualTransport):
    """Requests time extensions again and again after some commands.

    Attributes:
        on: Called with a command; True if the command gets time extensions only.
        every_s: Seconds between two time extensions.
    """

    on: Callable[[bytes], bool] = staticmethod(lambda _: False)
    every_s = 0.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.slow: bytes | None = None

    def send(self, length: int, timeout_ms: int, /) -> None:
        command = bytes(self.out[:length])
        self.slow = command if self.on(command) else None
        if self.slow is None:
            super().send(length, timeout_ms)

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        if self.slow is None:
            return super().receive(offset, size, timeout_ms)
        time.sleep(self.every_s)
        kind = 0x80 if self.slow[0] in (0x62, 0x6F) else 0x81
        said = bytes((kind, 0, 0, 0, 0, *self.slow[5:7], 0x80, 1, 0))
        self.inp[:10] = said
        return 10


def slow_reader(virtual: ccid.VirtualReader, every_s: float) -> tuple[type[Slow], Any]:
    class One(Slow):
        pass

    One.every_s = every_s

    def connect(info: Any) -> Transport:
        return One(virtual.port, info)

    return One, dataclasses.replace(virtual.info, connect=connect)


SLOTS = pytest.mark.parametrize("slots", [1, 3])
PACE = pytest.mark.parametrize("every_s", [0.0, 0.02])


def virtual_of(slots: int) -> ccid.VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots, bMaxCCIDBusySlots=slots)
    return ccid.VirtualReader([EchoCard() for _ in range(slots)], descriptor=descriptor)


@SLOTS
@PACE
def test_close_has_one_time_for_all_slots(slots: int, every_s: float) -> None:
    virtual = virtual_of(slots)
    cls, info = slow_reader(virtual, every_s)
    reader = ccid.open_reader(info)
    for slot in reader.slots:
        slot.connect()
    cls.on = staticmethod(lambda command: command[0] == PC_to_RDR_IccPowerOff.bMessageType)
    began = time.monotonic()
    reader.close()
    assert time.monotonic() - began < 2
    ccid.open_reader(virtual).close()


@PACE
def test_open_has_one_time_for_all_it_asks(every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccid.link.slot_commands.SlotCommands.status_timeout_s", 0.1)
    cls, info = slow_reader(virtual_of(1), every_s)
    cls.on = staticmethod(lambda _: True)
    began = time.monotonic()
    with pytest.raises(TransportTimeout):
        ccid.open_reader(info)
    assert time.monotonic() - began < 3


@PACE
def test_status_and_disconnect_have_a_time_of_their_own(
    every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccid.link.slot_commands.STATUS_S", 0.2)
    cls, info = slow_reader(virtual_of(1), every_s)
    monkeypatch.setattr("ccid.link.slot_commands.SlotCommands.status_timeout_s", 0.1)
    with ccid.open_reader(info) as reader:
        card = reader.slots[0].connect()
        cls.on = staticmethod(lambda _: True)
        for ask in reader.slots[0].status, card.disconnect:
            began = time.monotonic()
            with pytest.raises(TransportTimeout):
                ask()
            assert time.monotonic() - began < 2


def test_after_closing_the_time_is_over_for_nobody_else() -> None:
    """Other operations have no such time limit, neither after closing nor after opening."""
    with ccid.open_reader(virtual_of(1)) as reader:
        assert reader.pipe.latest is None
    with pytest.raises(ReaderClosed):
        reader.slots[0].status()


# A token that is stuck ------------------------------------------------------------------------

T0 = "3B 15 96 63 63 69 64 21"
T1 = "3B 95 96 81 31 FE 45 63 63 69 64 21 24"


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> ccid.VirtualReader:
    """An ICCD device of version A that is busy while the fixture lasts."""
    monkeypatch.setattr(iccd_module, "STATUS_S", 0.1)
    virtual = ccid.VirtualReader(
        EchoCard(bytes.fromhex(T0)), bInterfaceProtocol=InterfaceProtocol.ICCD_A
    )
    control = VirtualTransport.control

    def busy(self: VirtualTransport, request: Any, timeout_ms: int, data: bytes = b"") -> bytes:
        came = control(self, request, timeout_ms, data)
        return b"\x40" if request.bRequest == 0xA0 and virtual.stuck else came  # type: ignore[attr-defined]

    virtual.stuck = True  # type: ignore[attr-defined]
    monkeypatch.setattr(VirtualTransport, "control", busy)
    return virtual


def test_a_stuck_token_does_not_hold_who_opens_it(stuck: ccid.VirtualReader) -> None:
    began = time.monotonic()
    with pytest.raises(TransportTimeout):
        ccid.open_reader(stuck)
    assert time.monotonic() - began < 3


def test_a_token_that_gets_stuck(stuck: Any) -> None:
    stuck.stuck = False
    with ccid.open_reader(stuck) as reader:
        card = reader.slots[0].connect()
        stuck.stuck = True
        began = time.monotonic()
        for ask in reader.slots[0].status, card.reset, reader.slots[0].commands.abort:
            with pytest.raises(CcidError):
                reader.slots[0].commands.give_up()
                ask()
        card.disconnect()
        assert time.monotonic() - began < 3


def test_a_cancelled_wait_for_a_late_answer_sends_nothing() -> None:
    virtual = ccid.VirtualReader(
        EchoCard(bytes.fromhex(T1)), bInterfaceProtocol=InterfaceProtocol.ICCD_B
    )
    with ccid.open_reader(virtual, max_command_s=0.1) as reader:
        card = reader.slots[0].connect()
        with pytest.raises(TransportTimeout):
            card.transmit(bytes.fromhex("0050012C"))  # 0.3 s
        with pytest.raises(TransportTimeout):  # the late answer does not come in time
            card.transmit(bytes.fromhex("0010000004"))
        time.sleep(0.2)
        assert card.transmit(bytes.fromhex("0010000004")) == bytes.fromhex("000102039000")


def test_the_latest_end_is_for_transfers_too() -> None:
    transport = ScriptedTransport(lambda c: data_block(c))
    given: list[int] = []
    sends = transport.send

    def send(length: int, timeout_ms: int) -> None:
        given.append(timeout_ms)
        sends(length, timeout_ms)

    transport.send = send  # type: ignore[method-assign]
    pipe = Pipe(transport, name="script")
    pipe.latest = time.monotonic() + 0.5
    both_ways(pipe)[0]()
    assert 0 < given[0] <= 500
    assert conversation_module.FAREWELL_S < 5
    assert PC_to_RDR_GetSlotStatus.bMessageType in pipe_module.AT_ONCE
