"""What programs do with readers themselves, by pyscard on the system's Python: features of PC/SC
part 10, Escape commands, attributes, PIN pads. ``python3 pyscard_features.py NAME…``

Each script prints what it was told; ``test_pcsc_features.py`` knows what that has to be."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from smartcard.pcsc import PCSCPart10
from smartcard.scard import (
    SCARD_ATTR_ATR_STRING,
    SCARD_ATTR_CHANNEL_ID,
    SCARD_ATTR_VENDOR_IFD_SERIAL_NO,
    SCARD_ATTR_VENDOR_IFD_VERSION,
    SCARD_CTL_CODE,
    SCARD_SHARE_DIRECT,
    SCardControl,
    SCardGetAttrib,
    SCardListReaders,
    SCardReconnect,
    SCardTransmit,
)

from tests.integration.pyscard_scripts import OK, SELECT, connect, context, main, same
from tests.vm.pads import MODIFY_PIN, VERIFY_PIN

FIRMWARE, SWITCH, OF_XIRING = [0x02], [0x52, 0xF8, 0x04, 0x01, 0x00, 0x02], [0x01, 0x01, 0x00]
SECODER = [0x20, 0x70, 0x00, 0x00, 0x00]


def connected(share: int) -> list[tuple[str, int]]:
    """All readers: the first word of the name, and a handle."""
    of = context()
    code, names = SCardListReaders(of, [])
    same(code, OK)
    return [(name.split()[0], connect(of, share, name)) for name in names]


def control(card: int, code: int, data: list[int]) -> list[int]:
    hresult, answer = SCardControl(card, code, data)
    same(hresult, OK)
    return list(answer)


def features(card: int) -> dict[int, int]:
    """Code of each feature, by its tag."""
    said = bytes(control(card, PCSCPart10.CM_IOCTL_GET_FEATURE_REQUEST, []))
    found = {tag: code for tag, four, code in struct.iter_unpack(">BBI", said) if four == 4}
    told = PCSCPart10.parseFeatureRequest(list(said))
    assert [PCSCPart10.hasFeature(told, tag) for tag in found] == [*found.values()]
    return found


def attributes() -> None:
    """Of readers without a connection to the card."""
    for name, card in connected(SCARD_SHARE_DIRECT):
        told = []
        for attribute in (SCARD_ATTR_VENDOR_IFD_SERIAL_NO, SCARD_ATTR_ATR_STRING):
            code, value = SCardGetAttrib(card, attribute)
            same(code, OK)
            told.append(bytes(value).hex())
        for attribute in (SCARD_ATTR_CHANNEL_ID, SCARD_ATTR_VENDOR_IFD_VERSION):
            code, value = SCardGetAttrib(card, attribute)
            same(code, OK)
            told.append(f"{struct.unpack('=I', bytes(value))[0]:08x}")
        print(name, *told, flush=True)


def properties() -> None:
    """Features, and those of the PIN pad, as tag, length and value."""
    for name, card in connected(SCARD_SHARE_DIRECT):
        found = features(card)
        tlv = control(card, found[PCSCPart10.FEATURE_GET_TLV_PROPERTIES], [])
        known = PCSCPart10.parseTlvProperties(tlv)
        firmware = known.get("PCSCv2_PART10_PROPERTY_sFirmwareID")
        print(name, bytes(found).hex(), bytes(tlv).hex(), firmware, flush=True)


def escapes() -> None:
    """Commands of a manufacturer: by the code that the reader tells, and by the fixed one."""
    for name, card in connected(SCARD_SHARE_DIRECT):
        found = features(card)
        code = found[PCSCPart10.FEATURE_CCID_ESC_COMMAND]
        assert code == SCARD_CTL_CODE(1)
        if name == "KOBIL":
            told = [control(card, found[PCSCPart10.FEATURE_MCT_READER_DIRECT], SECODER)]
        elif name == "XIRING":
            told = [control(card, code, OF_XIRING)]
        else:
            assert name == "Gemalto"
            told = [control(card, code, data) for data in (FIRMWARE, SWITCH)]
        print(name, *(bytes(answer).hex() for answer in told), flush=True)


def pin_pads() -> None:
    """PINs are verified and modified; what the card or the person said to each."""
    for name, card in connected(2):
        found = features(card)
        verify = found.get(PCSCPart10.FEATURE_VERIFY_PIN_DIRECT)
        modify = found.get(PCSCPart10.FEATURE_MODIFY_PIN_DIRECT)
        if verify is None or modify is None:
            continue
        told = [control(card, verify, list(VERIFY_PIN)) for _ in range(5)]
        _, protocol = SCardReconnect(card, 2, 3, 0)
        same(SCardTransmit(card, protocol, SELECT)[0], OK)
        told += [control(card, modify, list(MODIFY_PIN)) for _ in range(5)]
        told.append(control(card, verify, list(VERIFY_PIN)))
        print(name, *(bytes(answer).hex() for answer in told), flush=True)


SCRIPTS = {one.__name__: one for one in (attributes, properties, escapes, pin_pads)}

if __name__ == "__main__":
    main(sys.argv[1:], SCRIPTS)
