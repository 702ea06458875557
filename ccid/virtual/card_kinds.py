"""The virtual cards that a command line can name.

================== =====================================================================
Name               Card
================== =====================================================================
``files``          a card with files and a PIN, after ISO/IEC 7816-4
``echo``           a card whose answers a test chooses by INS
``piv``            a PIV card (SP 800-73-4) with new keys; needs ``pyccid[piv]``
``contactless``    the card ``files`` without contacts: ISO/IEC 14443-4
``mifare-1k``      a MIFARE Classic 1K in the field of a contactless reader
``mifare-4k``      a MIFARE Classic 4K
``ultralight``     a MIFARE Ultralight
``ntag213``        an NTAG213; ``ntag215`` and ``ntag216`` are larger
``none``           no card
``vpcd:PORT``      the card of a program that connects to this TCP port of 127.0.0.1 and
                   speaks the vpcd protocol: vsmartcard's ``vicc``, jCardSim
``vpcd:HOST:PORT`` the card of a program that listens there: ``vicc --reversed``
================== =====================================================================
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ccid.ground.safe_text import short
from ccid.virtual.cards import Application, Contact, EchoCard, FileSystemCard

if TYPE_CHECKING:
    from ccid.virtual.virtual_reader import VirtualReader
    from ccid.virtual.virtual_slot import Card
    from ccid.virtual.vpcd_listener import VpcdListener


def _piv_card() -> Application:
    from ccid.virtual.cards.piv_card import PivCard

    return PivCard()


def _mifare(blocks: int) -> Application:
    from ccid.virtual.cards.mifare_classic import MifareClassic

    return MifareClassic(blocks)


def _tag(name: str) -> Application:
    from ccid.virtual.cards import type2_tags

    return type2_tags.Type2Tag(getattr(type2_tags, name))


def _contactless() -> Application:
    from ccid.virtual.cards.iso14443_card import Iso14443Card

    return Iso14443Card()


MAKERS: dict[str, Callable[[], Application] | None] = {
    "echo": EchoCard,
    "files": FileSystemCard,
    "piv": _piv_card,
    "mifare-1k": partial(_mifare, 64),
    "mifare-4k": partial(_mifare, 256),
    "ultralight": partial(_tag, "ULTRALIGHT"),
    "ntag213": partial(_tag, "NTAG213"),
    "ntag215": partial(_tag, "NTAG215"),
    "ntag216": partial(_tag, "NTAG216"),
    "contactless": _contactless,
    "none": None,
}
NAMES = (*MAKERS, "vpcd:PORT", "vpcd:HOST:PORT")
VPCD = re.compile(r"vpcd:(?:(?P<host>[^:\[\]\s]+|\[[^]\s]+]):)?(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class CardKind:
    """A kind of virtual card.

    Attributes:
        name: The name on the command line.
        make: Makes a new card; None if the slot is empty at first.
        vpcd_port: The TCP port at which a program provides the card; None for other kinds.
        vpcd_host: The host where that program listens; empty if it connects to this machine.
    """

    name: str
    make: Callable[[], Application] | None
    vpcd_port: int | None = None
    vpcd_host: str = ""

    def listeners(
        self,
        readers: Sequence[VirtualReader],
        insert_as: Callable[[Application], Card] = Contact,
    ) -> list[VpcdListener]:
        """For ``vpcd:PORT``: one listener for each slot of the readers, not started.

        The first slot has PORT, the next slot the next port, and so on. With port 0 every slot has
        a free port. For ``vpcd:HOST:PORT`` they call instead. Other kinds have no listeners.

        Args:
            readers: The virtual readers.
            insert_as: Makes what goes into the slot from a card.

        Raises:
            ValueError: There are more slots than ports from PORT on.
        """
        if self.vpcd_port is None:
            return []
        from ccid.virtual.vpcd_listener import VpcdListener

        places = [
            (reader, interface, slot.index)
            for reader in readers
            for interface, function in enumerate(reader.functions)
            for slot in function.slots
        ]
        if self.vpcd_port and self.vpcd_port + len(places) - 1 > 0xFFFF:
            raise ValueError(f"{self.name}: {len(places)} slots need as many ports up to 65535")
        made: list[VpcdListener] = []
        for number, (reader, interface, slot) in enumerate(places):
            port = self.vpcd_port + number if self.vpcd_port else 0
            if self.vpcd_host:
                from ccid.virtual.vpcd_caller import VpcdCaller

                place = (self.vpcd_host, port)
                made.append(VpcdCaller(reader, place, slot, interface, insert_as))
            else:
                made.append(VpcdListener(reader, port, slot, interface, insert_as))
        return made


def card_kind(name: str) -> CardKind:
    """The kind of card with this name.

    Raises:
        ValueError: There is no such kind.
    """
    if name in MAKERS:
        return CardKind(name, MAKERS[name])
    found = VPCD.fullmatch(name)
    if found is None:
        raise ValueError(f"no card {short(name)}; there are {', '.join(NAMES)}")
    host, port = (found["host"] or "").strip("[]"), int(found["port"])
    if port > 0xFFFF or (host and not port):
        raise ValueError(f"there is no port {port}")
    return CardKind(name, None, port, host)


def card_argument(text: str) -> CardKind:
    """:func:`card_kind`, for argparse."""
    try:
        return card_kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
