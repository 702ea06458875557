"""The conversation on one interface: numbers, late answers, extensions, the ABORT pair."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ccid.codec.messages import (
    Command,
    PC_to_RDR_Abort,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_Escape,
    RDR_to_PC_SlotStatus,
)
from ccid.codec.messages.events import RDR_to_PC_NotifySlotChange, parse_event
from ccid.codes import ClassRequest, IccStatus, SlotError
from ccid.errors import (
    CardAbsent,
    CardMute,
    CardRemoved,
    CcidError,
    CommandCancelled,
    MalformedMessage,
    ProtocolError,
    ReaderClosed,
    SlotBusy,
    TransportError,
    TransportStall,
    TransportTimeout,
)
from ccid.link import conversation as conversation_module
from ccid.link import inbox
from ccid.link import pipe as pipe_module
from ccid.link.conversation import Operation
from ccid.link.pipe import Pipe
from ccid.link.raw_commands import RawCommand, UnderWay
from ccid.link.reply_matching import RawReply
from ccid.link.slot_commands import Commands
from ccid.session.exchange.one_block import as_it_came
from ccid.transport import IN_CAPACITY
from tests.unit.scripted import Answer, ScriptedTransport, broken, reply

DATA = b"\x01\x02\x90\x00"
APDU = bytes.fromhex("00B0000002")


def data_block(command: Command, **fields: Any) -> bytes:
    return reply(command, RDR_to_PC_DataBlock, **{"abData": DATA, **fields})


def make(answer: Callable[[Command], Answer], **options: Any) -> tuple[Pipe, ScriptedTransport]:
    transport = ScriptedTransport(answer)
    return Pipe(transport, name="script", **options), transport


def both_ways(pipe: Pipe) -> list[Callable[[], bytes]]:
    """XfrBlock by the general way and by the quick one: they must agree in everything."""
    commands = Commands(pipe, 0)
    quick = commands.apdu_way(lambda _: 0.5, as_it_came).transmit
    return [
        lambda: commands.xfr_block(APDU, timeout_s=0.5)[0],
        lambda: quick(APDU),
    ]


WAYS = pytest.mark.parametrize("way", [0, 1], ids=["general", "quick"])


def exchange(answer: Callable[[Command], Answer], way: int) -> tuple[bytes, Pipe]:
    pipe, _ = make(answer)
    return both_ways(pipe)[way](), pipe


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of tests end quickly: the script never makes one wait for real."""
    monkeypatch.setattr(pipe_module, "SLICE_MS", 20)
    monkeypatch.setattr(pipe_module, "ABORT_S", 0.2)


# Matching -------------------------------------------------------------------------------------


@WAYS
def test_a_reply_is_taken(way: int) -> None:
    assert exchange(data_block, way)[0] == DATA


@WAYS
def test_one_transfer_out_and_one_in(way: int) -> None:
    pipe, transport = make(data_block)
    both_ways(pipe)[way]()
    assert len(transport.commands) == 1
    assert len(transport.reads) == 1


@WAYS
def test_numbers_count_up_and_wrap(way: int) -> None:
    pipe, transport = make(data_block)
    send = both_ways(pipe)[way]
    for _ in range(300):
        send()
    assert [c.bSeq for c in transport.commands] == [i & 0xFF for i in range(300)]


