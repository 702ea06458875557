"""The protocol T=0, as the interface device runs it (ISO/IEC 7816-3:2006 10 and 12.2). Pure.

Two machines (generators), one above the other:

- :func:`procedure` sends one TPDU character by character, for readers at character level. The card
  controls the transfer by procedure bytes after the header: NULL (wait), ACK (INS: transfer all
  remaining data; complement of INS: transfer one byte), SW1 (end). The machine yields
  :class:`Characters` and receives the characters from the card.
- :func:`command` sends a command APDU of any case in one or more TPDUs. A command with data in both
  directions goes without Le, and GET RESPONSE fetches the response. After 6Cxx the command goes
  again with the Le that the card names. An extended command goes by ENVELOPE. The machine yields
  TPDUs and receives their responses.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from ccid.errors import InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, SW_LENGTH, Bytes, CommandApdu

NULL = 0x60
"""The procedure byte that asks for more waiting time (10.3.3)."""
GET_RESPONSE, ENVELOPE = 0xC0, 0xC2
"""INS."""
SW_OK = b"\x90\x00"
MORE_DATA, WRONG_LE = 0x61, 0x6C
"""SW1: GET RESPONSE can fetch SW2 bytes; Le is wrong and SW2 is right."""
MAX_SEGMENT = 255
"""Bytes of data in one ENVELOPE, at most."""


class Characters(NamedTuple):
    """A step at character level.

    Attributes:
        data: Characters to send; may be empty.
        expected: Number of characters to receive after that.
    """

    data: bytes
    expected: int

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        return f"Characters(data=<{len(self.data)} bytes>, expected={self.expected})"


# Characters -----------------------------------------------------------------------------------


def procedure(tpdu: bytes, name: str = "T=0") -> Generator[Characters, bytes, bytes]:
    """The machine for one TPDU, controlled by the procedure bytes of the card (10.3).

    Args:
        tpdu: A header of 4 bytes (P3 = 0 is added) or 5 bytes, and P3 bytes of data. A byte after
            the data, the Le of a case 4 command, is not sent: the card announces its response
            data by 61xx.
        name: Name of reader and slot, for errors.

    Returns:
        Response data and SW1 SW2.

    Raises:
        InvalidApdu: INS is 6x or 9x, or the length of the data differs from P3.
        ProtocolError: The card sends a byte that is no procedure byte, or more bytes than
            expected.
    """
    header, data = _split(tpdu)
    ins = header[1]
    expected = 0 if data or len(tpdu) == APDU_HEADER else header[4] or 256
    received = _Stream(name)
    yield from received.send(header, 1)
    response, position = b"", 0
    while True:
        byte = (yield from received.take(1))[0]
        if byte == NULL:
            continue
        if byte >> 4 in (6, 9):
            return response + bytes((byte,)) + (yield from received.take(1))
        if byte not in (ins, ins ^ 0xFF):
            raise ProtocolError(
                f"{name}: the card answers the header by no procedure byte that there is",
                may_have_executed=position > 0 or not data,
            )
        size = 1 if byte != ins else None  # one byte, or all remaining bytes
        if data:
            part = data[position:] if size is None else data[position : position + 1]
            if not part:
                raise ProtocolError(
                    f"{name}: the card asks for more data than P3 announces",
                    may_have_executed=True,
                )
            position += len(part)
            yield from received.send(part, 1)
        else:
            missing = expected - len(response)
            if missing < 1:
                raise ProtocolError(
                    f"{name}: the card sends more data than P3 asks for", may_have_executed=True
                )
            # after the last byte come SW1 SW2, after any other byte a procedure byte
            beyond = SW_LENGTH if size is None or missing == 1 else 1
            response += yield from received.take(size or missing, beyond)


def _split(tpdu: bytes) -> tuple[bytes, bytes]:
    """The header with P3, and the data without Le."""
    if len(tpdu) < APDU_HEADER:
        raise InvalidApdu(f"{len(tpdu)} bytes; a command APDU has at least {APDU_HEADER}")
    if tpdu[1] >> 4 in (6, 9):
        raise InvalidApdu("an INS of 6x or 9x is not for T=0: it would look like SW1")
    header, data = bytes(tpdu[:5]), bytes(tpdu[5:])
    if len(tpdu) == APDU_HEADER:
        return header + b"\0", b""
    if data and len(data) == header[4] + 1:
        data = data[:-1]
    if data and len(data) != header[4]:
        raise InvalidApdu(f"P3 says {header[4]} bytes of data, {len(data)} follow")
    return header, data


class _Stream:
    """The characters from the card. Never requests more characters than are certain to come: the
    reader would wait for them until its time limit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._received = b""

    def send(self, data: bytes, expected: int) -> Generator[Characters, bytes, None]:
        """Send ``data``, and receive up to ``expected`` characters."""
        if self._received:
            raise ProtocolError(
                f"{self._name}: the card sent {len(self._received)} bytes nobody asked for",
                may_have_executed=True,
            )
        self._keep((yield Characters(data, expected)), expected)

    def take(self, count: int, beyond: int = 0) -> Generator[Characters, bytes, bytes]:
        """The next ``count`` characters. A request to the reader, if one is necessary, asks for
        ``beyond`` more."""
        while len(self._received) < count:
            missing = count + beyond - len(self._received)
            self._keep((yield Characters(b"", missing)), missing)
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _keep(self, characters: bytes, expected: int) -> None:
        if not characters or len(characters) > expected:
            raise ProtocolError(
                f"{self._name}: {len(characters)} characters came where {expected} were asked for",
                may_have_executed=True,
            )
        self._received += characters


