"""The functions of PC/SC that need a card handle, as generators; pure.

:mod:`ccid.pcsc.manager.pcsc_call` tells how they run. Arguments are checked in the order that
pcsc-lite has. What is looked at before a wait is looked at again behind it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ccid.pcsc.manager.card_protocols import available, wanted_first
from ccid.pcsc.manager.pcsc_call import Action, Job, LockRule, Outcome, Steps, Wait
from ccid.pcsc.manager.pcsc_state import CardIn, Context, Handle, Slot
from ccid.pcsc.manager.resources import Resources
from ccid.pcsc.manager.scard_codes import (
    ATTR_ATR_STRING,
    ATTR_DEVICE_FRIENDLY_NAME_A,
    ATTR_DEVICE_SYSTEM_NAME_A,
    FIRST_ATTRIBUTE,
    MAX_CONTEXT_HANDLES,
    MAX_READER_HANDLES,
    Disposition,
    Proto,
    ScardCode,
    ScardError,
    Share,
)
from ccid.pcsc.numbers.ifd_numbers import Code

PROTOCOLS = Proto.T0 | Proto.T1 | Proto.RAW | Proto.ANY_OLD
"""Bits of which one must be there, where a card is to be used."""
REFUSALS = (Code.NOT_SUPPORTED, Code.ERROR_NOT_SUPPORTED, Code.PROTOCOL_NOT_SUPPORTED)
"""A driver's answers that mean: not this protocol."""
PRESENT, DIRECT, OF_ANY_CARD = CardIn.PRESENT, Share.DIRECT, (Proto.RAW, Proto.ANY_OLD)
"""What each APDU needs has a name of its own: members of enumerations are found slowly."""
T0, T1 = 0, 1
"""Protocols as drivers number them in a header."""


@dataclass(frozen=True, slots=True)
class CardStatus:
    """What SCardStatus tells.

    Attributes:
        name: Of the reader.
        state: Bits of :class:`~ccid.pcsc.manager.scard_codes.CardBits`, and the event counter
            from bit 16 up.
        protocol: The active one, 0 for none.
        atr: Of the card.
    """

    name: str
    state: int
    protocol: int
    atr: bytes


# Checks that many functions have ------------------------------------------------------------------


def _there(handle: Handle) -> None:
    """The handle's reader is there, and the handle is open."""
    if handle.is_closed:
        raise ScardError(ScardCode.E_INVALID_HANDLE)
    if handle.slot.is_gone:
        raise ScardError(ScardCode.E_INVALID_VALUE)


def _works(slot: Slot) -> None:
    """The reader tells whether it has a card."""
    if slot.card is CardIn.UNKNOWN:
        raise ScardError(ScardCode.E_READER_UNAVAILABLE)


def _told(handle: Handle) -> None:
    """Nothing happened to the card that the handle has to be told."""
    if handle.word is not None:
        raise ScardError(handle.word)


def _not_locked(handle: Handle) -> None:
    """No other handle has a transaction, or the card alone."""
    if handle.slot.holder not in (None, handle):
        raise ScardError(ScardCode.E_SHARING_VIOLATION)


def _share(value: int) -> Share:
    try:
        return Share(value)
    except ValueError:
        raise ScardError(ScardCode.E_INVALID_VALUE) from None


def _disposition(value: int) -> Disposition:
    try:
        return Disposition(value)
    except ValueError:
        raise ScardError(ScardCode.E_INVALID_VALUE) from None


# Connecting ---------------------------------------------------------------------------------------