def test_a_plain_reply_never_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One transfer brought all of it; so it is whatever the number of the command is."""
    pipe, _ = make(data_block)
    monkeypatch.setattr(pipe, "_finish", None)
    general = both_ways(pipe)[0]
    for _ in range(260):
        assert general() == DATA


def test_nor_does_one_of_a_command_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, _ = make(lambda c: data_block(c, bStatus=0x42, bError=SlotError.ICC_MUTE, abData=b""))
    monkeypatch.setattr(pipe, "_finish", None)
    with pytest.raises(CcidError):
        both_ways(pipe)[0]()


@pytest.mark.parametrize(
    "bend",
    [
        lambda c: data_block(c, bSlot=1),
        lambda c: data_block(c, bSeq=c.bSeq + 1),
        lambda c: data_block(c, bStatus=0x80, bError=1),
        lambda c: data_block(c)[:-1],
        lambda c: reply(c, RDR_to_PC_SlotStatus, bStatus=0x42, bError=0xFE),
    ],
)
def test_whatever_is_no_plain_reply_goes_it(
    monkeypatch: pytest.MonkeyPatch, bend: Callable[[Command], bytes]
) -> None:
    pipe, _ = make(bend)

    def long_way(*args: Any) -> Any:
        raise broken("the long way")

    monkeypatch.setattr(pipe, "_finish", long_way)
    with pytest.raises(TransportError, match="the long way"):
        both_ways(pipe)[0]()


def test_a_reply_of_a_smaller_type_is_no_plain_reply() -> None:
    pipe, _ = make(lambda c: data_block(c) if c.bSeq else reply(c, RDR_to_PC_SlotStatus))
    status = RawCommand(0, 0x65, bytes(3), b"", 0x81, 0.1)
    assert pipe.transact(status).bMessageType == 0x81
    with pytest.raises(ProtocolError):
        pipe.transact(status)


def test_all_slots_share_the_counter() -> None:
    pipe, transport = make(data_block)
    for slot in (0, 1, 0, 2):
        Commands(pipe, slot).xfr_block(APDU, timeout_s=1)
    assert [(c.bSlot, c.bSeq) for c in transport.commands] == [(0, 0), (1, 1), (0, 2), (2, 3)]


@WAYS
@pytest.mark.parametrize(
    "stale",
    [
        lambda c: data_block(c, bSeq=(c.bSeq - 1) & 0xFF, abData=b"stale\x90\x00"),
        lambda c: data_block(c, bSlot=1, abData=b"stale\x90\x00"),
        lambda c: reply(c, RDR_to_PC_SlotStatus, bSeq=(c.bSeq + 7) & 0xFF),
    ],
    ids=["another number", "another slot", "another command"],
)
def test_late_answers_are_dropped(stale: Callable[[Command], bytes], way: int) -> None:
    data, pipe = exchange(lambda c: [stale(c)] * 20 + [data_block(c)], way)
    assert data == DATA
    assert pipe.stale == 20


@WAYS
def test_empty_transfers_are_dropped(way: int) -> None:
    assert exchange(lambda c: [b"", b"", data_block(c)], way)[0] == DATA


@WAYS
def test_a_reply_of_another_kind_is_an_error(way: int) -> None:
    pipe, _ = make(lambda c: reply(c, RDR_to_PC_Escape, abData=DATA))
    pipe.count = 0  # not the first command
    with pytest.raises(ProtocolError, match="0x83") as raised:
        both_ways(pipe)[way]()
    assert raised.value.bSeq == 1


def test_to_the_first_command_even_that_is_a_late_answer() -> None:
    """bSeq 0 may have been used by whoever had the reader before."""
    pipe, _ = make(lambda c: [reply(c, RDR_to_PC_Escape), data_block(c)])
    assert both_ways(pipe)[0]() == DATA


@WAYS
def test_a_refusal_by_slot_status_answers_any_command(way: int) -> None:
    def refuse(command: Command) -> bytes:
        return reply(command, RDR_to_PC_SlotStatus, bStatus=0x41, bError=SlotError.ICC_MUTE)

    pipe, _ = make(refuse)
    with pytest.raises(CardMute) as raised:
        both_ways(pipe)[way]()
    assert (raised.value.slot, raised.value.bSeq) == (0, 0)
    assert (raised.value.bStatus, raised.value.bError) == (0x41, 0xFE)


# Malformed ------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("bend", "field"),
    [
        (lambda m: m[:9], "dwLength"),
        (lambda m: m[:1], "dwLength"),
        (lambda m: m[:-1], "dwLength"),
        (lambda m: m[:1] + b"\xff\xff\xff\xff" + m[5:], "dwLength"),
        (lambda m: m[:1] + b"\x05\x00\x02\x00" + m[5:], "dwLength"),
        (lambda m: m[:7] + b"\xc0" + m[8:], "bStatus"),
    ],
)
def test_malformed_replies(bend: Callable[[bytes], bytes], field: str, way: int) -> None:
    pipe, _ = make(lambda c: bend(data_block(c)))
    with pytest.raises(MalformedMessage) as raised:
        both_ways(pipe)[way]()
    assert raised.value.field == field


@WAYS
def test_after_a_malformed_reply_the_next_one_is_right(way: int) -> None:
    bad = iter([True, False])
    pipe, _ = make(lambda c: data_block(c)[: -1 if next(bad) else None])
    send = both_ways(pipe)[way]
    with pytest.raises(MalformedMessage):
        send()
    assert send() == DATA


@pytest.mark.parametrize("data", [b"", b"\x90"])
@pytest.mark.parametrize(
    ("bStatus", "error"), [(0, ProtocolError), (1, CardAbsent), (2, CardAbsent)]
)
def test_no_response_apdu_without_status_words(
    data: bytes, bStatus: int, error: type[CcidError]
) -> None:
    """QEMU's reader answers so, and says that all is well, when the card is out."""
    pipe, _ = make(lambda c: data_block(c, abData=data, bStatus=bStatus))
    with pytest.raises(error) as raised:
        both_ways(pipe)[1]()
    assert raised.value.bStatus == bStatus
    assert getattr(raised.value, "may_have_executed", True)


