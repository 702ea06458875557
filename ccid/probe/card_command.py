"""``ccid-probe card``: power the card, explain its ATR, select its master file."""

from __future__ import annotations

import argparse
from contextlib import suppress

from ccid.device.card import Card
from ccid.errors import CardRefused
from ccid.iso7816.atr import Atr
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
            if made_by_reader(card.atr):
                contactless(card)
            if card.atr.historical_data.storage_card is None:  # a storage card takes no APDU
                show(SELECT_MF, card.transmit(SELECT_MF), "SELECT MF")
    return 0


def made_by_reader(atr: Atr) -> bool:
    """True if an ATR has the form that contactless readers make (PC/SC part 3, 3.1.3.2.3): 3B 8N,
    80 01. Cards with contacts may have such an ATR, too."""
    return atr.raw[:1] == b"\x3b" and atr.raw[1] >> 4 == 8 and atr.raw[2:4] == b"\x80\x01"


def contactless(card: Card) -> None:
    """Print UID and ATS as far as the reader knows them: a contact reader knows neither."""
    for name, ask in (("UID", card.uid), ("ATS", card.ats)):
        with suppress(CardRefused):
            say(f"{name}: {ask().hex(' ').upper()}")


def show(apdu: bytes, response: bytes, what: str = "") -> None:
    """Print a command APDU and its response."""
    label = f"  {what}" if what else ""
    say(f"> {apdu.hex(' ').upper()}{label}")
    data, sw = response[:-2], response[-2:]
    if data:
        say(f"< {data.hex(' ').upper()}")
    say(f"< {sw.hex(' ').upper()}  {explain(int.from_bytes(sw, 'big'))}")
