"""Which command APDUs carry a PIN or a key, and which bytes of them may be shown. Pure."""

from __future__ import annotations

from enum import Enum

from ccid.iso7816.apdu import APDU_HEADER, Bytes
from ccid.iso7816.secret_instructions import ENVELOPE, GET_RESPONSE, SECRET_INS

# Theory of operation. A list of all commands that carry a PIN or a key is not possible, since every
# application has commands of its own. A list of commands that carry none is possible. So the class
# of a command decides:
#
# - Interindustry (CLA 00 to 1F and 40 to 7F): a command without data is shown with its response,
#   unless its INS is in SECRET_INS. A command with data is shown only if its INS is in SHOWS_DATA.
# - GlobalPlatform and ETSI TS 102 221 (8X, CX, EX), GSM 11.11 (A0), PC/SC part 3 (FF): only the
#   commands named below are shown.
# - Any other class: nothing is shown.
#
# Of a command that is not shown, data and response are masked; header, Lc and SW1 SW2 are visible.

SELECT, GET_CHALLENGE, MANAGE_CHANNEL = 0xA4, 0x84, 0x70
READ_BINARY, READ_RECORD, GET_DATA = (0xB0, 0xB1), (0xB2, 0xB3), (0xCA, 0xCB)
STATUS = 0xF2
"""GET STATUS of GlobalPlatform, STATUS of ETSI TS 102 221 and GSM 11.11."""
SHOWS_DATA = frozenset({SELECT, READ_BINARY[1], READ_RECORD[1], GET_DATA[1]})
"""Interindustry instructions whose data only name a file or a data object."""
READS = frozenset({MANAGE_CHANNEL, GET_CHALLENGE, READ_BINARY[0], READ_RECORD[0], GET_DATA[0]})
"""Interindustry instructions that have no command data."""
PROPRIETARY_OBJECTS = 0x01
"""P1 of GET DATA: data objects of the application, such as those of OpenPGP for private use."""
PIV_PRINTED_INFORMATION = bytes.fromhex("5FC109")
"""The data object of PIV that holds a management key protected by a PIN."""

GSM, PCSC = 0xA0, 0xFF
"""CLA of GSM 11.11, and of commands to a contactless reader (PC/SC part 3, 3.2.2.1)."""
GSM_SHOWN = frozenset({SELECT, READ_BINARY[0], READ_RECORD[0], STATUS})
PCSC_SHOWN = frozenset({GET_DATA[0], READ_BINARY[0]})
"""Instructions of these classes that are shown."""

NAME_TAGS = {
    READ_BINARY[1]: (b"\x51", b"\x54"),
    READ_RECORD[1]: (b"\x51", b"\x54"),
    GET_DATA[1]: (b"\x4d", b"\x5c", b"\x5d"),
    STATUS: (b"\x4f", b"\x5c"),
}
"""The first tag of the data that name a file or a data object, by INS: a file reference or an
offset, a list of tags or headers, an AID (ISO/IEC 7816-4:2013, 11.2 to 11.4; GlobalPlatform 2.3,
11.4)."""
MAX_NAME = 16
"""Length of the longest AID in bytes."""


class Openness(Enum):
    """Which parts of a command with a given header are shown."""

    ALL = "data and response"
    WITHOUT_DATA = "the response, of a command without data"
    NOTHING = "header, Lc and SW1 SW2"


def is_interindustry(cla: int) -> bool:
    """True if ``cla`` is an interindustry class (ISO/IEC 7816-4:2013 5.4.1); 001x xxxx is
    reserved."""
    return not cla & 0x80 and cla & 0xE0 != 0x20


def _openness(apdu: Bytes) -> Openness:
    """Which parts of the command are shown, by the header alone."""
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
    """True if ``apdu`` looks like the beginning of a command that carries a PIN or a key, or of one
    part of a chain of such commands."""
    if len(apdu) < 2:
        return False
    cla, ins = apdu[:2]
    return ins in SECRET_INS or (cla == PCSC and ins not in PCSC_SHOWN and ins != GET_RESPONSE)


def _has_data(apdu: Bytes) -> bool:
    """False if the header is followed by nothing, or by Le alone."""
    rest = len(apdu) - APDU_HEADER
    return rest > 1 and not (rest == 3 and apdu[APDU_HEADER] == 0)


