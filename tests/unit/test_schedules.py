"""Locks and queues under seeded schedules: no deadlock, no lost wake-up, nothing left."""

from __future__ import annotations

import queue
import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.device import watching
from ccid.device.open_readers import opened
from ccid.errors import CardDisconnected, CommandCancelled, ReaderClosed, ReaderRemoved
from ccid.iso7816.apdu import CommandApdu
from ccid.link.pipe import Pipe
from ccid.link.raw_commands import RawCommand, UnderWay
from ccid.link.shared_pipe import SharedPipe
from ccid.pcsc.manager import Manager, ReaderState, ScardCode, ScardError
from ccid.pcsc.service import lent_sockets
from ccid.pcsc.service.client_messages import Command
from ccid.transport import ReaderInfo, asynchronous, hotplug
from ccid.transport.recovery import Recovery
from ccid.virtual import EchoCard, FileSystemCard, make_descriptor
from tests.unit import fake_events, schedules
from tests.unit.pcsc_clients import request, transmit_body
from tests.unit.schedules import Deadlock, LostWakeUp, Scheduler, explore, run

Tell = Callable[[str], None]


ABSENT = b"\x50\x02"


@pytest.fixture(autouse=True)
def scheduled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, schedules.under_schedules(patch, fake_events):
        patch.setattr(watching, "list_readers", lambda: list(Bus.infos))
        patch.setattr(hotplug, "on_hotplug", Bus.on_hotplug)
        yield


class Bus:
    """The readers on USB, and the functions that hear of changes."""

    infos: ClassVar[list[ReaderInfo]] = []
    tells: ClassVar[list[Callable[[], None]]] = []

    @classmethod
    def on_hotplug(cls, tell: Callable[[], None]) -> Callable[[], None]:
        cls.tells.append(tell)
        return lambda: cls.tells.remove(tell) if tell in cls.tells else None

    @classmethod
    def plug(cls, *infos: ReaderInfo) -> None:
        cls.infos = list(infos)
        for tell in list(cls.tells):
            tell()


def echo(slot: int, i: int) -> bytes:
    return CommandApdu(0, 0x30, data=b"%d %d" % (slot, i), ne=256).build()


def delay(ms: int) -> bytes:
    return bytes((0, 0x50, ms >> 8, ms & 0xFF))


def shared_reader(slots: int, busy: int) -> ccid.VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots, bMaxCCIDBusySlots=busy)
    return ccid.VirtualReader([EchoCard() for _ in range(slots)], descriptor=descriptor)


def shared_apdus(scheduler: Scheduler) -> None:
    """Each slot gets its own answers; fewer may be under way than there are slots."""
    with scheduler.calm():
        reader = ccid.open_reader(shared_reader(3, 2))
        assert isinstance(reader.pipe, SharedPipe)
        cards = [slot.connect() for slot in reader.slots]

    def talk(n: int) -> list[bytes]:
        return [cards[n].transmit(echo(n, i)) for i in range(2)]

    jobs = [scheduler.spawn(partial(talk, n)) for n in range(3)]
    for n, job in enumerate(jobs):
        assert job.result() == [b"%d %d\x90\x00" % (n, i) for i in range(2)]
    assert reader.pipe.stale == 0
    with scheduler.calm():
        reader.close()


def answers_or(kinds: tuple[type[Exception], ...], job: schedules.Job[bytes], right: bytes) -> None:
    """It ended in one of two ways."""
    error = job.failure()
    if error is None:
        assert job.result() == right, job.result().hex()
    else:
        assert isinstance(error, kinds), repr(error)


def shared_order(scheduler: Scheduler) -> None:
    """A slow slot and a quick one: the replies come in another order than the commands."""
    with scheduler.calm():
        reader = ccid.open_reader(shared_reader(2, 2))
        cards = [slot.connect() for slot in reader.slots]
    slow = scheduler.spawn(lambda: cards[0].transmit(delay(100)))
    quick = [scheduler.spawn(partial(cards[1].transmit, echo(1, i))) for i in range(2)]
    for i, job in enumerate(quick):
        assert job.result() == b"1 %d\x90\x00" % i
    assert slow.result() == b"\x90\x00"
    with scheduler.calm():
        reader.close()


