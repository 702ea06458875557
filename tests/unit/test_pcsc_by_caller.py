"""SCardTransmit that the caller's own thread does: nothing slips into another's transaction, and
whatever happens meanwhile is told as when a thread of the manager does it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import ccid
from ccid.iso7816.apdu import CommandApdu
from ccid.pcsc.manager import Disposition, Manager, ScardCode, ScardError, Share
from ccid.pcsc.manager.pcsc_call import Call, Done
from ccid.pcsc.manager.scard_codes import Proto
from ccid.virtual import Answer, EchoCard, faults

BEGIN, WITHIN, END, OUTSIDE = range(4)
"""P1 of a command: where its sender believes to be."""
WORK = bytes.fromhex("00400000")
SLOW_S = 20.0
SLOW = bytes.fromhex("00380014")


class Log(EchoCard):
    """Keeps P1 and P2 of each command with INS 40."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.is_slow = threading.Event()

    def process(self, command: CommandApdu) -> Answer:
        if command.ins == 0x40:
            self.seen.append((command.p1, command.p2))
        if command.ins == 0x38:
            self.is_slow.set()
        return super().process(command)


@pytest.fixture
def card() -> Log:
    return Log()


@pytest.fixture
def reader(card: Log) -> ccid.VirtualReader:
    return ccid.VirtualReader(card)


@pytest.fixture
def manager(reader: ccid.VirtualReader) -> Iterator[Manager]:
    made = Manager([reader], usb=False)
    yield made
    made.close()


def connected(manager: Manager, share: int = Share.SHARED) -> tuple[int, int, int]:
    """Context, handle, protocol."""
    context = manager.establish()
    (name,) = manager.list_readers(context)
    return context, *manager.connect(context, name, share)


def by_caller(manager: Manager, handle: int, protocol: int, apdu: bytes = WORK) -> bool:
    return manager._engine.transmit_now(handle, protocol, apdu) is not None


def callers(manager: Manager) -> bool:
    """A caller's own thread is at a slot."""
    return any(driver.caller for driver in manager._engine._drivers.values())


def test_it_is_done_by_the_caller(manager: Manager, card: Log) -> None:
    _, handle, protocol = connected(manager)
    assert by_caller(manager, handle, protocol)
    assert by_caller(manager, handle, Proto.RAW)
    assert manager.transmit(handle, protocol, WORK) == (b"\x90\x00", protocol - 1)
    assert len(card.seen) == 3


def test_when_it_is_not(manager: Manager, card: Log) -> None:
    """Then nothing is sent."""
    _, handle, protocol = connected(manager)
    _, other, _ = connected(manager)
    _, direct, _ = connected(manager, Share.DIRECT)
    assert not by_caller(manager, 5, protocol)
    assert not by_caller(manager, handle, 0)
    assert not by_caller(manager, handle, 3 - protocol)
    assert not by_caller(manager, direct, protocol)
    assert not by_caller(manager, handle, protocol, bytes(65549))
    manager.begin(other)
    assert not by_caller(manager, handle, protocol)
    assert by_caller(manager, other, protocol)
    manager.end(other, Disposition.RESET)
    assert not by_caller(manager, handle, protocol)  # it is to be told of the reset
    with pytest.raises(ScardError) as raised:
        manager.transmit(handle, protocol, WORK)
    assert raised.value.code is ScardCode.W_RESET_CARD
    manager.reconnect(handle)
    assert by_caller(manager, handle, protocol)
    manager.disconnect(handle)
    assert not by_caller(manager, handle, protocol)
    assert len(card.seen) == 2


def test_a_card_that_is_taken_out(manager: Manager, reader: ccid.VirtualReader) -> None:
    _, handle, protocol = connected(manager)
    assert by_caller(manager, handle, protocol)
    taken = reader.remove()
    codes = (ScardCode.E_NO_SMARTCARD, ScardCode.W_REMOVED_CARD)
    for _ in range(2):
        with pytest.raises(ScardError) as raised:
            manager.transmit(handle, protocol, WORK)
        assert raised.value.code in codes
    assert taken is not None
    reader.insert(taken)
    with pytest.raises(ScardError) as raised:
        manager.transmit(handle, protocol, WORK)
    assert raised.value.code is ScardCode.W_REMOVED_CARD


def test_a_reader_that_is_pulled_out(manager: Manager, reader: ccid.VirtualReader) -> None:
    context, handle, protocol = connected(manager)
    reader.faults.append(faults.unplugged())
    with pytest.raises(ScardError) as raised:
        manager.transmit(handle, protocol, WORK)
    assert raised.value.code in (ScardCode.E_READER_UNAVAILABLE, ScardCode.E_INVALID_VALUE)
    with pytest.raises(ScardError) as raised:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            manager.list_readers(context)
    assert raised.value.code is ScardCode.E_NO_READERS_AVAILABLE


