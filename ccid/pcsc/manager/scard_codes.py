"""The numbers of PC/SC as pcsc-lite has them: return codes, modes, states; and the one error."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class ScardCode(IntEnum):
    """Return codes, without their prefix ``SCARD_``."""

    S_SUCCESS = 0
    F_INTERNAL_ERROR = 0x8010_0001
    E_CANCELLED = 0x8010_0002
    E_INVALID_HANDLE = 0x8010_0003
    E_INVALID_PARAMETER = 0x8010_0004
    E_NO_MEMORY = 0x8010_0006
    E_INSUFFICIENT_BUFFER = 0x8010_0008
    E_UNKNOWN_READER = 0x8010_0009
    E_TIMEOUT = 0x8010_000A
    E_SHARING_VIOLATION = 0x8010_000B
    E_NO_SMARTCARD = 0x8010_000C
    E_PROTO_MISMATCH = 0x8010_000F
    E_INVALID_VALUE = 0x8010_0011
    E_SYSTEM_CANCELLED = 0x8010_0012
    F_COMM_ERROR = 0x8010_0013
    E_NOT_TRANSACTED = 0x8010_0016
    E_READER_UNAVAILABLE = 0x8010_0017
    P_SHUTDOWN = 0x8010_0018
    E_NO_SERVICE = 0x8010_001D
    E_SERVICE_STOPPED = 0x8010_001E
    E_UNSUPPORTED_FEATURE = 0x8010_001F
    E_NO_READERS_AVAILABLE = 0x8010_002E
    W_UNRESPONSIVE_CARD = 0x8010_0066
    W_UNPOWERED_CARD = 0x8010_0067
    W_RESET_CARD = 0x8010_0068
    W_REMOVED_CARD = 0x8010_0069
    W_SECURITY_VIOLATION = 0x8010_006A


class ScardError(Exception):
    """A PC/SC function did not succeed.

    Attributes:
        code: Its return code.
    """

    def __init__(self, code: ScardCode) -> None:
        super().__init__(f"SCARD_{code.name}")
        self.code = code


class Scope(IntEnum):
    """Scopes of a context, ``SCARD_SCOPE_…``. They have no effect."""

    USER = 0
    TERMINAL = 1
    SYSTEM = 2
    GLOBAL = 3


class Share(IntEnum):
    """Share modes, ``SCARD_SHARE_…``."""

    EXCLUSIVE = 1
    SHARED = 2
    DIRECT = 3


class Disposition(IntEnum):
    """What becomes of a card, ``SCARD_LEAVE_CARD`` and so on."""

    LEAVE = 0
    RESET = 1
    UNPOWER = 2
    EJECT = 3


class Proto(IntFlag):
    """Protocols of PC/SC, ``SCARD_PROTOCOL_…``."""

    UNSET = 0
    T0 = 1
    T1 = 2
    RAW = 4
    T15 = 8
    ANY_OLD = 0x1000
    """What SCARD_PROTOCOL_ANY was once: T=0 or T=1; in a send header: the active protocol."""


class CardBits(IntFlag):
    """State of a reader as SCardStatus tells it: ``SCARD_ABSENT`` and so on."""

    UNKNOWN = 0x01
    ABSENT = 0x02
    PRESENT = 0x04
    SWALLOWED = 0x08
    POWERED = 0x10
    NEGOTIABLE = 0x20


class StateBits(IntFlag):
    """States of SCardGetStatusChange, ``SCARD_STATE_…``."""

    UNAWARE = 0
    IGNORE = 0x0001
    CHANGED = 0x0002
    UNKNOWN = 0x0004
    UNAVAILABLE = 0x0008
    EMPTY = 0x0010
    PRESENT = 0x0020
    ATRMATCH = 0x0040
    EXCLUSIVE = 0x0080
    INUSE = 0x0100
    MUTE = 0x0200
    UNPOWERED = 0x0400


INFINITE = 0xFFFF_FFFF
"""A time-out in milliseconds that never comes."""
INFINITE_OF_PYSCARD = 0x7FFF_FFFF
"""pyscard's INFINITE: means the same."""
PNP_READER = "\\\\?PnP?\\Notification"
"""The name that stands for "a reader comes or goes" in SCardGetStatusChange, in any case."""
READER_GROUP = "SCard$DefaultReaders"
"""The only group of readers."""

DEFAULT_SLOTS = 16
"""Readers, a slot counted as one, that libpcsclite before 2.5 has room for."""
MAX_ATTRIBUTE = 264
"""Bytes of the longest attribute (MAX_BUFFER_SIZE)."""
MAX_EXTENDED = 65548
"""Bytes of the longest command and response (MAX_BUFFER_SIZE_EXTENDED)."""
MAX_READER_NAME = 127
"""Bytes of the longest reader name, without its NUL."""
MAX_CONTEXT_HANDLES = 200
"""Card handles of one context."""
MAX_READER_HANDLES = 200
"""Card handles of one reader."""

ATTR_ATR_STRING = 0x0009_0303
ATTR_DEVICE_FRIENDLY_NAME_A = 0x7FFF_0003
ATTR_DEVICE_SYSTEM_NAME_A = 0x7FFF_0004
FIRST_ATTRIBUTE = 0x0001_0000
"""Attributes of PC/SC begin here; smaller numbers are tags of an IFD handler, for no client."""
