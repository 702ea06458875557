"""The numbers of IFD handler 3.0, and which error of this library is which of them."""

from __future__ import annotations

from enum import IntEnum

from ccid.errors import (
    CardAbsent,
    CardRemoved,
    CcidError,
    PpsFailed,
    ReaderClosed,
    ReaderRemoved,
)


class Code(IntEnum):
    """Response codes, without their prefix ``IFD_``."""

    SUCCESS = 0
    ERROR_TAG = 600
    ERROR_SET_FAILURE = 601
    ERROR_VALUE_READ_ONLY = 602
    ERROR_PTS_FAILURE = 605
    ERROR_NOT_SUPPORTED = 606
    PROTOCOL_NOT_SUPPORTED = 607
    ERROR_POWER_ACTION = 608
    ERROR_SWALLOW = 609
    ERROR_EJECT = 610
    ERROR_CONFISCATE = 611
    COMMUNICATION_ERROR = 612
    RESPONSE_TIMEOUT = 613
    NOT_SUPPORTED = 614
    ICC_PRESENT = 615
    ICC_NOT_PRESENT = 616
    NO_SUCH_DEVICE = 617
    ERROR_INSUFFICIENT_BUFFER = 618


class Action(IntEnum):
    """Actions of IFDHPowerICC, without their prefix ``IFD_``."""

    POWER_UP = 500
    POWER_DOWN = 501
    RESET = 502


class Tag(IntEnum):
    """Tags of IFDHGetCapabilities and IFDHSetCapabilities."""

    SLOTNUM = 0x0180
    ATR = 0x0303
    SLOT_THREAD_SAFE = 0x0FAC
    THREAD_SAFE = 0x0FAD
    SLOTS_NUMBER = 0x0FAE
    SIMULTANEOUS_ACCESS = 0x0FAF
    POLLING_THREAD = 0x0FB0
    POLLING_THREAD_KILLABLE = 0x0FB1
    STOP_POLLING_THREAD = 0x0FB2
    POLLING_THREAD_WITH_TIMEOUT = 0x0FB3
    DEVICE_REMOVED = 0x0FB4
    ATTR_VENDOR_NAME = 0x0001_0100
    ATTR_VENDOR_IFD_VERSION = 0x0001_0102
    ATTR_VENDOR_IFD_SERIAL_NO = 0x0001_0103
    ATTR_CHANNEL_ID = 0x0002_0110
    ATTR_MAXINPUT = 0x0007_A007
    ATTR_ICC_PRESENCE = 0x0009_0300
    ATTR_ICC_INTERFACE_STATUS = 0x0009_0301
    ATTR_ATR_STRING = 0x0009_0303


class Asker(IntEnum):
    """Which of a caller's threads asks for the presence of a card."""

    OTHER = 0
    """One that wants to use the card, and keeps what it hears to itself."""
    WATCHER = 1
    """The one that tells all users of the card."""
    WATCHER_TOLD = 2
    """It again, after it has told that there is none."""


PTS1, PTS2, PTS3 = 0x01, 0x02, 0x04
"""Flags of IFDHSetProtocolParameters: which of the three bytes count."""

MAX_ATR = 33
"""Bytes of the longest ATR (ISO/IEC 7816-3:2006 8.2.1), as PC/SC has room for it."""
MAX_RESPONSE = 65548
"""Bytes of the longest response a caller of this interface has room for."""
SIMULTANEOUS = 255
"""Readers that one handler drives at once."""

ERRORS: tuple[tuple[type[CcidError], Code], ...] = (
    (ReaderRemoved, Code.NO_SUCH_DEVICE),
    (ReaderClosed, Code.NO_SUCH_DEVICE),
    (CardRemoved, Code.ICC_NOT_PRESENT),
    (CardAbsent, Code.ICC_NOT_PRESENT),
    (PpsFailed, Code.ERROR_PTS_FAILURE),
    (CcidError, Code.COMMUNICATION_ERROR),
)
"""The first line that fits counts. What a function maps otherwise, it says itself."""


def code_of(error: CcidError) -> Code:
    """The response code for an error."""
    return next(code for kind, code in ERRORS if isinstance(error, kind))
