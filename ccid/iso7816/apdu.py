"""Command APDUs and their seven cases (ISO/IEC 7816-3:2006 12.1, ISO/IEC 7816-4:2013 5.1)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from ccid.errors import InvalidApdu

Bytes = bytes | bytearray | memoryview
"""The types that a caller may pass as an APDU."""

APDU_HEADER = 4
"""Bytes of the header of a command APDU: CLA INS P1 P2."""
TPDU_HEADER = APDU_HEADER + 1
"""Bytes of the header of a TPDU of T=0: CLA INS P1 P2 P3."""
MAX_SHORT = 261
"""Bytes of the longest short command APDU: header, Lc, 255 bytes of data, Le."""
MAX_EXTENDED = 65544
"""Bytes of the longest command APDU: header, 3 bytes of Lc, 65,535 of data, 2 of Le."""
SW_LENGTH = 2
"""Bytes of the shortest response APDU: SW1 SW2."""
MAX_RESPONSE = 65536 + SW_LENGTH
"""Bytes of the longest response APDU."""


def octets(value: object) -> bytes:
    """``value`` as bytes.

    Raises:
        InvalidApdu: ``value`` is no sequence of single bytes.
    """
    if isinstance(value, bytes):
        return value
    what = type(value).__name__
    with suppress(TypeError, ValueError, BufferError):  # of a value without a buffer
        view = memoryview(value)  # type: ignore[arg-type]
        if view.format == "B" and view.ndim == 1:
            return bytes(view)
        what += f" of {view.ndim} dimensions and items of format {view.format!r}"
    raise InvalidApdu(f"what goes to a card is bytes, not {what}")


class Case(Enum):
    """The seven cases of a command APDU (ISO/IEC 7816-3:2006 12.1.3)."""

    C1 = "1"
    C2S = "2S"
    C3S = "3S"
    C4S = "4S"
    C2E = "2E"
    C3E = "3E"
    C4E = "4E"


@dataclass(slots=True)  # not frozen: creating a frozen object takes five times as long
class CommandApdu:
    """The fields of a command APDU. Treat the object as immutable.

    Attributes:
        cla, ins, p1, p2: The header.
        data: The command data field, Nc bytes. ``repr`` hides it, since it may hold a PIN.
        ne: Ne, the greatest number of bytes of response data; 0 for none.
        extended: True if Lc and Le are extended: Lc on three bytes, Le on three bytes, or on two
            after Lc.
    """

    cla: int
    ins: int
    p1: int = 0
    p2: int = 0
    data: bytes = field(default=b"", repr=False)
    ne: int = 0
    extended: bool = False

    @property
    def case(self) -> Case:
        """The case of the command APDU (ISO/IEC 7816-3:2006 12.1.3)."""
        number = 1 + 2 * bool(self.data) + bool(self.ne)
        suffix = "" if number == 1 else "E" if self.extended else "S"
        return Case(f"{number}{suffix}")

    @property
    def header(self) -> bytes:
        """CLA INS P1 P2."""
        return bytes((self.cla, self.ins, self.p1, self.p2))

    def build(self) -> bytes:
        """The bytes of the command APDU (ISO/IEC 7816-3:2006 12.1.3).

        Raises:
            InvalidApdu: The coding cannot express the length of the data, or Ne.
        """
        nc, ne = len(self.data), self.ne
        most_c, most_e = (65535, 65536) if self.extended else (255, 256)
        if nc > most_c:
            raise InvalidApdu(f"{nc} bytes of data; Lc here can say {most_c}")
        if not 0 <= ne <= most_e:
            raise InvalidApdu(f"Ne = {ne}; Le here can say 1 to {most_e}")
        if not self.extended:
            lc = bytes((nc,)) if nc else b""
            le = bytes((ne & 0xFF,)) if ne else b""
        else:
            lc = b"\0" + nc.to_bytes(2, "big") if nc else b""
            le = (b"" if nc else b"\0") + (ne & 0xFFFF).to_bytes(2, "big") if ne else b""
        return self.header + lc + self.data + le

    @classmethod
    def parse(cls, apdu: bytes) -> CommandApdu:
        """The fields of the command APDU ``apdu``.

        Raises:
            InvalidApdu: The length of ``apdu`` and its Lc fit none of the seven cases.
        """
        size = len(apdu)
        if size < APDU_HEADER:
            raise InvalidApdu(f"{size} bytes; a command APDU has at least {APDU_HEADER}")
        cla, ins, p1, p2 = apdu[:APDU_HEADER]
        if size == APDU_HEADER:
            return cls(cla, ins, p1, p2)
        first = apdu[APDU_HEADER]
        if size == APDU_HEADER + 1:
            return cls(cla, ins, p1, p2, b"", first or 256)
        if first:
            rest = size - (APDU_HEADER + 1) - first
            if rest == 0:
                return cls(cla, ins, p1, p2, apdu[APDU_HEADER + 1 :])
            if rest == 1:
                return cls(cla, ins, p1, p2, apdu[APDU_HEADER + 1 : -1], apdu[-1] or 256)
            raise InvalidApdu(
                f"Lc does not say how many bytes of data follow: {size - APDU_HEADER - 1} do"
            )  # without the value of Lc: if the caller forgot Lc, the byte may belong to a PIN
        body = apdu[APDU_HEADER:]
        if len(body) == 3:
            return cls(cla, ins, p1, p2, ne=int.from_bytes(body[1:], "big") or 65536, extended=True)
        nc = int.from_bytes(body[1:3], "big")
        rest = len(body) - 3 - nc
        if len(body) > 3 and nc:
            if rest == 0:
                return cls(cla, ins, p1, p2, data=body[3:], extended=True)
            if rest == 2:
                ne = int.from_bytes(body[-2:], "big") or 65536
                return cls(cla, ins, p1, p2, data=body[3:-2], ne=ne, extended=True)
        raise InvalidApdu(
            f"extended Lc does not say how many bytes of data follow: {max(len(body) - 3, 0)} do"
        )


def is_extended(apdu: Bytes) -> bool:
    """True if ``apdu`` has an extended Lc or Le (ISO/IEC 7816-3:2006 12.1.3).

    A byte 00 after the header, with two or more bytes after it, appears only in an extended
    command APDU.
    """
    return len(apdu) >= APDU_HEADER + 3 and apdu[APDU_HEADER] == 0
