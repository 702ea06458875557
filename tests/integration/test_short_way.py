"""The short ways have the replies and the messages of the long ones: every scenario of the
differential tests is played both ways.

Where one block each way is all, an APDU goes a short way through the pipe, and T=1 one around its
machine. On USB a command and its reply are two transfers at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import pytest

import ccid
from ccid import errors
from ccid.iso7816.protocol_runner import run
from ccid.iso7816.t1 import T1, Block, LinkError
from ccid.link.block_ways import SharedWay
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands
from ccid.transport.separate_transfers import SeparateTransfers
from ccid.transport.usb import FRESH_S, UsbTransport
from ccid.virtual import make_descriptor
from tests.unit.usb_over_port import over_usb
from tests.vm.differential.ours import PROTOCOLS
from tests.vm.differential.scenario_parts import READERS, Scenario
from tests.vm.differential.scenarios import SCENARIOS
from tests.vm.differential.server import Recorder

BLOCKS = [name for name, one in SCENARIOS.items() if READERS[one.reader].level.name == "TPDU"]


Open = Callable[[ccid.VirtualReader], Any]


def itself(virtual: ccid.VirtualReader) -> Any:
    """The virtual reader, in this process."""
    return virtual


def played(scenario: Scenario, open_as: Open = itself) -> tuple[list[str], list[list[str]], int]:
    """The result of each step, all messages, and how often the short way was taken."""
    model = READERS[scenario.reader]
    virtual = ccid.VirtualReader(
        None, descriptor=make_descriptor(model.level, **model.fields), name=model.name
    )
    kept: list[list[str]] = []
    virtual.functions[0].journal = Recorder(kept)
    virtual.functions[0].slots[0].mute = scenario.mute
    card_in = scenario.card()
    virtual.insert(card_in)
    said: list[str] = []
    singles = 0
    with ccid.open_reader(open_as(virtual)) as reader:
        card: ccid.Card | None = None
        for step in scenario.steps:
            word, _, rest = step.partition(" ")
            try:
                time.sleep(2 * FRESH_S)  # else a notification may be looked for or not
                match word:
                    case "connect":
                        card = reader.slots[0].connect(PROTOCOLS[rest])
                        said.append(f"{card.protocol} {card.atr.hex()}")
                    case "remove":
                        virtual.remove()
                    case "insert":
                        virtual.insert(card_in)
                    case _ if card is None:
                        said.append("no connection")
                    case "reset":
                        said.append(card.reset().hex())
                    case _:
                        said.append(card.transmit(bytes.fromhex(step)).hex())
                        machine = card.agreement.t1
                        singles += machine is not None and machine.blocks > 0
            except errors.CcidError as error:
                said.append(type(error).__name__)
    return said, kept, singles


@cache
def usual(name: str) -> tuple[list[str], list[list[str]], int]:
    """A scenario by the short ways, in this process."""
    return played(SCENARIOS[name])


@pytest.mark.parametrize("name", BLOCKS)
def test_every_scenario_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = usual(name)
    monkeypatch.setattr(Commands, "t1_block_way", lambda *_: None)
    assert played(SCENARIOS[name])[:2] == short[:2]


def long_way(pipe: Pipe, *words: Any) -> SharedWay:
    """Every block by :meth:`Pipe.transact`, which knows of no INS without a secret (the last)."""
    return SharedWay(cast(Any, pipe), *words[:4])


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_without_the_short_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = usual(name)
    monkeypatch.setattr(Pipe, "way", long_way)
    assert played(SCENARIOS[name]) == short


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_with_two_transfers_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And on USB with one after the other, and with a reader in this process."""

    def on_usb(virtual: ccid.VirtualReader) -> Any:
        return over_usb(virtual, monkeypatch)

    at_once = played(SCENARIOS[name], on_usb)
    monkeypatch.setattr(UsbTransport, "exchange", SeparateTransfers.exchange)
    monkeypatch.setattr(UsbTransport, "wait", SeparateTransfers.wait)
    assert played(SCENARIOS[name], on_usb) == at_once
    assert usual(name)[0] == at_once[0]