def connect(
    resources: Resources, context: Context, name: str, share_value: int, protocols: int
) -> Steps:
    """SCardConnect. Returns the handle's number and the active protocol.

    It waits for another context's transaction; not for one of its own, which could never end where
    a context does one thing at a time.
    """
    if share_value != Share.DIRECT and not protocols & PROTOCOLS:
        raise ScardError(ScardCode.E_PROTO_MISMATCH)
    share, wanted = _share(share_value), Proto(protocols & 0xFFFF)
    slot = resources.find(name)
    _may_connect(context, slot, share)
    is_direct = share is Share.DIRECT
    yield Wait(slot, LockRule.OTHER_CONTEXTS, turn=not is_direct, context=context)
    if slot.is_gone:
        raise ScardError(ScardCode.E_UNKNOWN_READER)
    _may_connect(context, slot, share)
    is_raw = bool(wanted & Proto.RAW)
    if not is_direct:
        yield from _ready_card(slot, retry_mute=True)
        if not is_raw:
            yield from _agree(slot, wanted)
    if slot.is_gone:
        raise ScardError(ScardCode.E_UNKNOWN_READER)
    _may_connect(context, slot, share)  # a direct one needs no turn and may have come meanwhile
    made = resources.new_handle(context, slot, share, is_raw)
    return made.number, Proto.RAW if is_raw else slot.protocol


def _may_connect(context: Context, slot: Slot, share: Share) -> None:
    _works(slot)
    if slot.exclusive is not None:
        raise ScardError(ScardCode.E_SHARING_VIOLATION)
    if share is not Share.DIRECT and slot.card is CardIn.ABSENT:
        raise ScardError(ScardCode.E_NO_SMARTCARD)
    if share is Share.EXCLUSIVE and slot.handles:
        raise ScardError(ScardCode.E_SHARING_VIOLATION)
    if len(context.handles) >= MAX_CONTEXT_HANDLES:
        raise ScardError(ScardCode.E_NO_MEMORY)
    if len(slot.handles) >= MAX_READER_HANDLES:
        raise ScardError(ScardCode.F_INTERNAL_ERROR)


def _ready_card(slot: Slot, *, retry_mute: bool) -> Generator[Any, Any, None]:
    """Have the card powered.

    Args:
        slot: Where.
        retry_mute: Try one that did not answer last time.
    """
    if slot.card is CardIn.ABSENT:
        raise ScardError(ScardCode.E_NO_SMARTCARD)
    if slot.card is CardIn.MUTE and not retry_mute:
        raise ScardError(ScardCode.W_UNRESPONSIVE_CARD)
    if not slot.is_powered:
        card = slot.card_number
        yield Job(slot, Action.POWER_UP)
        _same_card(slot, card)
        if not slot.is_powered:
            raise ScardError(ScardCode.W_UNPOWERED_CARD)


def _same_card(slot: Slot, card: int) -> None:
    """The card is the one that it was."""
    if slot.is_gone:
        raise ScardError(ScardCode.E_READER_UNAVAILABLE)
    _works(slot)
    if slot.card is CardIn.ABSENT:
        raise ScardError(ScardCode.E_NO_SMARTCARD)
    if slot.card_number != card:
        raise ScardError(ScardCode.W_REMOVED_CARD)


def _agree(slot: Slot, wanted: Proto) -> Generator[Any, Any, None]:
    """Have a protocol in force that is wanted."""
    if wanted & Proto.ANY_OLD:
        wanted |= Proto.T0 | Proto.T1
    if slot.protocol:
        if not slot.protocol & wanted:
            raise ScardError(ScardCode.E_PROTO_MISMATCH)
        return
    offered, default = available(slot.atr)
    if not offered & wanted:
        raise ScardError(ScardCode.E_PROTO_MISMATCH)
    card, first = slot.card_number, wanted_first(offered & wanted)
    outcome: Outcome = yield Job(slot, Action.PROTOCOL, first)
    _same_card(slot, card)
    if outcome.code in REFUSALS and offered != first:
        if first == default or not default & wanted:
            raise ScardError(ScardCode.E_PROTO_MISMATCH)
        outcome = yield Job(slot, Action.PROTOCOL, default)
        _same_card(slot, card)
    if outcome.code is not Code.SUCCESS:
        raise ScardError(ScardCode.W_UNRESPONSIVE_CARD)


