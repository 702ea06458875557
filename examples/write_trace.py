"""Write all USB messages into a file for Wireshark. PINs and keys are masked.

    python examples/write_trace.py FILE.pcapng            your reader and your card
    python examples/write_trace.py FILE.pcapng --virtual  a virtual reader and card

Wireshark's dissector for USBCCID shows the messages. The environment variable CCID_TRACE=FILE does
the same for any program that uses this library.
"""

from __future__ import annotations

import sys

import ccid


def main(words: list[str]) -> None:
    virtual = ccid.VirtualReader() if "--virtual" in words else None
    files = [word for word in words if word != "--virtual"]
    if len(files) != 1:
        sys.exit("name a file to write")
    with (
        ccid.open_reader(virtual) as reader,
        reader.trace(files[0]),
        reader.slots[0].connect() as card,
    ):
        print(f"ATR: {card.atr}")
        response = card.transmit(bytes.fromhex("00A4000C023F00"))
        print(f"SELECT MF: {response.hex(' ').upper()}")
    print(f"now: wireshark {files[0]!r}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
