"""A storage card behind a contactless reader: keys, authentication, reading, writing.

A storage card (MIFARE Classic and Ultralight, NTAG, ICODE …) understands no APDU. A contactless
reader takes the pseudo-APDUs of PC/SC part 3 with class FF, and does on the air what the card
needs. A contact reader passes them to the card, which refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ccid.errors import CardRefused
from ccid.iso7816.status_words import explain

if TYPE_CHECKING:
    from ccid.device.card import Card

GET_UID = bytes.fromhex("FFCA000000")
GET_ATS = bytes.fromhex("FFCA010000")
KEY_TYPES = {"A": 0x60, "B": 0x61}
"""The key types of MIFARE Classic (PC/SC part 3, 3.2.2.1.6)."""
NONVOLATILE = 0x20
"""Bit of the key structure, P1 of LOAD KEYS (PC/SC part 3, 3.2.2.1.4)."""
MAX_ADDRESS, MAX_KEY_NUMBER = 0xFFFF, 0xFF
MAX_DATA, MAX_READ = 255, 256
"""Most bytes that one command writes, and reads."""

NOT_CONTACTLESS = "only a contactless reader knows such commands"
OF_ALL = {
    0x6300: "the reader or the card refused, and gave no reason",
    0x6581: "the card could not do it: memory failure, or no such address",
    0x6800: f"class not supported: {NOT_CONTACTLESS}",
    0x6A81: "this card or reader does not have the function",
    0x6A82: "there is no such address on this card",
    0x6A86: f"wrong P1 P2: {NOT_CONTACTLESS}",
    0x6D00: f"instruction not supported: {NOT_CONTACTLESS}",
    0x6E00: f"class not supported: {NOT_CONTACTLESS}",
}
"""Status words of all pseudo-APDUs (PC/SC part 3, 3.2.2.1)."""
OF_LOAD_KEY = {
    0x6382: "keys of the card cannot be loaded",
    0x6383: "keys of the reader cannot be loaded",
    0x6384: "the reader takes no key in plain",
    0x6385: "the reader takes no key under secure transmission",
    0x6386: "the reader has no volatile memory for keys; try nonvolatile=True",
    0x6387: "the reader has no non-volatile memory for keys; try nonvolatile=False",
    0x6388: "the reader has no place with this number",
    0x6389: "the key has the wrong length",
    0x6986: "the reader does not take this kind of key",
}
"""Status words of LOAD KEYS (PC/SC part 3, 3.2.2.1.4)."""
OF_AUTHENTICATE = {
    0x6300: "authentication failed: wrong key, or no key needed here",
    0x6982: "authentication failed: wrong key",
    0x6983: "this address cannot be authenticated",
    0x6984: "the key in this place cannot be used; was it loaded?",
    0x6986: "the reader does not know this type of key",
    0x6988: "no key was loaded into this place",
}
"""Status words of GENERAL AUTHENTICATE (PC/SC part 3, 3.2.2.1.6)."""
OF_MEMORY = {
    0x6282: "the card ended before all bytes were there",
    0x6300: "the card refused; is authentication needed?",
    0x6981: "the command does not fit this kind of card",
    0x6982: "authentication is needed, or the access conditions do not allow it",
    0x6986: "the command is not allowed here: authenticate first, or the block is locked",
}
"""Status words of READ BINARY and UPDATE BINARY (PC/SC part 3, 3.2.2.1.8 and 3.2.2.1.9)."""


def ask(card: Card, apdu: bytes, what: str, meanings: Mapping[int, str] | None = None) -> bytes:
    """Send a pseudo-APDU of PC/SC part 3.

    Args:
        card: The card.
        apdu: The pseudo-APDU.
        what: What was asked for, for the error.
        meanings: The meanings of status words of this command.

    Returns:
        The response data.

    Raises:
        CardRefused: SW1 SW2 is not 9000.
        CcidError: As :meth:`ccid.Card.transmit`.
    """
    response = card.transmit(apdu)
    sw = int.from_bytes(response[-2:], "big")
    if len(response) < 2 or sw != 0x9000:
        reason = (meanings or {}).get(sw) or OF_ALL.get(sw) or explain(sw)
        raise CardRefused(
            f"{card.slot.reader.name}: {what}: {sw:04X}, {reason}",
            sw=sw,
            reader=card.slot.reader.name,
            slot=card.slot.index,
        )
    return response[:-2]


class StorageCard:
    """The memory of a storage card behind a contactless reader. :attr:`Card.storage` has it."""

    def __init__(self, card: Card) -> None:
        """Make the object; :attr:`Card.storage` does.

        Args:
            card: The card.
        """
        self._card = card

    def __repr__(self) -> str:
        return f"<ccid.StorageCard of {self._card!r}>"

    def load_key(self, key: bytes, number: int = 0, *, nonvolatile: bool = False) -> None:
        """Load a key into the reader (LOAD KEYS, PC/SC part 3, 3.2.2.1.4). No log, trace or error
        has the key.

        Args:
            key: The key; 6 bytes for MIFARE Classic.
            number: The place in the reader, 0 to 255. Most readers have 0 and 1.
            nonvolatile: True to keep the key in the reader without power. Some readers, such as
                OMNIKEY's, have no other places; their memory wears out when it is written often.

        Raises:
            CardRefused: The reader did not take the key; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: ``key`` or ``number`` is none.
        """
        raw = _bytes(key, "key", MAX_DATA)
        structure = NONVOLATILE if nonvolatile else 0
        place = _number(number, "number", MAX_KEY_NUMBER)
        command = bytes((0xFF, 0x82, structure, place, len(raw))) + raw
        ask(self._card, command, f"load key {place}", OF_LOAD_KEY)

    def authenticate(
        self,
        address: int,
        key: bytes | None = None,
        *,
        key_type: str = "A",
        number: int = 0,
        nonvolatile: bool = False,
    ) -> None:
        """Authenticate to the sector of a block (GENERAL AUTHENTICATE, PC/SC part 3, 3.2.2.1.6).
        The authentication lasts until the next one, or a command that fails.

        Args:
            address: The number of a block in the sector.
            key: The key, which is loaded first (:meth:`load_key`); None for the key that is
                already in place ``number``.
            key_type: ``"A"`` or ``"B"``.
            number: The place of the key in the reader.
            nonvolatile: As for :meth:`load_key`.

        Raises:
            CardRefused: The key is wrong, or cannot be used; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        place = _number(number, "number", MAX_KEY_NUMBER)
        if key_type not in KEY_TYPES:
            raise ValueError('key_type: "A" or "B" is wanted')
        where = _number(address, "address", MAX_ADDRESS).to_bytes(2, "big")
        command = bytes.fromhex("FF8600000501") + where + bytes((KEY_TYPES[key_type], place))
        what = f"authenticate block {address} with key {key_type}"
        with self._card.exclusive():
            if key is not None:
                self.load_key(key, number, nonvolatile=nonvolatile)
            ask(self._card, command, what, OF_AUTHENTICATE)

    def read(self, address: int, length: int = 16) -> bytes:
        """Read data (READ BINARY, PC/SC part 3, 3.2.2.1.8).

        Args:
            address: The number of the first block (MIFARE Classic: 16 bytes) or page (Ultralight,
                NTAG: 4 bytes).
            length: Number of bytes, 1 to 256. MIFARE Classic takes 16 or a multiple within the
                sector; Ultralight and NTAG give 4 pages at most with many readers.

        Raises:
            CardRefused: The card did not give the data; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        where = _number(address, "address", MAX_ADDRESS).to_bytes(2, "big")
        count = _number(length, "length", MAX_READ)
        if not count:
            raise ValueError("length: at least one byte is wanted")
        command = b"\xff\xb0" + where + bytes((count & 0xFF,))
        return ask(self._card, command, f"read {count} bytes at {address}", OF_MEMORY)

    def update(self, address: int, data: bytes) -> None:
        """Write data (UPDATE BINARY, PC/SC part 3, 3.2.2.1.9). No log, trace or error has the data,
        which are a key in the last block of a MIFARE Classic sector.

        Args:
            address: As for :meth:`read`.
            data: The bytes; 16 for a block of MIFARE Classic, 4 for a page of Ultralight or NTAG.

        Raises:
            CardRefused: The card did not take the data; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        raw = _bytes(data, "data", MAX_DATA)
        where = _number(address, "address", MAX_ADDRESS).to_bytes(2, "big")
        command = b"\xff\xd6" + where + bytes((len(raw),)) + raw
        ask(self._card, command, f"write {len(raw)} bytes at {address}", OF_MEMORY)


def _number(value: int, what: str, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}: a whole number is wanted, not {type(value).__name__}")
    if not 0 <= value <= highest:
        raise ValueError(f"{what}: a number from 0 to {highest} is wanted")
    return value


def _bytes(value: bytes, what: str, longest: int) -> bytes:
    """``value``; no error has it."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{what}: bytes are wanted, not {type(value).__name__}")
    raw = bytes(value)
    if not 1 <= len(raw) <= longest:
        raise ValueError(f"{what}: 1 to {longest} bytes are wanted, not {len(raw)}")
    return raw
