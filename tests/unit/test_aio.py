"""ccid.aio: readers, slots and cards for tasks of asyncio, on virtual readers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import aio, errors
from ccid.aio import async_composite, job_thread, task_turn
from ccid.codes import ExchangeLevel, IccStatus, Protocol
from ccid.device import find, watching
from ccid.device.listener import Slots
from ccid.device.open_readers import key_of, opened
from ccid.device.unclosed_readers import unclosed
from ccid.iso7816.apdu import CommandApdu
from ccid.transport import hotplug
from ccid.virtual import Answer, EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from tests.pcapng import packets
from tests.unit.aio_bench import FAST, OK, Bench, SeenCard, run, threads, until
from tests.unit.usb_over_port import over_usb

ROOT = Path(__file__).parents[2]


# The same as without tasks --------------------------------------------------------------------


def test_a_conversation(tmp_path: Path) -> None:
    bench = Bench()
    file = tmp_path / "t.pcapng"

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            (slot,) = reader.slots
            assert (slot.index, slot.card, slot.reader) == (0, None, reader)
            assert await slot.status() is IccStatus.INACTIVE
            async with slot.connect(Protocol.T1) as card:
                assert slot.card is card
                assert card.atr.raw == EchoCard.atr
                assert (card.protocol, card.fidi) == (Protocol.T1, card.agreement.fidi)
                assert await card.transmit(FAST) == OK
                async with reader.trace(str(file)) as trace:
                    assert await card.transmit(bytes.fromhex("0010000002")) == b"\0\1" + OK
                    assert (trace.reader, trace.secrets) == (reader, False)
                assert (await card.reset(cold=True)).raw == EchoCard.atr
                with pytest.raises(errors.InvalidApdu):
                    await card.transmit(b"\0")
                await card.look()
                with pytest.raises(errors.SlotInUse):
                    await slot.connect()
            assert slot.card is None
            with pytest.raises(errors.CardDisconnected):
                await card.transmit(FAST)
            card = await slot.connect()  # the other way to begin
            await card.disconnect()
            with pytest.raises(errors.UnsupportedByReader):
                await slot.escape(b"\1")
            assert await slot.control(0x42000000 + 3400)
            assert await reader.data_rates == await reader.listed_data_rates() == []
            assert await reader.clock_frequencies == []
            assert await reader.pin_features is None
            assert slot.cancel() is False
            assert (reader.name, reader.info) == ("Virtual Reader", bench.virtual.info)
            assert reader.max_message_length == reader.descriptor.dwMaxCCIDMessageLength
            assert not reader.is_closed
        assert reader.is_closed
        assert repr(reader).startswith("<ccid.aio.Reader 'Virtual Reader' at virtual:")
        assert "closed" in repr(reader)
        assert repr(slot) == "<ccid.aio.Slot 0 of 'Virtual Reader'>"
        await reader.close()
        with pytest.raises(errors.ReaderClosed):
            await slot.status()

    run(main())
    assert len(packets(file.read_bytes())) > 2


def test_errors_are_those_of_the_other_face() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            with pytest.raises(errors.ReaderBusy):
                await aio.open_reader(bench.virtual)
            card = await reader.slots[0].connect()
            bench.virtual.remove()
            with pytest.raises(errors.CardRemoved):
                await card.transmit(FAST)
            with pytest.raises(errors.CardAbsent):
                async with reader.slots[0].connect():
                    pass
            bench.virtual.unplug()
            with pytest.raises(errors.ReaderRemoved):
                await reader.slots[0].status()
        with pytest.raises(ValueError, match="max_command_s"):
            await aio.open_reader(ccid.VirtualReader(), max_command_s=0)
        with pytest.raises(ValueError, match="-1"):
            aio.watch(-1)

    run(main())


def test_a_failed_disconnect_does_not_hide_the_first_error(caplog: Any) -> None:
    from ccid.codec.messages import PC_to_RDR_IccPowerOff
    from ccid.virtual import faults

    bench = Bench()
    bench.virtual.faults.append(faults.wrong_type(on=PC_to_RDR_IccPowerOff, times=None))

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            with pytest.raises(KeyError):
                async with reader.slots[0].connect():
                    raise KeyError
            with pytest.raises(errors.ProtocolError):
                async with reader.slots[0].connect():
                    pass

    with caplog.at_level(logging.WARNING, "ccid.aio"):
        run(main())
    assert len(caplog.records) == 1


def test_a_reader_that_goes_as_it_is_opened() -> None:
    """Its lock says so from then on: the thread tells the task, and goes on."""
    bench = Bench()

    async def main() -> None:
        reader = await aio.open_reader(bench.virtual)
        bench.virtual.unplug()
        with pytest.raises(errors.ReaderRemoved):
            await reader.slots[0].status()
        late = aio.Reader(reader._reader, asyncio.get_running_loop())
        for _ in range(2):
            with pytest.raises(errors.ReaderRemoved):
                await late.slots[0].status()
        await late.close()
        await reader.close()

    run(main())


def test_listed_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    info = ccid.VirtualReader().info
    monkeypatch.setattr(find, "list_readers", lambda: [info])
    assert run(aio.list_readers()) == [info]


@pytest.mark.parametrize("busy", [1, 2])
def test_several_slots(busy: int) -> None:
    """Slots that take turns share a thread; slots that need not have one each."""
    bench = Bench(slots=2, busy=busy)

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader:
            assert len([one for one in threads() if "Virtual" in one.name]) == busy
            cards = await asyncio.gather(*(slot.connect() for slot in reader.slots))
            echoes = [card.transmit(FAST) for card in cards for _ in range(20)]
            assert set(await asyncio.gather(*echoes)) == {OK}

    run(main())
    assert [len(card.seen) for card in bench.cards] == [20, 20]


def test_a_composite() -> None:
    short = ExchangeLevel.SHORT_APDU
    functions = [CcidFunction(make_descriptor(short), [EchoCard()]) for _ in range(2)]
    virtual = ccid.VirtualReader(functions=functions)

    async def main() -> None:
        async with aio.open_composite(virtual) as reader:
            assert [slot.index for slot in reader.slots] == [0, 0]
            assert [one.slots[0] for one in reader.readers] == list(reader.slots)
            assert (reader.name, "2 interfaces" in repr(reader)) == ("Virtual Reader [0]", True)
            for slot in reader.slots:
                async with slot.connect() as card:
                    assert await card.transmit(FAST) == OK
        await reader.close()

    run(main())


def test_over_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The USB transport, with a libusb of the test."""
    info = over_usb(ccid.VirtualReader(EchoCard()), monkeypatch)

    async def main() -> None:
        assert await aio.list_readers() == [info]
        async with aio.open_reader() as reader, reader.slots[0].connect() as card:
            for _ in range(20):
                assert await card.transmit(FAST) == OK

    run(main())