def test_the_two_transfers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long way of the transport would be slow, and nobody would see it."""
    virtual = ccid.VirtualReader(descriptor=make_descriptor(READERS["short"].level))
    with (
        ccid.open_reader(over_usb(virtual, monkeypatch)) as reader,
        reader.slots[0].connect() as card,
        monkeypatch.context() as patch,
    ):

        def never(*_: Any) -> Any:
            raise AssertionError("the long way")

        patch.setattr(UsbTransport, "_finish_exchange", never)
        for _ in range(3):
            assert card.transmit(bytes.fromhex("00A4000C023F00")) == b"\x90\x00"


def test_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol machine that runs from the start would be slow, and no other test would notice."""

    def never(*_: Any) -> Any:
        raise AssertionError("the long way")

    virtual = ccid.VirtualReader(descriptor=make_descriptor(READERS["tpdu"].level))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect(ccid.Protocol.T1) as card:
        monkeypatch.setattr(T1, "exchange", never)
        for _ in range(3):
            assert card.transmit(bytes.fromhex("00A4000C023F00")) == b"\x90\x00"


APDU = bytes.fromhex("00B0000002")


def sound(ns: int, inf: bytes = b"\x12\x34\x90\x00") -> bytes:
    """A correct I-block of a card."""
    return T1()._block(0x40 * ns, inf)


@pytest.mark.parametrize(
    "first",
    [
        sound(1),
        sound(0)[:-1] + b"\0",
        sound(0)[:-2],
        sound(0) + b"\0",
        sound(0, b"\x90"),
        sound(0, bytes(40)),
        T1()._block(0x20, b"\x12\x34"),
        T1()._block(0x80),
        T1()._block(0x90),
        T1()._block(0xC1, b"\x40"),
        T1()._block(0xC2),
        T1()._block(0xC3, b"\x01"),
        T1(nad=0x21)._block(0, b"\x90\x00"),
        b"",
        b"\0",
        *LinkError,
    ],
)
def test_any_first_answer_both_ways(first: bytes | LinkError) -> None:
    """A block that the short way does not accept is handled as if the short way did not exist."""

    def link(sent: list[bytes], answers: list[bytes | LinkError]) -> Any:
        def exchange(block: Block) -> bytes | LinkError:
            sent.append(block.data)
            return answers.pop(0) if answers else LinkError.MUTE

        return exchange

    def outcome(machine: T1, way: Any) -> Any:
        try:
            return run(machine.exchange(APDU), way)
        except errors.CcidError as error:
            return type(error), str(error)

    answers = [first, sound(0), sound(0)]
    long_sent: list[bytes] = []
    long = T1(name="x")
    expected = outcome(long, link(long_sent, answers.copy()))

    short_sent: list[bytes] = []
    short = T1(name="x")
    block = short.single(APDU)
    assert block is not None
    assert short.single_answer(first) is None
    rest = link(short_sent, answers.copy())
    assert outcome(short, rest) == expected
    assert short_sent == long_sent
    assert short_sent[0] == block
    state = ("_ns", "_nr", "_in_step", "ifsc", "ifsd")
    assert [getattr(short, x) for x in state] == [getattr(long, x) for x in state]


def always(answer: bytes) -> Callable[[Block], bytes | LinkError]:
    return lambda _: answer


def test_a_sound_answer_both_ways() -> None:
    long, short = T1(), T1()
    for ns in (0, 1, 0):
        expected = run(long.exchange(APDU), always(sound(ns)))
        assert short.single(APDU) is not None
        assert short.single_answer(sound(ns)) == expected
        assert (short._ns, short._nr, short.blocks) == (long._ns, long._nr, long.blocks)


def test_what_is_given_up_in_between_is_resynchronised() -> None:
    """After a time-out or Ctrl-C the host does not know whether the card executed the command."""
    machine = T1()
    assert machine.single(APDU) is not None
    assert machine.single(APDU) is None, "the next one begins with S(RESYNCH)"
    step = next(machine.exchange(APDU))
    assert step.data[1] == 0xC0
