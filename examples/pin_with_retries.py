"""Verify a PIN, and print how many tries are left before and after.

    python examples/pin_with_retries.py AID P2     your card, e.g. D27600012401 82 (OpenPGP)
    python examples/pin_with_retries.py --virtual  a virtual card with the PIN 1234

The PIN is sent as ASCII without padding; some cards need another format. With one try left, the
program does not send the PIN.
"""

from __future__ import annotations

import sys
from getpass import getpass

import ccid

DEMO = b"\xf0ccid demo"


def verify(card: ccid.Card, reference: int, pin: bytes = b"") -> int:
    """SW1 SW2 of VERIFY (ISO/IEC 7816-4:2013 11.5.6). Without a PIN the card answers the number of
    tries: 63Cx."""
    head = bytes((0x00, 0x20, 0x00, reference))
    return int.from_bytes(card.transmit(head + bytes((len(pin),)) + pin if pin else head), "big")


def main(words: list[str]) -> None:
    virtual = ccid.VirtualReader() if words == ["--virtual"] else None
    if virtual is None and len(words) != 2:
        sys.exit("name the application's AID and the PIN's number, P2, both in hexadecimal")
    aid, p2 = (bytes.fromhex(word) for word in words) if virtual is None else (DEMO, b"\x81")
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        selected = card.transmit(bytes((0x00, 0xA4, 0x04, 0x0C, len(aid))) + aid)[-2:]
        if selected != b"\x90\x00":
            sys.exit(f"the application is not on this card: {selected.hex().upper()}")
        sw = verify(card, p2[0])
        if sw >> 4 == 0x63C:
            print(f"{sw & 15} tries left")
            if sw & 15 < 2:
                sys.exit("a wrong PIN would block the card")
            sw = verify(card, p2[0], getpass("PIN: ").encode())
        if sw >> 4 == 0x63C:
            sys.exit(f"wrong PIN, {sw & 15} tries left")
        if sw != 0x9000:
            sys.exit("the PIN is blocked" if sw == 0x6983 else f"refused: {sw:04X}")
        print("verified")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
