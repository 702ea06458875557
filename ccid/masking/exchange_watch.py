"""Follows the blocks that go to a card and come back, to tell what in them is a PIN or a key.

A watch is given the blocks of one slot in the order in which they pass; those of T=0 and T=1 may
be pieces of any size. It returns them with what is secret masked. In doubt it masks: what does not
have the form of the protocol, or comes where the protocol has nothing, may be a part of a secret
whose beginning was lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from ccid.codes import Chain, ExchangeLevel, Level, Protocol
from ccid.iso7816.apdu import TPDU_HEADER, Secrecy, is_secret, visible_length
from ccid.iso7816.edc import CRC, lrc
from ccid.iso7816.pps import MAX_PPS, PPSS, is_pps
from ccid.iso7816.t0 import NULL
from ccid.iso7816.t1 import MORE, PROLOGUE, RESPONSE, S

MASK = 0x2A
"""Stands for every byte that is not shown: an asterisk in Wireshark's text column."""
MAX_EDC = 2


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


def hidden(data: bytes, start: int = 0) -> bytes:
    """``data``, masked from ``start`` on."""
    return data[: max(start, 0)] + bytes([MASK]) * (len(data) - max(start, 0))


def could_be_sw(data: bytes) -> bool:
    """True if two bytes are SW1 SW2 (ISO/IEC 7816-3:2006 12.1.4), by the look of SW1."""
    return len(data) == 2 and data[0] >> 4 in (0x6, 0x9)


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

    def __init__(self) -> None:
        super().__init__()
        self._header = b""
        """Of a T=0 TPDU that came alone: its data may follow."""
        self._data_follow = False
        self._pps = False

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        whole, data_follow = level == Level.WHOLE, self._data_follow
        self._data_follow = False
        self._pps = whole and is_pps(data)
        if self._pps:
            self.secret = False
            return data
        if data_follow or level not in (Level.WHOLE, Level.BEGINS):
            return self._part(data)
        self._header = data if whole and len(data) == TPDU_HEADER else b""
        self.secret = self.commands.begins(data, whole)
        if not self.secret:
            return data
        return hidden(data, visible_length(data, whole))

    def _part(self, data: bytes) -> bytes:
        """More of a command."""
        if data and (not self.commands.shows_data or is_secret(data)):
            self.secret = self.commands.secret = True
        return hidden(data) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        header, self._header = self._header, b""
        is_procedure = len(data) == 1 and chain == Chain.WHOLE
        if header and is_procedure and data[0] in (header[1], header[1] ^ 0xFF):
            self._data_follow = True
            return data
        if self._pps and not is_pps(data):
            return hidden(data)
        is_last = chain in (Chain.WHOLE, Chain.ENDS)
        if is_last:
            self.commands.ends()
        if not self.secret:
            return data
        shown = data[-2:] if is_last and could_be_sw(data[-2:]) else b""
        return hidden(data[: len(data) - len(shown)]) + shown

    def failed(self) -> None:
        """The next block tells by itself whether it begins a command."""
        self._header, self._data_follow = b"", False