# Long messages --------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("size", [0, 1, 51, 52, 53, 115, 116, 499, 500, 501, 1000, 65535, 65544])
def test_replies_of_any_length(size: int, way: int) -> None:
    data = bytes(i & 0xFF for i in range(size + 2))
    assert exchange(lambda c: data_block(c, abData=data), way)[0] == data


@WAYS
@pytest.mark.parametrize("packet_size", [8, 64, 512, 1024])
def test_reads_are_whole_packets(packet_size: int, way: int) -> None:
    data = bytes(3000)
    transport = ScriptedTransport(lambda c: data_block(c, abData=data), packet_size)
    assert both_ways(Pipe(transport, name="script"))[way]() == data
    assert all(size % packet_size == 0 for _, size in transport.reads)
    assert len(transport.reads) == 2


@WAYS
@pytest.mark.parametrize("cuts", [[64], [128, 192], [64, 128, 192, 256], [512], [64, 512]])
def test_a_message_cut_where_a_packet_ends(cuts: list[int], way: int) -> None:
    """The time ran out in the middle of a transfer: what came is kept, the rest is read."""
    data = bytes(i & 0xFF for i in range(600))

    def answer(command: Command) -> Answer:
        wire = data_block(command, abData=data)
        return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]

    assert exchange(answer, way)[0] == data


@WAYS
def test_packets_smaller_than_the_header(way: int) -> None:
    transport = ScriptedTransport(lambda c: [data_block(c)[:8], data_block(c)[8:]], packet_size=8)
    assert both_ways(Pipe(transport, name="script"))[way]() == DATA


@WAYS
@pytest.mark.parametrize("then", [[], [b""], [b"", b""]])
def test_a_message_that_ends_too_early_at_a_full_packet(
    then: list[bytes], way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "REST_MS", 20)
    pipe, _ = make(lambda c: [data_block(c, abData=bytes(300))[:64], *then])
    with pytest.raises(MalformedMessage) as raised:
        both_ways(pipe)[way]()
    assert raised.value.field == "dwLength"


def test_cancel_leaves_the_command_of_another_slot_alone() -> None:
    pipe, transport = make(lambda c: None)
    waiting = threading.Event()
    transport.idle = waiting.set

    def run() -> None:
        with pytest.raises(TransportTimeout):
            Commands(pipe, 1).xfr_block(APDU, timeout_s=0.4)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    assert pipe.cancel(0) is False
    thread.join(5)
    assert transport.controls == []


@pytest.mark.parametrize("is_context", [False, True])
def test_a_cancellation_ends_with_its_operation(is_context: bool) -> None:
    """Cancelled after its last command, or before any: the next operation is not cancelled."""
    pipe, _ = make(data_block)

    def cancel_elsewhere() -> None:
        thread = threading.Thread(target=lambda: told.append(pipe.cancel(0)))
        thread.start()
        thread.join(5)

    told: list[bool] = []
    if is_context:
        with pipe.operation(0):
            cancel_elsewhere()
    else:
        pipe.perform(0, cancel_elsewhere)
    assert told == [True]
    assert pipe.perform(0, lambda: Commands(pipe, 0).xfr_block(APDU, timeout_s=1.0))[0] == DATA


def after_an_abort(pipe: Pipe, transport: ScriptedTransport, way: int) -> bytes:
    """What comes of an exchange with a reader that is busy until it is told to abort."""
    aborted = False

    def answer(command: Command) -> Answer:
        nonlocal aborted
        if isinstance(command, PC_to_RDR_Abort):
            aborted = True
            return reply(command, RDR_to_PC_SlotStatus)
        return data_block(command) if aborted else busy(command)

    transport.answer = answer
    return both_ways(pipe)[way]()


@WAYS
def test_an_interrupted_wait_is_a_command_given_up(way: int) -> None:
    pipe, transport = make(lambda c: None)

    def interrupt() -> None:
        raise KeyboardInterrupt

    transport.idle = interrupt
    with pytest.raises(KeyboardInterrupt):
        both_ways(pipe)[way]()
    transport.idle = lambda: None
    assert after_an_abort(pipe, transport, way) == DATA


@WAYS
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), TransportTimeout("script: slow")])
def test_a_command_that_may_have_been_sent_is_given_up(way: int, failure: BaseException) -> None:
    """The reader got it, and is busy with it."""
    pipe, transport = make(lambda c: data_block(c))
    sends = transport.send

    def send(length: int, timeout_ms: int) -> None:
        sends(length, timeout_ms)
        transport.pending.clear()
        raise failure

    transport.send = send  # type: ignore[method-assign]
    with pytest.raises(type(failure)):
        both_ways(pipe)[way]()
    transport.send = sends  # type: ignore[method-assign]
    assert after_an_abort(pipe, transport, way) == DATA