def _names_only(apdu: Bytes, whole: bool) -> bool:
    """True if the data of a command in SHOWS_DATA (or of STATUS) only name a file or an object."""
    cla, ins, p1 = apdu[:3]
    size = _lc_length(apdu)
    count = int.from_bytes(apdu[APDU_HEADER : APDU_HEADER + size], "big")
    data = bytes(apdu[APDU_HEADER + size :][:count])
    if whole and not _has_data(apdu) and (ins != SELECT or p1 or not count):
        return True  # no data; or the header of a TPDU whose data follow separately
    if ins == SELECT:
        if cla & (0x20 if cla & 0x40 else 0x0C):
            return True  # secure messaging
        # two bytes are a file identifier; P1 = 0 with other data is CALCULATE ALL of OATH; with
        # P1 != 0 the data are a name or a path
        return count == 2 or (p1 != 0 and 0 < count <= MAX_NAME)
    is_name = data[:1] in NAME_TAGS.get(ins, ()) and PIV_PRINTED_INFORMATION not in data
    return whole and len(data) == count and is_name


def carries_secret(apdu: Bytes, whole: bool = True) -> bool:
    """True if a command, or the command in an ENVELOPE, may carry a PIN or a key.

    Args:
        apdu: The command, or its beginning.
        whole: True if ``apdu`` is the whole command.
    """
    if len(apdu) < APDU_HEADER:
        return True
    if apdu[1] in ENVELOPE and is_interindustry(apdu[0]):
        content = _enveloped(apdu)
        # a later part of a command may look like a command: show only well-known instructions
        known = len(content) >= 2 and content[1] in READS | SHOWS_DATA
        return not known or carries_secret(content)
    openness = _openness(apdu)
    if openness is Openness.WITHOUT_DATA:
        return not whole or _has_data(apdu)
    if openness is Openness.ALL:
        return not _names_only(apdu, whole)
    return openness is Openness.NOTHING


def _enveloped(apdu: Bytes) -> Bytes:
    """The data of an ENVELOPE, as far as ``apdu`` has them."""
    start = APDU_HEADER + _lc_length(apdu)
    return apdu[start : start + int.from_bytes(apdu[APDU_HEADER:start], "big")]


class Secrecy:
    """Follows the commands to one card, and tells which commands carry a secret.

    ENVELOPE and GET RESPONSE may continue the command before. The command before the first one is
    unknown, and counts as secret.

    Attributes:
        secret: True if the last command carries a secret.
        shows_data: True if more data of the last command may be shown.
    """

    def __init__(self) -> None:
        self.secret = True
        self.shows_data = False
        self._in_envelope = False

    def begins(self, apdu: Bytes, whole: bool = True) -> bool:
        """True if the command that begins carries a secret. Call again when more bytes of the
        command are known.

        Args:
            apdu: The command, or its beginning.
            whole: True if ``apdu`` is the whole command.
        """
        if len(apdu) >= 2 and apdu[1] == GET_RESPONSE and _may_continue(apdu[0]):
            self.secret |= not whole or _has_data(apdu)
            self.shows_data = False
            return self.secret
        in_envelope = len(apdu) >= 2 and apdu[1] in ENVELOPE
        continues = self._in_envelope and in_envelope
        if not (continues and (self.secret or not _has_data(apdu))):
            self.secret = carries_secret(apdu, whole)
        self._in_envelope = in_envelope
        is_plain = not self.secret and not in_envelope and _openness(apdu) is Openness.ALL
        self.shows_data = is_plain and (apdu[1] == SELECT or _has_data(apdu))
        return self.secret

    def ends(self) -> None:
        """Note that the card answered the last command: no more data of the command follow."""
        self.shows_data = False


def _may_continue(cla: int) -> bool:
    """True if a GET RESPONSE of this class fetches the response of the last command."""
    return is_interindustry(cla) or cla in (GSM, PCSC) or cla & 0xF0 in (0x80, 0xC0, 0xE0)


def _lc_length(apdu: Bytes) -> int:
    """Length of the Lc field in bytes: 0, 1 or 3, by the bytes after the header."""
    if len(apdu) <= APDU_HEADER:
        return 0
    return 1 if apdu[APDU_HEADER] or len(apdu) < APDU_HEADER + 3 else 3


def visible_length(apdu: Bytes, whole: bool = True) -> int:
    """Number of bytes at the start of a secret command APDU that are no secret: header and Lc.

    An Lc that does not fit the length of the APDU may be a part of the secret. If nothing else
    shows that the bytes are a command, the header may be a part of the secret as well.

    Args:
        apdu: The command APDU, or its beginning.
        whole: True if ``apdu`` is the whole command APDU.
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
