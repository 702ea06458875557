"""The numbers of IFD handler 3.0: response codes, actions, tags, flags and limits.

This module imports nothing of the driver, so that the helper process can name a response code
before the driver is loaded. ``plug.c`` repeats what it needs; ``tests/unit/test_plug_numbers.py``
compares both.
"""

from __future__ import annotations

from enum import IntEnum


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
    """Which thread of the daemon asks for the presence of a card."""

    OTHER = 0
    """A thread that wants to use the card. It does not pass the answer on."""
    WATCHER = 1
    """The thread that watches the slot and tells all clients the answer."""
    WATCHER_TOLD = 2
    """The watcher, after it has told all clients that there is no card."""


PTS1, PTS2, PTS3 = 0x01, 0x02, 0x04
"""Flags of IFDHSetProtocolParameters: which of the three bytes count."""

READER_SHIFT, SLOT_MASK = 16, 0xFFFF
"""A Lun is reader number << READER_SHIFT | slot."""
MAX_READERS = 255
"""Readers that one handler drives at once: the value of the tag SIMULTANEOUS_ACCESS."""
MAX_RESPONSE = 65548
"""Bytes of the longest response that a caller of IFDHTransmitToICC has room for."""
