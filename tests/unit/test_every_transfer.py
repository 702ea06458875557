"""Each transfer of a conversation fails once, in each way: the error is named, nothing is left, and
the reader can be used again.

A conversation is: open, connect, three APDUs, reset, PIN, disconnect, close. It is repeated with a
fault at its first transfer, at its second, and so on, until it ends without one. Nobody waits: the
clock is the test's.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.codes import ExchangeLevel, Protocol
from ccid.device.open_readers import key_of, opened
from ccid.errors import CcidError, TransportError, TransportTimeout
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.port import Port, _Waiter
from ccid.virtual.virtual_transport import VirtualTransport
from tests.conftest import Tell
from tests.unit.open_descriptors import descriptors
from tests.unit.test_control import PIN, VERIFY_APDU, PinPad, parse_verify, verify_structure

pytestmark = pytest.mark.usefixtures("collected")

OK = b"\x90\x00"
DATA = bytes(range(40))
APDUS = {
    bytes.fromhex("0010000004"): bytes.fromhex("00010203") + OK,
    bytes.fromhex("00A4000C023F00"): OK,
    bytes.fromhex("0030000028") + DATA + b"\0": DATA + OK,
}
LONG = {bytes.fromhex("0030000000 0200") + bytes(512) + bytes(2): bytes(512) + OK}
"""Instead of the third one, where a message does not hold it."""
PATIENCE_S = 10
"""Only a lock that is held for ever makes a thread wait so long."""
SHARE = 17
"""Without ``--full`` one of so many transfers fails."""
MOST = 10_000
"""No conversation has so many transfers."""
STEPS = {"open", "connect", "transmit", "reset", "PIN", "disconnect", "close"}
AGAIN_S = 1.0
"""Opening, connecting and an APDU take so long at most after a fault, by the test's clock."""


