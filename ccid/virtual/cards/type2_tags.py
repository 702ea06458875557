"""MIFARE Ultralight, NTAG213, NTAG215 and NTAG216: pages of four bytes (NFC Forum type 2). Pure.

Memory maps, lock bytes, version and password are those of NXP's data sheets MF0ICU1 and
NTAG213_215_216. The dynamic lock bytes of NTAG are memory like any other here: they lock nothing.
"""

from __future__ import annotations

from dataclasses import field

from ccid.ground.records import record
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.interindustry import Refused
from ccid.virtual.cards.picc import (
    NO_ADDRESS,
    NO_INFORMATION,
    NOT_ALLOWED,
    NOT_SATISFIED,
    WRONG_LENGTH,
    StoragePicc,
    storage_atr,
)

PAGE = 4
LOCK_PAGE, OTP_PAGE, FIRST_USER_PAGE = 2, 3, 4
READ_COMMAND, FAST_READ, WRITE, GET_VERSION, READ_SIG, PWD_AUTH = 0x30, 0x3A, 0xA2, 0x60, 0x3C, 0x1B
"""Commands on the air (NTAG213_215_216, 10)."""
ACK, NAK = b"\x0a", b"\x00"
FREE = 0xFF
"""AUTH0 of a new tag: no page needs the password."""
READ_PROTECTED = 0x80
"""Bit PROT of the access byte: the password is needed for reading, too."""
TRANSPARENT, DIRECT = 0xC2, 0x00
"""INS of the transparent session (PC/SC part 3, 3.2.2.2), and of Direct Transmit (ACR122U API)."""
IN_COMMUNICATE_THRU = b"\xd4\x42"
"""The command of the chip PN532 that sends bytes as they are."""


@record
class Layout:
    """What tells one kind of tag from another.

    Attributes:
        pages: Number of pages.
        capability: The capability container, page 3 of a new tag; empty for none.
        version: The answer to GET_VERSION; empty if the tag does not know the command.
        configuration: The page with AUTH0, followed by access, password and PACK; 0 for none.
    """

    pages: int
    capability: bytes = b""
    version: bytes = field(default=b"")
    configuration: int = 0


ULTRALIGHT = Layout(16)
NTAG213 = Layout(45, bytes.fromhex("E1101200"), bytes.fromhex("0004040201000F03"), 0x29)
NTAG215 = Layout(135, bytes.fromhex("E1103E00"), bytes.fromhex("0004040201001103"), 0x83)
NTAG216 = Layout(231, bytes.fromhex("E1106D00"), bytes.fromhex("0004040201001303"), 0xE3)
EMPTY_NDEF = bytes.fromhex("0300FE00")
"""An empty NDEF message and its end, page 4 of a new NTAG."""