class T1Watch(Watch):
    """Of T=1: of an I-block of a secret chain the prologue and the APDU's header are shown, of
    an I-block that answers it the prologue, and all of it if it holds SW1 SW2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self._out = b""
        self._in = b""
        self._nad = 0
        self._ns: int | None = None
        self._more = False
        self._after_resynch = False
        self._begins = True
        self._goes_on = False
        self._doubt = False
        """An answer to something secret was lost: what comes may be the rest of it."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """Characters to the card; none only ask for more of its answer."""
        before = len(self._out)
        if data:
            self._in = b""
        self._out += data
        block = self._out
        if len(block) < 2:
            return data
        if block[0] == PPSS:
            return self._within(data, 0 if block[1] & 0x80 else MAX_PPS)
        self._nad = block[0]
        if before < 2:
            self._begin(block[1])
        announced = block[2] if len(block) > 2 else 0
        end = PROLOGUE + announced + MAX_EDC
        if block[1] >= 0x80:
            return self._within(data, end if announced <= (block[1] >= 0xC0) else PROLOGUE)
        inf = block[PROLOGUE : PROLOGUE + announced]
        whole = len(inf) == announced and not block[1] & MORE
        starts = self._begins and len(inf) > 0 and self.commands.begins(inf, whole)
        if before < PROLOGUE + 2:
            self.secret = self._goes_on or starts or is_secret(inf)
            self.commands.secret |= self.secret
        if len(block) > end:
            self._hide_on()
        if not self.secret:
            return data
        shown = PROLOGUE
        if starts:
            shown += visible_length(inf, whole)
        return hidden(data, shown - before)

    def _within(self, data: bytes, end: int) -> bytes:
        """``data``, which should end the block before ``end``: what goes beyond is no block."""
        if len(self._out) <= end:
            return data
        self._hide_on()
        return hidden(data, end - (len(self._out) - len(data)))

    def _hide_on(self) -> None:
        """This is not what it should be: hide it, and what answers it."""
        self.secret = self.commands.secret = True

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
                self.secret = self._doubt = False
            self._after_resynch = False
            self._goes_on = self.secret
        self._ns, self._more = ns, bool(pcb & MORE)

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        before = len(self._in)
        self._out = b"" if data else self._out
        self._in += data
        block = self._in
        if not self.secret:
            return data
        self._doubt |= not self._could_be(block)
        if self._doubt and (before or not _is_right(block)):
            return hidden(data)
        if len(block) < PROLOGUE:
            return data
        end = PROLOGUE + block[2] + MAX_EDC
        is_sw = block[2] == 2 and not block[1] & MORE and could_be_sw((block + b"\x90")[3:5])
        return hidden(data, (end if block[1] >= 0x80 or is_sw else PROLOGUE) - before)

    def _could_be(self, block: bytes) -> bool:
        """True if this has the form of a block from the card, as far as it is there."""
        if block[:1] != bytes((self._nad >> 4 | self._nad << 4 & 0xF0,))[: len(block)]:
            return False
        if len(block) < 2:
            return True
        pcb, LEN = block[1], block[2] if len(block) > 2 else 0
        if pcb < 0x80:
            return not pcb & 0x1F
        if pcb < 0xC0:
            return not pcb & 0x2C and LEN == 0
        return pcb & 0x1F <= 4 and LEN <= 1

    def failed(self) -> None:
        self._out = self._in = b""
        self._doubt |= self.secret


def _is_right(block: bytes) -> bool:
    """True if this is a whole T=1 block, its check bytes right."""
    if len(block) < PROLOGUE:
        return False
    end = PROLOGUE + block[2]
    checked, edc = block[:end], block[end:]
    return edc == lrc(checked) or any(edc == code(checked) for code in CRC)


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
        self._pps = 0
        """How many characters a PPS response may have."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        if self._doubt:
            return hidden(data)
        self._pps = 0
        shown = 0
        if not self._heard and is_pps(data):
            self._pps = MAX_PPS
            return data
        if self._granted:
            self._granted = max(0, self._granted - len(data))
            self._lacking = max(0, self._lacking - len(data))
            if data and not self.commands.shows_data:  # the header did not tell that it has data
                self.secret = self.commands.secret = True
        else:
            shown = TPDU_HEADER - len(self._heard)
            self._heard += data
            if data and len(self._heard) >= TPDU_HEADER:
                self._ins, self._lacking = self._heard[1], self._heard[4] or 256
                self.secret = self.commands.begins(self._heard)
        return hidden(data, shown) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """Characters of the card: procedure bytes, data, SW1 SW2."""
        if len(self._heard) < TPDU_HEADER:
            self._heard = b""
            fits = len(data) <= self._pps
            self._pps = max(0, self._pps - len(data))
            return data if fits and not self._doubt else hidden(data)
        shown = bytearray()
        for byte in data:
            shown.append(byte if self._is_procedure(byte) or not self.secret else MASK)
        return bytes(shown)

    def _is_procedure(self, byte: int) -> bool:
        """True if it is a procedure byte, which takes its effect, or of SW1 SW2; not if it is
        data, or nothing that may come."""
        if self._doubt or len(self._heard) < TPDU_HEADER:
            return False
        if self._sw1:
            self._sw1 = False
            self._heard, self._granted = b"", 0
            return True
        if self._granted:
            self._granted -= 1
            self._lacking -= 1
            return False
        if byte == self._ins:
            self._granted = self._lacking
        elif byte == self._ins ^ 0xFF:
            self._granted = min(1, self._lacking)
        elif byte != NULL:
            self._sw1 = byte >> 4 in (0x6, 0x9)
            self._doubt |= not self._sw1 and self.secret
            return self._sw1
        return True

    def failed(self) -> None:
        """Where the command ends is not known any more."""
        self._doubt |= self.secret
        self._heard, self._granted, self._sw1 = b"", 0, False