class Clock:
    """A clock that goes on when somebody waits, and waits for nobody. A thread that another test
    left behind waits as long as it likes, and moves no hand of this clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._strangers = {*threading.enumerate()} - {threading.current_thread()}
        self._sleep = time.sleep

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if threading.current_thread() in self._strangers:
            self._sleep(seconds)
        else:
            self.now += seconds

    def wait(self, port: Port, waiter: _Waiter, timeout_s: float | None) -> None:
        """In place of :meth:`Port._wait`."""
        if threading.current_thread() in self._strangers:
            self._sleep(0.01)
        elif waiter.woken.empty():
            self.now += max(0.0, 3600.0 if timeout_s is None else timeout_s)
        with port.changed:
            if waiter in port._waiting:
                port._waiting.remove(waiter)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(Port, "now", staticmethod(made.monotonic))
    monkeypatch.setattr(Port, "_wait", lambda port, *more: made.wait(port, *more))
    return made


class FaultyTransport(VirtualTransport):
    """A transport one of whose transfers fails. Class attributes, for it fails while it opens, too.

    Attributes:
        left: Transfers before the one that fails.
        left_after: The same when the conversation was over.
        kind: How it fails.
        struck: What failed: a method, or empty.
        step: What the conversation does.
        step_struck: The same when the transfer failed.
        virtual: The reader.
    """

    virtual: ccid.VirtualReader
    left = left_after = 0
    kind = ""
    struck = step = step_struck = ""

    def _strikes(self, what: str) -> bool:
        cls = FaultyTransport
        cls.left -= 1
        if cls.left != -1:
            return False
        cls.struck, cls.step_struck = what, cls.step
        match cls.kind:
            case "time-out":
                raise TransportTimeout(f"{self.name}: nothing came", reader=self.name)
            case "removal":
                self.virtual.unplug()
                raise self.removed()
            case "transport error":
                raise TransportError(f"{self.name}: I/O error", reader=self.name)
            case "OSError":
                raise OSError(5, "what no transport may raise")
            case "KeyboardInterrupt":
                raise KeyboardInterrupt
        return True

    def _after(self) -> None:
        if self.kind == "KeyboardInterrupt after it":
            raise KeyboardInterrupt
        if self.kind == "time-out after it":
            raise TransportTimeout(f"{self.name}: nothing came", reader=self.name)

    def send(self, length: int, timeout_ms: int, /) -> None:
        if not self._strikes("send"):
            super().send(length, timeout_ms)
            return
        if self.kind == "stall":
            raise self._stalled(self._out_endpoint)
        super().send(length // 2 if self.kind == "short" else length, timeout_ms)
        if self.kind == "short":
            raise TransportError(f"{self.name}: {length // 2} bytes were sent", reader=self.name)
        self._after()

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        if not self._strikes("receive"):
            return super().receive(offset, size, timeout_ms)
        if self.kind == "stall":
            raise self._stalled(self._in_endpoint)
        got = super().receive(offset, size, timeout_ms)
        self._after()
        if self.kind == "short":
            return got // 2
        if self.kind == "babble":
            self.inp[offset + got : offset + size] = bytes(size - got)
            return size
        return got

    def control(self, request: ClassControl, timeout_ms: int = 0, data: bytes = b"") -> bytes:
        if not self._strikes("control"):
            return super().control(request, timeout_ms, data)
        if self.kind == "stall":
            raise self._stalled(0)
        came = super().control(request, timeout_ms, data)
        self._after()
        if self.kind == "short":
            return came[: len(came) // 2]
        return came + bytes(64) if self.kind == "babble" else came


KINDS = (
    "stall", "time-out", "time-out after it", "removal", "short", "babble", "transport error",
    "OSError", "KeyboardInterrupt", "KeyboardInterrupt after it",
)  # fmt: skip


def faulty(virtual: ccid.VirtualReader) -> ReaderInfo:
    """The reader, with a transport that fails."""

    def connect(info: ReaderInfo) -> FaultyTransport:
        FaultyTransport.virtual = virtual
        return FaultyTransport(virtual.port, info)

    return dataclasses.replace(virtual.info, connect=connect)


class WholePinPad(PinPad):
    """Takes no structure that was cut short."""

    def bulk_out(self, data: bytes, now: float) -> None:
        is_whole = len(data) == 10 + int.from_bytes(data[1:5], "little")
        (PinPad if is_whole else CcidFunction).bulk_out(self, data, now)


def made(level: ExchangeLevel, protocol: Protocol, busy: int) -> ccid.VirtualReader:
    """A reader with a PIN pad."""
    fields = {"bPINSupport": 3, "wLcdLayout": 0x0210, "bMaxCCIDBusySlots": busy}
    descriptor = make_descriptor(level, 2, dwMaxCCIDMessageLength=271, **fields)
    function = WholePinPad(descriptor, [EchoCard(), EchoCard()])
    function.presses, function.secured = [PIN] * 9, []
    function.is_blockwise = level is ExchangeLevel.TPDU and protocol is Protocol.T1
    return ccid.VirtualReader(functions=[function])


class Conversation:
    """One conversation, whatever happens in it.

    Attributes:
        step: What was done last.
        errors: What was raised.
        reader: The reader, once it is open.
    """

    def __init__(self, info: ReaderInfo, level: ExchangeLevel, protocol: Protocol) -> None:
        self.info, self.level, self.protocol = info, level, protocol
        self.step = "nothing"
        self.errors: list[BaseException] = []
        self.reader: ccid.Reader | None = None
        apdus = APDUS
        if protocol is Protocol.T1 and level is ExchangeLevel.EXTENDED_APDU:
            apdus = dict(list(APDUS.items())[:2]) | LONG
        self.apdus = apdus

    def _steps(self) -> Iterator[str]:
        yield "open"
        self.reader = ccid.open_reader(self.info)
        yield "connect"
        slot = self.reader.slots[0]
        card = slot.connect(self.protocol, auto_get_response=True)
        for apdu, answer in self.apdus.items():
            yield "transmit"
            assert card.transmit(apdu) == answer, "an answer to another question"
        yield "reset"
        card.reset()
        yield "PIN"
        if self.level is ExchangeLevel.CHARACTER:  # whose readers have no pad
            assert card.transmit(VERIFY_APDU) == OK
        else:
            assert slot.verify_pin(parse_verify(verify_structure())) == OK
        yield "disconnect"
        card.disconnect()
        yield "connect"
        self.reader.slots[1].connect(self.protocol)  # so closing has a card to power off
        yield "close"
        self.reader.close()

    def run(self) -> None:
        try:
            for step in self._steps():
                self.step = FaultyTransport.step = step
        except (CcidError, OSError, KeyboardInterrupt) as error:
            self.errors.append(error)

    def use(self) -> None:
        """What a program does after an error: it goes on, and the answers are right or there are
        none."""
        assert self.reader is not None
        slot = self.reader.slots[0]
        try:
            card = slot.card or slot.connect(self.protocol, auto_get_response=True)
            for apdu, answer in self.apdus.items():
                assert card.transmit(apdu) == answer, "an answer to another question"
        except CcidError as error:
            self.errors.append(error)


def left_over(before: int, threads: int, virtual: ccid.VirtualReader) -> list[str]:
    """What is left of a conversation that is over."""
    found = []
    if virtual.port.claims:
        found.append("a claim")
    if virtual.port.armed:
        found.append("a transfer for notifications")
    if virtual.port._waiting:
        found.append("a thread that waits")
    if opened._application_counts.get(key_of(virtual.info)):
        found.append("an application that opens")
    if threading.active_count() != threads:
        found.append(f"threads: {threading.enumerate()}")
    if descriptors() != before:
        found.append("a descriptor")
    return found


def injured(
    clock: Clock,
    others: ThreadPoolExecutor,
    level: ExchangeLevel,
    protocol: Protocol,
    busy: int,
    kind: str,
    at: int,
) -> str:
    """One conversation with a fault. Returns the step in which it came; empty if it did not."""
    threads, before = threading.active_count(), descriptors()
    virtual = made(level, protocol, busy)
    info = faulty(virtual)
    FaultyTransport.left, FaultyTransport.kind, FaultyTransport.struck = at, kind, ""
    one = Conversation(info, level, protocol)
    one.run()
    struck, step = FaultyTransport.struck, FaultyTransport.step_struck
    FaultyTransport.left_after = FaultyTransport.left
    FaultyTransport.left = -2
    if not struck:
        assert one.errors == [], "a conversation without a fault"
    for error in one.errors:
        assert isinstance(error, CcidError) or kind.startswith(type(error).__name__), repr(error)
        assert not isinstance(error, CcidError) or one.info.name in str(error), str(error)
    if one.reader is not None:
        if one.step != "close":  # no lock is held: another thread gets its answer, or its error
            others.submit(one.use).result(PATIENCE_S)
            one.use()
        others.submit(one.reader.close).result(PATIENCE_S)
    one.errors.clear()
    assert left_over(before, threads, virtual) == []
    if kind == "removal" and struck:
        with pytest.raises(ccid.errors.ReaderRemoved):
            ccid.open_reader(info)
        return step
    began = clock.now
    with ccid.open_reader(info) as again:
        for slot in again.slots:
            apdu, answer = next(iter(APDUS.items()))
            assert slot.connect(protocol).transmit(apdu) == answer
    assert clock.now - began <= AGAIN_S, "the next open takes long"
    return step if struck else ""


@pytest.mark.parametrize("busy", [1, 2], ids=["one at a time", "shared"])
@pytest.mark.parametrize("protocol", [Protocol.T0, Protocol.T1])
@pytest.mark.parametrize("level", list(ExchangeLevel))
def test_every_transfer_fails_in_every_way(
    clock: Clock, level: ExchangeLevel, protocol: Protocol, busy: int, full: bool, tell: Tell
) -> None:
    """All transfers, or a share of them: another share for each kind of fault."""
    counts: Counter[str] = Counter()
    every = 1 if full else SHARE
    with ThreadPoolExecutor(1) as others:
        others.submit(int).result()  # now its thread is there
        assert injured(clock, others, level, protocol, busy, "", MOST) == ""
        transfers = MOST - FaultyTransport.left_after
        for n, kind in enumerate(KINDS):
            for at in range(
                (3 * n + 2 * protocol + busy + level.bit_length()) % every, transfers, every
            ):
                try:
                    step = injured(clock, others, level, protocol, busy, kind, at)
                    assert step
                except BaseException as error:
                    error.add_note(f"{kind} at transfer {at}: {FaultyTransport.struck}")
                    raise
                counts[step] += 1
    if full:
        assert counts.keys() == STEPS
    assert transfers > 20
    what = ", ".join(f"{step} {count}" for step, count in counts.items())
    tell(f"faults at {level.name}, {protocol.name}, {busy} busy: {counts.total()} ({what})")
