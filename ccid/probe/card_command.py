"""``ccid-probe card``: power the card, explain its ATR, select its master file."""

from __future__ import annotations

import argparse
from typing import Any

from ccid.device.card import Card
from ccid.probe.exchanges import Exchange
from ccid.probe.reader_choice import card_slot, opened, print_json, protocol_of, say

SELECT_MF = bytes.fromhex("00A4000C023F00")
"""SELECT the master file, no response data (ISO/IEC 7816-4:2013 11.1.1)."""


def run(options: argparse.Namespace) -> int:
    """Power the card, print its ATR, select its master file."""
    with opened(options) as reader:
        slot = card_slot(reader, options)
        with slot.connect(protocol_of(options)) as card:
            if not options.json:
                show_card(card)
            exchange = Exchange(SELECT_MF, card.transmit(SELECT_MF), what="SELECT MF")
            if options.json:
                explanation = card.atr.explain().splitlines()
                exchanges = [exchange.as_json()]
                print_json("card", **session_of(card, exchanges), explanation=explanation)
            else:
                exchange.show()
    return 0


def show_card(card: Card) -> None:
    """Print reader, ATR and protocol of a card."""
    say(f"Reader: {card.slot.reader.name}, slot {card.slot.index}")
    say(f"ATR: {card.atr}")
    for line in card.atr.explain().splitlines():
        say(f"  {line}")
    say(f"Protocol: {card.protocol}")


def session_of(card: Card, exchanges: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON of a command that sends APDUs says of reader and card."""
    info = card.slot.reader.info
    return {
        "name": info.name,
        "path": info.path,
        "slot": card.slot.index,
        "atr": card.atr.hex().upper(),
        "protocol": str(card.protocol),
        "exchanges": exchanges,
    }
