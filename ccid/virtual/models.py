"""Models of virtual readers, by ``vvvv:pppp``: what ``ccid-probe --virtual`` takes."""

from __future__ import annotations

from ccid.codes import ExchangeLevel
from ccid.descriptors import SmartCardDescriptor
from ccid.errors import ReaderNotFound
from ccid.virtual.reader import PRODUCT_ID, VENDOR_ID, VirtualReader

DEFAULT = f"{VENDOR_ID:04x}:{PRODUCT_ID:04x}"

QEMU = SmartCardDescriptor(
    bVoltageSupport=0x07,
    dwProtocols=0x01,
    dwDefaultClock=4000,
    dwMaximumClock=65536,
    dwDataRate=9600,
    dwMaxDataRate=115200,
    dwMaxIFSD=254,
    dwFeatures=0x000104FE,
    dwMaxCCIDMessageLength=65554,
    bPINSupport=0x01,
)
"""The figures of QEMU's usb-ccid, 08e6:4433."""


def make(model: str | None = None) -> VirtualReader:
    """A virtual reader of this model, a card in it.

    Args:
        model: ``vvvv:pppp``; None for the default.

    Raises:
        ReaderNotFound: The figures of such a reader are not known.
    """
    match (model or DEFAULT).lower():
        case str(known) if known == DEFAULT:
            return VirtualReader(level=ExchangeLevel.EXTENDED_APDU)
        case "08e6:4433":
            return VirtualReader(
                descriptor=QEMU, vendor_id=0x08E6, product_id=0x4433, name="QEMU USB CCID"
            )
    raise ReaderNotFound(
        f"no figures of a reader {model} are known; there are {DEFAULT} and 08e6:4433"
    )