# Exclusive use --------------------------------------------------------------------------------


def test_exclusive() -> None:
    """Commands of other tasks wait, in their order; those of the owner do not."""
    bench = Bench()
    mine, other = bytes.fromhex("00400001"), bytes.fromhex("00400002")

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            async with card.exclusive():
                waiting = [asyncio.create_task(card.transmit(other)) for _ in range(3)]
                for _ in range(3):
                    assert await card.transmit(mine) == OK
                    async with reader.slots[0].turn():  # within itself
                        assert await card.transmit(mine) == OK
                assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)

    run(main())
    assert bench.seen == [mine] * 6 + [other] * 3


def test_exclusive_one_after_the_other() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:

            async def pair(number: int) -> None:
                async with card.exclusive():
                    for _ in range(2):
                        await card.transmit(bytes((0, 0x40, 0, number)))

            await asyncio.gather(*map(pair, range(10)))

    run(main())
    assert [apdu[3] for apdu in bench.seen] == [n // 2 for n in range(20)]


def test_exclusive_of_a_card_that_is_gone() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual) as reader, reader.slots[0].connect() as card:
            bench.virtual.remove()
            with pytest.raises(errors.CardRemoved):
                async with card.exclusive():
                    pass
            bench.virtual.insert(SeenCard())
            async with reader.slots[0].connect() as another:  # the turn was given back
                assert await asyncio.create_task(another.transmit(FAST)) == OK

    run(main())


