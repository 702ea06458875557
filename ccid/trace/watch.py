"""Follows the blocks that go to a card and come back, to tell what in them is a PIN or a key.

A watch is given the blocks of one slot in the order in which they pass; those of T=0 and T=1 may
be pieces of any size. It returns them with what is secret masked. In doubt it masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from ccid.codes import Chain, ExchangeLevel, Level, Protocol
from ccid.iso7816.apdu import Secrecy, is_secret, visible_length
from ccid.iso7816.pps import PPSS
from ccid.iso7816.t1 import MORE, PROLOGUE, RESPONSE, S
from ccid.quirks.vocabulary import TPDU_ESCAPE

MASK = 0x2A
"""Stands for every byte that is not shown: an asterisk in Wireshark's text column."""
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


def framings(level: ExchangeLevel | None, protocol: Protocol | None) -> tuple[Framing, ...]:
    """What the blocks of a reader may be.

    Args:
        level: The reader's level of exchange.
        protocol: In force with the card; None if that is not known.
    """
    if level in (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU):
        return (Framing.APDU,)
    if protocol is Protocol.T1:
        return (Framing.T1,)
    t0 = Framing.T0 if level is ExchangeLevel.CHARACTER else Framing.APDU
    return (t0,) if protocol is Protocol.T0 else (t0, Framing.T1)


def carries_t1_block(escape: bytes) -> bool:
    """True if the data of an Escape are a T=1 block (quirk ``tpdu-escape``)."""
    block = escape[len(TPDU_ESCAPE) :]
    if not escape.startswith(TPDU_ESCAPE) or len(block) <= PROLOGUE:
        return False
    return len(block) - PROLOGUE - block[2] in (1, 2)


def hidden(data: bytes, start: int = 0) -> bytes:
    """``data``, masked from ``start`` on."""
    return data[: max(start, 0)] + bytes([MASK]) * (len(data) - max(start, 0))


class Watch(ABC):
    """Follows the blocks of one slot."""

    def __init__(self) -> None:
        self.secret = False
        """What passes now belongs to a secret exchange."""
        self.commands = Secrecy()

    @abstractmethod
    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """A block to the card, and its wLevelParameter."""

    @abstractmethod
    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """A block of the card, and its bChainParameter."""

    @abstractmethod
    def failed(self) -> None:
        """The card's answer did not come."""

    def secure(self) -> None:
        """A Secure passed: what goes on with it is secret."""
        self.secret = self.commands.secret = True


class ApduWatch(Watch):
    """Of APDUs and TPDUs: of a secret command the header and Lc are shown, of its response
    SW1 SW2."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        if level in (Level.WHOLE, Level.BEGINS):
            self.secret = self.commands.begins(data)
            if not self.secret:
                return data
            return hidden(data, visible_length(data, level == Level.WHOLE))
        if is_secret(data):  # a part that looks like a beginning
            self.secret = self.commands.secret = True
        return hidden(data) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        if not self.secret:
            return data
        shown = data[-2:] if chain in (Chain.WHOLE, Chain.ENDS) else b""
        return hidden(data[: len(data) - len(shown)]) + shown

    def failed(self) -> None:
        """The next block tells by itself whether it begins a command."""


class T1Watch(Watch):
    """Of T=1: of an I-block of a secret chain the prologue and the APDU's header are shown, of
    an I-block that answers it the prologue, and all of it if it holds SW1 SW2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self._out = b""
        self._in = b""
        self._ns: int | None = None
        self._more = False
        self._after_resynch = False
        self._begins = True
        self._goes_on = False

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """Characters to the card; none only ask for more of its answer."""
        before = len(self._out)
        if data:
            self._in = b""
        self._out += data
        block = self._out
        if len(block) < 2 or block[0] == PPSS:
            return data
        if before < 2:
            self._begin(block[1])
        if block[1] >= 0x80:
            return data
        inf = block[PROLOGUE : PROLOGUE + block[2]] if len(block) > 2 else b""
        starts = self._begins and len(inf) > 0 and self.commands.begins(inf)
        if before < PROLOGUE + 2:
            self.secret = self._goes_on or starts or is_secret(inf)
            self.commands.secret |= self.secret
        if not self.secret:
            return data
        shown = PROLOGUE
        if starts:
            shown += visible_length(inf, len(inf) == block[2] and not block[1] & MORE)
        return hidden(data, shown - before)

    def _begin(self, pcb: int) -> None:
        """A block to the card begins."""
        name = pcb & ~RESPONSE
        if pcb >= 0xC0:
            self._after_resynch |= name == S.RESYNCH and self.secret
            if name in (S.RESYNCH, S.ABORT):
                self._ns, self._more = None, False
        if pcb >= 0x80:
            return
        ns = pcb >> 6
        if ns != self._ns:
            self._begins = not self._more
            if self._begins and not self._after_resynch:
                self.secret = False
            self._after_resynch = False
            self._goes_on = self.secret
        self._ns, self._more = ns, bool(pcb & MORE)

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        before = len(self._in)
        self._out = b"" if data else self._out
        self._in += data
        block = self._in
        if not self.secret or len(block) < PROLOGUE or block[1] >= 0x80:
            return data
        if block[2] == 2 and not block[1] & MORE:
            return data
        return hidden(data, PROLOGUE - before)

    def failed(self) -> None:
        self._out = self._in = b""


class T0Watch(Watch):
    """Of T=0: of a secret command all but the header is masked."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = b""
        self._ins = 0
        self._lacking = 0
        """Data bytes of the command that have not passed."""
        self._granted = 0
        """How many of them the procedure byte lets pass now."""
        self._sw1 = False
        self._doubt = False

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
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
                self.secret = self.commands.begins(self._heard)
        return hidden(data, shown) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """Characters of the card: procedure bytes, data, SW1 SW2."""
        if len(self._heard) < HEADER:
            self._heard = b""  # a PPS response
            return hidden(data) if self._doubt else data
        shown = bytearray()
        for byte in data:
            shown.append(MASK if self._is_data(byte) and self.secret else byte)
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
        """Where the command ends is not known any more."""
        self._doubt |= self.secret
        self._heard, self._granted, self._sw1 = b"", 0, False
