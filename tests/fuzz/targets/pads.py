"""What a program of PC/SC asks of a PIN pad, and control codes."""

from __future__ import annotations

import atexit
from functools import cache

import ccid
from ccid.codec.messages import PC_to_RDR_Secure
from ccid.codes import ExchangeLevel
from ccid.device.control import ControlCode
from ccid.device.control import control as carry_out
from ccid.errors import CcidError
from ccid.known.quirks import Quirks
from ccid.pin import pad_structures
from ccid.virtual import EchoCard, VirtualReader, make_descriptor
from tests.fuzz.taking import Taker
from tests.fuzz.virtual_readers import as_new

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
    return VirtualReader(EchoCard(), descriptor=descriptor, escape=lambda sent: sent[:64])


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