def reconnect(
    resources: Resources, handle: Handle, share_value: int, protocols: int, initialization: int
) -> Steps:
    """SCardReconnect. Returns the active protocol."""
    if initialization not in (Disposition.LEAVE, Disposition.RESET, Disposition.UNPOWER):
        raise ScardError(ScardCode.E_INVALID_VALUE)
    share = _share(share_value)
    is_direct = share is Share.DIRECT
    if not is_direct and not protocols & PROTOCOLS:
        raise ScardError(ScardCode.E_PROTO_MISMATCH)
    wanted, slot = Proto(protocols & 0xFFFF), handle.slot
    _there(handle)
    _works(slot)
    yield Wait(slot, LockRule.OTHER_HANDLES, turn=True, handle=handle)
    _there(handle)
    _works(slot)
    if share is Share.EXCLUSIVE:
        _alone(handle)
    if slot.card is CardIn.ABSENT:
        raise ScardError(ScardCode.E_NO_SMARTCARD)
    if initialization != Disposition.LEAVE:
        resources.reset_begins(slot, None)
        yield from _reset(slot, Disposition(initialization))
    elif slot.card is CardIn.MUTE:
        raise ScardError(ScardCode.W_UNRESPONSIVE_CARD)
    card = slot.card_number
    is_raw = bool(wanted & Proto.RAW)
    if not is_direct:
        yield from _ready_card(slot, retry_mute=False)
        if not is_raw:
            yield from _agree(slot, wanted)
    _there(handle)
    _same_card(slot, card)
    if share is Share.EXCLUSIVE:
        _alone(handle)
    handle.word, handle.is_raw = None, is_raw
    if handle.share is not share:
        handle.share = share
        slot.exclusive = handle if share is Share.EXCLUSIVE else None
        resources.changed()
    return Proto.RAW if is_raw else slot.protocol


def _alone(handle: Handle) -> None:
    if handle.slot.handles != [handle]:
        raise ScardError(ScardCode.E_SHARING_VIOLATION)


def _reset(slot: Slot, how: Disposition) -> Generator[Any, Any, None]:
    """Reset the card that is there, or take its power and give it again.

    Raises:
        ScardError: NO_SMARTCARD, W_REMOVED_CARD, W_UNRESPONSIVE_CARD: It did not work.
    """
    card = slot.card_number
    is_cycle = how is Disposition.UNPOWER
    yield Job(slot, Action.POWER_CYCLE if is_cycle else Action.POWER_UP)
    _same_card(slot, card)
    if not slot.is_powered:
        raise ScardError(ScardCode.W_UNRESPONSIVE_CARD)


def disconnect(resources: Resources, handle: Handle, disposition_value: int) -> Steps:
    """SCardDisconnect. It waits for another context's transaction, unless the card is left as it
    is."""
    disposition, slot = _disposition(disposition_value), handle.slot
    if handle.is_closed:
        raise ScardError(ScardCode.E_INVALID_HANDLE)
    acts = disposition in (Disposition.RESET, Disposition.UNPOWER)
    if acts and not slot.is_gone:
        yield Wait(slot, LockRule.OTHER_CONTEXTS, True, handle, handle.context)
        if handle.is_closed:
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        if not slot.is_gone and slot.has_card:
            resources.reset_begins(slot, handle)
            is_reset = disposition is Disposition.RESET
            yield Job(slot, Action.POWER_UP if is_reset else Action.POWER_DOWN)
            if not is_reset:
                resources.changed()
    if handle.is_closed:
        raise ScardError(ScardCode.E_INVALID_HANDLE)
    resources.close_handle(handle)


# Transactions -------------------------------------------------------------------------------------


def begin(handle: Handle) -> Steps:
    """SCardBeginTransaction. One within another counts."""
    slot = handle.slot
    _may_begin(handle)
    yield Wait(slot, LockRule.OTHER_HANDLES, handle=handle, heeds_word=True)
    _may_begin(handle)
    slot.lock = handle
    slot.lock_count += 1