def test_a_response_that_is_wrong(manager: Manager, reader: ccid.VirtualReader) -> None:
    _, handle, protocol = connected(manager)
    reader.faults.append(faults.failing(0xFB))
    with pytest.raises(ScardError):
        manager.transmit(handle, protocol, WORK)
    manager.reconnect(handle, initialization=Disposition.RESET)
    assert manager.transmit(handle, protocol, WORK)[0] == b"\x90\x00"


def test_who_comes_meanwhile_waits(manager: Manager, card: Log) -> None:
    """A call with several jobs begins when the exchange is over, and not in its middle."""
    _, handle, protocol = connected(manager)
    _, other, _ = connected(manager)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(manager.transmit, handle, protocol, bytes.fromhex("0050012C"))
        while not callers(manager):
            time.sleep(0.001)
        resets = card.resets
        manager.reconnect(other, initialization=Disposition.RESET)
        assert slow.result(10)[0] == b"\x90\x00"
        assert card.resets > resets


def test_nothing_slips_into_a_transaction(manager: Manager, card: Log) -> None:
    until = time.monotonic() + 1.0

    def work(number: int) -> None:
        _, handle, protocol = connected(manager)

        def send(where: int) -> None:
            manager.transmit(handle, protocol, bytes((0, 0x40, where, number)))

        while time.monotonic() < until:
            for _ in range(3):
                send(OUTSIDE)
            manager.begin(handle)
            for where in (BEGIN, WITHIN, WITHIN, END):
                send(where)
            manager.end(handle)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(4)))
    inside: int | None = None
    transactions = 0
    for where, number in card.seen:
        if inside is not None:
            assert number == inside
        if where == BEGIN:
            inside = number
            transactions += 1
        elif where == END:
            inside = None
    assert transactions > 10


def test_a_context_that_is_released_ends_it(manager: Manager, card: Log) -> None:
    context, handle, protocol = connected(manager)
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(manager.transmit, handle, protocol, SLOW)
        assert card.is_slow.wait(10)
        manager.release(context)
        with pytest.raises(ScardError):
            slow.result(SLOW_S)
    _, handle, protocol = connected(manager)
    assert manager.transmit(handle, protocol, WORK)[0] == b"\x90\x00"
    assert time.monotonic() - begun < SLOW_S / 2


def test_the_end_of_the_manager_ends_it(manager: Manager, card: Log) -> None:
    _, handle, protocol = connected(manager)
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(manager.transmit, handle, protocol, SLOW)
        assert card.is_slow.wait(10)
        manager.close()
        with pytest.raises(ScardError):
            slow.result(SLOW_S)
    assert time.monotonic() - begun < SLOW_S / 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt; a process in the background inherits it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_nothing_held(manager: Manager, card: Log) -> None:
    _, handle, protocol = connected(manager)
    _, other, its = connected(manager)

    def interrupt() -> None:
        card.is_slow.wait(10)
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        manager.transmit(handle, protocol, SLOW)
    thread.join()
    assert not callers(manager)
    with pytest.raises(ScardError) as raised:  # what the card did is unknown: it was reset, or not
        for _ in range(3):
            manager.transmit(other, its, WORK)
        raise ScardError(ScardCode.S_SUCCESS)
    assert raised.value.code in (ScardCode.S_SUCCESS, ScardCode.W_RESET_CARD)
    manager.reconnect(handle, initialization=Disposition.RESET)
    assert manager.transmit(handle, protocol, WORK)[0] == b"\x90\x00"
    assert time.monotonic() - begun < SLOW_S / 2


def test_an_end_among_other_messages(manager: Manager) -> None:
    """It is heeded although it is not the message that woke the manager's thread."""
    is_at_work, may_go_on = threading.Event(), threading.Event()

    def hold(call: Call) -> Done:
        is_at_work.set()
        may_go_on.wait(10)
        return Done()

    with ThreadPoolExecutor() as pool:
        held = pool.submit(manager._call, hold)
        assert is_at_work.wait(10)
        begun = time.monotonic()
        closed = pool.submit(manager.close)
        while not manager._engine.has_messages:
            time.sleep(0.001)
        may_go_on.set()
        held.result(10)
        closed.result(20)
    assert time.monotonic() - begun < 5


# The same as the long way -------------------------------------------------------------------------


