"""What a PIN pad gets: the structures of PC/SC part 10 as this reader takes them, pure.

An application says how a PIN is entered and put into an APDU (PIN_VERIFY_STRUCTURE and
PIN_MODIFY_STRUCTURE), and :func:`verification` and :func:`modification` make of it the structure
of PC_to_RDR_Secure (USB CCID rev 1.1, 6.1.11). Readers differ in what they take: their quirks say
how.

    request = pin.verification(data, slot.quirks, features)  # or pin.request(structure, …)
    if request.escape is not None:
        slot.escape(request.escape)
    time.sleep(request.delay_s)
    commands.secure(request.bPINOperation, request.structure, timeout_s=request.timeout_s)
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from construct import Byte, Bytes, GreedyBytes, Int16ul, Int32ul

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.messages.structures import (
    PinModification,
    PinModificationAllIndexes,
    PinVerification,
)
from ccid.codes import PinOperation
from ccid.errors import CardAbsent, CardMute, CommandFailed, MalformedMessage, UnsupportedByReader
from ccid.iso7816.apdu import HEADER_LENGTH
from ccid.known.quirks import Quirks

REFUSALS = (CardAbsent, CardMute, CommandFailed, UnsupportedByReader)
"""What a reader's refusal of an Escape may be, a card in it or not."""
ENTRY_S = 90.0
"""How long a person may take at the least, seconds."""
MARGIN_S = 10.0
"""And how much longer than bTimeOut the reader may."""
ENTER_KEY = 0x02
"""bEntryValidationCondition: the PIN ends with the Enter key."""
ALL_CONDITIONS = 0x07
FEATURES_LENGTH = 21
NO_MESSAGE, ALL_MESSAGES, DEFAULT_MESSAGE = 0, 3, 0xFF
"""bNumberMessage of a modification."""


# What applications say -------------------------------------------------------------------------


@declared
class PinVerifyStructure(Declared):
    """PIN_VERIFY_STRUCTURE (PC/SC part 10, 2.5.2)."""

    error = MalformedMessage

    bTimerOut: int = wire(Byte, default=0)
    bTimerOut2: int = wire(Byte, default=0)
    bmFormatString: int = wire(Byte)
    bmPINBlockString: int = wire(Byte)
    bmPINLengthFormat: int = wire(Byte)
    wPINMaxExtraDigit: int = wire(Int16ul)
    bEntryValidationCondition: int = wire(Byte, default=ENTER_KEY)
    bNumberMessage: int = wire(Byte, default=1)
    wLangId: int = wire(Int16ul, default=0x0409)
    bMsgIndex: int = wire(Byte, default=0)
    bTeoPrologue: bytes = wire(Bytes(3), default=bytes(3))
    ulDataLength: int = wire(Int32ul)
    abData: bytes = wire(GreedyBytes, default=b"", secret=True)


@declared
class PinModifyStructure(Declared):
    """PIN_MODIFY_STRUCTURE (PC/SC part 10, 2.5.3)."""

    error = MalformedMessage

    bTimerOut: int = wire(Byte, default=0)
    bTimerOut2: int = wire(Byte, default=0)
    bmFormatString: int = wire(Byte)
    bmPINBlockString: int = wire(Byte)
    bmPINLengthFormat: int = wire(Byte)
    bInsertionOffsetOld: int = wire(Byte, default=0)
    bInsertionOffsetNew: int = wire(Byte, default=0)
    wPINMaxExtraDigit: int = wire(Int16ul)
    bConfirmPIN: int = wire(Byte, default=3)
    bEntryValidationCondition: int = wire(Byte, default=ENTER_KEY)
    bNumberMessage: int = wire(Byte, default=ALL_MESSAGES)
    wLangId: int = wire(Int16ul, default=0x0409)
    bMsgIndex1: int = wire(Byte, default=0)
    bMsgIndex2: int = wire(Byte, default=1)
    bMsgIndex3: int = wire(Byte, default=2)
    bTeoPrologue: bytes = wire(Bytes(3), default=bytes(3))
    ulDataLength: int = wire(Int32ul)
    abData: bytes = wire(GreedyBytes, default=b"", secret=True)