def _may_begin(handle: Handle) -> None:
    _there(handle)
    _works(handle.slot)
    _told(handle)


def end(resources: Resources, handle: Handle, disposition_value: int) -> Steps:
    """SCardEndTransaction."""
    disposition, slot = _disposition(disposition_value), handle.slot
    _there(handle)
    if handle.word is not None:
        resources.end_level(handle)
        raise ScardError(handle.word)
    if slot.lock is not handle:
        others = slot.holder not in (None, handle)
        code = ScardCode.E_SHARING_VIOLATION if others else ScardCode.E_NOT_TRANSACTED
        raise ScardError(code)
    if disposition is Disposition.EJECT:
        resources.end_level(handle)
        raise ScardError(ScardCode.E_UNSUPPORTED_FEATURE)
    if disposition is not Disposition.LEAVE:
        yield Wait(slot, LockRule.OTHER_HANDLES, turn=True, handle=handle)
        _there(handle)
        if slot.has_card:
            resources.reset_begins(slot, None)
            try:
                yield from _reset(slot, disposition)
            except ScardError as error:
                resources.end_level(handle)
                is_gone = error.code is ScardCode.W_REMOVED_CARD or not slot.has_card
                code = ScardCode.W_REMOVED_CARD if is_gone else ScardCode.E_NOT_TRANSACTED
                raise ScardError(code) from None
    resources.end_level(handle)


# Using the card -----------------------------------------------------------------------------------


def status(handle: Handle) -> Steps:
    """SCardStatus. Returns a :class:`CardStatus`."""
    slot = handle.slot
    if slot.is_gone and not handle.is_closed:
        raise ScardError(ScardCode.E_READER_UNAVAILABLE)
    yield Wait(slot, LockRule.OTHER_HANDLES, handle=handle, heeds_word=True)
    if slot.is_gone and not handle.is_closed:
        raise ScardError(ScardCode.E_READER_UNAVAILABLE)
    _there(handle)
    _told(handle)
    _works(slot)
    view = slot.view
    protocol = int(Proto.RAW) if handle.is_raw else view.protocol
    return CardStatus(view.name, view.counter << 16 | int(view.state), protocol, view.atr)


def transmit(handle: Handle, protocol: int, apdu: bytes) -> Steps:
    """SCardTransmit. Returns the response and the protocol as the driver numbers it."""
    slot = handle.slot
    _there(handle)
    yield Wait(slot, LockRule.OTHER_HANDLES, turn=True, handle=handle, heeds_word=True)
    _there(handle)
    _works(slot)
    _told(handle)
    if protocol != Proto.RAW:
        if slot.card is CardIn.ABSENT:
            raise ScardError(ScardCode.E_NO_SMARTCARD)
        if protocol != Proto.ANY_OLD and (not protocol or protocol != slot.protocol):
            raise ScardError(ScardCode.E_PROTO_MISMATCH)
    number, card = T1 if slot.protocol is Proto.T1 else T0, slot.card_number
    outcome: Outcome = yield Job(slot, Action.TRANSMIT, number, apdu)
    return transmitted(handle, number, card, outcome)


def may_transmit_now(handle: Handle, protocol: int) -> bool:
    """Nothing keeps SCardTransmit waiting, and it has nothing to tell but the response."""
    slot = handle.slot
    if slot.turn is not None or slot.queue:
        return False
    holder = slot.lock or slot.exclusive
    if holder is not None and holder is not handle:
        return False
    if handle.word is not None or handle.is_closed or slot.reader.is_gone:
        return False
    if slot.card is not PRESENT or not slot.is_powered or slot.is_arriving:
        return False
    if handle.share is DIRECT or not protocol:
        return False
    return protocol == slot.protocol or protocol in OF_ANY_CARD