@WAYS
def test_a_message_that_breaks_off_between_transfers(way: int) -> None:
    pipe, _ = make(lambda c: [data_block(c, abData=bytes(1000))[:512], broken()])
    with pytest.raises(TransportError):
        both_ways(pipe)[way]()


def test_a_command_too_long_to_send() -> None:
    pipe, transport = make(data_block)
    with pytest.raises(MalformedMessage) as raised:
        Commands(pipe, 0).xfr_block(bytes(70000), timeout_s=1)
    assert raised.value.field == "dwLength"
    assert "70000 bytes of data; a message holds 65556" in str(raised.value)
    assert transport.commands == []
    pipe.check_length(0, 65556)
    with pytest.raises(MalformedMessage, match="65557 bytes"):
        pipe.check_length(0, 65557)


# Time -----------------------------------------------------------------------------------------


def extension(command: Command, multiplier: int) -> bytes:
    return data_block(command, bStatus=0x80, bError=multiplier, abData=b"")


@WAYS
def test_time_extensions_are_waited_out(way: int) -> None:
    data, pipe = exchange(lambda c: [extension(c, n) for n in (1, 0, 5)] + [data_block(c)], way)
    assert data == DATA
    assert pipe.stale == 0


class Clock:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (pipe_module, conversation_module):
        monkeypatch.setattr(module, "time", made)
    return made


def slow(clock: Clock, transport: ScriptedTransport, waits: int, then: bytes) -> None:
    """Say ``then`` after so many idle slices."""
    left = [waits]

    def idle() -> None:
        clock.now += 0.02
        left[0] -= 1
        if left[0] == 0:
            transport.pending.append(then)

    transport.idle, transport.paced = idle, False


def test_the_multiplier_of_an_extension_multiplies_the_time(clock: Clock) -> None:
    """2 s given, times 10 asked: an answer after 19 s is in time, after 21 s it is not."""
    for late_s, in_time in ((19.0, True), (21.0, False)):
        pipe, transport = make(lambda c: extension(c, 10))
        answer = RDR_to_PC_DataBlock(bSeq=0, abData=DATA).build()
        slow(clock, transport, int(late_s / 0.02), answer)
        commands = Commands(pipe, 0)
        if in_time:
            assert commands.xfr_block(APDU, timeout_s=2.0) == (DATA, 0)
        else:
            with pytest.raises(TransportTimeout):
                commands.xfr_block(APDU, timeout_s=2.0)


def test_an_extension_of_zero_is_one_more_time(clock: Clock) -> None:
    pipe, transport = make(lambda c: extension(c, 0))
    slow(clock, transport, 95, RDR_to_PC_DataBlock(bSeq=0, abData=DATA).build())
    assert Commands(pipe, 0).xfr_block(APDU, timeout_s=2.0) == (DATA, 0)


@pytest.mark.parametrize(("limit", "ends"), [(30.0, True), (None, False)])
def test_extensions_are_bounded_by_total_time(
    clock: Clock, limit: float | None, ends: bool
) -> None:
    """A reader that asks for more for ever is heard to its limit, by time and not by count."""
    pipe, transport = make(lambda c: extension(c, 1), max_command_s=limit)
    asked = [0]

    def idle() -> None:
        clock.now += 0.5
        asked[0] += 1
        if asked[0] == 200:
            transport.pending.append(RDR_to_PC_DataBlock(bSeq=0, abData=DATA).build())
        else:
            transport.pending.append(RDR_to_PC_DataBlock(bSeq=0, bStatus=0x80, bError=1).build())

    transport.idle, transport.paced = idle, False
    if ends:
        with pytest.raises(TransportTimeout, match=r"30\.\d s"):
            Commands(pipe, 0).xfr_block(APDU, timeout_s=2.0)
    else:
        assert Commands(pipe, 0).xfr_block(APDU, timeout_s=2.0) == (DATA, 0)


@WAYS
def test_silence_times_out(way: int) -> None:
    pipe, _ = make(lambda c: None)
    with pytest.raises(TransportTimeout) as raised:
        both_ways(pipe)[way]()
    assert (raised.value.slot, raised.value.bSeq) == (0, 0)


def test_stale_answers_for_ever_do_not_prolong_the_wait(clock: Clock) -> None:
    pipe, transport = make(lambda c: None)

    def idle() -> None:
        clock.now += 0.1
        transport.pending.append(RDR_to_PC_DataBlock(bSeq=99).build())

    transport.idle, transport.paced = idle, False
    with pytest.raises(TransportTimeout):
        Commands(pipe, 0).xfr_block(APDU, timeout_s=2.0)
    assert clock.now < 1003


