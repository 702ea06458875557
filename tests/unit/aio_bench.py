"""Virtual readers for tests of :mod:`ccid.aio`: what their cards and they themselves were asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.codes import ClassRequest, ExchangeLevel
from ccid.iso7816.apdu import CommandApdu
from ccid.link import block_ways, iccd_commands, pipe, shared_pipe
from ccid.virtual import Answer, EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.usb_device import Stall

T = TypeVar("T")

FAST, OK = bytes.fromhex("00400000"), b"\x90\x00"
ENDLESS = bytes.fromhex("00380E10")
"""A command that takes the card an hour."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; no thread of :mod:`ccid.aio` is left afterwards."""
    result = asyncio.run(asyncio.wait_for(main, 60))
    for thread in threads():
        thread.join(10)
    assert threads() == []
    return result


def threads() -> list[threading.Thread]:
    """The threads of :mod:`ccid.aio` that are alive."""
    return [one for one in threading.enumerate() if one.name.startswith("ccid.aio")]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until ``condition`` is true."""
    while not condition():
        await asyncio.sleep(0.001)


class SeenCard(EchoCard):
    """An echo card that keeps the commands it got."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def process(self, command: CommandApdu) -> Answer:
        self.seen.append(command.build())
        return super().process(command)


class SeenReader(CcidFunction):
    """A reader that counts the ABORT requests, and may refuse them."""

    aborts = 0
    refuses = False

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        if request.bRequest == ClassRequest.ABORT:
            self.aborts += 1
            if self.refuses:
                raise Stall
        return super().control(request, data, now)


class Bench:
    """A virtual reader and its cards.

    Args:
        slots: Number of slots; a card is in each.
        busy: bMaxCCIDBusySlots.
    """

    def __init__(self, slots: int = 1, busy: int = 1) -> None:
        self.cards = [SeenCard() for _ in range(slots)]
        descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots, bMaxCCIDBusySlots=busy)
        self.function = SeenReader(descriptor, self.cards)
        self.virtual = ccid.VirtualReader(functions=[self.function])

    @property
    def seen(self) -> list[bytes]:
        """The commands that the card in slot 0 got."""
        return self.cards[0].seen


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command notices after 10 ms, not after 250, that it is cancelled."""
    for module in (block_ways, pipe, shared_pipe, iccd_commands):
        if hasattr(module, "SLICE_MS"):
            monkeypatch.setattr(module, "SLICE_MS", 10)
