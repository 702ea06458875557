"""``ccid-probe card``: power the card, explain its ATR, select its master file."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from ccid.device.card import Card
from ccid.errors import CardRefused
from ccid.iso7816.atr import Atr
from ccid.probe import card_names
from ccid.probe.exchanges import Exchange
from ccid.probe.reader_choice import card_slot, opened, print_json, protocol_of, say

SELECT_MF = bytes.fromhex("00A4000C023F00")
"""SELECT the master file, no response data (ISO/IEC 7816-4:2013 11.1.1)."""


def run(options: argparse.Namespace) -> int:
    """Power the card, print its ATR, select its master file."""
    with opened(options) as reader:
        slot = card_slot(reader, options)
        with slot.connect(protocol_of(options)) as card:
            names = contactless(card) if made_by_reader(card.atr) else {}
            if not options.json:
                show_card(card)
                for name, value in names.items():
                    say(f"{name}: {value.hex(' ').upper()}")
            exchanges = []
            if card.atr.historical_data.storage_card is None:  # a storage card takes no APDU
                exchange = Exchange(SELECT_MF, card.transmit(SELECT_MF), what="SELECT MF")
                exchanges.append(exchange.as_json())
                if not options.json:
                    exchange.show()
            if options.json:
                print_json(
                    "card",
                    **session_of(card, exchanges),
                    explanation=card.atr.explain().splitlines(),
                    cards=list(card_names.names(card.atr.raw)),
                    uid=names["UID"].hex().upper() if "UID" in names else None,
                    ats=names["ATS"].hex().upper() if "ATS" in names else None,
                )
    return 0


def show_card(card: Card) -> None:
    """Print reader, ATR, which card it may be, and protocol."""
    say(f"Reader: {card.slot.reader.name}, slot {card.slot.index}")
    say(f"ATR: {card.atr}")
    for line in card.atr.explain().splitlines():
        say(f"  {line}")
    for line in card_names.names(card.atr.raw):
        say(f"  Card: {line}")
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


def made_by_reader(atr: Atr) -> bool:
    """True if an ATR has the form that contactless readers make (PC/SC part 3, 3.1.3.2.3): 3B 8N,
    80 01. Cards with contacts may have such an ATR, too."""
    return atr.raw[:1] == b"\x3b" and atr.raw[1] >> 4 == 8 and atr.raw[2:4] == b"\x80\x01"


def contactless(card: Card) -> dict[str, bytes]:
    """UID and ATS as far as the reader knows them: a contact reader knows neither."""
    found = {}
    for name, ask in (("UID", card.uid), ("ATS", card.ats)):
        with suppress(CardRefused):
            found[name] = ask()
    return found
