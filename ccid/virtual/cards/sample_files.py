"""The files of a virtual card without files of its own: two applications."""

from __future__ import annotations

from ccid.iso7816.apdu import MAX_EXTENDED
from ccid.virtual.cards import tlv
from ccid.virtual.cards.card_files import (
    APPLICATION_IDENTIFIER,
    APPLICATION_LABEL,
    DATA_CODING,
    MF,
    Access,
    AfterPassword,
    DedicatedFile,
    RecordFile,
    RecordStructure,
    TransparentFile,
)
from ccid.virtual.cards.passwords import SPECIFIC, Password

CARD_SERVICE_DATA = 0xF0
"""Selection by full and partial DF name; EF.DIR and EF.ATR/INFO, read by READ RECORD; an MF
(ISO/IEC 7816-4:2013 12.1.1)."""
CARD_CAPABILITIES = bytes((0xF6, DATA_CODING, 0xE0))
"""Selection by full and partial DF name, path and file identifier; short EF identifiers; record
numbers. Command chaining; extended Lc and Le, with limits in EF.ATR/INFO; only the basic channel
(ISO/IEC 7816-4:2013 12.1.1)."""

EF_DIR, EF_DIR_SFI = 0x2F00, 30
EF_ATR, EF_ATR_SFI = 0x2F01, 1

DEMO_DF, DEMO_AID = 0xDF01, b"\xf0ccid demo"
SCRATCH_DF, SCRATCH_AID = 0xDF02, b"\xf0ccid scratch"
"""AIDs of the proprietary category, F0."""
HELLO, NAMES, LOG, SECRET, SCRATCH = 0xE001, 0xE002, 0xE003, 0xE004, 0xE001

PIN = SPECIFIC | 1
SCRATCH_SIZE = 4096

_APPLICATION_TEMPLATE, _PATH = 0x61, 0x51
_SERVICE_DATA, _CAPABILITIES, _EXTENDED_LENGTH = 0x43, 0x47, 0x7F66
_INTEGER = 0x02

_GREETING = (
    b"hello from a virtual card\n"
    b"It lives in the memory of this process and answers the commands of ISO/IEC 7816-4: "
    b"SELECT, READ BINARY, UPDATE BINARY, READ RECORD, UPDATE RECORD, APPEND RECORD, VERIFY, "
    b"CHANGE REFERENCE DATA, RESET RETRY COUNTER, GET CHALLENGE and GET DATA. "
    b"To read this text takes more than one READ BINARY with a short Le field.\n"
)


def sample_master_file() -> DedicatedFile:
    """A new MF with EF.DIR, EF.ATR/INFO, the application "ccid demo" and "ccid scratch"."""
    return DedicatedFile(
        MF,
        [
            RecordFile(
                EF_DIR,
                RecordStructure.LINEAR_VARIABLE_TLV,
                [
                    _application(DEMO_AID, "ccid demo", DEMO_DF),
                    _application(SCRATCH_AID, "ccid scratch", SCRATCH_DF),
                ],
                sfi=EF_DIR_SFI,
                update=Access.NEVER,
            ),
            RecordFile(
                EF_ATR,
                RecordStructure.LINEAR_VARIABLE_TLV,
                [_card_data()],
                sfi=EF_ATR_SFI,
                update=Access.NEVER,
            ),
            _demo(),
            _scratch(),
        ],
        data_objects={0x0101: b"ccid virtual card"},
    )


def _application(aid: bytes, label: str, fid: int) -> bytes:
    """A record of EF.DIR (ISO/IEC 7816-4:2013 12.2)."""
    path = MF.to_bytes(2, "big") + fid.to_bytes(2, "big")
    return tlv.encode(
        _APPLICATION_TEMPLATE,
        tlv.encode(APPLICATION_IDENTIFIER, aid)
        + tlv.encode(APPLICATION_LABEL, label.encode())
        + tlv.encode(_PATH, path),
    )


def _card_data() -> bytes:
    """The record of EF.ATR/INFO; the extended length information last (12.2)."""
    longest_command = tlv.encode(_INTEGER, MAX_EXTENDED.to_bytes(3, "big"))
    longest_response = tlv.encode(_INTEGER, (65536 + 2).to_bytes(3, "big"))
    return (
        tlv.encode(_SERVICE_DATA, bytes((CARD_SERVICE_DATA,)))
        + tlv.encode(_CAPABILITIES, CARD_CAPABILITIES)
        + tlv.encode(_EXTENDED_LENGTH, longest_command + longest_response)
    )


def _demo() -> DedicatedFile:
    own = AfterPassword(PIN)
    return DedicatedFile(
        DEMO_DF,
        [
            TransparentFile(HELLO, _GREETING, sfi=1, update=own),
            RecordFile(
                NAMES,
                RecordStructure.LINEAR_FIXED,
                [name.ljust(16) for name in (b"Ada", b"Grace", b"Hedy", b"Radia")],
                max_records=8,
                sfi=2,
                update=own,
            ),
            RecordFile(
                LOG,
                RecordStructure.CYCLIC,
                [b"card made".ljust(16)],
                max_records=4,
                sfi=3,
            ),
            TransparentFile(
                SECRET, b"the treasure is under the palm", size=64, sfi=4, read=own, update=own
            ),
        ],
        name=DEMO_AID,
        label="ccid demo",
        passwords=[Password(PIN, b"1234", resetting_code=b"12345678")],
    )


def _scratch() -> DedicatedFile:
    return DedicatedFile(
        SCRATCH_DF,
        [TransparentFile(SCRATCH, size=SCRATCH_SIZE, sfi=1)],
        name=SCRATCH_AID,
        label="ccid scratch",
    )
