"""Command APDUs: ISO/IEC 7816-3:2006 12.1 and ISO/IEC 7816-4:2013 5.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ccid.errors import InvalidApdu

Bytes = bytes | bytearray | memoryview
"""What may be given as an APDU."""

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
            )  # not what it says: where Lc was forgotten, that is the first byte of a PIN
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
    """True if ``apdu`` codes Lc or Le on three bytes (ISO/IEC 7816-3:2006 12.1.3): no short one
    has a byte of 0 and two or more behind it there."""
    return len(apdu) >= APDU_HEADER + 3 and apdu[APDU_HEADER] == 0


# Secrets --------------------------------------------------------------------------------------
#
# What may be seen of a command. Which commands carry a PIN or a key cannot be listed: every
# application has its own. What carries none can. So a command is judged by its class:
#
# - Interindustry (CLA 00 to 1F and 40 to 7F): a command that brings no data may be seen, with its
#   response, unless it is one of SECRET_INS. Of those with data only SHOWS_DATA may be seen.
# - GlobalPlatform and ETSI TS 102 221 (8X, CX, EX), GSM 11.11 (A0), PC/SC part 3 (FF): only the
#   commands named here.
# - Any other class: nothing.
#
# Of all the rest data and response are masked. The header, Lc and SW1 SW2 are shown.

VERIFY = (0x20, 0x21)
CHANGE_REFERENCE_DATA = (0x24, 0x25)
DISABLE_VERIFICATION = (0x26, 0x27)
ENABLE_VERIFICATION = (0x28, 0x29)
SECURITY_OPERATION = (0x2A, 0x2B)
RESET_RETRY_COUNTER = (0x2C, 0x2D)
GENERATE_KEY_PAIR = (0x46, 0x47)
GENERAL_AUTHENTICATE = (0x86, 0x87)
INTERNAL_AUTHENTICATE = (0x88, 0x89)
PUT_DATA = (0xDA, 0xDB)
PUT_KEY = (0xD8,)
ONE_TIME_PASSWORDS = (0xA2, 0xA3, 0xA5)
"""CALCULATE, VALIDATE and SEND REMAINING of the OATH application (YKOATH); A2 is SEARCH RECORD
elsewhere."""
IMPORT_KEY = (0xFE, 0xFF)
"""IMPORT ASYMMETRIC KEY and SET MANAGEMENT KEY of PIV applications."""
SECRET_INS = frozenset(
    VERIFY
    + CHANGE_REFERENCE_DATA
    + DISABLE_VERIFICATION
    + ENABLE_VERIFICATION
    + SECURITY_OPERATION
    + RESET_RETRY_COUNTER
    + GENERATE_KEY_PAIR
    + GENERAL_AUTHENTICATE
    + INTERNAL_AUTHENTICATE
    + PUT_DATA
    + PUT_KEY
    + ONE_TIME_PASSWORDS
    + IMPORT_KEY
)
"""Instructions whose data or response are known to be secret (ISO/IEC 7816-4:2013 11.5,
ISO/IEC 7816-8, OpenPGP card 3.4, NIST SP 800-73, GlobalPlatform 2.3), in any class."""

SELECT, GET_CHALLENGE, MANAGE_CHANNEL = 0xA4, 0x84, 0x70
READ_BINARY, READ_RECORD, GET_DATA = (0xB0, 0xB1), (0xB2, 0xB3), (0xCA, 0xCB)
STATUS = 0xF2
"""GET STATUS of GlobalPlatform, STATUS of ETSI TS 102 221 and GSM 11.11."""
GET_RESPONSE = 0xC0
ENVELOPE = (0xC2, 0xC3)
"""Its data are a command, or a part of one (ISO/IEC 7816-3:2006 12.2)."""
SHOWS_DATA = frozenset({SELECT, READ_BINARY[1], READ_RECORD[1], GET_DATA[1]})
"""Interindustry instructions whose data name what is wanted, and no more."""
READS = frozenset({MANAGE_CHANNEL, GET_CHALLENGE, READ_BINARY[0], READ_RECORD[0], GET_DATA[0]})
"""Interindustry instructions known to bring no data."""
PROPRIETARY_OBJECTS = 0x01
"""P1 of GET DATA: the application's own data objects, as OpenPGP's for private use."""
PIV_PRINTED_INFORMATION = bytes.fromhex("5FC109")
"""The data object in which a management key is kept that a PIN protects."""

GSM, PCSC = 0xA0, 0xFF
"""CLA of GSM 11.11, and of commands to the reader itself (PC/SC part 3, 3.2.2.1)."""
GSM_SHOWN = frozenset({SELECT, READ_BINARY[0], READ_RECORD[0], STATUS})
PCSC_SHOWN = frozenset({GET_DATA[0], READ_BINARY[0]})


NAMES = {
    READ_BINARY[1]: (b"\x51", b"\x54"),
    READ_RECORD[1]: (b"\x51", b"\x54"),
    GET_DATA[1]: (b"\x4d", b"\x5c", b"\x5d"),
    STATUS: (b"\x4f", b"\x5c"),
}
"""Tags with which the data of such a command begin: a file reference or an offset, a list of tags
or headers, an AID (ISO/IEC 7816-4:2013, 11.2 to 11.4; GlobalPlatform 2.3, 11.4)."""
MAX_NAME = 16
"""Bytes of the longest AID."""


class Openness(Enum):
    """What may be seen of the commands with one header."""

    ALL = "data and response"
    WITHOUT_DATA = "the response, of a command without data"
    NOTHING = "header, Lc and SW1 SW2"


def is_interindustry(cla: int) -> bool:
    """True for an interindustry class (ISO/IEC 7816-4:2013 5.4.1); 001x xxxx is reserved."""
    return not cla & 0x80 and cla & 0xE0 != 0x20


def _openness(apdu: Bytes) -> Openness:
    """What the header alone says."""
    cla, ins, p1 = apdu[:3]
    if cla == PCSC:
        return Openness.WITHOUT_DATA if ins in PCSC_SHOWN else Openness.NOTHING
    if cla == GSM:
        if ins not in GSM_SHOWN:
            return Openness.NOTHING
        return Openness.ALL if ins == SELECT else Openness.WITHOUT_DATA
    if ins == GET_DATA[0] and p1 == PROPRIETARY_OBJECTS:
        return Openness.NOTHING
    if not is_interindustry(cla):
        if cla & 0xF0 not in (0x80, 0xC0, 0xE0):
            return Openness.NOTHING
        if ins == STATUS:
            return Openness.ALL
        return Openness.WITHOUT_DATA if ins == GET_DATA[0] else Openness.NOTHING
    if ins in SECRET_INS or ins in ENVELOPE or ins >> 4 in (0x6, 0x9):
        return Openness.NOTHING
    return Openness.ALL if ins in SHOWS_DATA else Openness.WITHOUT_DATA


def is_secret(apdu: Bytes) -> bool:
    """True if this looks like the beginning of a command that is known to carry a PIN or a key,
    or of a part of a chain of such."""
    if len(apdu) < 2:
        return False
    cla, ins = apdu[:2]
    return ins in SECRET_INS or (cla == PCSC and ins not in PCSC_SHOWN and ins != GET_RESPONSE)


def _has_data(apdu: Bytes) -> bool:
    """True unless nothing but Le follows the header."""
    rest = len(apdu) - APDU_HEADER
    return rest > 1 and not (rest == 3 and apdu[APDU_HEADER] == 0)


def _names_only(apdu: Bytes, whole: bool) -> bool:
    """True if the data of a command that shows them are what they seem."""
    cla, ins, p1 = apdu[:3]
    size = _lc_length(apdu)
    count = int.from_bytes(apdu[APDU_HEADER : APDU_HEADER + size], "big")
    data = bytes(apdu[APDU_HEADER + size :][:count])
    if whole and not _has_data(apdu) and (ins != SELECT or p1 or not count):
        return True  # it has none; or is the header of a TPDU whose data come apart
    if ins == SELECT:
        if cla & (0x20 if cla & 0x40 else 0x0C):
            return True  # secure messaging
        # a file identifier, or it is CALCULATE ALL of the OATH application; a name, or a path
        return count == 2 or (p1 != 0 and 0 < count <= MAX_NAME)
    is_named = data[:1] in NAMES.get(ins, ()) and PIV_PRINTED_INFORMATION not in data
    return whole and len(data) == count and is_named


def carries_secret(apdu: Bytes, whole: bool = True) -> bool:
    """True if this command, or the one in its ENVELOPE, carries a PIN or a key, or may.

    Args:
        apdu: The command, or its beginning.
        whole: It is all of it.
    """
    if len(apdu) < APDU_HEADER:
        return True
    if apdu[1] in ENVELOPE and is_interindustry(apdu[0]):
        content = _enveloped(apdu)
        # a later part of a command may look like another one: only what is well known is shown
        known = len(content) >= 2 and content[1] in READS | SHOWS_DATA
        return not known or carries_secret(content)
    openness = _openness(apdu)
    if openness is Openness.WITHOUT_DATA:
        return not whole or _has_data(apdu)
    if openness is Openness.ALL:
        return not _names_only(apdu, whole)
    return openness is Openness.NOTHING


def _enveloped(apdu: Bytes) -> Bytes:
    """The data of an ENVELOPE, as far as they are here."""
    start = APDU_HEADER + _lc_length(apdu)
    return apdu[start : start + int.from_bytes(apdu[APDU_HEADER:start], "big")]


class Secrecy:
    """Tells of the commands to one card, one after the other, which carry a secret: an ENVELOPE
    and a GET RESPONSE may go on with what came before. What came before the first is not known,
    so it counts as secret.

    Attributes:
        secret: Of the last command.
        shows_data: More data of the last command, if there are, may be seen too.
    """

    def __init__(self) -> None:
        self.secret = True
        self.shows_data = False
        self._in_envelope = False

    def begins(self, apdu: Bytes, whole: bool = True) -> bool:
        """Judge a command by its beginning. May be asked again when more of it is known.

        Args:
            apdu: The command, or its beginning.
            whole: It is all of it.
        """
        if len(apdu) >= 2 and apdu[1] == GET_RESPONSE and _may_go_on(apdu[0]):
            self.secret |= not whole or _has_data(apdu)
            self.shows_data = False
            return self.secret
        in_envelope = len(apdu) >= 2 and apdu[1] in ENVELOPE
        goes_on = self._in_envelope and in_envelope
        if not (goes_on and (self.secret or not _has_data(apdu))):
            self.secret = carries_secret(apdu, whole)
        self._in_envelope = in_envelope
        is_plain = not self.secret and not in_envelope and _openness(apdu) is Openness.ALL
        self.shows_data = is_plain and (apdu[1] == SELECT or _has_data(apdu))
        return self.secret

    def ends(self) -> None:
        """The command was answered: no data of it can follow."""
        self.shows_data = False


def _may_go_on(cla: int) -> bool:
    """A GET RESPONSE of this class brings what the last command left."""
    return is_interindustry(cla) or cla in (GSM, PCSC) or cla & 0xF0 in (0x80, 0xC0, 0xE0)


def _lc_length(apdu: Bytes) -> int:
    """Bytes of Lc, by the look of it."""
    if len(apdu) <= APDU_HEADER:
        return 0
    return 1 if apdu[APDU_HEADER] or len(apdu) < APDU_HEADER + 3 else 3


def visible_length(apdu: Bytes, whole: bool = True) -> int:
    """How many bytes at the start of a secret APDU are no secret: the header, and Lc. Where Lc
    does not fit the length it may be part of the secret; and where nothing else shows that this
    is a command at all, so may the header.

    Args:
        apdu: The APDU, or its beginning.
        whole: It is all of it.
    """
    rest = len(apdu) - APDU_HEADER
    size = _lc_length(apdu)
    count = int.from_bytes(apdu[APDU_HEADER : APDU_HEADER + size], "big")
    le = rest - size - count
    fits = rest in (0, 1) or (count > 0 and le in ((0, 1) if size == 1 else (0, 2)))
    if whole and rest < 0 and not is_secret(apdu):
        return 0
    if len(apdu) >= 2 and not is_secret(apdu):
        cla, ins = apdu[:2]
        if cla & 0xE0 == 0x20 or ins >> 4 in (0x6, 0x9):
            return 0
        le_alone = rest == 3 and size == 3
        envelope = ins in ENVELOPE and is_interindustry(cla)
        if whole and not (fits or le_alone or envelope):
            return 0
    if not whole or rest <= 0 or not fits:
        return min(len(apdu), APDU_HEADER)
    return APDU_HEADER + size