def shared_cancel(scheduler: Scheduler) -> None:
    """Cancelling hits one slot, and the slot works afterwards."""
    with scheduler.calm():
        reader = ccid.open_reader(shared_reader(2, 2))
        cards = [slot.connect() for slot in reader.slots]
    slow = scheduler.spawn(lambda: cards[0].transmit(delay(20_000)))
    other = scheduler.spawn(lambda: cards[1].transmit(echo(1, 1)))
    while not reader.slots[0].cancel():
        assert not slow.is_over
        scheduler.sleep(0.001)
    failure = slow.failure()
    assert isinstance(failure, CommandCancelled), repr(failure)
    assert scheduler.now - schedules.BEGIN_S < 2
    assert other.result() == b"1 1\x90\x00"
    assert cards[0].transmit(echo(0, 2)) == b"0 2\x90\x00"
    with scheduler.calm():
        reader.close()


def shared_unplugged(scheduler: Scheduler) -> None:
    """All threads hear of it."""
    with scheduler.calm():
        virtual = shared_reader(2, 2)
        reader = ccid.open_reader(virtual)
        cards = [slot.connect() for slot in reader.slots]
    slow = scheduler.spawn(lambda: cards[0].transmit(delay(20_000)))
    quick = scheduler.spawn(lambda: cards[1].transmit(echo(1, 1)))
    virtual.unplug()
    failure = slow.failure()
    assert isinstance(failure, ReaderRemoved), repr(failure)
    answers_or((ReaderRemoved,), quick, b"1 1\x90\x00")
    assert scheduler.now - schedules.BEGIN_S < 2
    reader.close()


def shared_closed(scheduler: Scheduler) -> None:
    """Closing ends what is under way."""
    with scheduler.calm():
        reader = ccid.open_reader(shared_reader(2, 2))
        cards = [slot.connect() for slot in reader.slots]
    jobs = [scheduler.spawn(partial(cards[n].transmit, echo(n, 1))) for n in range(2)]
    reader.close()
    for n, job in enumerate(jobs):
        answers_or((ReaderClosed, CardDisconnected, CommandCancelled), job, b"%d 1\x90\x00" % n)


def turns(scheduler: Scheduler) -> None:
    """What is done within a turn is one step for all others."""
    with scheduler.calm():
        reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
        card, pipe = reader.slots[0].connect(), reader.pipe
    counted = [0]

    def work() -> None:
        before = counted[0]
        assert card.transmit(echo(0, before)) == b"0 %d\x90\x00" % before
        counted[0] = before + 1

    def exclusive() -> None:
        with card.exclusive():
            work()

    jobs = [
        scheduler.spawn(lambda: pipe.perform(0, work)),
        scheduler.spawn(exclusive),
        scheduler.spawn(lambda: pipe.every_turn(work)),
    ]
    for job in jobs:
        job.result()
    assert counted == [3]
    with scheduler.calm():
        reader.close()


def cancelled(scheduler: Scheduler) -> None:
    """Two threads, and a third that cancels whatever is under way: each command is done or
    cancelled, and no cancel is left for the next."""
    with scheduler.calm():
        reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
        card, slot = reader.slots[0].connect(), reader.slots[0]
    jobs = [scheduler.spawn(partial(card.transmit, echo(0, i))) for i in range(2)]
    hits = slot.cancel() + slot.cancel()
    failed = 0
    for i, job in enumerate(jobs):
        answers_or((CommandCancelled,), job, b"0 %d\x90\x00" % i)
        failed += job.failure() is not None
    assert failed <= hits
    assert card.transmit(echo(0, 9)) == b"0 9\x90\x00"
    with scheduler.calm():
        reader.close()


def events(scheduler: Scheduler) -> None:
    """Three threads register and leave with libusb's events, and one makes way for an exchange. Who
    is registered hears of what comes, and the event thread ends with the last."""
    fake = fake_events.FakeEvents()
    attendants = asynchronous.attendants
    heard = [0, 0]

    def attend(n: int) -> None:
        came: list[int] = []

        def take() -> bool:
            came.append(n)
            return False

        leave = attendants.add(take)
        before = len(came)
        fake.plug()
        scheduler.until(lambda: len(came) > before)
        heard[n] = len(came)
        leave()
        count = len(came)
        assert count >= heard[n]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asynchronous, "calls", fake.calls)
        patch.setattr(asynchronous, "context", lambda: 1)
        jobs = [scheduler.spawn(partial(attend, n)) for n in range(2)]
        way = scheduler.spawn(attendants.make_way)
        for job in (*jobs, way):
            job.result()
        assert attendants.thread is None
        scheduler.until(lambda: all(one.is_over for one in scheduler.runners[1:]))
        assert all(heard)


