"""Virtual PIN pads as three real ones say that they are, for ``pyscard_features.py``, and what that
prints of them."""

from __future__ import annotations

from collections.abc import Sequence

import ccid
from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import SlotError
from ccid.known.quirks import lookup
from ccid.virtual.contact_wire import Refused
from ccid.virtual.models import newest
from tests.pin_pad import MODIFICATIONS, PIN, VERIFICATIONS, PinPad

PADS = {
    (0x08E6, 0x3478): {"02": b"PinPad-V1.00", "6A": b"", "52 F8 04 01 00 02": b"\0"},
    (0x0F14, 0x0038): {"01 01 00": b"Leo V2"},
    (0x0D46, 0x3010): {"20 70 00 00 00": b"\x90\0"},
}
"""Readers, and what they answer to the Escape commands of their manufacturers."""
SCRIPT = [*VERIFICATIONS, *MODIFICATIONS, [PIN]]
VERIFIED = "9000 63c2 6401 6400 9000"
MODIFIED = "9000 9000 63c2 6401 6400 9000"


def pin_pad(ids: tuple[int, int]) -> ccid.VirtualReader:
    """A reader as the real one says that it is, a card in it, and a person at its keys."""
    figures = newest(*ids)
    answers = {bytes.fromhex(asked): answer for asked, answer in PADS[ids].items()}

    def escape(data: bytes) -> bytes:
        if data not in answers:
            raise Refused(SlotError.CMD_NOT_SUPPORTED)
        return answers[data]

    found = figures.interfaces[0].reader.smart_card
    assert isinstance(found, SmartCardDescriptor)
    pad = PinPad(found, SCRIPT, escape=escape)
    pad.thinks_s = 0.1
    return ccid.VirtualReader(
        functions=[pad],
        vendor_id=ids[0],
        product_id=ids[1],
        bcdDevice=figures.bcdDevice,
        name=figures.product or "",
        model=lookup(*ids).name,
    )


ATR = "3bd596008031fe45636369642165"
VERSIONS = {"Gemalto": 0x0211, "XIRING": 0x0111, "KOBIL": 0x0040}
"""bcdDevice."""
DISPLAY = "01021002 04021000 05020200"
"""Two lines of 16 characters."""
PROPERTIES = {
    "Gemalto": f"{DISPLAY} 030100 080c50696e5061642d56312e3030 020102 090101"
    " 0b02e608 0c027834 0a0400000100",
    "XIRING": f"{DISPLAY} 030100 090101 0b02140f 0c023800 0a0400000000",
    "KOBIL": f"{DISPLAY} 030100 090101 0b02460d 0c021030 0a0400000000",
}
"""Tag, length and value of each; one's firmware is known by an Escape command."""


def expected(numbers: Sequence[int]) -> str:
    """What ``pyscard_features.py`` prints of these readers, by their numbers as virtual ones."""
    lines = []
    for (name, version), number in zip(VERSIONS.items(), numbers, strict=True):
        serial, channel = f"{number:04d}".encode() + b"\0", 0x0020 << 16 | (number & 0x7F or 1)
        lines.append(f"{name} {serial.hex()} {ATR} {channel:08x} {version << 16:08x}")
    for name, tlv in PROPERTIES.items():
        secoder, firmware = "08" * (name == "KOBIL"), "PinPad-V1.00" * (name == "Gemalto")
        lines.append(f"{name} 06070a{secoder}1213 {tlv.replace(' ', '')} {firmware or None}")
    lines += [f"Gemalto {b'PinPad-V1.00'.hex()} 00", f"XIRING {b'Leo V2'.hex()}", "KOBIL 9000"]
    lines += [f"{name} {VERIFIED} {MODIFIED}" for name in VERSIONS]
    return "\n".join([*lines, ""])