S = TypeVar("S", PinVerifyStructure, PinModifyStructure)


def _parsed(cls: type[S], data: bytes, byteorder: str) -> S:
    """``data`` as the structure it is to be, its numbers little-endian or, from a caller on a
    big-endian machine, in that order.

    Raises:
        MalformedMessage: It is none, or carries no command APDU.
    """
    said = cls.parse(data)
    if byteorder == "big" and said.ulDataLength == _swapped(len(said.abData), 4):
        said = dataclasses.replace(
            said,
            wPINMaxExtraDigit=_swapped(said.wPINMaxExtraDigit, 2),
            wLangId=_swapped(said.wLangId, 2),
            ulDataLength=_swapped(said.ulDataLength, 4),
        )
    if said.ulDataLength != len(said.abData) or said.ulDataLength < HEADER_LENGTH:
        raise MalformedMessage(
            f"{cls.__name__}: ulDataLength says {said.ulDataLength} bytes of APDU, "
            f"{len(said.abData)} are there",
            field="ulDataLength",
        )
    return said


def _swapped(number: int, size: int) -> int:
    return int.from_bytes(number.to_bytes(size, "little"), "big")


# What the reader says of itself ----------------------------------------------------------------


class PinPadFeatures(NamedTuple):
    """What the block that ``features-escape`` returns says of a PIN pad.

    Attributes:
        bEntryValidationCondition: The bits that it takes.
        heeds_number_of_messages: A modification carries the indexes that its bNumberMessage says.
        fewest, most: Digits of a PIN.
    """

    bEntryValidationCondition: int
    heeds_number_of_messages: bool
    fewest: int
    most: int

    @classmethod
    def parse(cls, block: bytes) -> PinPadFeatures | None:
        """What ``block`` says; None if it is none of 21 bytes."""
        if len(block) != FEATURES_LENGTH:
            return None
        return cls(block[3], bool(block[8] & 0x04), block[13], block[14])


def features(quirks: Quirks, escape: Callable[[bytes], bytes]) -> PinPadFeatures | None:
    """Ask a reader for its features; None for one that has no such block, which is no error.

    Args:
        quirks: What is known of it.
        escape: Sends an Escape and returns its answer.
    """
    if quirks.features_escape is None:
        return None
    try:
        return PinPadFeatures.parse(escape(quirks.features_escape))
    except REFUSALS:
        return None


class PinProperties(NamedTuple):
    """What applications are told of a PIN pad.

    Attributes:
        bEntryValidationCondition: The bits that it takes.
        sizes: Fewest and most digits; None if that is not known.
    """

    bEntryValidationCondition: int
    sizes: tuple[int, int] | None


def properties(quirks: Quirks, known: PinPadFeatures | None = None) -> PinProperties:
    """What to tell applications of a PIN pad.

    Args:
        quirks: What is known of the reader.
        known: What it says itself.
    """
    if known is not None:
        return PinProperties(known.bEntryValidationCondition, (known.fewest, known.most))
    reported = quirks.pin_validation_reported
    return PinProperties(ALL_CONDITIONS if reported is None else reported, quirks.pin_sizes)


# What goes to the reader -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PinRequest:
    """One PIN entry, as the reader takes it.

    Attributes:
        bPINOperation: Verification or modification.
        structure: abPINDataStructure, without bPINOperation.
        delay_s: Seconds to wait before it is sent.
        escape: An Escape to send before; None for none. If it fails, nothing more is sent.
    """

    bPINOperation: PinOperation
    structure: PinVerification | PinModification
    delay_s: float = 0.0
    escape: bytes | None = None

    @property
    def timeout_s(self) -> float:
        """Seconds to wait for the reply, before extensions."""
        return entry_timeout_s(self.structure.bTimeOut)


def entry_timeout_s(bTimerOut: int) -> float:
    """Seconds to wait for a PIN that the reader waits ``bTimerOut`` seconds for."""
    return max(ENTRY_S, bTimerOut + MARGIN_S)