def recovery(scheduler: Scheduler) -> None:
    """Whoever begins it, and however often: one attempt at a time, and it ends, and told so."""
    inside, attempts, ends = [0], [0], list[str]()

    def attempt() -> None:
        inside[0] += 1
        assert inside[0] == 1
        attempts[0] += 1
        number = attempts[0]
        inside[0] -= 1
        if number < 3:
            raise OSError("not yet")

    def give_up(error: Exception) -> None:
        ends.append(repr(error))

    tried = Recovery("a reader", attempt, give_up, lambda: ends.append("ended"))
    jobs = [scheduler.spawn(one) for one in (tried.begin, tried.begin, tried.go_on)]
    for job in jobs:
        job.result()
    scheduler.until(lambda: all(one.is_over for one in scheduler.runners[1:]))
    assert attempts[0] >= 3
    assert set(ends) == {"ended"}
    assert not tried.is_under_way


def watch(scheduler: Scheduler) -> None:
    """A card and a reader come and go while an application opens and closes the reader: each event
    comes once, in an order that can be."""
    virtual = ccid.VirtualReader()
    Bus.plug()
    told, stop = watching.stoppable_watch(None)
    kinds: list[str] = []

    def listen() -> None:
        kinds.extend(event.kind.value for event in told)

    def use() -> None:
        try:
            with ccid.open_reader(virtual) as reader:
                reader.slots[0].status()
        except ReaderRemoved:
            pass

    watching_job = scheduler.spawn(listen)
    scheduler.until(lambda: Bus.tells)
    Bus.plug(virtual.info)
    using = scheduler.spawn(use)
    scheduler.until(lambda: len(kinds) >= 2)
    virtual.remove()
    scheduler.until(lambda: len(kinds) >= 3)
    virtual.insert(FileSystemCard())
    scheduler.until(lambda: len(kinds) >= 4)
    using.result()
    virtual.unplug()
    Bus.plug()
    scheduler.until(lambda: len(kinds) >= 6)
    stop()
    watching_job.result()
    cards = ["card arrived", "card left"]
    assert kinds == ["reader arrived", *cards, *cards, "reader left"]
    assert Bus.tells == []


def manager(scheduler: Scheduler) -> None:
    """Two contexts at one card: APDUs in callers' own threads and by the engine, transactions."""
    with scheduler.calm():
        made = Manager([ccid.VirtualReader(EchoCard())], usb=False)
        contexts = [made.establish() for _ in range(2)]
        (name,) = made.list_readers(contexts[0])
        handles = [made.connect(context, name) for context in contexts]
    inside = [0]

    def talk(n: int) -> None:
        handle, protocol = handles[n]
        made.begin(handle)
        inside[0] += 1
        assert inside[0] == 1
        right = b"%d 0\x90\x00" % n
        assert made.transmit(handle, protocol, echo(n, 0))[0] == right
        assert inside[0] == 1
        inside[0] -= 1
        made.end(handle)
        assert made.transmit(handle, protocol, echo(n, 1))[0] == b"%d 1\x90\x00" % n

    jobs = [scheduler.spawn(partial(talk, n)) for n in range(2)]
    for job in jobs:
        job.result()
    made.close()


def manager_closed(scheduler: Scheduler) -> None:
    """It closes, or a context is released, while APDUs are sent: each is answered, or refused."""
    with scheduler.calm():
        made = Manager([ccid.VirtualReader(EchoCard())], usb=False)
        contexts = [made.establish() for _ in range(2)]
        (name,) = made.list_readers(contexts[0])
        handles = [made.connect(context, name) for context in contexts]

    def talk(n: int) -> bytes:
        handle, protocol = handles[n]
        return made.transmit(handle, protocol, echo(n, 0))[0]

    jobs = [scheduler.spawn(partial(talk, n)) for n in range(2)]
    made.release(contexts[0])
    answers_or((ScardError,), jobs[0], b"0 0\x90\x00")
    made.close()
    answers_or((ScardError,), jobs[1], b"1 0\x90\x00")


def manager_released(scheduler: Scheduler) -> None:
    """A context is released while its thread is at a slow card: that ends soon, and the other
    context has the card."""
    with scheduler.calm():
        made = Manager([ccid.VirtualReader(EchoCard())], usb=False)
        contexts = [made.establish() for _ in range(2)]
        (name,) = made.list_readers(contexts[0])
        handles = [made.connect(context, name) for context in contexts]
    slow = scheduler.spawn(lambda: made.transmit(*handles[0], delay(20_000)))
    quick = scheduler.spawn(lambda: made.transmit(*handles[1], echo(1, 0))[0])
    scheduler.sleep(0.05)
    made.release(contexts[0])
    failure = slow.failure()
    assert isinstance(failure, ScardError), repr(failure)
    answers_or((ScardError,), quick, b"1 0\x90\x00")
    assert scheduler.now - schedules.BEGIN_S < 5, scheduler.now - schedules.BEGIN_S
    made.close()


