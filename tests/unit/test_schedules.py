"""Locks and queues under seeded schedules: no deadlock, no lost wake-up, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.errors import CommandCancelled, ReaderClosed, ReaderRemoved
from ccid.iso7816.apdu import CommandApdu
from ccid.link.shared_pipe import SharedPipe
from ccid.virtual import EchoCard, make_descriptor
from tests.unit import schedules
from tests.unit.schedules import Scheduler, explore, run

Tell = Callable[[str], None]


@pytest.fixture(autouse=True)
def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules.under_schedules(monkeypatch)


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

    jobs = [scheduler.spawn(lambda n=n: talk(n)) for n in range(3)]
    for n, job in enumerate(jobs):
        assert job.result() == [b"%d %d\x90\x00" % (n, i) for i in range(2)]
    assert reader.pipe.stale == 0
    with scheduler.calm():
        reader.close()