# Commands -------------------------------------------------------------------------------------


def command(apdu: Bytes) -> Generator[bytes, bytes, bytes]:
    """The machine for a command APDU of any case, in TPDUs (12.2).

    Args:
        apdu: The command APDU.

    Returns:
        The whole response APDU.

    Raises:
        InvalidApdu: ``apdu`` is no command APDU.
        ProtocolError: The card repeats 61xx or 6Cxx without end, or sends no status word.
    """
    parsed = CommandApdu.parse(bytes(apdu))
    if len(parsed.data) > MAX_SEGMENT:
        response = yield from _by_envelope(parsed, bytes(apdu))
    elif parsed.data:
        response = yield parsed.header + bytes((len(parsed.data),)) + parsed.data
    elif parsed.ne:
        response = yield from _fetch(parsed.header, parsed.ne)
    else:
        response = yield parsed.header  # the reader adds P3 = 0
    status = _status(response)
    if parsed.data and parsed.ne and status == SW_OK and len(response) == SW_LENGTH:
        # Case 4S.2: the card accepts the command, and GET RESPONSE fetches the data (12.2.5)
        response = yield from _fetch(_get_response(parsed), parsed.ne)
    return (yield from _complete(parsed, response))


def _fetch(header: bytes, ne: int) -> Generator[bytes, bytes, bytes]:
    """A case 2 command: the response of ``ne`` bytes, or of the length that the card names by
    6Cxx (12.2.3)."""
    response = yield header + bytes((ne & 0xFF if ne <= 256 else 0,))
    status = _status(response)
    if status[0] == WRONG_LE and len(response) == SW_LENGTH:
        response = yield header + status[1:]
        if _status(response)[0] == WRONG_LE:
            raise ProtocolError("the card answers 6Cxx to the Le it asked for")
        if len(response) - SW_LENGTH > ne:
            response = response[:ne] + response[-SW_LENGTH:]
    return response


def _complete(parsed: CommandApdu, response: bytes) -> Generator[bytes, bytes, bytes]:
    """Fetch the data that 61xx announces, until no data are left or Ne bytes are complete
    (12.2.4)."""
    data, status = response[:-SW_LENGTH], _status(response)
    while status[0] == MORE_DATA and parsed.ne > len(data):
        count = min(status[1] or 256, parsed.ne - len(data))
        response = yield from _fetch(_get_response(parsed), count)
        status = _status(response)
        if len(response) == SW_LENGTH and status[0] == MORE_DATA:
            raise ProtocolError("the card announces data and does not send it")
        data += response[:-SW_LENGTH]
    return data + status


def _by_envelope(parsed: CommandApdu, apdu: bytes) -> Generator[bytes, bytes, bytes]:
    """Send an APDU with more than 255 bytes of data as the data of ENVELOPE commands (12.2.6)."""
    head = bytes((_class(parsed.cla), ENVELOPE, 0, 0))
    starts = range(0, len(apdu), MAX_SEGMENT)
    response = b""
    for start in starts:
        segment = apdu[start : start + MAX_SEGMENT]
        response = yield head + bytes((len(segment),)) + segment
        if start != starts[-1] and _status(response) != SW_OK:
            break
    return response


def _get_response(parsed: CommandApdu) -> bytes:
    return bytes((_class(parsed.cla), GET_RESPONSE, 0, 0))


def _class(cla: int) -> int:
    """CLA of GET RESPONSE and ENVELOPE: the logical channel of ``cla``, without command chaining
    and secure messaging (ISO/IEC 7816-4:2013 5.4.1)."""
    if cla >> 5 == 0:
        return cla & 0x03
    return cla & 0x4F if cla >> 6 == 1 else cla


def _status(response: bytes) -> bytes:
    """SW1 SW2 of ``response``."""
    if len(response) < SW_LENGTH:
        raise ProtocolError(f"{len(response)} bytes in answer to a command", may_have_executed=True)
    return response[-SW_LENGTH:]