def manager_unplugged(scheduler: Scheduler) -> None:
    """The reader goes while APDUs are sent, and one waits for a change: all hear of it."""
    with scheduler.calm():
        virtual = ccid.VirtualReader(EchoCard())
        made = Manager([virtual], usb=False)
        contexts = [made.establish() for _ in range(3)]
        (name,) = made.list_readers(contexts[0])
        handles = [made.connect(context, name) for context in contexts[:2]]
        _, states = made.get_status_change(contexts[2], 0, [ReaderState(name)])
    jobs = [
        scheduler.spawn(lambda: made.transmit(*handles[0], echo(0, 0))[0]),
        scheduler.spawn(lambda: made.transmit(*handles[1], echo(1, 0))[0]),
    ]
    seen = ReaderState(name, states[0].event & 0xFFFF)
    change = scheduler.spawn(lambda: made.get_status_change(contexts[2], -1, [seen]))
    virtual.unplug()
    for n, job in enumerate(jobs):
        answers_or((ScardError,), job, b"%d 0\x90\x00" % n)
    failure = change.failure()
    if failure is None:
        assert change.result()[0] is ScardCode.S_SUCCESS
    else:  # it was gone before
        assert isinstance(failure, ScardError)
        assert failure.code is ScardCode.E_UNKNOWN_READER
    made.close()


class Wire:
    """A client's socket."""

    def __init__(self, number: int) -> None:
        self.said = schedules.ScheduledMailbox[bytes]()
        self.replies: list[bytes] = []
        self._number = number

    def fileno(self) -> int:
        return self._number

    def recv(self, _size: int) -> bytes:
        try:
            return self.said.get(timeout=lent_sockets.PATIENCE_S)
        except queue.Empty:
            raise BlockingIOError from None

    def send(self, data: bytes, _flags: int) -> int:
        self.replies.append(bytes(data))
        return len(data)


class Watched:
    """Instead of an epoll: nobody goes without a word."""

    def register(self, *_: int) -> None: ...
    def unregister(self, *_: int) -> None: ...
    def close(self) -> None: ...


def lent(scheduler: Scheduler) -> None:
    """Two clients whose sockets are lent send APDUs to one card, and a third is served by the
    engine: each gets its own answers in order, and each socket comes back."""
    news = schedules.ScheduledMailbox[None]()
    with scheduler.calm(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lent_sockets, "select", schedules.Instead(select, epoll=Watched))
        made = Manager([ccid.VirtualReader(EchoCard())], usb=False)
        contexts = [made.establish() for _ in range(3)]
        (name,) = made.list_readers(contexts[0])
        handles = [made.connect(context, name) for context in contexts]
        engine = made._engine
        sockets = lent_sockets.LentSockets(engine, lambda: news.put(None))
    wires = [Wire(n) for n in range(2)]

    def asks(n: int, i: int) -> bytes:
        apdu = echo(n, i)
        body = transmit_body(handles[n][0], len(apdu), handles[n][1])
        return request(Command.TRANSMIT, body, apdu)

    def client(n: int) -> None:
        for i in range(2):
            if i:
                wires[n].said.put(asks(n, i))
            scheduler.until(lambda i=i: len(wires[n].replies) > i)  # type: ignore[misc]
            assert wires[n].replies[i][32:] == b"%d %d\x90\x00" % (n, i)
        wires[n].said.put(b"")

    jobs = [scheduler.spawn(partial(client, n)) for n in range(2)]
    other = scheduler.spawn(lambda: made.transmit(*handles[2], echo(2, 0))[0])

    def lend(n: int, words: bytes) -> None:
        context = engine.core.resources.contexts[contexts[n]]
        connection: Any = wires[n]
        assert sockets.lend(connection, context, words) is not None

    for n in range(2):
        lend(n, asks(n, 0))
    back = 0
    while back < 2:
        news.get()
        while (lease := sockets.come_back()) is not None:
            n = lease.connection.fileno()
            if lease.session.is_refused:  # another was at the card
                lend(n, lease.session.unheard)
            elif len(wires[n].replies) < 2:  # it said nothing for a while
                lend(n, wires[n].said.get())
            else:
                back += 1
    for job in jobs:
        job.result()
    assert other.result() == b"2 0\x90\x00"
    sockets.end()
    made.close()