@WAYS
def test_the_late_answer_to_a_command_given_up_is_not_taken_for_the_next(way: int) -> None:
    kept: list[bytes] = []

    def answer(command: Command) -> Answer:
        if not kept:
            kept.append(data_block(command, abData=b"late\x90\x00"))
            return None
        return [*kept, data_block(command)]

    pipe, _ = make(answer)
    send = both_ways(pipe)[way]
    with pytest.raises(TransportTimeout):
        send()
    assert send() == DATA
    assert pipe.stale == 1


# Busy, and the ABORT pair ---------------------------------------------------------------------


def busy(command: Command) -> bytes:
    return data_block(command, bStatus=0x40, bError=SlotError.CMD_SLOT_BUSY, abData=b"")


@WAYS
def test_busy_is_an_error(way: int) -> None:
    with pytest.raises(SlotBusy):
        exchange(busy, way)


@WAYS
def test_busy_with_what_was_given_up_is_aborted_and_the_command_sent_again(way: int) -> None:
    aborted = [False]
    given_up = [False]

    def answer(command: Command) -> Answer:
        if isinstance(command, PC_to_RDR_Abort):
            aborted[0] = True
            return reply(command, RDR_to_PC_SlotStatus)
        if not given_up[0]:
            given_up[0] = True
            return None
        return data_block(command) if aborted[0] else busy(command)

    pipe, transport = make(answer)
    send = both_ways(pipe)[way]
    with pytest.raises(TransportTimeout):
        send()
    assert send() == DATA
    (request,) = transport.controls
    (abort,) = (c for c in transport.commands if isinstance(c, PC_to_RDR_Abort))
    assert request.bRequest == ClassRequest.ABORT
    assert request.wValue == abort.bSeq << 8 | abort.bSlot, "both halves carry one number"
    assert send() == DATA
    assert len(transport.controls) == 1


def cancelled(answer: Callable[[Command], Answer], way: int) -> tuple[Exception, ScriptedTransport]:
    """Run a command, cancel it while it waits; what it raises."""
    pipe, transport = make(answer)
    waiting = threading.Event()
    transport.idle = waiting.set
    result: list[Exception] = []
    commands = Commands(pipe, 0)
    quick = commands.apdu_way(lambda _: 60, as_it_came).transmit

    def run() -> None:
        try:
            quick(APDU) if way else commands.xfr_block(APDU, timeout_s=60)
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    assert pipe.cancel(0)
    thread.join(5)
    assert not thread.is_alive()
    return result[0], transport


@WAYS
def test_cancel_ends_a_command_by_the_abort_pair(way: int) -> None:
    kept: list[Command] = []

    def answer(command: Command) -> Answer:
        if isinstance(command, PC_to_RDR_XfrBlock):
            kept.append(command)
            return None
        aborted = data_block(kept[0], bStatus=0x40, bError=SlotError.CMD_ABORTED, abData=b"")
        return [aborted, reply(command, RDR_to_PC_SlotStatus)]

    error, transport = cancelled(answer, way)
    assert isinstance(error, CommandCancelled)
    assert [type(c) for c in transport.commands] == [PC_to_RDR_XfrBlock, PC_to_RDR_Abort]
    assert len(transport.controls) == 1
    assert transport.control_ms == [int(pipe_module.ABORT_S * 1000)]
    assert transport.controls[0].wValue >> 8 == transport.commands[1].bSeq == 1


@WAYS
def test_cancel_on_a_reader_that_knows_no_abort(way: int) -> None:
    def refuse(_: object) -> bytes:
        raise TransportStall("script: stalled")

    pipe, transport = make(lambda c: None)
    transport.on_control = refuse
    waiting = threading.Event()
    transport.idle = waiting.set
    result: list[Exception] = []

    def run() -> None:
        try:
            Commands(pipe, 0).xfr_block(APDU, timeout_s=60)
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    assert pipe.cancel(0)
    thread.join(5)
    assert isinstance(result[0], CommandCancelled)
    assert "did not take part" in str(result[0])


def test_cancel_before_the_first_command_of_an_operation() -> None:
    pipe, transport = make(data_block)
    begun, go, result = threading.Event(), threading.Event(), list[Exception]()

    def run() -> None:
        try:
            with pipe.operation(0):
                begun.set()
                go.wait(10)
                Commands(pipe, 0).xfr_block(APDU, timeout_s=60)
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    assert pipe.cancel(0)
    go.set()
    thread.join(10)
    assert isinstance(result[0], CommandCancelled)
    assert transport.commands == []
    assert both_ways(pipe)[0]() == DATA


