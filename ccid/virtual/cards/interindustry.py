"""Names of the instructions and status bytes of ISO/IEC 7816-4, and a card's refusal."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

from ccid.iso7816.apdu import CommandApdu

CHAINING = 0x10
"""Bit of the class byte: the command is not the last of its chain (ISO/IEC 7816-4:2013 5.4.1)."""


class Ins(IntEnum):
    """Instruction bytes (ISO/IEC 7816-4:2013 5.5) that :class:`FileSystemCard` carries out."""

    VERIFY = 0x20
    CHANGE_REFERENCE_DATA = 0x24
    RESET_RETRY_COUNTER = 0x2C
    MANAGE_CHANNEL = 0x70
    GET_CHALLENGE = 0x84
    SELECT = 0xA4
    READ_BINARY = 0xB0
    READ_BINARY_ODD = 0xB1
    READ_RECORD = 0xB2
    GET_RESPONSE = 0xC0
    GET_DATA = 0xCA
    UPDATE_BINARY = 0xD6
    UPDATE_BINARY_ODD = 0xD7
    UPDATE_RECORD = 0xDC
    APPEND_RECORD = 0xE2


class Sw(IntEnum):
    """Status bytes SW1-SW2 (ISO/IEC 7816-4:2013 5.6)."""

    OK = 0x9000
    END_REACHED = 0x6282
    COUNTER = 0x63C0
    WRONG_LENGTH = 0x6700
    CHANNEL_NOT_SUPPORTED = 0x6881
    SECURE_MESSAGING_NOT_SUPPORTED = 0x6882
    LAST_COMMAND_EXPECTED = 0x6883
    INCOMPATIBLE_FILE_STRUCTURE = 0x6981
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    AUTHENTICATION_METHOD_BLOCKED = 0x6983
    REFERENCE_DATA_NOT_USABLE = 0x6984
    CONDITIONS_OF_USE_NOT_SATISFIED = 0x6985
    NO_CURRENT_EF = 0x6986
    INCORRECT_DATA = 0x6A80
    FUNCTION_NOT_SUPPORTED = 0x6A81
    FILE_NOT_FOUND = 0x6A82
    RECORD_NOT_FOUND = 0x6A83
    NOT_ENOUGH_MEMORY = 0x6A84
    INCORRECT_P1_P2 = 0x6A86
    NC_INCONSISTENT_WITH_P1_P2 = 0x6A87
    REFERENCED_DATA_NOT_FOUND = 0x6A88
    WRONG_P1_P2 = 0x6B00
    INS_NOT_SUPPORTED = 0x6D00
    CLA_NOT_SUPPORTED = 0x6E00


class Refused(Exception):
    """The card answers with these status bytes and without data."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


def joined(begun: CommandApdu | None, command: CommandApdu, most: int) -> CommandApdu:
    """A command with the data of its chain so far (ISO/IEC 7816-4:2013 5.3.3).

    Args:
        begun: The parts before, joined; None for the first part.
        command: The next part.
        most: Bytes of data that a whole chain may have.

    Raises:
        Refused: The chain has more data.
    """
    data = (b"" if begun is None else begun.data) + command.data
    if len(data) > most:
        raise Refused(Sw.WRONG_LENGTH)
    return replace(command, data=data)
