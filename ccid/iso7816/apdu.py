"""Command APDUs: ISO/IEC 7816-3:2006 12.1 and ISO/IEC 7816-4:2013 5.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ccid.errors import InvalidApdu

Bytes = bytes | bytearray | memoryview
"""What may be given as an APDU."""

HEADER_LENGTH = 4
"""CLA INS P1 P2."""
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
        InvalidApdu: It is nothing that holds single bytes, one after the other.
    """
    if isinstance(value, bytes):
        return value
    what = type(value).__name__
    try:
        view = memoryview(value)  # type: ignore[arg-type]
        if view.format == "B" and view.ndim == 1:
            return bytes(view)
        what += f" of {view.ndim} dimensions and items of format {view.format!r}"
    except (TypeError, ValueError, BufferError):
        pass
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


@dataclass(slots=True)  # to make a frozen one takes five times the time
class CommandApdu:
    """A command APDU taken apart. None is changed once it is made.

    Attributes:
        cla, ins, p1, p2: The header.
        data: The command data field, Nc bytes. Not shown by ``repr``: it may hold a PIN.
        ne: Bytes of response data expected at most; 0 for none.
        extended: Lc and Le are coded on three bytes (two for Le after Lc).
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
        """Which of the seven cases it is."""
        number = 1 + 2 * bool(self.data) + bool(self.ne)
        suffix = "" if number == 1 else "E" if self.extended else "S"
        return Case(f"{number}{suffix}")

    @property
    def header(self) -> bytes:
        """CLA INS P1 P2."""
        return bytes((self.cla, self.ins, self.p1, self.p2))

    def build(self) -> bytes:
        """The bytes (ISO/IEC 7816-3:2006 12.1.3).

        Raises:
            InvalidApdu: Lengths that the coding cannot express.
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
        """Take ``apdu`` apart.

        Raises:
            InvalidApdu: Its length and its Lc do not agree with any of the seven cases.
        """
        size = len(apdu)
        if size < HEADER_LENGTH:
            raise InvalidApdu(f"{size} bytes; a command APDU has at least {HEADER_LENGTH}")
        cla, ins, p1, p2 = apdu[:HEADER_LENGTH]
        if size == HEADER_LENGTH:
            return cls(cla, ins, p1, p2)
        first = apdu[HEADER_LENGTH]
        if size == HEADER_LENGTH + 1:
            return cls(cla, ins, p1, p2, b"", first or 256)
        if first:
            rest = size - (HEADER_LENGTH + 1) - first
            if rest == 0:
                return cls(cla, ins, p1, p2, apdu[HEADER_LENGTH + 1 :])
            if rest == 1:
                return cls(cla, ins, p1, p2, apdu[HEADER_LENGTH + 1 : -1], apdu[-1] or 256)
            raise InvalidApdu(
                f"Lc does not say how many bytes of data follow: {size - HEADER_LENGTH - 1} do"
            )  # not what it says: where Lc was forgotten, that is the first byte of a PIN
        body = apdu[HEADER_LENGTH:]
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
    """True if ``apdu`` codes Lc or Le on three bytes (ISO/IEC 7816-3:2006 12.1.3): no short one
    has a byte of 0 and two or more behind it there."""
    return len(apdu) >= HEADER_LENGTH + 3 and apdu[HEADER_LENGTH] == 0