def test_cancel_with_nothing_under_way() -> None:
    pipe, _ = make(data_block)
    assert pipe.cancel(0) is False
    assert both_ways(pipe)[0]() == DATA


# The end --------------------------------------------------------------------------------------


@WAYS
def test_after_close_everything_says_so(way: int) -> None:
    pipe, transport = make(data_block)
    send = both_ways(pipe)[way]
    transport.close()
    with pytest.raises(ReaderClosed):
        send()
    with pytest.raises(ReaderClosed), pipe.turn(0):
        pytest.fail("entered")
    with pytest.raises(ReaderClosed):
        pipe.cancel(0)


def test_there_is_nothing_to_cancel_while_a_turn_is_merely_held() -> None:
    pipe, _ = make(data_block)
    for send in both_ways(pipe):
        send()
        held, done = threading.Event(), threading.Event()

        def hold(held: threading.Event = held, done: threading.Event = done) -> None:
            with pipe.turn(0):
                held.set()
                done.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        assert pipe.cancel(0) is False
        done.set()
        thread.join(10)
        send()


def test_the_first_wait_is_bounded_by_the_commands_limit(clock: Clock) -> None:
    pipe, transport = make(lambda c: None, max_command_s=1.0)

    def idle() -> None:
        clock.now += 0.25

    transport.idle, transport.paced = idle, False
    with pytest.raises(TransportTimeout, match=r"within 1\.\d s"):
        Commands(pipe, 0).xfr_block(APDU, timeout_s=60.0)


@pytest.mark.parametrize("timeout_s", [1, 1.0, 1e6, 1e9, math.inf])
def test_any_time_is_a_limit(timeout_s: float) -> None:
    """A time without end, too."""
    pipe, _ = make(data_block)
    assert Commands(pipe, 0).xfr_block(APDU, timeout_s=timeout_s) == (DATA, 0)


@pytest.mark.parametrize("timeout_s", [-1.0, -1, math.nan])
def test_what_is_no_limit(timeout_s: float) -> None:
    pipe, transport = make(data_block)
    with pytest.raises(ValueError, match="timeout_s"):
        pipe.transact(RawCommand(0, 0x6F, bytes(3), APDU, 0x80, timeout_s))
    assert transport.commands == []


STATUS = RawCommand(0, 0x65, bytes(3), b"", 0x81, 5.0)
"""PC_to_RDR_GetSlotStatus."""


def hear(pipe: Pipe, transport: ScriptedTransport) -> None:
    """Tell the pipe's cards what notifications say, as a reader does."""

    def told(data: bytes) -> None:
        event = parse_event(data)
        assert isinstance(event, RDR_to_PC_NotifySlotChange)
        pipe.cards.notify(event.slots(1))

    transport.listen(told)


def moves(
    clock: Clock, transport: ScriptedTransport, reply_after: int | None, notification: str = "5003"
) -> None:
    """At the second idle slice a notification comes, and so many slices later a reply, or none."""
    slices = [0]

    def idle() -> None:
        clock.now += 0.02
        slices[0] += 1
        if slices[0] == 2:
            transport.events.append(bytes.fromhex(notification))
        if reply_after is not None and slices[0] == 2 + reply_after:
            transport.pending.append(reply(transport.commands[0], RDR_to_PC_SlotStatus))

    transport.idle, transport.paced = idle, False


def test_a_reply_that_comes_after_a_notification(clock: Clock) -> None:
    """Some readers drop the reply to what is under way then; a second is given it all the same."""
    pipe, transport = make(lambda c: None)
    hear(pipe, transport)
    moves(clock, transport, 45)
    assert pipe.transact(STATUS).bSeq == 0
    assert len(transport.commands) == 1


def test_a_reply_that_was_dropped_with_a_notification(clock: Clock) -> None:
    """The command is sent again: it changes nothing."""
    pipe, transport = make(lambda c: None if c.bSeq == 0 else reply(c, RDR_to_PC_SlotStatus))
    hear(pipe, transport)
    moves(clock, transport, 1000)
    began = clock.now
    assert pipe.transact(STATUS).bSeq == 1
    assert len(transport.commands) == 2
    assert 1.0 < clock.now - began < 1.2


def test_the_end_of_a_command_whose_card_left(clock: Clock) -> None:
    """Its error has the command's number, as bSeq has it."""
    pipe, transport = make(data_block)
    hear(pipe, transport)
    pipe.cards.powering(0)
    pipe.cards.answered(0)
    general = both_ways(pipe)[0]
    for _ in range(257):
        general()
    transport.answer = lambda c: None
    moves(clock, transport, None, "5002")
    began = clock.now
    with pytest.raises(CardRemoved) as raised:
        pipe.transact(RawCommand(0, 0x6F, bytes(3), APDU, 0x80, 5.0))
    assert (raised.value.slot, raised.value.bSeq) == (0, 1)
    assert 0.3 < clock.now - began < 0.5


