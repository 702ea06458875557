"""Print the UID of a contactless card (PC/SC part 3, 3.2.2.1.3), and beep if the reader can.

    python examples/contactless_uid.py            the card at your reader
    python examples/contactless_uid.py --virtual  a virtual ACR122U with a MIFARE Classic card

A contactless reader knows the UID itself. A contact reader passes the command on to the card; the
card refuses it, and the program prints the refusal.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import ccid
from ccid.errors import UnsupportedByReader
from ccid.virtual import models
from ccid.virtual.cards.mifare_classic import MifareClassic


def main(words: list[str]) -> None:
    virtual = models.make("072f:2200", MifareClassic) if "--virtual" in words else None
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        print(card.uid().hex(":").upper())
        with suppress(UnsupportedByReader):  # the table of readers has no command for its buzzer
            reader.buzzer(0.1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
