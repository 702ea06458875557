"""Print the UID of a contactless card: FF CA 00 00 00 (PC/SC part 3, 3.2.2.1.3).

    python examples/contactless_uid.py            the card at your reader
    python examples/contactless_uid.py --virtual  a virtual card, which has contacts and no UID

A contactless reader answers this command itself. A contact reader passes the command on to the
card; the card refuses it, and the program prints the refusal.
"""

from __future__ import annotations

import sys

import ccid
from ccid.iso7816.status_words import explain

GET_UID = bytes.fromhex("FFCA000000")


def uid(card: ccid.Card) -> bytes:
    """The UID of a contactless card. Raises LookupError if the reader or card gives no UID."""
    response = card.transmit(GET_UID)
    sw = int.from_bytes(response[-2:], "big")
    if sw != 0x9000:
        raise LookupError(f"no UID: {sw:04X}, {explain(sw)}; is this a contactless reader?")
    return response[:-2]


def main(words: list[str]) -> None:
    virtual = ccid.VirtualReader() if "--virtual" in words else None
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        try:
            print(uid(card).hex(":").upper())
        except LookupError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
