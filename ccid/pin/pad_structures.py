"""PIN pad structures: from PC/SC part 10 to PC_to_RDR_Secure, adapted to the reader. Pure.

An application describes how a user enters a PIN and where the PIN goes in the command APDU:
PIN_VERIFY_STRUCTURE or PIN_MODIFY_STRUCTURE (PC/SC part 10, 2.5.2 and 2.5.3). :func:`verification`
and :func:`modification` translate the structure to abPINDataStructure of PC_to_RDR_Secure (USB CCID
rev 1.1, 6.1.11). Readers accept different values; the quirks of the reader say which.

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
from typing import NamedTuple, TypeVar

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.layouts import Byte, Bytes, GreedyBytes, Int16ul, Int32ul
from ccid.codec.messages.structures import (
    PinModification,
    PinModificationAllIndexes,
    PinVerification,
)
from ccid.codes import ENGLISH_US, PinOperation
from ccid.errors import CardAbsent, CardMute, CommandFailed, MalformedMessage, UnsupportedByReader
from ccid.ground.records import record, vars_of
from ccid.iso7816.apdu import APDU_HEADER
from ccid.known.quirks import Quirks

REFUSALS = (CardAbsent, CardMute, CommandFailed, UnsupportedByReader)
"""Errors by which a reader refuses an Escape, with or without a card in the slot."""
ENTRY_S = 90.0
"""Shortest time-out for a PIN entry, in seconds: a user needs that long."""
MARGIN_S = 10.0
"""Seconds that the reader may need beyond bTimeOut."""
ENTER_KEY = 0x02
"""bEntryValidationCondition: the PIN ends with the Enter key."""
ALL_CONDITIONS = 0x07
"""bEntryValidationCondition: maximum size reached, Enter key, or time-out."""
FEATURES_LENGTH = 21
"""Bytes of the block that the Escape of the quirk ``features-escape`` returns."""
NO_MESSAGE, ALL_MESSAGES, DEFAULT_MESSAGE = 0, 3, 0xFF
"""Values of bNumberMessage of a modification (USB CCID rev 1.1, 6.1.11.2)."""


# Structures from applications ------------------------------------------------------------------


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
    wLangId: int = wire(Int16ul, default=ENGLISH_US)
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
    wLangId: int = wire(Int16ul, default=ENGLISH_US)
    bMsgIndex1: int = wire(Byte, default=0)
    bMsgIndex2: int = wire(Byte, default=1)
    bMsgIndex3: int = wire(Byte, default=2)
    bTeoPrologue: bytes = wire(Bytes(3), default=bytes(3))
    ulDataLength: int = wire(Int32ul)
    abData: bytes = wire(GreedyBytes, default=b"", secret=True)


S = TypeVar("S", PinVerifyStructure, PinModifyStructure)


def _parsed(cls: type[S], data: bytes, byteorder: str) -> S:
    """``data`` as a structure of type ``cls``.

    The numbers are little-endian. They are big-endian if ``byteorder`` is ``"big"`` and
    ulDataLength says so: an application on a big-endian machine writes them either way.

    Raises:
        MalformedMessage: ``data`` are no such structure, or hold no command APDU.
    """
    structure = cls.parse(data)
    if byteorder == "big" and structure.ulDataLength == _swapped(len(structure.abData), 4):
        structure = dataclasses.replace(
            structure,
            wPINMaxExtraDigit=_swapped(structure.wPINMaxExtraDigit, 2),
            wLangId=_swapped(structure.wLangId, 2),
            ulDataLength=_swapped(structure.ulDataLength, 4),
        )
    size = len(structure.abData)
    if structure.ulDataLength != size or size < APDU_HEADER:
        raise MalformedMessage(
            f"{cls.__name__}: ulDataLength says {structure.ulDataLength} bytes of APDU, "
            f"{size} are there",
            field="ulDataLength",
        )
    return structure


def _swapped(number: int, size: int) -> int:
    """``number`` with its ``size`` bytes in reverse order."""
    return int.from_bytes(number.to_bytes(size, "little"), "big")


def _for_secure(
    structure: PinVerifyStructure | PinModifyStructure,
) -> PinVerification | PinModification:
    """The structure of PC_to_RDR_Secure with the values of an application's structure.

    The fields have the same names, except bTimerOut (bTimeOut) and abData (abPINApdu). bTimerOut2
    and ulDataLength have no counterpart. A modification keeps all three message indexes.
    """
    values = vars_of(structure)
    del values["bTimerOut2"], values["ulDataLength"]
    values["bTimeOut"] = values.pop("bTimerOut")
    values["abPINApdu"] = values.pop("abData")
    if isinstance(structure, PinVerifyStructure):
        return PinVerification(**values)
    return PinModificationAllIndexes(**values)


# Features of the PIN pad -----------------------------------------------------------------------


class PinPadFeatures(NamedTuple):
    """Features of a PIN pad, from the block that the Escape of ``features-escape`` returns.

    Attributes:
        bEntryValidationCondition: The bits that the PIN pad accepts.
        heeds_number_of_messages: A modification carries as many message indexes as its
            bNumberMessage says.
        fewest, most: Least and greatest number of digits of a PIN.
    """

    bEntryValidationCondition: int
    heeds_number_of_messages: bool
    fewest: int
    most: int

    @classmethod
    def parse(cls, block: bytes) -> PinPadFeatures | None:
        """The features in ``block``; None if ``block`` does not have 21 bytes."""
        if len(block) != FEATURES_LENGTH:
            return None
        return cls(block[3], bool(block[8] & 0x04), block[13], block[14])


def features(quirks: Quirks, escape: Callable[[bytes], bytes]) -> PinPadFeatures | None:
    """Ask a reader for the features of its PIN pad.

    Args:
        quirks: The quirks of the reader.
        escape: Sends an Escape and returns the answer.

    Returns:
        The features; None if the reader has no ``features-escape`` or refuses the Escape.
    """
    if quirks.features_escape is None:
        return None
    try:
        return PinPadFeatures.parse(escape(quirks.features_escape))
    except REFUSALS:
        return None


class PinProperties(NamedTuple):
    """Properties of a PIN pad for applications (PC/SC part 10).

    Attributes:
        bEntryValidationCondition: The bits that the PIN pad accepts.
        sizes: Least and greatest number of digits of a PIN; None if they are unknown.
    """

    bEntryValidationCondition: int
    sizes: tuple[int, int] | None


def properties(quirks: Quirks, known: PinPadFeatures | None = None) -> PinProperties:
    """The properties of a PIN pad for applications.

    Args:
        quirks: The quirks of the reader.
        known: The features that the reader reported (:func:`features`); None without them.
    """
    if known is not None:
        return PinProperties(known.bEntryValidationCondition, (known.fewest, known.most))
    reported = quirks.pin_validation_reported
    return PinProperties(ALL_CONDITIONS if reported is None else reported, quirks.pin_sizes)


# Structures for the reader ---------------------------------------------------------------------


@record
class PinRequest:
    """One PIN entry, in the form that the reader accepts.

    Attributes:
        structure: abPINDataStructure, without bPINOperation.
        delay_s: Seconds to wait before PC_to_RDR_Secure.
        escape: An Escape to send before PC_to_RDR_Secure; None for none. If the Escape fails,
            PC_to_RDR_Secure is not sent.
    """

    structure: PinVerification | PinModification
    delay_s: float = 0.0
    escape: bytes | None = None

    @property
    def bPINOperation(self) -> PinOperation:  # noqa: N802 - the specification's name
        """Verification or modification (USB CCID rev 1.1, 6.1.11)."""
        return operation_of(self.structure)

    @property
    def timeout_s(self) -> float:
        """Seconds to wait for the reply, without time extensions."""
        return entry_timeout_s(self.structure.bTimeOut)


def operation_of(structure: PinVerification | PinModification) -> PinOperation:
    """bPINOperation of a structure (USB CCID rev 1.1, 6.1.11)."""
    if isinstance(structure, PinVerification):
        return PinOperation.VERIFICATION
    return PinOperation.MODIFICATION


def entry_timeout_s(bTimeOut: int) -> float:
    """Seconds to wait for the reply to a PIN entry.

    Args:
        bTimeOut: Seconds that the reader waits for the PIN.
    """
    return max(ENTRY_S, bTimeOut + MARGIN_S)


def _condition(requested: int, quirks: Quirks, known: PinPadFeatures | None) -> int:
    """bEntryValidationCondition for this reader: a wrong value crashes some readers."""
    condition = requested if 1 <= requested <= ALL_CONDITIONS else ENTER_KEY
    if quirks.pin_entry_validation is not None:
        condition = quirks.pin_entry_validation
    return condition if known is None else condition & known.bEntryValidationCondition


def request(
    structure: PinVerification | PinModification,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
) -> PinRequest:
    """A PIN entry in the form that the reader accepts. Every PIN entry passes here.

    Args:
        structure: The PIN entry as the specification describes it.
        quirks: The quirks of the reader.
        known: The features that the reader reported (:func:`features`); None without them.

    Raises:
        MalformedMessage: bNumberMessage has a value that USB CCID rev 1.1, 6.1.11.2 does not
            define.
    """
    condition = _condition(structure.bEntryValidationCondition, quirks, known)
    structure = dataclasses.replace(structure, bEntryValidationCondition=condition)
    if isinstance(structure, PinVerification):
        return _verification(structure, quirks)
    return _modification(structure, quirks, known)


def verification(
    data: bytes,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
    byteorder: str = sys.byteorder,
) -> PinRequest:
    """The PIN verification that an application requests, in the form that the reader accepts.

    Args:
        data: PIN_VERIFY_STRUCTURE (PC/SC part 10, 2.5.2).
        quirks: The quirks of the reader.
        known: The features that the reader reported (:func:`features`); None without them.
        byteorder: ``"little"`` or ``"big"``, of the machine of the application.

    Raises:
        MalformedMessage: ``data`` are no such structure.
    """
    return request(_for_secure(_parsed(PinVerifyStructure, data, byteorder)), quirks, known)


def _verification(structure: PinVerification, quirks: Quirks) -> PinRequest:
    messages, digits = structure.bNumberMessage, structure.wPINMaxExtraDigit
    if quirks.pin_verify_messages is not None:
        messages = quirks.pin_verify_messages
    if quirks.pin_swap_extra_digit:
        digits = _swapped(digits, 2)
    case_1 = len(structure.abPINApdu) == APDU_HEADER and structure.bmPINBlockString == 0
    return PinRequest(
        dataclasses.replace(structure, wPINMaxExtraDigit=digits, bNumberMessage=messages),
        quirks.pin_delay_s,
        quirks.pin_case1_escape if case_1 else None,
    )


def modification(
    data: bytes,
    quirks: Quirks,
    known: PinPadFeatures | None = None,
    byteorder: str = sys.byteorder,
) -> PinRequest:
    """The PIN modification that an application requests, in the form that the reader accepts.

    Args:
        data: PIN_MODIFY_STRUCTURE (PC/SC part 10, 2.5.3).
        quirks: The quirks of the reader.
        known: The features that the reader reported (:func:`features`); None without them.
        byteorder: ``"little"`` or ``"big"``, of the machine of the application.

    Raises:
        MalformedMessage: ``data`` are no such structure, or bNumberMessage has a value that USB
            CCID rev 1.1, 6.1.11.2 does not define.
    """
    return request(_for_secure(_parsed(PinModifyStructure, data, byteorder)), quirks, known)


def _modification(
    structure: PinModification, quirks: Quirks, known: PinPadFeatures | None
) -> PinRequest:
    if structure.bNumberMessage > ALL_MESSAGES and structure.bNumberMessage != DEFAULT_MESSAGE:
        raise MalformedMessage(
            f"PinModifyStructure: bNumberMessage {structure.bNumberMessage}",
            field="bNumberMessage",
        )
    messages, (first, second, third) = _messages(structure, quirks)
    heeds_number = known is not None and known.heeds_number_of_messages
    all_indexes = quirks.pin_modify_zero_indexes or (
        quirks.pin_modify_all_indexes and not heeds_number
    )
    shape = PinModificationAllIndexes if all_indexes else PinModification
    values = vars_of(structure) | {
        "bNumberMessage": messages,
        "bMsgIndex1": first,
        "bMsgIndex2": second if all_indexes or messages != NO_MESSAGE else None,
        "bMsgIndex3": third if all_indexes or messages >= ALL_MESSAGES else None,
    }
    return PinRequest(shape(**values))


def _messages(structure: PinModification, quirks: Quirks) -> tuple[int, tuple[int, int, int]]:
    """bNumberMessage and bMsgIndex1 to bMsgIndex3. An index that the structure lacks is the index
    of the usual message: 1 (new PIN) for bMsgIndex2, 2 (confirm) for bMsgIndex3."""
    if quirks.pin_modify_zero_indexes:
        return NO_MESSAGE, (0, 0, 0)
    number = structure.bNumberMessage
    if quirks.pin_modify_messages is not None:
        number = quirks.pin_modify_messages
    if number == NO_MESSAGE and quirks.pin_modify_messages_for_0 is not None:
        number = quirks.pin_modify_messages_for_0
    second, third = (
        default if given is None else given
        for given, default in ((structure.bMsgIndex2, 1), (structure.bMsgIndex3, 2))
    )
    return number, (structure.bMsgIndex1, second, third)


# Setting up the PIN pad ------------------------------------------------------------------------


def prepare(
    quirks: Quirks,
    escape: Callable[[bytes], bytes],
    no_retry_counter: bool,
    name: str,
    environment: Mapping[str, str],
) -> None:
    """Set up the PIN pad of a reader that was just opened: display texts and retry counter.

    A reader that refuses the texts stays usable; that is no error.

    Args:
        quirks: The quirks of the reader.
        escape: Sends an Escape and returns the answer.
        no_retry_counter: Keep the reader from sending an empty VERIFY to read the retry counter.
        name: The name of the reader, for errors.
        environment: The environment variables that name the locale (POSIX.1-2017, 8.2).

    Raises:
        UnsupportedByReader, CommandFailed: The reader cannot be kept from reading the retry
            counter.
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
    """The locale for messages that the environment variables name (POSIX.1-2017, 8.2); empty
    without one."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    return next((environment[name] for name in names if environment.get(name)), "")