def test_how_long_the_rest_of_a_message_is_waited_for(clock: Clock) -> None:
    """A slice, and no longer than the operation lasts."""
    pipe, _ = make(data_block)
    endless = UnderWay(STATUS, 0, Operation(0, clock.now, None))
    assert pipe._left_ms(endless) == 20
    for left_s, expected in ((5.0, 20), (0.0201, 20), (0.0155, 15), (0.0, 0)):
        sent = UnderWay(STATUS, 0, Operation(0, clock.now, clock.now + left_s))
        assert pipe._left_ms(sent) == expected


def test_a_read_waits_for_a_millisecond_at_least(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a transport, no time might be time without end."""
    pipe, _ = make(data_block)
    waits: list[tuple[int, bool]] = []

    def read(_: object, wait_ms: int, patience: object, *, is_last: bool) -> None:
        waits.append((wait_ms, is_last))

    monkeypatch.setattr(pipe.inbox, "read", read)
    sent = UnderWay(STATUS, 0, Operation(0, clock.now, None))
    for left_s in (5.0, 0.0205, 0.0155, 0.0, -5.0):
        assert pipe._read(sent, clock.now + left_s) is None
    assert waits == [(20, False), (20, True), (15, True), (1, True), (1, True)]


@pytest.mark.parametrize(("is_failed", "is_present"), [(False, False), (True, True)])
def test_the_reply_to_an_abort_tells_of_the_card(is_failed: bool, is_present: bool) -> None:
    """But not one that failed."""
    absent = 0x42 if is_failed else 0x02
    pipe, _ = make(lambda c: reply(c, RDR_to_PC_SlotStatus, bStatus=absent))
    pipe.cards.saw(0, IccStatus.ACTIVE)
    pipe.abort(0)
    assert pipe.cards[0].is_present is is_present


def test_one_slot_is_busy_with_what_was_given_up_at_another() -> None:
    """That is aborted, once the slot itself has no part in it. Without a number there is one slot,
    and no other is aborted."""

    def answer(command: Command) -> Answer:
        if isinstance(command, PC_to_RDR_Abort):
            working.discard(command.bSlot)
            return reply(command, RDR_to_PC_SlotStatus)
        return busy(command) if working else data_block(command)

    for options, others in ({"slot_count": 2}, [1]), ({}, []):
        working = {1}
        pipe, transport = make(answer, **options)
        pipe._past.answered(0)
        pipe.give_up(1)
        send = both_ways(pipe)[0]
        if others:
            assert send() == DATA
        else:
            with pytest.raises(SlotBusy):
                send()
        aborted = [c.bSlot for c in transport.commands if isinstance(c, PC_to_RDR_Abort)]
        assert aborted == others


def test_a_slot_that_another_thread_uses_is_not_aborted() -> None:
    """It gets its answer soon."""
    pipe, transport = make(lambda c: reply(c, RDR_to_PC_SlotStatus), slot_count=3)
    pipe.give_up(1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with pipe.turn(1):
            held.set()
            assert done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    pipe._abort_others(0)
    assert transport.commands == []  # here all slots have one turn
    done.set()
    thread.join(10)
    pipe._abort_others(0)
    aborted = [(type(c), c.bSlot) for c in transport.commands]
    assert aborted == [(PC_to_RDR_Abort, 1), (PC_to_RDR_Abort, 2)]
    assert not pipe.is_given_up(1)
    assert not pipe.turn(1)._is_owned()


def test_a_transfer_takes_no_longer_than_all_that_is_done(clock: Clock) -> None:
    """An end that holds for whatever is done bounds each transfer; one millisecond is the least."""
    pipe, _ = make(data_block)
    assert pipe._until_ms(500) == 500
    for left_s, expected in ((10.0, 500), (0.25, 250), (0.0, 1), (-5.0, 1)):
        pipe.latest = clock.now + left_s
        assert pipe._until_ms(500) == expected


def test_values_that_do_not_fit_a_block() -> None:
    pipe, transport = make(data_block)
    for field, value in ("bBWI", 300), ("bBWI", -1), ("wLevelParameter", 70000):
        with pytest.raises(MalformedMessage) as raised:
            Commands(pipe, 0).xfr_block(APDU, timeout_s=1, **{field: value})
        assert raised.value.field == field
    assert transport.commands == []


def test_the_repr_of_a_reply_shows_no_data() -> None:
    shown = repr(RawReply(0x80, 1, 0, 0, 0, b"1234"))
    assert "1234" not in shown
    assert "<4 bytes>" in shown


@WAYS
def test_transport_errors_come_through(way: int) -> None:
    with pytest.raises(TransportError, match="broken"):
        exchange(lambda c: broken(), way)


def test_quiet_waits_for_the_command_under_way() -> None:
    pipe, transport = make(lambda c: None)
    waiting = threading.Event()
    transport.idle = waiting.set

    def run() -> None:
        with pytest.raises(TransportTimeout):
            Commands(pipe, 0).xfr_block(APDU, timeout_s=0.3)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    with pipe.quiet():
        reads = len(transport.reads)
    thread.join(5)
    assert len(transport.reads) == reads, "the command was to time out first"


def test_quiet_works_on_a_pipe_that_is_shut() -> None:
    pipe, transport = make(data_block)
    transport.removed()
    with pipe.quiet():
        assert transport.reads == []


# The first read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "longest", "size"),
    [
        (64, 0, 512),
        (64, 271, 512),
        (64, 512, 512),
        (64, 513, 576),
        (512, 1024, 1024),
        (512, 4096, 4096),
        (512, 4097, 512),
        (512, 65556, 512),
    ],
)
def test_how_much_is_asked_for_at_first(packet: int, longest: int, size: int) -> None:
    """The longest message where that is not much: a third transfer takes more time."""
    answer = data_block(PC_to_RDR_XfrBlock(abData=APDU), bSeq=0)
    transport = ScriptedTransport(lambda _: answer, packet)
    pipe = Pipe(transport, name="script", longest_message=longest)
    assert Commands(pipe, 0).apdu_way(lambda _: 0.5, as_it_came).transmit(APDU) == DATA
    assert transport.reads == [(0, size)]


def test_the_last_wait_for_a_reply_ends_its_transfer() -> None:
    """So the end of a message is seen that fills its last packet, with none behind it."""
    last: list[str] = []

    class Waiting(ScriptedTransport):
        def wait(self, size: int, wait_ms: int, /) -> int:
            last.append("wait")
            return super().wait(size, wait_ms)

        def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
            last.append("receive")
            return super().receive(offset, size, timeout_ms)

    pipe = Pipe(Waiting(lambda _: None), name="script")
    with pytest.raises(TransportTimeout):
        Commands(pipe, 0).xfr_block(APDU, timeout_s=0.5)  # a busy machine waits at least once
    calls = " ".join(last)
    assert re.fullmatch("(wait receive )+(receive ?)+", calls), "all but the last leave it waiting"


def test_no_secret_is_shown_of_a_command() -> None:
    shown = repr(RawCommand(0, 0x6F, bytes(3), b"\x12\x34", 0x80, 1.0))
    assert "0x6F" in shown
    assert "1234" not in shown
    assert r"\x12" not in shown


def test_after_a_long_reply_the_next_one_is_asked_for_as_a_whole() -> None:
    sizes = iter([2, 3000, 3000, 2, 2, 3000])

    def answer(command: Command) -> Answer:
        return data_block(command, abData=bytes(next(sizes)))

    pipe, transport = make(answer, longest_message=65556)
    whole = -(-65556 // 64) * 64
    transmit = Commands(pipe, 0).apdu_way(lambda _: 0.5, as_it_came).transmit
    assert [len(transmit(APDU)) for _ in range(6)] == [2, 3000, 3000, 2, 2, 3000]
    assert transport.reads == [
        *[(0, 512)] * 2,
        (512, 2496 + 64),  # the rest
        *[(0, whole)] * 2,
        *[(0, 512)] * 2,
        (512, 2496 + 64),
    ]


@pytest.mark.parametrize("longest", [0, 271, 3072, 4096])
def test_a_reader_without_long_messages_is_always_asked_for_the_same(longest: int) -> None:
    pipe, transport = make(lambda c: data_block(c, abData=bytes(1000)), longest_message=longest)
    transmit = Commands(pipe, 0).apdu_way(lambda _: 0.5, as_it_came).transmit
    for _ in range(3):
        assert len(transmit(APDU)) == 1000
    first = transport.reads[0]
    assert transport.reads[:: len(transport.reads) // 3] == [first] * 3
    assert first == (0, inbox.first_read(64, longest))


def test_a_longest_message_beyond_the_buffer_is_asked_for_as_far_as_there_is_room() -> None:
    pipe, transport = make(lambda c: data_block(c, abData=bytes(1000)), longest_message=1 << 31)
    transmit = Commands(pipe, 0).apdu_way(lambda _: 0.5, as_it_came).transmit
    for _ in range(2):
        assert len(transmit(APDU)) == 1000
    assert transport.reads[-1] == (0, IN_CAPACITY - 64)
