"""What pcscd's clients ask of a PIN pad: runs in the guest, on Debian's Python.

pads.py SERIAL...: prints as JSON what pcscd and its driver answer of each reader, by serial
number. It knows nothing of the library.
"""

import json
import struct
import sys
from typing import Any

from smartcard import scard

IOCTL = 0x42000000
FEATURES = IOCTL + 3400
BOTH = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
VERIFY, MODIFY, MCT, PROPERTIES, TLV = 0x06, 0x07, 0x08, 0x0A, 0x12
VERIFY_APDU = bytes.fromhex("0020008108") + b"\xff" * 8
MODIFY_APDU = bytes.fromhex("0024008110") + b"\xff" * 16
SELECT = bytes.fromhex("00A4000C023F00")
VERIFY_PIN = (
    struct.pack("<BBBBBHBBHB", 30, 0, 0x82, 0x08, 0, 0x0408, 2, 1, 0x0409, 0)
    + bytes(3)
    + struct.pack("<I", len(VERIFY_APDU))
    + VERIFY_APDU
)
MODIFY_PIN = (
    struct.pack("<BBBBBBBHBBBHBBB", 30, 0, 0x82, 0x08, 0, 0, 8, 0x0408, 3, 2, 3, 0x0409, 0, 1, 2)
    + bytes(3)
    + struct.pack("<I", len(MODIFY_APDU))
    + MODIFY_APDU
)
ATTRIBUTES = [
    name
    for name in dir(scard)
    if name.startswith("SCARD_ATTR_") and not name.endswith(("NAME_A", "NAME_W", "_NAME"))
] + ["SCARD_ATTR_VENDOR_NAME"]
"""All attributes except the name of the reader, which differs between the drivers."""


def said(hresult: int, answer: Any) -> str:
    """One answer: the data, or the error."""
    return f"{hresult & 0xFFFFFFFF:08x}" if hresult else bytes(answer).hex()


def of_reader(context: Any, name: str) -> dict[str, str]:
    """All answers of one reader."""
    answers: dict[str, str] = {}
    hresult, card, protocol = scard.SCardConnect(context, name, scard.SCARD_SHARE_SHARED, BOTH)
    assert not hresult, (name, hresult)
    hresult, protocol = scard.SCardReconnect(
        card, scard.SCARD_SHARE_SHARED, BOTH, scard.SCARD_RESET_CARD
    )
    answers["protocol"] = f"{hresult & 0xFFFFFFFF:x} {protocol}"

    def control(code: int, data: bytes = b"") -> str:
        return said(*scard.SCardControl(card, code, list(data)))

    def feature(number: int, data: bytes = b"") -> str:
        return control(IOCTL + 0x330000 + number, data)

    def transmit() -> str:
        header = scard.SCARD_PCI_T0 if protocol == 1 else scard.SCARD_PCI_T1
        return said(*scard.SCardTransmit(card, header, list(SELECT)))

    answers["features"] = control(FEATURES)
    answers["properties"] = feature(PROPERTIES)
    answers["TLV"] = feature(TLV)
    for i, what in enumerate(("right", "wrong", "cancelled", "timeout", "right again")):
        answers[f"verify {i} {what}"] = feature(VERIFY, VERIFY_PIN)
    answers["APDU between"] = transmit()
    for i, what in enumerate(("right", "back", "wrong", "cancelled", "timeout")):
        answers[f"modify {i} {what}"] = feature(MODIFY, MODIFY_PIN)
    answers["verify after all"] = feature(VERIFY, VERIFY_PIN)
    if answers["protocol"] != "0 2" or "08044233" in answers["features"]:
        answers["modify mismatch"] = feature(MODIFY, MODIFY_PIN)
        answers["verify after mismatch"] = feature(VERIFY, VERIFY_PIN)
    answers["APDU after all"] = transmit()
    answers["verify cut short"] = feature(VERIFY, VERIFY_PIN[:20])
    answers["verify of a wrong length"] = feature(VERIFY, VERIFY_PIN + b"\0")
    answers["modify cut short"] = feature(MODIFY, MODIFY_PIN[:20])
    answers["MCT"] = feature(MCT, bytes.fromhex("2070000000"))
    answers["MCT wrong"] = feature(MCT, bytes.fromhex("2080000000"))
    answers["Escape"] = control(IOCTL + 1, b"\x01\x02\x03")
    answers["no such code"] = control(IOCTL + 77)
    for attribute in ATTRIBUTES:
        number = getattr(scard, attribute)
        answers[attribute.removeprefix("SCARD_")] = said(*scard.SCardGetAttrib(card, number))
    hresult, there = scard.SCardGetAttrib(card, scard.SCARD_ATTR_DEVICE_FRIENDLY_NAME_A)
    is_name = not hresult and bytes(there).rstrip(b"\0").decode() == name
    answers["its name as attribute"] = str(is_name)
    scard.SCardDisconnect(card, scard.SCARD_UNPOWER_CARD)
    return answers


def main(serials: list[str]) -> None:
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    _, names = scard.SCardListReaders(context, [])
    found = {serial: next(n for n in names if f"({serial})" in n) for serial in serials}
    print(json.dumps({serial: of_reader(context, name) for serial, name in found.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
