"""Arguments as pyscard's functions take them: what is of the wrong type raises TypeError; pure."""

from __future__ import annotations

from typing import Any

from ccid.pcsc.manager.status_changes import ReaderState
from ccid.pcsc.scard.scard_constants import SCARD_STATE_CHANGED

DWORD = 0xFFFF_FFFF
"""Numbers are cut to 32 bits, as on their way to pcscd."""


def number(value: Any, name: str) -> int:
    """A DWORD.

    Raises:
        TypeError: It is no ``int``.
    """
    if not isinstance(value, int):
        raise TypeError(f"{name}: an int is expected, not {type(value).__name__}")
    return value & DWORD


def text(value: Any, name: str) -> str:
    """A name.

    Raises:
        TypeError: It is no ``str``.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: a str is expected, not {type(value).__name__}")
    return value


def names(value: Any, name: str) -> list[str]:
    """A list of names.

    Raises:
        TypeError: It is no list of ``str``.
    """
    if not isinstance(value, list):
        raise TypeError(f"{name}: a list is expected, not {type(value).__name__}")
    return [text(item, name) for item in value]


def byte_list(value: Any, name: str) -> bytes:
    """The bytes of a list of numbers, each cut to 8 bits.

    Raises:
        TypeError: It is no list of ``int``. No value is in the text: it may be a PIN's.
    """
    if not isinstance(value, list):
        raise TypeError(f"{name}: a list is expected, not {type(value).__name__}")
    try:
        return bytes(value)
    except (TypeError, ValueError):
        pass  # not raised from here: its text has the value
    if not all(isinstance(item, int) for item in value):
        raise TypeError(f"{name}: a list of int is expected")
    return bytes(item & 0xFF for item in value)


def reader_states(value: Any) -> list[ReaderState]:
    """What SCardGetStatusChange is asked: tuples of a name, a state, and perhaps an ATR.

    Raises:
        TypeError: It is no list of such tuples.
    """
    if not isinstance(value, list):
        raise TypeError(f"readerstatelist: a list is expected, not {type(value).__name__}")
    return [_reader_state(item) for item in value]


def _reader_state(item: Any) -> ReaderState:
    if not isinstance(item, tuple) or len(item) not in (2, 3):
        raise TypeError("readerstatelist: tuples of two or three items are expected")
    name, state = text(item[0], "reader name"), number(item[1], "reader state")
    if len(item) == 3:
        byte_list(item[2], "ATR")  # the manager compares none
    return ReaderState(name, state & ~SCARD_STATE_CHANGED)
