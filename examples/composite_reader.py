"""Open a device with several interfaces, such as contact and contactless, as one reader.

    python examples/composite_reader.py            your device
    python examples/composite_reader.py --virtual  a virtual device with two interfaces

A device with one interface works, too: its slots are the slots of that interface.
"""

from __future__ import annotations

import sys

import ccid
from ccid.virtual import EchoCard, FileSystemCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction


def dual() -> ccid.VirtualReader:
    """A device with two interfaces: two slots and one card; one slot and one card."""
    tpdu, extended = ccid.ExchangeLevel.TPDU, ccid.ExchangeLevel.EXTENDED_APDU
    return ccid.VirtualReader(
        functions=[
            CcidFunction(make_descriptor(tpdu, slots=2), [FileSystemCard(), None]),
            CcidFunction(make_descriptor(extended), [EchoCard()]),
        ]
    )


def main(words: list[str]) -> None:
    with ccid.open_composite(dual() if "--virtual" in words else None) as device:
        print(f"{device.name}: {len(device.readers)} interfaces, {len(device.slots)} slots")
        for number, slot in enumerate(device.slots):
            if slot.status() is ccid.IccStatus.ABSENT:
                print(f"slot {number}: no card")
                continue
            with slot.connect() as card:
                print(f"slot {number}: {card.atr}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