def nothing_before(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    pass


def another_resets(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    _, other, _ = connected(manager)
    manager.reconnect(other, initialization=Disposition.RESET)


def a_transaction(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    manager.begin(handle)


def anothers_transaction(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    _, other, _ = connected(manager)
    manager.begin(other)


def taken_out(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    reader.remove()
    seen_by(manager, ScardCode.E_NO_SMARTCARD)


def exchanged(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    reader.remove()
    seen_by(manager, ScardCode.E_NO_SMARTCARD)
    reader.insert(Log())
    seen_by(manager, ScardCode.S_SUCCESS)


def unplugged(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    reader.unplug()
    seen_by(manager, ScardCode.E_NO_READERS_AVAILABLE)


def disconnected(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    manager.disconnect(handle)


def powered_off(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    _, other, _ = connected(manager)
    manager.disconnect(other, Disposition.UNPOWER)


def refused(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    reader.faults.append(faults.failing(0xFB))


def pulled_out(manager: Manager, reader: ccid.VirtualReader, handle: int) -> None:
    reader.faults.append(faults.unplugged())


def seen_by(manager: Manager, code: ScardCode) -> None:
    """Wait until a new connection ends so."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        context = manager.establish()
        try:
            manager.connect(context, manager.list_readers(context)[0])
            got = ScardCode.S_SUCCESS
        except ScardError as error:
            got = error.code
        manager.release(context)
        if got is code:
            return
    raise AssertionError(f"no connection ended with {code!r}")


APDUS = (WORK, bytes.fromhex("0010000004"), b"\0", b"", bytes(65549))
Before = Callable[[Manager, ccid.VirtualReader, int], None]
BEFORE: tuple[Before, ...] = (
    nothing_before,
    another_resets,
    a_transaction,
    anothers_transaction,
    taken_out,
    exchanged,
    unplugged,
    disconnected,
    powered_off,
    refused,
    pulled_out,
)


def rests(manager: Manager) -> None:
    """Wait until the card had its first power-up: a direct connection does not wait for that, and
    ``before`` would meet its commands."""
    manager.list_readers(manager.establish())
    limit = time.monotonic() + 10
    while any(
        slot.is_arriving or slot.turn is not None or slot.queue
        for slot in manager._engine.core.resources.slots
        if slot is not None
    ):
        assert time.monotonic() < limit
        time.sleep(0.001)


def told(before: Before, share: int, *, is_long: bool) -> list[object]:
    """What SCardTransmit says, for each APDU and protocol."""
    results: list[object] = []
    reader = ccid.VirtualReader(Log())
    manager = Manager([reader], usb=False)
    try:
        if is_long:
            manager._engine.transmit_now = lambda *_: None  # type: ignore[method-assign]
        rests(manager)
        _, handle, protocol = connected(manager, share)
        before(manager, reader, handle)
        for apdu in APDUS:
            for sent in (protocol, Proto.RAW, Proto.ANY_OLD, 3 - protocol, 0, protocol):
                try:
                    results.append(manager.transmit(handle, sent, apdu, timeout=0.001))
                except ScardError as error:
                    results.append(error.code)
                    if before is pulled_out:  # how soon the manager hears of it is another matter
                        return results
    finally:
        manager.close()
    return results


@pytest.mark.parametrize("share", [Share.SHARED, Share.DIRECT])
@pytest.mark.parametrize("before", BEFORE)
def test_what_is_told_is_the_same(before: Before, share: int) -> None:
    """The caller's own thread tells what the manager's would tell."""
    short = told(before, share, is_long=False)
    assert short
    assert short == told(before, share, is_long=True)


INTERRUPTED = """\
import signal, time
import ccid
from ccid.pcsc.manager import Disposition, Manager, ScardError
from ccid.virtual import EchoCard

manager = Manager([ccid.VirtualReader(EchoCard())], usb=False)
context = manager.establish()
handle, protocol = manager.connect(context, manager.list_readers(context)[0])
work = bytes.fromhex("00400000")
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted, delay = 0, 0.0001
until = time.monotonic() + 2.0
while time.monotonic() < until:
    delay = delay * 1.07 if delay < 0.003 else 0.0001
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        for _ in range(200):
            manager.transmit(handle, protocol, work)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    except ScardError:
        signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        manager.reconnect(handle, timeout=10)
    except ScardError:  # a slot that is held would be so for the next call, too
        manager.reconnect(handle, initialization=Disposition.RESET, timeout=10)
assert manager.transmit(handle, protocol, work, timeout=10)[0].hex() == "9000"
print(interrupted)
"""
"""In a process of its own, where nothing but this is interrupted."""


def test_ctrl_c_at_any_moment() -> None:
    """Hundreds of interruptions while commands go to and fro: the slot is never left held."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
