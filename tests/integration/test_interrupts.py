"""After a signal handler raised (Ctrl-C) no lock is held, and all records are correct."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import ccid
from ccid.codes import ExchangeLevel, InterfaceProtocol, Protocol
from ccid.device.open_readers import key_of, opened
from ccid.errors import ReaderBusy
from ccid.virtual import EchoCard, make_descriptor
from tests.interruptions import Interruption, interrupted

APDU = bytes.fromhex("0010000004")
LONG = bytes.fromhex("00300000000200") + bytes(512) + bytes(2)
ANSWER = bytes.fromhex("000102039000")
FILES = (
    "link/pipe.py",
    "link/block_ways.py",
    "link/locks.py",
    "link/shared_pipe.py",
    "link/conversation.py",
    "link/inbox.py",
    "link/reply_matching.py",
    "link/slot_commands.py",
    "link/iccd_commands.py",
    "session/exchange/one_block.py",
    "session/exchange/chained_blocks.py",
    "session/exchange/host_protocols.py",
    "session/exchange/block_links.py",
    "session/exchange/iccd_tpdu.py",
)
USES = ("device/slot.py", "device/card.py", "session/activation.py", "link/card_state.py")
"""Above the locks, where a card is connected."""
PATIENCE_S = 10
"""Only a lock that is held for ever makes a thread wait so long."""


def shared(level: ExchangeLevel = ExchangeLevel.SHORT_APDU) -> ccid.VirtualReader:
    descriptor = make_descriptor(level, 2, bMaxCCIDBusySlots=2, dwMaxCCIDMessageLength=271)
    return ccid.VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)


READERS: dict[str, tuple[Callable[[], ccid.VirtualReader], bytes]] = {
    "one command at a time": (lambda: ccid.VirtualReader(EchoCard()), APDU),
    "several": (shared, APDU),
    "chained": (lambda: shared(ExchangeLevel.EXTENDED_APDU), LONG),
    "T=1 by blocks": (lambda: ccid.VirtualReader(EchoCard(), level=ExchangeLevel.TPDU), APDU),
    "ICCD": (
        lambda: ccid.VirtualReader(
            EchoCard(bytes.fromhex("3B 95 96 81 31 FE 45 63 63 69 64 21 24")),
            bInterfaceProtocol=InterfaceProtocol.ICCD_B,
        ),
        APDU,
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_an_interrupted_command_is_in_nobodys_way(kind: str) -> None:
    """The error is kept, and with it the local variables of the frames below."""
    make, apdu = READERS[kind]
    with ccid.open_reader(make()) as reader, ThreadPoolExecutor(1) as another:
        cards = [slot.connect() for slot in reader.slots]
        kept: list[Interruption] = []
        done = 0
        for error in interrupted(lambda: cards[0].transmit(apdu), FILES):
            done += error is None
            kept += [error] if error else []
            for card in cards:
                assert another.submit(card.transmit, APDU).result(PATIENCE_S) == ANSWER
            assert reader.slots[0].cancel() is False
            assert reader.pipe.busy_slot == -1
            assert not reader.pipe._operations
        assert done == 1
        assert len(kept) > 5


@pytest.mark.parametrize(
    ("kind", "what"),
    [("one command at a time", "connect"), ("several", "status"), ("several", "disconnect"),
     ("T=1 by blocks", "reset"), ("ICCD", "connect")],
)  # fmt: skip
def test_an_interrupted_use_of_a_card_is_in_nobodys_way(kind: str, what: str, full: bool) -> None:
    """The slot can be used by another thread at once, and the card be connected again."""
    for one in READERS if full else (kind,):
        interrupt_a_use(one, what)


def interrupt_a_use(kind: str, what: str) -> None:
    make, _ = READERS[kind]
    with ccid.open_reader(make()) as reader, ThreadPoolExecutor(1) as another:
        slot, places = reader.slots[0], 0

        def again() -> ccid.Card:
            card = slot.card
            if card is not None and card.ended() is None:
                card.disconnect()
            return slot.connect()

        def connected() -> ccid.Card:
            assert slot.card is not None
            return slot.card

        again()
        uses: dict[str, Callable[[], object]] = {
            "connect": again,
            "reset": lambda: connected().reset(),
            "status": slot.status,
            "disconnect": lambda: connected().disconnect(),
        }
        for error in interrupted(uses[what], (*FILES, *USES)):
            places += error is not None
            card = another.submit(again).result(PATIENCE_S)
            assert another.submit(card.transmit, APDU).result(PATIENCE_S) == ANSWER
            assert reader.pipe.busy_slot == -1
            assert not reader.pipe._operations
        assert places > 5


@pytest.mark.parametrize("kind", ["one command at a time", "several"])
def test_an_interrupted_cancel_is_in_nobodys_way(kind: str) -> None:
    with ccid.open_reader(READERS[kind][0]()) as reader, ThreadPoolExecutor(1) as another:
        card, kept = reader.slots[0].connect(), list[Interruption | None]()
        for error in interrupted(reader.slots[0].cancel, FILES):
            kept.append(error)
            assert another.submit(card.transmit, APDU).result(PATIENCE_S) == ANSWER
        assert kept[-1] is None


@pytest.mark.parametrize("kind", ["one command at a time", "several"])
def test_after_an_interrupted_abort_the_pair_is_ended(kind: str) -> None:
    """The reader may have received the first half; then it refuses every command until the second
    half."""
    with ccid.open_reader(READERS[kind][0]()) as reader, ThreadPoolExecutor(1) as another:
        cards, done = [slot.connect() for slot in reader.slots], 0
        for error in interrupted(
            reader.slots[0].commands.abort, (*FILES, "virtual/virtual_transport.py")
        ):
            done += error is None
            for card in cards:
                assert another.submit(card.transmit, APDU).result(PATIENCE_S) == ANSWER
        assert done == 1


def test_an_interrupted_opening_leaves_the_reader_to_watchers() -> None:
    virtual = READERS["one command at a time"][0]()
    info = virtual.info

    def opening() -> None:
        with pytest.raises(ReaderBusy), opened.opening(info):
            raise ReaderBusy("held")

    for _ in interrupted(opening, ("device/open_readers.py",)):
        gc.collect()
        assert opened._application_counts.get(key_of(info), 0) == 0
        with ThreadPoolExecutor(1) as another:
            reader, is_mine = another.submit(opened.borrow, info, ccid.Reader).result(PATIENCE_S)
            assert reader is not None
            assert is_mine
            opened.give_back(reader)


@pytest.mark.parametrize("kind", READERS)
def test_closing_that_was_interrupted_can_be_done_again(kind: str) -> None:
    """After the second call of close() the reader can be opened again."""
    virtual = READERS[kind][0]()
    readers: list[ccid.Reader] = []

    def close() -> None:
        readers[-1].close()

    def opened_anew() -> None:
        readers.append(ccid.open_reader(virtual))
        readers[-1].slots[0].connect(None if kind != "T=1 by blocks" else Protocol.T1)

    opened_anew()
    for error in interrupted(close, (*FILES, "device/reader.py")):
        readers[-1].close()
        assert readers[-1].transport.dead is not None
        if error is not None:
            del error
            opened_anew()
    assert len(readers) > 20
