"""Tasks that are cancelled while they use a reader: what the reader gets, and its next command."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ccid
from ccid import aio, errors
from ccid.aio import job_thread
from ccid.codec.messages import PC_to_RDR_IccPowerOn, PinVerification
from ccid.codes import ExchangeLevel, IccStatus, InterfaceProtocol
from ccid.device import find
from ccid.device.open_readers import key_of, opened
from ccid.virtual import faults, make_descriptor
from tests.pin_pad import PIN, PinPad
from tests.unit.aio_bench import (
    ENDLESS,
    FAST,
    OK,
    Bench,
    SeenCard,
    run,
    short_slices,  # noqa: F401
    until,
)
from tests.unit.usb_over_port import over_usb

pytestmark = pytest.mark.usefixtures("short_slices")


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait for its end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


# A command under way --------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [1, 2])
@pytest.mark.parametrize("refuses", [False, True])
def test_a_command_under_way(refuses: bool, busy: int) -> None:
    """The ABORT pair ends it. With a reader that refuses the pair, it is tried once more before the
    next command."""
    bench = Bench(busy=busy)
    bench.function.refuses = refuses

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            slot = reader.slots[0]
            card = await slot.connect()
            task = asyncio.create_task(card.transmit(ENDLESS))
            await until(lambda: bench.seen)
            await cancelled(task)
            assert bench.function.aborts == 1
            if not refuses:
                assert await card.transmit(FAST) == OK
                return
            bench.function.refuses = False
            assert await card.transmit(FAST) == OK
            assert bench.function.aborts == 2

    run(main())
    assert bench.seen == [ENDLESS, FAST]


@pytest.mark.parametrize("busy", [1, 2])
def test_a_reader_that_has_no_abort(busy: int) -> None:
    """It is left to end the command, and takes the next one then, with an answer of its own."""
    bench = Bench(busy=busy)
    bench.function.refuses = True

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            task = asyncio.create_task(card.transmit(bytes.fromhex("00500096")))
            await until(lambda: bench.seen)
            await cancelled(task)
            assert await card.transmit(bytes.fromhex("0010070002")) == b"\7\10" + OK

    run(main())


@pytest.mark.parametrize("version", [InterfaceProtocol.ICCD_A, InterfaceProtocol.ICCD_B])
def test_a_token_that_has_no_abort(version: InterfaceProtocol) -> None:
    """The late answer is dropped, and the next command gets its own."""
    card = SeenCard()
    virtual = ccid.VirtualReader(card, bInterfaceProtocol=version)

    async def main() -> None:
        async with aio.open_reader(virtual) as reader:
            token = await reader.slots[0].connect()
            task = asyncio.create_task(token.transmit(bytes.fromhex("00500096")))
            await until(lambda: card.seen)
            await cancelled(task)
            assert await token.transmit(FAST) == OK

    run(main())


def test_a_time_limit() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await card.transmit(ENDLESS)
            with pytest.raises(TimeoutError):  # the inner one is over while the outer one waits
                async with asyncio.timeout(0.02):
                    async with asyncio.timeout(0.02):
                        await card.transmit(ENDLESS)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(card.transmit(ENDLESS), 0.02)
            assert await card.transmit(FAST) == OK

    run(main())
    assert bench.function.aborts == 3


def test_a_group_of_tasks() -> None:
    """One fails, the commands of the others end, each in its reader."""
    benches = [Bench() for _ in range(4)]

    async def main() -> None:
        readers = [await aio.open_reader(bench.virtual) for bench in benches]
        cards = [await reader.slots[0].connect() for reader in readers]
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                for card in cards[1:]:
                    group.create_task(card.transmit(ENDLESS))
                await until(lambda: all(bench.seen for bench in benches[1:]))
                group.create_task(cards[0].transmit(b""))
        assert failed.group_contains(errors.InvalidApdu)
        for card in cards:
            assert await card.transmit(FAST) == OK
        for reader in readers:
            await reader.close()

    run(main())
    assert [bench.function.aborts for bench in benches] == [0, 1, 1, 1]


def test_cancelled_again_and_again() -> None:
    """The end of the command is waited for all the same."""
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            task = asyncio.create_task(card.transmit(ENDLESS))
            await until(lambda: bench.seen)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert bench.function.aborts == 1
            assert await card.transmit(FAST) == OK

    run(main())


def test_another_task_may_cancel_too() -> None:
    """As with threads: the task gets CommandCancelled."""
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            task = asyncio.create_task(card.transmit(ENDLESS))
            await until(lambda: bench.seen)
            assert reader.slots[0].cancel()
            with pytest.raises(errors.CommandCancelled):
                await task

    run(main())


def test_the_reader_is_closed_meanwhile() -> None:
    """The command under way ends, and those behind it are never sent."""
    bench = Bench()

    async def main() -> None:
        reader = await aio.open_reader(bench.virtual)
        card = await reader.slots[0].connect()
        first, *rest = [asyncio.create_task(card.transmit(ENDLESS)) for _ in range(5)]
        await until(lambda: bench.seen)
        await reader.close()
        with pytest.raises(errors.CommandCancelled):
            await first
        for task in rest:
            with pytest.raises(errors.ReaderClosed):
                await task

    run(main())
    assert len(bench.seen) == 1


def test_closing_goes_on_when_it_is_cancelled() -> None:
    bench = Bench()

    async def main() -> None:
        reader = await aio.open_reader(bench.virtual)
        task = asyncio.create_task(reader.close())
        await asyncio.sleep(0)
        await cancelled(task)
        assert reader.is_closed
        async with aio.open_reader(bench.virtual):
            pass

    run(main())


def test_over_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The USB transport, with a libusb of the test."""
    bench = Bench()
    over_usb(bench.virtual, monkeypatch)

    async def main() -> None:
        async with aio.open_reader() as reader, reader.slots[0].connect() as card:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await card.transmit(ENDLESS)
            assert await card.transmit(FAST) == OK

    run(main())
    assert bench.function.aborts == 1