def transmitted(handle: Handle, number: int, card: int, outcome: Outcome) -> tuple[bytes, int]:
    """What SCardTransmit makes of a driver's outcome: the response and ``number``.

    Args:
        handle: Its handle.
        number: The protocol, as drivers number it.
        card: The number of the card that there was before.
        outcome: What the driver says; recorded already.

    Raises:
        ScardError: There is no response.
    """
    slot = handle.slot
    match outcome.code:
        case Code.SUCCESS:
            return outcome.data, number
        case Code.NO_SUCH_DEVICE:
            raise ScardError(ScardCode.E_READER_UNAVAILABLE)
    if slot.card is CardIn.ABSENT:
        raise ScardError(ScardCode.E_NO_SMARTCARD)
    if slot.card_number != card:
        raise ScardError(ScardCode.W_REMOVED_CARD)  # another card is in by now
    if handle.word is ScardCode.W_RESET_CARD:
        raise ScardError(ScardCode.W_RESET_CARD)  # it lost its power
    is_absent = outcome.code is Code.ICC_NOT_PRESENT
    raise ScardError(ScardCode.E_NO_SMARTCARD if is_absent else ScardCode.E_NOT_TRANSACTED)


# Using the reader ---------------------------------------------------------------------------------

FAILURES = {
    Code.NO_SUCH_DEVICE: ScardCode.E_READER_UNAVAILABLE,
    Code.ERROR_NOT_SUPPORTED: ScardCode.E_UNSUPPORTED_FEATURE,
    Code.NOT_SUPPORTED: ScardCode.E_UNSUPPORTED_FEATURE,
    Code.ERROR_TAG: ScardCode.E_UNSUPPORTED_FEATURE,
    Code.ERROR_INSUFFICIENT_BUFFER: ScardCode.E_INSUFFICIENT_BUFFER,
}
"""What a driver's answers mean to SCardControl and the functions of attributes."""


def _driven(outcome: Outcome) -> bytes:
    if outcome.code is not Code.SUCCESS:
        raise ScardError(FAILURES.get(outcome.code, ScardCode.E_NOT_TRANSACTED))
    return outcome.data


def control(handle: Handle, code: int, data: bytes) -> Steps:
    """SCardControl: with or without a card, whatever happened to it. Returns the answer."""
    slot = handle.slot
    _may_control(handle)
    yield Wait(slot, turn=True, handle=handle)
    _may_control(handle)
    return _driven((yield Job(slot, Action.CONTROL, code, data)))


def get_attribute(handle: Handle, attribute: int) -> Steps:
    """SCardGetAttrib. Returns its value."""
    slot = handle.slot
    _may_ask(handle)
    yield Wait(slot, turn=True, handle=handle)
    _may_ask(handle)
    if attribute in (ATTR_DEVICE_FRIENDLY_NAME_A, ATTR_DEVICE_SYSTEM_NAME_A):
        return slot.name.encode() + b"\0"
    if attribute == ATTR_ATR_STRING:
        return slot.atr  # which a card without power keeps
    if attribute < FIRST_ATTRIBUTE:
        raise ScardError(ScardCode.E_UNSUPPORTED_FEATURE)
    return _driven((yield Job(slot, Action.GET, attribute)))


def set_attribute(handle: Handle, attribute: int, value: bytes) -> Steps:
    """SCardSetAttrib."""
    if not value:
        raise ScardError(ScardCode.E_INVALID_PARAMETER)
    _may_ask(handle)
    yield Wait(handle.slot, turn=True, handle=handle)
    _may_ask(handle)
    if attribute < FIRST_ATTRIBUTE:
        raise ScardError(ScardCode.E_UNSUPPORTED_FEATURE)
    _driven((yield Job(handle.slot, Action.SET, attribute, value)))


def _may_control(handle: Handle) -> None:
    _there(handle)
    _not_locked(handle)
    _works(handle.slot)


def _may_ask(handle: Handle) -> None:
    _may_control(handle)
    _told(handle)