SCENARIOS: dict[Callable[[Scheduler], None], int] = {
    shared_apdus: 1,
    shared_order: 1,
    shared_cancel: 1,
    shared_unplugged: 1,
    shared_closed: 1,
    turns: 2,
    cancelled: 2,
    events: 20,
    recovery: 20,
    watch: 1,
    manager: 1,
    manager_closed: 1,
    manager_released: 1,
    manager_unplugged: 1,
    lent: 1,
}
"""How large a part of all schedules each has: those that are quick have more."""
EXPIRATIONS: dict[Callable[[Scheduler], None], int] = {manager_released: 1}
"""Waits that may end by time: a job that has begun, and not come to its command, cannot be ended
yet, and that is tried again (``slot_driver.ABORT_S``)."""
SCHEDULES, FULL_SCHEDULES = 260, 100_000


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_schedules(scenario: Callable[[Scheduler], None], full: bool, tell: Tell) -> None:
    total = FULL_SCHEDULES if full else SCHEDULES
    count = max(1, total * SCENARIOS[scenario] // sum(SCENARIOS.values()))
    different, changes = explore(scenario, count, expirations=EXPIRATIONS.get(scenario, 0))
    tell(
        f"interleavings of {scenario.__name__}: {count} schedules from seed 0, "
        f"{different} different, {changes} changes of threads: "
        "no deadlock, no lost wake-up, no wrong result"
    )


# The tool finds faults ----------------------------------------------------------------------------

ENOUGH = 200
"""Schedules within which a fault that was put in is found."""


@pytest.fixture
def leaves_readers() -> Iterator[None]:
    """A reader that a fault was put in cannot be closed."""
    yield
    opened.reset()


@pytest.mark.usefixtures("leaves_readers")
def test_a_box_that_is_made_after_the_command_was_sent_is_found(
    monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    """Two lines the other way round: the thread that reads for all may put the reply into the old
    box. Its thread then waits in vain."""

    class TooLate(SharedPipe):
        def _write(self, command: RawCommand) -> UnderWay:
            with self.lock:
                self._under_way[command.slot] = self.count + 1
                sent = Pipe._write(self, command)
                boxes: list[Any] = self._boxes
                boxes[command.slot] = schedules.ScheduledMailbox()
                return sent

    monkeypatch.setattr("ccid.link.shared_pipe.SharedPipe", TooLate)
    with pytest.raises(schedules.BadSchedule, match="did not answer") as caught:
        explore(shared_order, ENOUGH)
    tell(f"interleavings: a box made too late is found: {caught.value}")


def test_a_reader_that_leaves_without_a_knock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that read for all has its reply, and tells nobody that it reads no more."""
    monkeypatch.setattr(SharedPipe, "_knock", lambda *_: None)
    with pytest.raises(LostWakeUp):
        explore(shared_apdus, ENOUGH)


@pytest.mark.usefixtures("leaves_readers")
def test_a_turn_that_is_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation begins in the turn, and goes on after it."""

    def perform(self: Pipe, slot: int, work: Callable[[], object], *_: object) -> object:
        with self.turn(slot):
            pass
        return work()

    monkeypatch.setattr(Pipe, "perform", perform)
    with pytest.raises(schedules.BadSchedule):
        explore(turns, ENOUGH)


def test_locks_taken_in_two_orders_are_found() -> None:
    def both(first: schedules.Lock, second: schedules.Lock) -> None:
        with first, second:
            pass

    def scenario(scheduler: Scheduler) -> None:
        a, b = schedules.RLock(), schedules.RLock()
        jobs = [scheduler.spawn(lambda: both(a, b)), scheduler.spawn(lambda: both(b, a))]
        for job in jobs:
            job.result()

    with pytest.raises(Deadlock, match=r"no thread can go on; seed \d+\n(.|\n)*in both"):
        explore(scenario, ENOUGH)


def test_a_seed_gives_the_same_schedule_again() -> None:
    run(manager, 3)
    first = run(manager, 3)
    again, other = run(manager, 3), run(manager, 4)
    assert first.changes == again.changes
    assert first.changes != other.changes


def test_a_thread_that_stays_is_found() -> None:
    def scenario(scheduler: Scheduler) -> None:
        box = schedules.ScheduledMailbox[None]()
        scheduler.spawn(box.get, "waits for ever")

    with pytest.raises(Deadlock, match="waits for ever"):
        run(scenario, 0)


def test_a_lock_that_stays_held_is_found() -> None:
    def scenario(scheduler: Scheduler) -> None:
        scheduler.spawn(schedules.RLock().acquire)

    with pytest.raises(schedules.BadSchedule, match="1 locks are held in the end"):
        run(scenario, 0)
