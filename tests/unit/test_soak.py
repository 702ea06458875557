"""Long use leaves nothing behind: no memory, objects, threads or descriptors. ``--full`` takes the
large counts."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codes import ExchangeLevel, Protocol
from ccid.errors import ReaderRemoved
from ccid.pcsc.manager import Manager
from ccid.pcsc.manager.scard_codes import Disposition, Share
from ccid.virtual import EchoCard
from tests.conftest import Tell
from tests.unit.test_watch import Bus, bus, heard  # noqa: F401

pytestmark = pytest.mark.usefixtures("collects_little")

SEED = 16
APDUS, FULL_APDUS = 150, 1_000_000
ROUNDS, FULL_ROUNDS = 12, 10_000
OBJECTS, BLOCKS, BYTES = 30, 500, 4 << 20
"""So much more is no growth: caches that fill, names that are interned, code that Python
specializes. An object that is left behind each time is more with any count, a block or a byte with
the full counts."""
HEAP = 32 << 20
"""With small counts, bytes are what the C library takes for its heap at once, in a process that has
run other tests before: only what is left in large pieces is seen then."""
WAYS = [(level, protocol, slots) for level in ExchangeLevel for protocol, slots in
        ((Protocol.T0, 1), (Protocol.T1, 1), (Protocol.T1, 2))]  # fmt: skip


def there_is() -> dict[str, int]:
    """What this process has: objects and blocks of memory, threads, descriptors, bytes."""
    for _ in range(3):
        gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return {
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def soak(name: str, count: int, one: Callable[[], object], tell: Tell) -> None:
    """Do ``one`` so many times; there must be as much afterwards as after the first tenth."""
    for _ in range(max(5, count // 10)):
        one()
    before, began = there_is(), time.process_time()
    for _ in range(count):
        one()
    took_s, after = time.process_time() - began, there_is()
    grown = {what: after[what] - before[what] for what in before}
    if count >= 1000:
        tell(
            f"soak, {name}: {count} times, seed {SEED}, {took_s:.0f} s of CPU; more than before: "
            + ", ".join(f"{more} {what}" for what, more in grown.items())
        )
    assert grown["threads"] <= 0
    assert grown["descriptors"] <= 0
    assert grown["objects"] <= OBJECTS
    assert grown["blocks"] <= BLOCKS
    assert grown["bytes"] <= (BYTES if count >= 1000 else HEAP)


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
@pytest.mark.parametrize(("level", "protocol", "slots"), WAYS)
def test_apdus(
    level: ExchangeLevel, protocol: Protocol, slots: int, full: bool, tell: Tell
) -> None:
    rng = random.Random(SEED)
    cards = [EchoCard() for _ in range(slots)]
    virtual = ccid.VirtualReader(cards, level=level, slots=slots)
    with ccid.open_reader(virtual) as reader, reader.slots[slots - 1].connect(protocol) as card:

        def one() -> None:
            apdu = bytes((0, rng.choice((0x10, 0x20, 0xD6)), 0, 0))
            size = rng.choice((1, 8, 255))
            card.transmit(apdu + bytes((size,)) + (b"" if apdu[1] == 0x10 else rng.randbytes(size)))

        soak(f"{level.name} {protocol} {slots}", FULL_APDUS // 3 if full else APDUS, one, tell)


@linux
@pytest.mark.parametrize("protocol", Protocol)
def test_connects(protocol: Protocol, full: bool, tell: Tell) -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:

        def one() -> None:
            with reader.slots[0].connect(protocol) as card:
                card.reset()
                card.transmit(bytes.fromhex("0010000004"))

        soak(f"connects {protocol}", FULL_ROUNDS if full else ROUNDS, one, tell)


@linux
@pytest.mark.parametrize("slots", [1, 3])
def test_opens(slots: int, full: bool, tell: Tell) -> None:
    virtual = ccid.VirtualReader([EchoCard() for _ in range(slots)], slots=slots)

    def one() -> None:
        with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
            pass

    soak(f"opens {slots}", FULL_ROUNDS if full else ROUNDS, one, tell)


@linux
def test_openings_that_fail(full: bool, tell: Tell) -> None:
    """Of another reader each time."""

    def one() -> None:
        virtual = ccid.VirtualReader(EchoCard())
        virtual.unplug()
        with pytest.raises(ReaderRemoved):
            ccid.open_reader(virtual)

    soak("openings that fail", FULL_ROUNDS if full else 5 * ROUNDS, one, tell)


@linux
def test_insertions_that_are_watched(bus: Bus, full: bool, tell: Tell) -> None:  # noqa: F811
    virtual = ccid.VirtualReader(EchoCard())
    bus.plug(virtual.info)
    events: Any = ccid.watch(30)
    try:
        heard(events, 2)

        def one() -> None:
            card = virtual.remove()
            assert heard(events, 1) == ["card left 0"]
            assert card is not None
            virtual.insert(card)
            assert heard(events, 1) == ["card arrived 0"]

        soak("insertions", FULL_ROUNDS if full else ROUNDS, one, tell)
    finally:
        events.close()


@linux
def test_readers_that_come_and_go_while_they_are_watched(
    bus: Bus,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    events: Any = ccid.watch(30)
    try:

        def one() -> None:
            virtual = ccid.VirtualReader(EchoCard())
            bus.plug(virtual.info)
            assert heard(events, 2) == ["reader arrived", "card arrived 0"]
            virtual.unplug()
            bus.plug()
            assert heard(events, 2) == ["card left 0", "reader left"]

        soak("readers", FULL_ROUNDS if full else 5 * ROUNDS, one, tell)
    finally:
        events.close()


@linux
@pytest.mark.parametrize("what", ["transmit", "connect", "context"])
def test_the_resource_manager(what: str, full: bool, tell: Tell) -> None:
    manager = Manager([ccid.VirtualReader(EchoCard())], usb=False)
    try:
        context = manager.establish()
        (name,) = manager.list_readers(context)
        handle, protocol = manager.connect(context, name, Share.SHARED)
        apdu = bytes.fromhex("0010000004")

        def connect() -> None:
            other, _ = manager.connect(context, name, Share.SHARED)
            manager.begin(other)
            manager.transmit(other, protocol, apdu)
            manager.end(other, Disposition.RESET)
            manager.disconnect(other, Disposition.LEAVE)
            manager.reconnect(handle)

        steps: dict[str, tuple[Callable[[], object], int, int]] = {
            "transmit": (lambda: manager.transmit(handle, protocol, apdu), APDUS, FULL_APDUS),
            "connect": (connect, ROUNDS, FULL_ROUNDS),
            "context": (lambda: manager.release(manager.establish()), APDUS, FULL_ROUNDS),
        }
        one, small, large = steps[what]
        soak(f"manager, {what}", large if full else small, one, tell)
    finally:
        manager.close()


@linux
def test_what_grows_is_noticed(tell: Tell) -> None:
    """The tests above can fail."""
    kept: list[object] = []
    with pytest.raises(AssertionError):
        soak("a leak", 150, lambda: kept.append([]), tell)
