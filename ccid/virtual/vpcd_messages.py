"""The vpcd protocol of the vsmartcard project: bytes to messages and back, pure.

A program that provides a card (the card side) and a program that has a reader (the reader side) are
connected by TCP. One connection carries one card: the card is inserted while the connection stands.
A message in either direction is a length, two bytes big-endian, and as many bytes. A message of the
reader side of one byte is a control message; a longer one is a command APDU::

    00 01 00                power off       no answer
    00 01 01                power on        no answer
    00 01 02                reset           no answer
    00 01 04                ATR wanted      the answer is the ATR
    00 05 00 84 00 00 08    command APDU    the answer is the response APDU

No message is empty, and no command APDU has one byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from ccid.errors import MalformedMessage

DEFAULT_PORT = 35963
"""The customary TCP port of the reader side."""
MAX_MESSAGE = 0xFFFF
"""Bytes of the longest message: the length has two bytes."""
LENGTH_SIZE = 2
MIN_ATR, MAX_ATR = 2, 33
"""Bytes of an ATR: TS, T0 and at most 31 more (ISO/IEC 7816-3:2006 8.2.1)."""
MIN_RESPONSE = 2
"""Bytes of the shortest response APDU, SW1 SW2."""


class Control(IntEnum):
    """Control messages of the reader side."""

    POWER_OFF = 0
    POWER_ON = 1
    RESET = 2
    ATR = 4


def frame(content: bytes) -> bytes:
    """A message with this content.

    Raises:
        MalformedMessage: ``content`` is empty or longer than 65,535 bytes.
    """
    if not 0 < len(content) <= MAX_MESSAGE:
        raise MalformedMessage(f"vpcd: a message of {len(content)} bytes", field="length")
    return len(content).to_bytes(LENGTH_SIZE, "big") + content


def control(code: Control) -> bytes:
    """A control message of the reader side."""
    return frame(bytes((code,)))


def control_in(content: bytes) -> Control | None:
    """The control code in a message of the reader side; None for a command APDU.

    Raises:
        MalformedMessage: The code is not one of :class:`Control`.
    """
    if len(content) != 1:
        return None
    try:
        return Control(content[0])
    except ValueError:
        raise MalformedMessage(
            f"vpcd: 0x{content[0]:02X} is not a control code", field="control"
        ) from None


def checked_atr(content: bytes) -> bytes:
    """``content``, a message of the card side, as an ATR.

    Raises:
        MalformedMessage: No ATR has this length.
    """
    if not MIN_ATR <= len(content) <= MAX_ATR:
        raise MalformedMessage(f"vpcd: an ATR of {len(content)} bytes", field="length")
    return content


def checked_response(content: bytes) -> bytes:
    """``content``, a message of the card side, as a response APDU.

    Raises:
        MalformedMessage: The response APDU lacks SW1 SW2.
    """
    if len(content) < MIN_RESPONSE:
        raise MalformedMessage(f"vpcd: a response APDU of {len(content)} bytes", field="length")
    return content


class MessageStream:
    """Cuts the bytes of one direction of a connection into messages.

    The stream keeps one incomplete message at most, so less than 65,537 bytes.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_partial(self) -> bool:
        """True if a message is incomplete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take ``data``; return the contents of the messages that are complete now.

        Raises:
            MalformedMessage: A message is empty; the stream is unusable afterwards.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH_SIZE:
            length = int.from_bytes(buffer[:LENGTH_SIZE], "big")
            if not length:
                raise MalformedMessage("vpcd: an empty message", field="length")
            end = LENGTH_SIZE + length
            if len(buffer) < end:
                return
            content = bytes(buffer[LENGTH_SIZE:end])
            del buffer[:end]
            yield content
