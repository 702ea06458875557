"""``ccid-probe card``: power the card, explain its ATR, select its master file."""

from __future__ import annotations

import argparse

from ccid.iso7816.status_words import explain
from ccid.probe.reader_choice import card_slot, opened, protocol_of, say

SELECT_MF = bytes.fromhex("00A4000C023F00")
"""SELECT the master file, no response data (ISO/IEC 7816-4:2013 11.1.1)."""


def run(options: argparse.Namespace) -> int:
    """Power the card, print its ATR, select its master file."""
    with opened(options) as reader:
        slot = card_slot(reader, options)
        with slot.connect(protocol_of(options)) as card:
            say(f"Reader: {reader.name}, slot {slot.index}")
            say(f"ATR: {card.atr}")
            for line in card.atr.explain().splitlines():
                say(f"  {line}")
            say(f"Protocol: {card.protocol}")
            show(SELECT_MF, card.transmit(SELECT_MF), "SELECT MF")
    return 0


def show(apdu: bytes, response: bytes, what: str = "") -> None:
    """Print a command APDU and its response."""
    label = f"  {what}" if what else ""
    say(f"> {apdu.hex(' ').upper()}{label}")
    data, sw = response[:-2], response[-2:]
    if data:
        say(f"< {data.hex(' ').upper()}")
    say(f"< {sw.hex(' ').upper()}  {explain(int.from_bytes(sw, 'big'))}")