# Many at the same time ------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [1, 3])
def test_many_tasks_that_give_up_at_any_time(busy: int) -> None:
    """Each answer belongs to its command, no command is cancelled but by its own task, and the
    reader is of use afterwards."""
    bench = Bench(slots=3, busy=busy)

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            cards = [await slot.connect() for slot in reader.slots]
            await asyncio.gather(*(uses(random.Random(n), cards) for n in range(12)))
            assert {await card.transmit(FAST) for card in cards} == {OK}

    async def uses(chance: random.Random, cards: list[aio.Card]) -> None:
        for _ in range(12):
            card = chance.choice(cards)
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice([0.0005, 0.002, 0.01, 5])):
                    match chance.randrange(4):
                        case 0:
                            await card.transmit(bytes((0, 0x50, 0, chance.randrange(30))))
                        case 1:
                            async with card.exclusive():
                                await asks(card, chance.randrange(255))
                                await asks(card, chance.randrange(255))
                        case _:
                            await asks(card, chance.randrange(255))

    async def asks(card: aio.Card, number: int) -> None:
        assert (
            await card.transmit(bytes((0, 0x10, number, 0, 2))) == bytes((number, number + 1)) + OK
        )

    run(main())


# A PIN pad waits for the user -----------------------------------------------------------------


def test_a_pin_entry() -> None:
    """The keypad stops waiting, and takes the next entry."""
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)
    pad = Keypad(descriptor)
    virtual = ccid.VirtualReader(functions=[pad])
    structure = PinVerification(
        bTimeOut=0,
        bmFormatString=0x82,
        bmPINBlockString=0x08,
        bmPINLengthFormat=0,
        wPINMaxExtraDigit=0x0408,
        bEntryValidationCondition=2,
        bNumberMessage=0xFF,
        wLangId=0x0409,
        abPINApdu=bytes.fromhex("0020008108") + b"\xff" * 8,
    )

    async def main() -> None:
        async with aio.open_reader(virtual) as reader, reader.slots[0].connect():
            slot = reader.slots[0]
            task = asyncio.create_task(slot.verify_pin(structure))
            await until(lambda: pad.waits)
            await cancelled(task)
            assert pad.aborted == 1
            pad.thinks_s = 0.0
            assert await slot.verify_pin(structure) == OK

    run(main())


class Keypad(PinPad):
    """A PIN pad whose user thinks for an hour."""

    thinks_s = 3600.0
    waits = aborted = 0

    def _enter(self, slot: Any, command: Any, now: float) -> Any:
        self.waits += 1
        self._entries = [[PIN]]
        reply, due = super()._enter(slot, command, now)
        return reply, due + self.thinks_s

    def _abort(self, index: int, bSeq: int, now: float) -> None:
        self.aborted += 1
        super()._abort(index, bSeq, now)


# A command that has not begun -----------------------------------------------------------------


