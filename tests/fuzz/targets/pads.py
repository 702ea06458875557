"""What a program of PC/SC asks of a PIN pad, control codes, and contactless readers: from the host,
and what they answer it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import ccid
from ccid.codec.messages import PC_to_RDR_Secure
from ccid.codes import ExchangeLevel
from ccid.device import storage_card
from ccid.device.control import ControlCode
from ccid.device.control import control as carry_out
from ccid.errors import CcidError
from ccid.known.quirks import Quirks
from ccid.pin import pad_structures
from ccid.virtual import VirtualReader, make_descriptor
from ccid.virtual.card_kinds import MAKERS
from ccid.virtual.cards.application import Application, Mute
from tests.fuzz.taking import Taker
from tests.fuzz.virtual_readers import PromptCard, as_new

QUIRKS = (
    Quirks(),
    Quirks(pin_swap_extra_digit=True, pin_entry_validation=2, pin_verify_messages=1),
)
CODES = list(ControlCode)


def pin(data: bytes) -> None:
    """A PIN structure of an application, as the reader gets it."""
    taker = Taker(data)
    make = taker.one_of([pad_structures.verification, pad_structures.modification])
    order = taker.one_of(["little", "big"])
    quirks = taker.one_of(QUIRKS)
    known = pad_structures.PinPadFeatures.parse(taker.take(21)) if taker.number() & 1 else None
    request = make(taker.rest(), quirks, known, order)
    assert request.timeout_s > 0
    message = PC_to_RDR_Secure(
        bPINOperation=request.bPINOperation, abPINDataStructure=request.structure
    ).build()
    assert len(message) <= 1024


def _pad() -> VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3, wLcdLayout=0x0210)
    return VirtualReader(PromptCard(), descriptor=descriptor, escape=lambda sent: sent[:64])


_closed_pad = cache(_pad)


@cache
def _slot_with_card_in_use() -> ccid.Slot:
    """Of a reader that stays open: no control code changes what the next one finds."""
    reader = ccid.open_reader(_pad())
    atexit.register(reader.close)
    reader.slots[0].connect()
    return reader.slots[0]


def control(data: bytes) -> None:
    """Control codes to a reader with a PIN pad and a display."""
    taker = Taker(data)
    if taker.number() & 1:
        _controls(_slot_with_card_in_use(), taker)
        return
    with ccid.open_reader(as_new(_closed_pad())) as reader:
        _controls(reader.slots[0], taker)


def _controls(slot: ccid.Slot, taker: Taker) -> None:
    while not taker.is_empty:
        code = taker.number(4) if taker.number() == 0xFF else taker.one_of(CODES)
        try:
            answer = carry_out(slot, code, taker.piece(), escape=bool(taker.number() & 1))
        except CcidError as error:
            assert str(error).replace("\n", "").isprintable()
        else:
            assert isinstance(answer, bytes)


def storage(data: bytes) -> None:
    """What a contactless reader answers to the pseudo-APDUs of PC/SC part 3. No error has the
    key."""
    taker = Taker(data)
    slot = SimpleNamespace(reader=SimpleNamespace(name="a reader"), index=0)
    card: Any = SimpleNamespace(transmit=lambda apdu: taker.piece(), slot=slot)
    memory = storage_card.StorageCard(card)
    calls: tuple[Callable[[], object], ...] = (
        lambda: storage_card.ask(card, storage_card.GET_UID, "UID of the card"),
        lambda: memory.load_key(b"secret"),
        lambda: memory.read(4, 16),
        lambda: memory.update(4, b"secret"),
    )
    while not taker.is_empty:
        try:
            taker.one_of(calls)()
        except CcidError as error:
            assert "secret" not in str(error)
            assert str(error).isprintable()


CARDS = [make for name, make in MAKERS.items() if make is not None and name != "piv"]
"""All but the card whose keys take a second to make."""
MOST_APDUS = 20


def virtual_card(data: bytes) -> None:
    """APDUs of any host to a virtual card."""
    taker = Taker(data)
    card: Application = taker.one_of(CARDS)()
    for _ in range(MOST_APDUS):
        if taker.is_empty:
            break
        try:
            answer = card.transmit(taker.piece())
        except Mute:
            continue
        assert 0 <= answer.sw <= 0xFFFF
        assert len(answer.data) <= 0x10000
        if taker.number() == 0xFF:
            card.reset()