def _condition(asked: int, quirks: Quirks, known: PinPadFeatures | None) -> int:
    """bEntryValidationCondition: a wrong one crashes some readers."""
    condition = asked if 1 <= asked <= ALL_CONDITIONS else ENTER_KEY
    if quirks.pin_entry_validation is not None:
        condition = quirks.pin_entry_validation
    return condition if known is None else condition & known.bEntryValidationCondition


def request(
    structure: PinVerification | PinModification,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
) -> PinRequest:
    """A PIN entry, as the reader takes it: whoever asks for one, it goes this way.

    Args:
        structure: What is wanted, as the specification has it.
        quirks: What is known of the reader.
        known: What it says itself (:func:`features`).

    Raises:
        MalformedMessage: A bNumberMessage that 6.1.11.2 has not.
    """
    if isinstance(structure, PinVerification):
        return _verification(structure, quirks, known)
    return _modification(structure, quirks, known)


def verification(
    data: bytes,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
    byteorder: str = sys.byteorder,
) -> PinRequest:
    """A verification that an application asks for, as the reader takes it.

    Args:
        data: PIN_VERIFY_STRUCTURE.
        quirks: What is known of the reader.
        known: What it says itself (:func:`features`).
        byteorder: Of the application's machine.

    Raises:
        MalformedMessage: ``data`` are no such structure.
    """
    said = _parsed(PinVerifyStructure, data, byteorder)
    wanted = PinVerification(
        bTimeOut=said.bTimerOut,
        bmFormatString=said.bmFormatString,
        bmPINBlockString=said.bmPINBlockString,
        bmPINLengthFormat=said.bmPINLengthFormat,
        wPINMaxExtraDigit=said.wPINMaxExtraDigit,
        bEntryValidationCondition=said.bEntryValidationCondition,
        bNumberMessage=said.bNumberMessage,
        wLangId=said.wLangId,
        bMsgIndex=said.bMsgIndex,
        bTeoPrologue=said.bTeoPrologue,
        abPINApdu=said.abData,
    )
    return request(wanted, quirks, known)


def _verification(
    wanted: PinVerification, quirks: Quirks, known: PinPadFeatures | None
) -> PinRequest:
    messages, digits = wanted.bNumberMessage, wanted.wPINMaxExtraDigit
    if quirks.pin_verify_messages is not None:
        messages = quirks.pin_verify_messages
    if quirks.pin_swap_extra_digit:
        digits = _swapped(digits, 2)
    case_1 = len(wanted.abPINApdu) == HEADER_LENGTH and wanted.bmPINBlockString == 0
    return PinRequest(
        PinOperation.VERIFICATION,
        dataclasses.replace(
            wanted,
            wPINMaxExtraDigit=digits,
            bEntryValidationCondition=_condition(wanted.bEntryValidationCondition, quirks, known),
            bNumberMessage=messages,
        ),
        quirks.pin_delay_s,
        quirks.pin_case1_escape if case_1 else None,
    )


def modification(
    data: bytes,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
    byteorder: str = sys.byteorder,
) -> PinRequest:
    """A modification that an application asks for, as the reader takes it.

    Args:
        data: PIN_MODIFY_STRUCTURE.
        quirks: What is known of the reader.
        known: What it says itself (:func:`features`).
        byteorder: Of the application's machine.

    Raises:
        MalformedMessage: ``data`` are no such structure, or have a bNumberMessage that 6.1.11.2
            has not.
    """
    said = _parsed(PinModifyStructure, data, byteorder)
    wanted = PinModificationAllIndexes(
        bTimeOut=said.bTimerOut,
        bmFormatString=said.bmFormatString,
        bmPINBlockString=said.bmPINBlockString,
        bmPINLengthFormat=said.bmPINLengthFormat,
        bInsertionOffsetOld=said.bInsertionOffsetOld,
        bInsertionOffsetNew=said.bInsertionOffsetNew,
        wPINMaxExtraDigit=said.wPINMaxExtraDigit,
        bConfirmPIN=said.bConfirmPIN,
        bEntryValidationCondition=said.bEntryValidationCondition,
        bNumberMessage=said.bNumberMessage,
        wLangId=said.wLangId,
        bMsgIndex1=said.bMsgIndex1,
        bMsgIndex2=said.bMsgIndex2,
        bMsgIndex3=said.bMsgIndex3,
        bTeoPrologue=said.bTeoPrologue,
        abPINApdu=said.abData,
    )
    return request(wanted, quirks, known)


