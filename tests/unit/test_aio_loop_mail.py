"""How threads wake the loop: by an eventfd, or by asyncio's own way where there is none."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest

from ccid import aio
from ccid.aio import loop_mail
from ccid.aio.loop_mail import mail_of
from tests.unit.aio_bench import FAST, OK, Bench, run, until
from tests.unit.open_descriptors import descriptors

pytestmark = pytest.mark.usefixtures("collected")

needs_eventfd = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="this system has no eventfd")


def settled() -> None:
    """Wait for the threads that opened, used and closed readers: each lets go of the mail a moment
    after the task was told."""
    for thread in threading.enumerate():
        if thread.name.startswith(("open_reader", "ccid.aio ", "closing ")):
            thread.join(10)
            assert not thread.is_alive()


async def a_conversation() -> None:
    bench = Bench(slots=2, busy=2)
    async with aio.open_reader(bench.virtual) as reader:
        cards = await asyncio.gather(*(slot.connect() for slot in reader.slots))
        for _ in range(20):
            told = await asyncio.gather(*(card.transmit(FAST) for card in cards))
            assert told == [OK, OK]


class SelectorLoop(asyncio.SelectorEventLoop):
    """A loop that counts how often it was woken in asyncio's own way."""

    woken = 0

    def call_soon_threadsafe(self, *arguments: object, **keywords: object) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(*arguments, **keywords)  # type: ignore[arg-type]


class NoDescriptors(SelectorLoop):
    """As that of Windows."""

    def add_reader(self, *_: object) -> None:
        raise NotImplementedError


def woken_of(loop: SelectorLoop) -> int:
    """Have a conversation in a loop; how often it was woken in asyncio's own way."""
    try:
        loop.run_until_complete(a_conversation())
        return loop.woken
    finally:
        loop.close()


@needs_eventfd
def test_no_apdu_wakes_the_loop_in_its_own_way() -> None:
    assert woken_of(SelectorLoop()) < 10  # to open, to close, and to forget the eventfd


def test_a_loop_that_takes_no_descriptor() -> None:
    assert woken_of(NoDescriptors()) > 20


def test_a_system_without_eventfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    assert woken_of(SelectorLoop()) > 20


@needs_eventfd
def test_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", none_left)
    assert woken_of(SelectorLoop()) > 20


@needs_eventfd
@pytest.mark.parametrize("refuses", [False, True])
def test_no_descriptor_is_kept(refuses: bool) -> None:
    """Neither after a loop, nor in one that opens and closes readers, nor by a refusal."""
    loop = NoDescriptors() if refuses else SelectorLoop()
    loop.run_until_complete(a_conversation())
    before = descriptors()
    for _ in range(5):
        loop.run_until_complete(a_conversation())
    settled()
    loop.run_until_complete(asyncio.sleep(0))
    assert descriptors() <= before
    loop.close()
    run(a_conversation())
    settled()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        run(a_conversation())
    settled()
    gc.collect()
    assert descriptors() == before


@needs_eventfd
def test_a_reader_that_is_closed_leaves_no_descriptor_to_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        run(a_conversation())
        settled()
        assert descriptors() == before
    finally:
        gc.enable()


@needs_eventfd
def test_a_mail_that_nobody_keeps_closes_its_descriptor() -> None:
    async def main() -> None:
        before = descriptors()
        mail = mail_of(asyncio.get_running_loop())
        assert mail_of(asyncio.get_running_loop()) is mail
        assert descriptors() == before + 1
        del mail
        await asyncio.sleep(0)
        assert descriptors() == before
        assert not loop_mail._mails

    run(main())


@needs_eventfd
def test_a_loop_that_was_closed_before() -> None:
    """The mail tells nothing any more, and its descriptor is closed with it."""

    class Told:
        times = 0

        def tell(self) -> None:
            self.times += 1

    async def main() -> loop_mail.LoopMail:
        mail = mail_of(asyncio.get_running_loop())
        told = Told()
        mail.put(told)
        mail.put(told)
        await until(lambda: told.times == 2)
        return mail

    before = descriptors()
    mail = run(main())
    late = Told()
    mail.put(late)
    assert late.times == 0
    del mail
    gc.collect()
    assert descriptors() == before


@needs_eventfd
def test_a_mail_that_another_thread_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is opened just then gets a mail that wakes the loop."""
    end = loop_mail.EventDescriptor.end
    again: list[loop_mail.LoopMail] = []

    class Letter:
        def __init__(self, came: asyncio.Future[None]) -> None:
            self.came = came

        def tell(self) -> None:
            self.came.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def opened_meanwhile(descriptor: loop_mail.EventDescriptor) -> None:
            again.append(mail_of(loop))
            end(descriptor)

        mail = mail_of(loop)
        with monkeypatch.context() as patch:
            patch.setattr(loop_mail.EventDescriptor, "end", opened_meanwhile)
            del mail
            gc.collect()
        assert again
        await asyncio.sleep(0)  # the descriptor of the first one is ended
        came = loop.create_future()
        again[0].put(Letter(came))
        await asyncio.wait_for(came, 2)
        assert mail_of(loop) is again[0]

    asyncio.run(main())
