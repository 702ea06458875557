"""Follows what passes on a card's contacts, to tell which characters are a PIN or a key.

A watch is given the characters in the order in which they pass, in pieces of any size, and
returns them with the secret ones masked. In doubt it masks.
"""

from __future__ import annotations

from enum import Enum

from ccid.iso7816.apdu import is_secret, visible_length
from ccid.trace.secrets import MASK
from ccid.virtual.cards.pps import PPSS
from ccid.virtual.cards.t1_blocks import ABORT, MORE, PROLOGUE, RESYNCH

HEADER = 5
NULL = 0x60


class Framing(Enum):
    """What the characters of a block are."""

    APDU = "apdu"
    """An APDU, a T=0 TPDU, or a part of one."""
    T0 = "t0"
    """Characters of T=0."""
    T1 = "t1"
    """T=1 blocks, whole or in pieces."""


def hidden(data: bytes, start: int = 0) -> bytes:
    """``data``, masked from ``start`` on."""
    return data[: max(start, 0)] + bytes([MASK]) * (len(data) - max(start, 0))


class T1Watch:
    """Of T=1: of an I-block of a secret chain the prologue and the APDU's header are shown, of
    an I-block that answers it the prologue, and all of it if it holds SW1 SW2 alone."""

    def __init__(self) -> None:
        self._out = b""
        self._in = b""
        self._ns: int | None = None
        self._more = False
        self._secret = False
        self._after_resynch = False
        self._begins = True

    def out(self, data: bytes) -> bytes:
        """Characters to the card."""
        before = len(self._out)
        self._in = b""
        self._out += data
        block = self._out
        if len(block) < 2 or block[0] == PPSS:
            return data
        if before < 2:
            self._begin(block[1])
        if block[1] >= 0x80:
            return data
        inf = block[PROLOGUE:]
        starts = is_secret(inf)
        if before < PROLOGUE + 2:
            self._secret |= starts
        if not self._secret:
            return data
        shown = PROLOGUE
        if starts and self._begins:
            shown += visible_length(inf)
        return hidden(data, shown - before)

    def _begin(self, pcb: int) -> None:
        """A block to the card begins."""
        name = pcb & 0x1F
        if pcb >= 0xC0:
            self._after_resynch |= name == RESYNCH and self._secret
            if name in (RESYNCH, ABORT):
                self._ns, self._more = None, False
        if pcb >= 0x80:
            return
        ns = pcb >> 6
        if ns != self._ns:
            self._begins = not self._more
            if self._begins and not self._after_resynch:
                self._secret = False
            self._after_resynch = False
        self._ns, self._more = ns, bool(pcb & MORE)

    def back(self, data: bytes) -> bytes:
        """Characters of the card."""
        before = len(self._in)
        self._out = b"" if data else self._out
        self._in += data
        block = self._in
        if not self._secret or len(block) < PROLOGUE or block[1] >= 0x80 or block[2] == 2:
            return data
        return hidden(data, PROLOGUE - before)

    def failed(self) -> None:
        """The card's answer did not come."""
        self._out = self._in = b""


class T0Watch:
    """Of T=0: of a secret command all but the header is masked."""

    def __init__(self) -> None:
        self._heard = b""
        self._ins = 0
        self._lacking = 0
        """Data bytes of the command that have not passed."""
        self._granted = 0
        """How many of them the procedure byte lets pass now."""
        self._sw1 = False
        self._secret = False
        self._doubt = False

    def out(self, data: bytes) -> bytes:
        """Characters to the card."""
        if self._doubt:
            return hidden(data)
        shown = 0
        if self._granted:
            self._granted = max(0, self._granted - len(data))
            self._lacking = max(0, self._lacking - len(data))
        else:
            shown = HEADER - len(self._heard)
            self._heard += data
            if len(self._heard) >= HEADER:
                self._ins, self._lacking = self._heard[1], self._heard[4] or 256
                self._secret = is_secret(self._heard)
        return hidden(data, shown) if self._secret else data

    def back(self, data: bytes) -> bytes:
        """Characters of the card: procedure bytes, data, SW1 SW2."""
        if len(self._heard) < HEADER:
            self._heard = b""  # a PPS response
            return hidden(data) if self._doubt else data
        shown = bytearray()
        for byte in data:
            shown.append(MASK if self._is_data(byte) and self._secret else byte)
        return bytes(shown)

    def _is_data(self, byte: int) -> bool:
        """True if it is data; a procedure byte takes its effect."""
        if self._sw1:
            self._sw1 = False
            self._heard, self._granted = b"", 0
            return False
        if self._granted:
            self._granted -= 1
            self._lacking -= 1
            return True
        if byte == self._ins:
            self._granted = self._lacking
        elif byte == self._ins ^ 0xFF:
            self._granted = min(1, self._lacking)
        elif byte != NULL and byte >> 4 in (0x6, 0x9):
            self._sw1 = True
        return False

    def failed(self) -> None:
        """The card's answer did not come. Where the command ends is not known any more."""
        self._doubt |= self._secret
        self._heard, self._granted, self._sw1 = b"", 0, False
