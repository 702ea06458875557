"""``ccid-probe apdu``: send command APDUs to the card."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ccid.ground import hexadecimal
from ccid.ground.hexadecimal import NotHexadecimal, joined
from ccid.probe.card_command import session_of
from ccid.probe.exchanges import Exchange, Exchanges
from ccid.probe.reader_choice import card_slot, flush, note, opened, print_json, protocol_of
from ccid.probe.text_file import name, read_lines, whole_texts


def run(options: argparse.Namespace) -> int:
    """Send the APDUs in order. A PIN or key in an APDU is not printed, nor the response data to
    such an APDU."""
    try:
        apdus = list(wanted(options.hex, options.file))
    except NotHexadecimal as error:
        note(f"apdu: {error}")
        return 2
    if not apdus:
        note("apdu: there is no APDU to send")
        return 2
    exchanges = Exchanges(options.trace_secrets)
    done: list[Exchange] = []
    with opened(options) as reader:
        slot = card_slot(reader, options)
        with slot.connect(protocol_of(options)) as card:
            try:
                for apdu in apdus:
                    done.append(exchanges.send(card, apdu))
                    if not options.json:
                        done[-1].show()
                        flush()
            finally:
                if options.json:
                    print_json("apdu", **session_of(card, [one.as_json() for one in done]))
    return 0


def wanted(words: list[str], files: list[str]) -> Iterator[bytes]:
    """The APDUs of the command line, then the APDUs of the files.

    Args:
        words: APDUs, or the bytes of one APDU; ``-`` for standard input, ``@FILE`` for a file.
        files: Files with an APDU a line; empty lines, and text after ``#``, are left out.

    Raises:
        OSError: A file cannot be read.
        NotHexadecimal: A text is not hexadecimal. The message says where, and quotes nothing.
    """
    words = joined(words)
    for number, word in enumerate(words, 1):
        if word == "-" or (word.startswith("@") and len(word) > 1):
            yield from _of_file(word.removeprefix("@"))
        else:
            yield _apdu(word, "the APDU" if len(words) == 1 else f"APDU {number}")
    for file in files:
        yield from _of_file(file)


def _of_file(file: str) -> Iterator[bytes]:
    for text, number in whole_texts(read_lines(file)):
        yield _apdu(text.strip(), f"{name(file)}: line {number}")


def _apdu(text: str, what: str) -> bytes:
    try:
        return hexadecimal.parse(text)
    except NotHexadecimal as error:
        raise NotHexadecimal(f"{what} is not hexadecimal: {error}", error.position) from None