class Type2Tag(StoragePicc):
    """A tag of pages.

    Args:
        layout: The kind of tag.
        uid: The UID, 7 bytes.

    Attributes:
        memory: All pages, in order.
        authenticated: The password was right, since the last reset.
    """

    def __init__(
        self, layout: Layout = ULTRALIGHT, uid: bytes = bytes.fromhex("04A1B2C3D4E5F6")
    ) -> None:
        super().__init__(uid, storage_atr(0x03, 0x0003))
        self.layout = layout
        self.memory = bytearray(layout.pages * PAGE)
        bcc0 = 0x88 ^ uid[0] ^ uid[1] ^ uid[2]
        bcc1 = uid[3] ^ uid[4] ^ uid[5] ^ uid[6]
        self.memory[:10] = uid[:3] + bytes((bcc0,)) + uid[3:] + bytes((bcc1, 0x48))
        if layout.capability:
            self.memory[OTP_PAGE * PAGE : (OTP_PAGE + 2) * PAGE] = layout.capability + EMPTY_NDEF
        if layout.configuration:
            start = layout.configuration * PAGE
            self.memory[start : start + PAGE] = bytes((4, 0, 0, FREE))
            self.memory[start + 2 * PAGE : start + 3 * PAGE] = b"\xff" * PAGE
        self.authenticated = False

    def reset(self) -> None:
        """The tag forgets the password."""
        super().reset()
        self.authenticated = False

    # Rights -----------------------------------------------------------------------------------

    def _is_protected(self, page: int) -> bool:
        """True if the password is needed for ``page``, and was not given."""
        start = self.layout.configuration * PAGE
        return bool(start) and not self.authenticated and page >= self.memory[start + 3]

    def _check_readable(self, page: int) -> None:
        if page >= self.layout.pages:
            raise Refused(NO_ADDRESS)
        access = self.memory[(self.layout.configuration + 1) * PAGE]
        if self._is_protected(page) and access & READ_PROTECTED:
            raise Refused(NOT_SATISFIED)

    def _is_locked(self, page: int) -> bool:
        """True if the static lock bytes lock ``page``, 3 to 15 (MF0ICU1, 8.5.2)."""
        locks = int.from_bytes(self.memory[10:12], "little")
        return 3 <= page <= 15 and bool(locks >> page & 1)

    # Reading and writing ----------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes from page ``address`` on; a tag gives no password."""
        pages = 4 if length == 256 else -(-length // PAGE)
        there = range(address, min(address + pages, self.layout.pages))
        self._check_readable(address)
        for page in there:
            self._check_readable(page)
        return b"".join(map(self._shown, there))[: PAGE * pages if length == 256 else length]

    def _shown(self, page: int) -> bytes:
        secret = self.layout.configuration + 2
        if self.layout.configuration and page in (secret, secret + 1):
            return bytes(PAGE)
        return bytes(self.memory[page * PAGE : (page + 1) * PAGE])

    def update(self, address: int, data: bytes) -> None:
        """Write one page. Bits of page 3 and lock bits can be set, and never cleared."""
        if len(data) != PAGE:
            raise Refused(WRONG_LENGTH)
        if address >= self.layout.pages:
            raise Refused(NO_ADDRESS)
        if address < LOCK_PAGE or self._is_locked(address):
            raise Refused(NOT_ALLOWED)
        if self._is_protected(address):
            raise Refused(NOT_SATISFIED)
        start = address * PAGE
        old = self.memory[start : start + PAGE]
        if address == LOCK_PAGE:
            data = bytes((old[0], old[1], old[2] | data[2], old[3] | data[3]))
        elif address == OTP_PAGE:
            data = bytes(a | b for a, b in zip(old, data, strict=True))
        self.memory[start : start + PAGE] = data

    # Commands on the air ----------------------------------------------------------------------

    def raw(self, frame: bytes) -> bytes | None:
        """What the tag answers to a command on the air; None if it does not answer."""
        try:
            return self._raw(frame)
        except Refused:
            return NAK

    def _raw(self, frame: bytes) -> bytes | None:
        code, rest = frame[:1], frame[1:]
        known = self.layout.version
        if code == bytes((GET_VERSION,)) and not rest and known:
            return known
        if code == bytes((READ_COMMAND,)) and len(rest) == 1:
            return b"".join(self.read((rest[0] + i) % self.layout.pages, PAGE) for i in range(4))
        if code == bytes((FAST_READ,)) and len(rest) == 2 and known:
            if rest[0] > rest[1] or rest[1] >= self.layout.pages:
                return NAK
            return self.read(rest[0], (rest[1] - rest[0] + 1) * PAGE)
        if code == bytes((WRITE,)) and len(rest) == 1 + PAGE:
            self.update(rest[0], rest[1:])
            return ACK
        if code == bytes((PWD_AUTH,)) and len(rest) == PAGE and known:
            start = (self.layout.configuration + 2) * PAGE
            self.authenticated = rest == self.memory[start : start + PAGE]
            return bytes(self.memory[start + PAGE :][:2]) if self.authenticated else NAK
        return None

    def special(self, command: CommandApdu) -> Answer:
        """Commands on the air: the transparent session of PC/SC part 3, and Direct Transmit."""
        if command.ins == TRANSPARENT and command.p1 == 0:
            if command.p2 == 0:  # manage session: begin, end
                return Answer(bytes.fromhex("C003009000"))
            frame = _object(command.data, 0x95)
            if command.p2 == 1 and frame is not None:
                answer = self.raw(frame)
                if answer is None:
                    return Answer(bytes.fromhex("C003016401"))
                head = bytes.fromhex("C003009000 920100 96020000")
                return Answer(head + bytes((0x97, len(answer))) + answer)
        if command.ins == DIRECT and not command.p1 and not command.p2:
            if command.data.startswith(IN_COMMUNICATE_THRU):
                answer = self.raw(command.data[len(IN_COMMUNICATE_THRU) :])
                status = b"\x01" if answer is None else b"\x00"
                return Answer(b"\xd5\x43" + status + (answer or b""))
            raise Refused(NO_INFORMATION)
        return super().special(command)


def _object(data: bytes, tag: int) -> bytes | None:
    """The value of the data object ``tag``, one byte of tag and one of length; None without it.
    5F46, the timer, has two bytes of tag."""
    while len(data) >= 2:
        size = 2 if data[0] == 0x5F else 1
        length = data[size] if len(data) > size else 0
        if data[0] == tag:
            return data[size + 1 :][:length]
        data = data[size + 1 + length :]
    return None