def test_the_reader_is_closed_within_exclusive_use() -> None:
    bench = Bench()

    async def main() -> None:
        reader = await aio.open_reader(bench.virtual)
        card = await reader.slots[0].connect()
        async with card.exclusive():
            waiting = asyncio.create_task(card.transmit(FAST))
            await asyncio.sleep(0)
            await reader.close()
            with pytest.raises(errors.ReaderClosed):
                await card.transmit(FAST)
        with pytest.raises(errors.ReaderClosed):
            await waiting

    run(main())


# The loop is never blocked --------------------------------------------------------------------


class HeldCard(SeenCard):
    """A card that keeps its thread until the test lets go."""

    def __init__(self, held: threading.Event) -> None:
        super().__init__()
        self._held = held

    def process(self, command: CommandApdu) -> Answer:
        answer = super().process(command)
        assert self._held.wait(30)
        return answer


def test_64_readers_do_not_block_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """All 64 cards keep their threads until the loop has run a hundred times. A callback that takes
    longer than the limit is in the log of asyncio; a loop that is blocked is freed by a timer, and
    that takes longer."""
    held = threading.Event()
    freed = threading.Timer(10.0, held.set)
    cards = [HeldCard(held) for _ in range(64)]
    limit_s = 1.0

    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = limit_s
        readers = await asyncio.gather(*(aio.open_reader(ccid.VirtualReader(c)) for c in cards))
        connected = await asyncio.gather(*(reader.slots[0].connect() for reader in readers))
        tasks = [asyncio.create_task(card.transmit(FAST)) for card in connected]
        freed.start()
        await until(lambda: all(card.seen for card in cards))
        rounds = 0
        while rounds < 100 and not held.is_set():
            await asyncio.sleep(0)
            rounds += 1
        assert not any(task.done() for task in tasks)
        held.set()
        assert set(await asyncio.gather(*tasks)) == {OK}
        await asyncio.gather(*(reader.close() for reader in readers))
        return rounds

    with caplog.at_level(logging.WARNING, "asyncio"):
        assert run(main()) == 100
    freed.cancel()
    assert [record.getMessage() for record in caplog.records if "took" in record.getMessage()] == []


def test_a_blocked_loop_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    """The test before could fail: a command on the loop's own thread is in the log."""
    held = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.02
        async with aio.open_reader(ccid.VirtualReader(HeldCard(held))) as reader:
            async with reader.slots[0].connect() as card:
                await asyncio.sleep(0)
                threading.Timer(0.05, held.set).start()
                card._card.transmit(FAST)

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    assert any("took" in record.getMessage() for record in caplog.records)


# Watching -------------------------------------------------------------------------------------


@pytest.fixture
def empty_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "list_readers", list)
    monkeypatch.setattr(hotplug, "on_hotplug", lambda tell: lambda: None)


@pytest.mark.usefixtures("empty_bus")
def test_watch() -> None:
    bench = Bench()

    async def main() -> list[str]:
        told = []
        async with aio.open_reader(bench.virtual), aio.watch() as events:
            async for event in events:
                told.append(event.kind.value)
                match len(told):
                    case 2:
                        bench.virtual.remove()
                    case 3:
                        bench.virtual.unplug()
                    case 4:
                        break
        assert [event async for event in events] == []
        return told

    assert run(main()) == ["reader arrived", "card arrived", "card left", "reader left"]


@pytest.mark.usefixtures("empty_bus")
def test_an_event_is_not_lost_by_a_time_limit() -> None:
    bench = Bench()

    async def main() -> None:
        async with aio.open_reader(bench.virtual):
            events = aio.watch()
            await anext(events)
            await anext(events)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(events)
            bench.virtual.remove()
            assert (await anext(events)).kind is ccid.EventKind.CARD_LEFT
            bench.virtual.insert(EchoCard())
            both = [asyncio.create_task(anext(events)) for _ in range(2)]
            event = await asyncio.wait_for(both[0], 10)
            assert event.kind is ccid.EventKind.CARD_ARRIVED
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await both[1]
            await events.aclose()

    run(main())


