"""T=0, the interface device's side: ISO/IEC 7816-3:2006 10 and 12.2.

Two machines, one above the other, both without input or output.

:func:`procedure` sends one TPDU character by character, for readers at character level. The card
directs it by procedure bytes after the header: NULL (wait on), ACK (INS: all remaining data; its
complement: one byte), SW1 (the end). It yields :class:`Characters` and is sent those that came.

:func:`command` carries an APDU of any case by one or more TPDUs: a command with data both ways
goes without its Le and fetches the response by GET RESPONSE, a wrong Le is repeated as the card
wishes, an extended command goes by ENVELOPE. It yields TPDUs and is sent their responses.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from ccid.errors import InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, SW_LENGTH, Bytes, CommandApdu

NULL = 0x60
GET_RESPONSE, ENVELOPE = 0xC0, 0xC2
SW_OK = b"\x90\x00"
MORE_DATA, WRONG_LE = 0x61, 0x6C
"""SW1: SW2 bytes are waiting for GET RESPONSE; Le should have been SW2."""
MAX_SEGMENT = 255
"""Bytes of an ENVELOPE's data."""


class Characters(NamedTuple):
    """A step at character level.

    Attributes:
        data: Characters to send, perhaps none.
        expected: How many to wait for then.
    """

    data: bytes
    expected: int


# Characters -----------------------------------------------------------------------------------


def procedure(tpdu: bytes, name: str = "T=0") -> Generator[Characters, bytes, bytes]:
    """One TPDU, directed by the card's procedure bytes (10.3).

    Args:
        tpdu: A header of 4 bytes (P3 = 0 is added) or 5, and the data that P3 announces. With
            data, a byte after them, the Le of a case 4 command, is not sent: the card tells by
            61xx what there is.
        name: Of reader and slot, for errors.

    Returns:
        Response data and SW1 SW2.

    Raises:
        InvalidApdu: INS is 6x or 9x, or P3 and the data do not agree.
        ProtocolError: The card sends no procedure byte, or more than it was asked for.
    """
    header, data = _split(tpdu)
    ins = header[1]
    expected = 0 if data or len(tpdu) == APDU_HEADER else header[4] or 256
    came = _Stream(name)
    yield from came.send(header, 1)
    response, position = b"", 0
    while True:
        byte = (yield from came.take(1))[0]
        if byte == NULL:
            continue
        if byte >> 4 in (6, 9):
            return response + bytes((byte,)) + (yield from came.take(1))
        if byte not in (ins, ins ^ 0xFF):
            raise ProtocolError(
                f"{name}: the card answers the header by no procedure byte that there is",
                may_have_executed=position > 0 or not data,
            )
        size = 1 if byte != ins else None  # one byte, or all that remain
        if data:
            part = data[position:] if size is None else data[position : position + 1]
            if not part:
                raise ProtocolError(
                    f"{name}: the card asks for more data than P3 announces",
                    may_have_executed=True,
                )
            position += len(part)
            yield from came.send(part, 1)
        else:
            missing = expected - len(response)
            if missing < 1:
                raise ProtocolError(
                    f"{name}: the card sends more data than P3 asks for", may_have_executed=True
                )
            # SW1 SW2 follow the last byte for certain, a procedure byte any other
            beyond = SW_LENGTH if size is None or missing == 1 else 1
            response += yield from came.take(size or missing, beyond)


def _split(tpdu: bytes) -> tuple[bytes, bytes]:
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
    """Characters of the card, asked for no more than they are sure to come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._came = b""

    def send(self, data: bytes, expected: int) -> Generator[Characters, bytes, None]:
        if self._came:
            raise ProtocolError(
                f"{self._name}: the card sent {len(self._came)} bytes nobody asked for",
                may_have_executed=True,
            )
        self._keep((yield Characters(data, expected)), expected)

    def take(self, count: int, beyond: int = 0) -> Generator[Characters, bytes, bytes]:
        """The next ``count`` characters; where any have to be fetched, ``beyond`` more."""
        while len(self._came) < count:
            missing = count + beyond - len(self._came)
            self._keep((yield Characters(b"", missing)), missing)
        taken, self._came = self._came[:count], self._came[count:]
        return taken

    def _keep(self, came: bytes, asked: int) -> None:
        if not came or len(came) > asked:
            raise ProtocolError(
                f"{self._name}: {len(came)} characters came where {asked} were asked for",
                may_have_executed=True,
            )
        self._came += came


# Commands -------------------------------------------------------------------------------------


def command(apdu: Bytes) -> Generator[bytes, bytes, bytes]:
    """A command APDU of any case by TPDUs, and its whole response (12.2).

    Raises:
        InvalidApdu: It is none.
        ProtocolError: The card goes round in circles, or answers by no status.
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
        # Case 4.2: accepted, and what it has to say has to be asked for (12.2.5)
        response = yield from _fetch(_get_response(parsed), parsed.ne)
    return (yield from _complete(parsed, response))


def _fetch(header: bytes, ne: int) -> Generator[bytes, bytes, bytes]:
    """Case 2: ``ne`` bytes, or as many as the card says there are (12.2.3)."""
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
    """Fetch what 61xx announces until nothing is left, or Ne bytes are there (12.2.4)."""
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
    """An APDU with more than 255 bytes of data, in the data of ENVELOPE (12.2.6)."""
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
    """CLA for GET RESPONSE and ENVELOPE: the channel stays, chaining and secure messaging go
    (ISO/IEC 7816-4:2013 5.4.1)."""
    if cla >> 5 == 0:
        return cla & 0x03
    return cla & 0x4F if cla >> 6 == 1 else cla


def _status(response: bytes) -> bytes:
    if len(response) < SW_LENGTH:
        raise ProtocolError(f"{len(response)} bytes in answer to a command", may_have_executed=True)
    return response[-SW_LENGTH:]