def test_behind_another_command() -> None:
    """It is never sent, and its task ends at once."""
    bench = Bench()
    never = bytes.fromhex("00400009")

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            first = asyncio.create_task(card.transmit(ENDLESS))
            await until(lambda: bench.seen)
            behind = [asyncio.create_task(card.transmit(never)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in behind:
                await cancelled(task)
            assert bench.function.aborts == 0
            await cancelled(first)

    run(main())
    assert bench.seen == [ENDLESS]


def test_behind_exclusive_use() -> None:
    """A command, and a second exclusive use, give up their places."""
    bench = Bench()
    never = bytes.fromhex("00400009")

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:

            async def enters() -> None:
                async with card.exclusive():
                    await card.transmit(never)

            async with card.exclusive():
                waiting = [asyncio.create_task(enters()), asyncio.create_task(card.transmit(never))]
                last = asyncio.create_task(card.transmit(FAST))
                await asyncio.sleep(0)
                for task in waiting:
                    await cancelled(task)
                assert not last.done()
            assert await last == OK
            assert await asyncio.create_task(card.transmit(FAST)) == OK  # nobody has the turn

    run(main())
    assert bench.seen == [FAST, FAST]


def test_exclusive_use_that_waits_for_a_command() -> None:
    """It is cancelled after the turn was promised to it: the turn goes to the next."""
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            first = asyncio.create_task(card.transmit(ENDLESS))
            await until(lambda: bench.seen)
            entering = asyncio.create_task(card.exclusive().__aenter__())
            await asyncio.sleep(0)
            last = asyncio.create_task(card.transmit(FAST))
            await asyncio.sleep(0)
            await cancelled(entering)
            await cancelled(first)
            assert await last == OK

    run(main())
    assert bench.seen == [ENDLESS, FAST]


def test_exclusive_use_is_cancelled_in_its_middle() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:

            async def enters() -> None:
                async with card.exclusive():
                    await card.transmit(ENDLESS)

            task = asyncio.create_task(enters())
            await until(lambda: bench.seen)
            await cancelled(task)
            assert await card.transmit(FAST) == OK

    run(main())


def test_behind_a_thread_that_has_the_turn() -> None:
    """A job whose lock another thread holds is not begun after its task was cancelled."""
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            lock = reader._reader.pipe.turn(0)
            with lock:
                task = asyncio.create_task(card.transmit(ENDLESS))
                await until(lambda: not card._turn._thread._jobs and task.get_coro())
                await cancelled(task)
            with lock:
                task = asyncio.create_task(card.transmit(FAST))
                await asyncio.sleep(0.01)
            assert await task == OK

    job_slice, job_thread.LOCK_SLICE_S = job_thread.LOCK_SLICE_S, 0.01
    try:
        run(main())
    finally:
        job_thread.LOCK_SLICE_S = job_slice
    assert bench.seen == [FAST]


def test_a_cancellation_does_not_meet_the_next_command() -> None:
    """The job ends as its task cancels it: its thread waits until that is done, and goes on then
    to the next job, which nobody has cancelled."""
    calls: list[str] = []

    async def main() -> None:
        job = job_thread.Job(lambda: may_end.wait(10))
        may_end = threading.Event()
        thread = threading.Thread(target=job.run)
        thread.start()
        await until(lambda: job.is_under_way)

        def cancel() -> None:
            may_end.set()
            thread.join(0.05)
            calls.append("over" if job.is_over else "under way")

        job.cancel(cancel)
        thread.join(10)
        job.cancel(cancel)

    run(main())
    assert calls == ["under way"]


# What was made for the task -------------------------------------------------------------------


def test_a_card_that_is_being_connected() -> None:
    bench = Bench()
    bench.virtual.faults.append(faults.late(3600.0, on=PC_to_RDR_IccPowerOn))

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            slot = reader.slots[0]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await slot.connect()
            assert slot.card is None
            async with slot.connect() as card:
                assert await card.transmit(FAST) == OK

    run(main())


def at_once_after(job_is_over: Callable[[], bool], task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` as soon as the thread is done, before the loop has told the task."""
    while not job_is_over():
        pass
    task.cancel()


def test_a_card_that_was_connected_just_then() -> None:
    """The thread had made it, and the task was cancelled before it got it: it is powered off."""
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            slot = reader.slots[0]
            task = asyncio.ensure_future(slot.connect()._begin())
            await asyncio.sleep(0)
            at_once_after(lambda: slot._slot.card is not None, task)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert slot.card is None
            assert await slot.status() is IccStatus.INACTIVE

    run(main())


def test_a_reader_that_is_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it, and it is closed as soon as it is open."""
    bench = Bench()
    begun, may_open = threading.Event(), threading.Event()
    made: list[ccid.Reader] = []
    open_reader = find.open_reader

    def slow(*arguments: Any, **options: Any) -> ccid.Reader:
        begun.set()
        assert may_open.wait(30)
        made.append(open_reader(*arguments, **options))
        return made[0]

    async def main() -> None:
        monkeypatch.setattr(find, "open_reader", slow)
        task = asyncio.ensure_future(aio.open_reader(bench.virtual)._begin())
        await until(begun.is_set)
        await cancelled(task)
        may_open.set()
        await until(lambda: made and made[0].is_closed)

    run(main())


def test_a_reader_that_was_opened_just_then() -> None:
    bench = Bench()

    async def main() -> None:
        task = asyncio.ensure_future(aio.open_reader(bench.virtual)._begin())
        await asyncio.sleep(0)
        key = key_of(bench.virtual.info)
        at_once_after(lambda: key in opened.readers, task)
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: key not in opened.readers)

    run(main())