@pytest.mark.usefixtures("empty_bus")
def test_a_watch_ends_by_its_own_time_limit() -> None:
    async def main() -> None:
        async with aclosing(aio.watch(0)) as events:
            assert [event async for event in events] == []

    run(main())


@pytest.mark.usefixtures("empty_bus")
def test_a_forgotten_watch_ends_its_thread() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(aio.watch())
        gc.collect()

    run(main())


def test_listen() -> None:
    """Notifications come in the loop's thread, and none after the end."""
    bench = Bench()

    async def main() -> None:
        told: list[tuple[bool, bool]] = []
        here = threading.current_thread()

        def tell(slots: Slots) -> None:
            assert slots is not None
            told.append((slots[0].present, threading.current_thread() is here))

        async with aio.open_reader(bench.virtual) as reader:
            end = await reader.listen(tell)
            bench.virtual.remove()
            await until(lambda: (False, True) in told)
            before = [(True, True)] * (len(told) - 1)  # of the card that was there, if in time
            assert told == [*before, (False, True)]
            assert len(before) <= 1
            end()
            end()
            bench.virtual.insert(EchoCard())
            await reader.slots[0].status()
            assert len(told) == len(before) + 1

    run(main())


# Ends -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*was never closed:ResourceWarning")
def test_a_forgotten_reader_is_closed_and_its_thread_ends() -> None:
    """An idle thread keeps nothing alive."""
    virtual = [ccid.VirtualReader(EchoCard())]
    key = key_of(virtual[0].info)

    async def main() -> list[weakref.ref[Any]]:
        reader = await aio.open_reader(virtual.pop())  # which keeps a reader that listens alive
        await (await reader.slots[0].connect()).transmit(FAST)
        return [weakref.ref(reader), weakref.ref(reader._reader)]

    forgotten = asyncio.run(main())
    gc.collect()
    unclosed.settle()
    gc.collect()
    assert [one() for one in forgotten] == [None, None]
    assert key not in opened.readers
    for thread in threads():
        thread.join(10)
    assert threads() == []


def test_after_the_loop_is_closed_nothing_hangs() -> None:
    held = threading.Event()
    card = HeldCard(held)

    async def main() -> aio.Reader:
        reader = await aio.open_reader(ccid.VirtualReader(card))
        connected = await reader.slots[0].connect()
        loop = asyncio.get_running_loop()
        loop.call_soon(connected._turn._submit, job_thread.Job(connected._card.transmit, (FAST,)))
        await until(lambda: card.seen)
        return reader

    reader = asyncio.run(main())
    held.set()  # the thread finds the loop closed

    async def later() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await reader.slots[0].status()
        await reader.close()

    run(later())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child() -> None:
    async def main() -> None:
        async with aio.open_reader(ccid.VirtualReader()) as reader:
            child = os.fork()
            if not child:
                status = 1
                try:
                    asyncio.Runner().__enter__()
                    asyncio.events._set_running_loop(None)
                    with pytest.raises(errors.ReaderForked):
                        asyncio.run(reader.slots[0].status())
                    asyncio.run(reader.close())
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0

    run(main())


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening tells so; closing closes all the same."""

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        bench = Bench()
        async with aio.open_reader(bench.virtual) as reader:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", none_left)
                with pytest.raises(errors.TransportError, match="no thread"):
                    await aio.open_reader(ccid.VirtualReader())
                await reader.close()
        with monkeypatch.context() as patch:
            patch.setattr(task_turn, "JobThread", failing)
            for opening in (aio.open_reader, aio.open_composite):
                with pytest.raises(errors.TransportError, match="none"):
                    await opening(bench.virtual)
        async with aio.open_reader(bench.virtual):  # no failed attempt left it open
            pass

    def failing(name: str) -> None:
        raise errors.TransportError("none")

    run(main())


def test_import_ccid_imports_no_asyncio() -> None:
    source = (
        "import sys, ccid; ccid.open_reader; assert 'asyncio' not in sys.modules\n"
        "ccid.aio.open_reader; assert 'asyncio' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", source]).returncode == 0


def test_public_names() -> None:
    assert async_composite.open_composite is aio.open_composite
    assert all(hasattr(aio, name) for name in aio.__all__)