def _modification(
    wanted: PinModification, quirks: Quirks, known: PinPadFeatures | None
) -> PinRequest:
    if wanted.bNumberMessage > ALL_MESSAGES and wanted.bNumberMessage != DEFAULT_MESSAGE:
        raise MalformedMessage(
            f"PinModifyStructure: bNumberMessage {wanted.bNumberMessage}", field="bNumberMessage"
        )
    messages, (first, second, third) = _messages(wanted, quirks)
    heeds = known is not None and known.heeds_number_of_messages
    every = quirks.pin_modify_zero_indexes or (quirks.pin_modify_all_indexes and not heeds)
    shape = PinModificationAllIndexes if every else PinModification
    fields = {field.name: getattr(wanted, field.name) for field in dataclasses.fields(wanted)}
    fields |= {
        "bEntryValidationCondition": _condition(wanted.bEntryValidationCondition, quirks, known),
        "bNumberMessage": messages,
        "bMsgIndex1": first,
        "bMsgIndex2": second if every or messages != NO_MESSAGE else None,
        "bMsgIndex3": third if every or messages >= ALL_MESSAGES else None,
    }
    return PinRequest(PinOperation.MODIFICATION, shape(**fields))


def _messages(wanted: PinModification, quirks: Quirks) -> tuple[int, tuple[int, int, int]]:
    """bNumberMessage, and bMsgIndex1 to 3; one that was not given is that of its usual message."""
    if quirks.pin_modify_zero_indexes:
        return NO_MESSAGE, (0, 0, 0)
    number = wanted.bNumberMessage
    if quirks.pin_modify_messages is not None:
        number = quirks.pin_modify_messages
    if number == NO_MESSAGE and quirks.pin_modify_messages_for_0 is not None:
        number = quirks.pin_modify_messages_for_0
    second, third = (
        default if given is None else given
        for given, default in ((wanted.bMsgIndex2, 1), (wanted.bMsgIndex3, 2))
    )
    return number, (wanted.bMsgIndex1, second, third)


# When a reader is opened -----------------------------------------------------------------------


def prepare(
    quirks: Quirks,
    escape: Callable[[bytes], bytes],
    no_retry_counter: bool,
    name: str,
    environment: Mapping[str, str],
) -> None:
    """Have the display of a PIN pad show what it should, and leave the retry counter alone.

    Args:
        quirks: What is known of the reader.
        escape: Sends an Escape and returns its answer.
        no_retry_counter: Keep it from sending an empty VERIFY of its own.
        name: The reader's, for errors.
        environment: The variables of this process, which name the language (POSIX.1-2017, 8.2).

    Raises:
        UnsupportedByReader, CommandFailed: It does not leave the retry counter alone. That it
            does not take the texts is no error: it is a reader all the same.
    """
    if quirks.pin_messages_escape is not None:
        from ccid.pin.pad_texts import language, texts

        with suppress(*REFUSALS):
            escape(quirks.pin_messages_escape + texts(language(_locale(environment))))
    if no_retry_counter:
        if quirks.retry_counter_escape is None:
            raise UnsupportedByReader(
                f"{name}: no Escape is known that keeps it from asking for the retry counter",
                reader=name,
            )
        escape(quirks.retry_counter_escape)


def _locale(environment: Mapping[str, str]) -> str:
    """The locale of messages (POSIX.1-2017, 8.2)."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    return next((environment[name] for name in names if environment.get(name)), "")
