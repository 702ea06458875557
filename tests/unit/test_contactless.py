"""UID, ATS and the storage-card commands of PC/SC part 3, through a reader."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ccid
from ccid import aio
from ccid.codes import ExchangeLevel, Protocol
from ccid.device import storage_card
from ccid.errors import CardRefused, CardRemoved, CcidError
from ccid.iso7816.apdu import CommandApdu
from ccid.trace.log import TRAFFIC
from ccid.virtual.cards import Answer, Application, EchoCard, FileSystemCard
from ccid.virtual.cards.iso14443_card import Iso14443Card
from ccid.virtual.cards.mifare_classic import MifareClassic
from ccid.virtual.cards.type2_tags import NTAG215, Type2Tag

KEY = bytes.fromhex("FFFFFFFFFFFF")
SECRET = bytes.fromhex("5EC2E75EC2E7")


@contextmanager
def connected(card: Application, **options: Any) -> Iterator[ccid.Card]:
    """The card in a virtual reader, connected."""
    virtual = ccid.VirtualReader(card, **options)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as there:
        yield there


class Refusing(EchoCard):
    """A card that answers each command with one status word."""

    sw = 0x9000

    def process(self, command: CommandApdu) -> Answer:
        return Answer(sw=self.sw)


# UID and ATS ------------------------------------------------------------------------------------


def test_a_uid() -> None:
    with connected(MifareClassic(uid=bytes.fromhex("01020304"))) as card:
        assert card.uid() == bytes.fromhex("01020304")


def test_an_ats_by_the_standard_and_as_many_readers_tell_it() -> None:
    historical = b"virtual"
    with connected(Iso14443Card(historical=historical)) as card:
        assert card.ats() == historical
        assert card.atr.historical == historical
    with connected(Iso14443Card(historical=historical, whole_ats=True)) as card:
        assert card.ats() == bytes.fromhex("0C78808002") + historical


def test_a_storage_card_has_no_ats() -> None:
    with (
        connected(MifareClassic()) as card,
        pytest.raises(CardRefused, match="ATS of the card: 6A81, this card or reader does not"),
    ):
        card.ats()


@pytest.mark.parametrize("level", list(ExchangeLevel))
def test_a_card_with_contacts_says_no(level: ExchangeLevel) -> None:
    with connected(FileSystemCard(), level=level, name="Contact") as card:
        with pytest.raises(CardRefused, match="only a contactless reader") as told:
            card.uid()
        assert (told.value.sw, told.value.reader, told.value.slot) == (0x6E00, "Contact", 0)
        with pytest.raises(CardRefused):
            card.storage.read(4)


@pytest.mark.parametrize("level", list(ExchangeLevel))
@pytest.mark.parametrize("protocol", list(Protocol))
def test_at_each_level(level: ExchangeLevel, protocol: Protocol) -> None:
    by_host = level in (ExchangeLevel.TPDU, ExchangeLevel.CHARACTER)
    if by_host and protocol is Protocol.T0:
        protocol = Protocol.T1  # a TPDU of T=0 with CLA FF would be a PPS request
    virtual = ccid.VirtualReader(MifareClassic(), level=level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect(protocol) as card:
        assert card.uid() == bytes.fromhex("DEADBEEF")
        card.storage.authenticate(4, KEY)
        card.storage.update(4, bytes(range(16)))
        assert card.storage.read(4) == bytes(range(16))


# Storage ----------------------------------------------------------------------------------------


def test_the_bytes_of_each_command() -> None:
    sent: list[str] = []

    class Listening(EchoCard):
        def transmit(self, apdu: bytes) -> Answer:
            sent.append(apdu.hex().upper())
            return Answer()

    with connected(Listening()) as card:
        card.storage.load_key(KEY, 1)
        card.storage.load_key(KEY, 2, nonvolatile=True)
        card.storage.authenticate(0x0102, key_type="B", number=1)
        card.storage.read(4)
        card.storage.read(0x1234, 256)
        card.storage.update(5, b"\1\2\3\4")
        card.uid()
        card.ats()
    assert sent == [
        "FF82000106FFFFFFFFFFFF", "FF82200206FFFFFFFFFFFF", "FF860000050101026101",
        "FFB0000410", "FFB0123400", "FFD600050401020304", "FFCA000000", "FFCA010000",
    ]  # fmt: skip


def test_a_key_that_is_given_is_loaded_first() -> None:
    with connected(MifareClassic()) as card:
        card.storage.authenticate(8, KEY, number=1)
        assert card.storage.read(8) == bytes(16)
        card.storage.authenticate(12, number=1)
        with pytest.raises(CardRefused, match="6984, the key in this place cannot be used"):
            card.storage.authenticate(12, number=0)


def test_a_wrong_key() -> None:
    with connected(MifareClassic()) as card:
        with pytest.raises(CardRefused, match=r"authenticate block 4 with key A: 6300, .* failed"):
            card.storage.authenticate(4, SECRET)
        with pytest.raises(CardRefused, match="read 16 bytes at 4: 6982, authentication is needed"):
            card.storage.read(4)


def test_an_address_that_is_not_there() -> None:
    with connected(Type2Tag(NTAG215)) as card:
        assert len(card.storage.read(130, 20)) == 20
        with pytest.raises(CardRefused, match="6A82, there is no such address"):
            card.storage.read(135, 4)
        with pytest.raises(CardRefused, match="6282, the card ended before"):
            card.storage.read(133, 16)


WORDS: list[tuple[dict[int, str], Callable[[ccid.Card], object]]] = [
    (storage_card.OF_LOAD_KEY, lambda card: card.storage.load_key(KEY)),
    (storage_card.OF_AUTHENTICATE, lambda card: card.storage.authenticate(4)),
    (storage_card.OF_MEMORY, lambda card: card.storage.read(4)),
    (storage_card.OF_MEMORY, lambda card: card.storage.update(4, bytes(16))),
    (storage_card.OF_ALL, ccid.Card.uid),
    (storage_card.OF_ALL, ccid.Card.ats),
]


@pytest.mark.parametrize(("table", "ask"), WORDS)
def test_each_status_word_is_told_in_words(
    table: dict[int, str], ask: Callable[[ccid.Card], object]
) -> None:
    refusing = Refusing()
    with connected(refusing) as card:
        for sw, words in {**storage_card.OF_ALL, **table}.items():
            refusing.sw = sw
            with pytest.raises(CardRefused) as told:
                ask(card)
            assert told.value.sw == sw
            assert str(told.value).endswith(f"{sw:04X}, {words}")
        refusing.sw = 0x6C10
        with pytest.raises(CardRefused, match="6C10, wrong Le, 16 would be right"):
            ask(card)


def test_a_card_that_is_gone() -> None:
    virtual = ccid.VirtualReader(MifareClassic())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        storage = card.storage
        virtual.remove()
        for ask in (card.uid, lambda: storage.read(4), lambda: storage.authenticate(4, KEY)):
            with pytest.raises(CardRemoved):
                ask()


# Arguments --------------------------------------------------------------------------------------

BAD: list[tuple[type[Exception], Callable[[ccid.StorageCard], object]]] = [
    (ValueError, lambda s: s.load_key(b"")),
    (ValueError, lambda s: s.load_key(SECRET * 50)),
    (TypeError, lambda s: s.load_key(SECRET.hex())),  # type: ignore[arg-type]
    (TypeError, lambda s: s.load_key(6)),  # type: ignore[arg-type]
    (TypeError, lambda s: s.load_key(list(SECRET))),  # type: ignore[arg-type]
    (ValueError, lambda s: s.load_key(SECRET, 256)),
    (TypeError, lambda s: s.load_key(SECRET, True)),
    (ValueError, lambda s: s.authenticate(-1, SECRET)),
    (ValueError, lambda s: s.authenticate(0x10000)),
    (ValueError, lambda s: s.authenticate(4, SECRET, key_type="C")),
    (ValueError, lambda s: s.authenticate(4, key_type=SECRET)),  # type: ignore[arg-type]
    (TypeError, lambda s: s.read("4")),  # type: ignore[arg-type]
    (ValueError, lambda s: s.read(4, 0)),
    (ValueError, lambda s: s.read(4, 257)),
    (TypeError, lambda s: s.read(4, 1.5)),  # type: ignore[arg-type]
    (ValueError, lambda s: s.update(4, b"")),
    (ValueError, lambda s: s.update(4, bytes(256))),
    (TypeError, lambda s: s.update(4, SECRET.hex())),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "call"), BAD)
def test_a_wrong_argument_is_told_before_anything_is_sent(
    error: type[Exception], call: Callable[[ccid.StorageCard], object]
) -> None:
    there = MifareClassic()
    with connected(there) as card:
        before = there.commands
        with pytest.raises(error) as told:
            call(card.storage)
        assert there.commands == before
    assert not leaks(str(told.value))


# Secrets ----------------------------------------------------------------------------------------


def leaks(shown: str) -> bool:
    """True if the secret key is in a text, in any usual form."""
    plain = "".join(c for c in shown.lower() if c.isalnum())
    return SECRET.hex() in plain or repr(SECRET) in shown or str(list(SECRET)) in shown


@pytest.mark.parametrize("level", list(ExchangeLevel))
def test_no_key_in_trace_log_repr_or_error(
    level: ExchangeLevel, caplog: pytest.LogCaptureFixture
) -> None:
    there, file = MifareClassic(), io.BytesIO()
    trailer = SECRET + bytes.fromhex("FF078069") + SECRET
    with (
        caplog.at_level(TRAFFIC, "ccid"),
        connected(there, level=level) as card,
        card.slot.reader.trace(file),
    ):
        card.storage.authenticate(4, KEY)
        card.storage.update(7, trailer)
        card.storage.authenticate(4, SECRET)
        errors: list[CcidError] = []
        for number in (0, 9):
            with pytest.raises(CardRefused) as told:
                card.storage.authenticate(8, SECRET, number=number)
            errors.append(told.value)
        shown = [repr(card), repr(card.storage), repr(there), str(vars(card.storage))]
    assert there.memory[7 * 16 :][:6] == SECRET
    recorded = file.getvalue()
    assert bytes.fromhex("FF82") in recorded or level is ExchangeLevel.CHARACTER
    assert SECRET not in recorded
    shown += [caplog.text, *map(repr, errors), *map(str, errors)]
    assert not any(map(leaks, shown))


# Tasks ------------------------------------------------------------------------------------------


def test_in_a_task() -> None:
    async def use() -> None:
        async with aio.open_reader(ccid.VirtualReader(MifareClassic())) as reader:
            async with reader.slots[0].connect() as card:
                assert await card.uid() == bytes.fromhex("DEADBEEF")
                with pytest.raises(CardRefused):
                    await card.ats()
                await card.storage.load_key(KEY, 1)
                async with card.exclusive():
                    await card.storage.authenticate(4, number=1)
                    await card.storage.update(4, b"a task's block!!")
                await card.storage.authenticate(5, KEY)
                assert await card.storage.read(4) == b"a task's block!!"
                assert "aio.StorageCard" in repr(card.storage)

    asyncio.run(use())
