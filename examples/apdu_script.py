"""Send the command APDUs of a file, and stop at the first status word that is not expected.

    python examples/apdu_script.py FILE            to the card in your reader
    python examples/apdu_script.py FILE --virtual  to a virtual card

A line of FILE is a command APDU in hexadecimal. `-> 6A82` after the APDU names the expected status
word, otherwise 9000 is expected. Text after # is a remark. Without FILE a small script is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ccid
from ccid.iso7816.status_words import explain

SCRIPT = """
00A4000C023F00            # SELECT the master file
00A4000C021234 -> 6A82    # SELECT a file that is not there
"""


def main(words: list[str]) -> None:
    virtual = ccid.VirtualReader() if "--virtual" in words else None
    files = [word for word in words if word != "--virtual"]
    script = Path(files[0]).read_text("utf-8") if files else SCRIPT
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        for number, line in enumerate(script.splitlines(), 1):
            command, _, expected = line.partition("#")[0].partition("->")
            if not command.strip():
                continue
            try:
                apdu, wanted = bytes.fromhex(command), int(expected.strip() or "9000", 16)
            except ValueError:  # the line may hold a PIN: do not print it
                sys.exit(f"line {number} is not hexadecimal")
            response = card.transmit(apdu)
            sw = int.from_bytes(response[-2:], "big")
            print(f"line {number}: {response.hex(' ').upper()}  {explain(sw)}")
            if sw != wanted:
                sys.exit(f"line {number}: {wanted:04X} was expected")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
