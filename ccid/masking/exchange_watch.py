"""Watches: follow the blocks to and from a card, and mask PINs and keys in them. Pure.

A watch receives the blocks of one slot in order; characters of T=0 and T=1 may come in pieces of
any size. The watch returns the blocks with secret bytes masked. In doubt the watch masks: bytes
that violate the protocol may be a part of a secret whose beginning was lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from ccid.codes import Chain, ExchangeLevel, Level, Protocol
from ccid.iso7816.apdu import TPDU_HEADER
from ccid.iso7816.error_detection import CRC, lrc
from ccid.iso7816.pps import MAX_PPS, PPSS, is_pps
from ccid.iso7816.t0 import NULL
from ccid.iso7816.t1 import MORE, PROLOGUE, RESPONSE, S
from ccid.masking.secret_commands import Secrecy, is_secret, visible_length

MASK = 0x2A
"""The byte that replaces a secret byte: an asterisk in the text column of Wireshark."""
MAX_EDC = 2
"""Bytes of the longest epilogue of T=1."""


class Framing(Enum):
    """What the bytes of an XfrBlock are."""

    APDU = "apdu"
    """An APDU, a T=0 TPDU, or a part of either."""
    T0 = "t0"
    """T=0 characters."""
    T1 = "t1"
    """T=1 blocks, whole or in pieces."""


def framings(level: ExchangeLevel | None, protocol: Protocol | None) -> tuple[Framing, ...]:
    """The framings that the blocks of a reader may have.

    Args:
        level: The level of exchange of the reader.
        protocol: The protocol in force; None if unknown.
    """
    if level in (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU):
        return (Framing.APDU,)
    if protocol is Protocol.T1:
        return (Framing.T1,)
    t0 = Framing.T0 if level is ExchangeLevel.CHARACTER else Framing.APDU
    return (t0,) if protocol is Protocol.T0 else (t0, Framing.T1)


def hidden(data: bytes, start: int = 0) -> bytes:
    """``data``, masked from byte ``start`` on."""
    return data[: max(start, 0)] + bytes([MASK]) * (len(data) - max(start, 0))


def could_be_sw(data: bytes) -> bool:
    """True if ``data`` are two bytes and the first is a possible SW1: 6X or 9X (ISO/IEC
    7816-3:2006 12.1.4)."""
    return len(data) == 2 and data[0] >> 4 in (0x6, 0x9)


class Watch(ABC):
    """Follows the blocks of one slot and one framing.

    Attributes:
        secret: True while a secret exchange is under way.
        commands: The judgement of the command APDUs.
    """

    def __init__(self) -> None:
        self.secret = False
        self.commands = Secrecy()

    @abstractmethod
    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """A block to the card, masked.

        Args:
            data: The block.
            level: wLevelParameter.
        """

    @abstractmethod
    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """A block from the card, masked.

        Args:
            data: The block.
            chain: bChainParameter.
        """

    @abstractmethod
    def failed(self) -> None:
        """Note that the answer of the card did not come."""

    def secure(self) -> None:
        """Note a PC_to_RDR_Secure: the exchange that follows is secret."""
        self.secret = self.commands.secret = True


class ApduWatch(Watch):
    """The watch for APDUs and T=0 TPDUs. It shows header and Lc of a secret command, and SW1 SW2 of
    its response."""

    def __init__(self) -> None:
        super().__init__()
        self._header = b""
        """A T=0 header that came without data; the data may follow in a block of their own."""
        self._data_follow = False
        """The procedure byte has announced that the data follow."""
        self._pps = False
        """The last block to the card was a PPS request."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """A block to the card, masked: an APDU, a TPDU, a part of either, or a PPS request."""
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
        """A further part of a command, masked."""
        if data and (not self.commands.shows_data or is_secret(data)):
            self.secret = self.commands.secret = True
        return hidden(data) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """A block from the card, masked: a response, a part of one, or a procedure byte."""
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
        """The next block begins a command or is masked; nothing is expected any more."""
        self._header, self._data_follow = b"", False


class T1Watch(Watch):
    """The watch for T=1. It shows the prologue of each I-block in a secret chain, the header of the
    command APDU in the first, and a response I-block that holds SW1 SW2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self._out = b""
        """The current block to the card, as far as it has passed."""
        self._in = b""
        """The current block from the card, as far as it has passed."""
        self._nad = 0
        """NAD of the last block to the card."""
        self._ns: int | None = None
        """N(S) of the last I-block to the card."""
        self._more = False
        """M of the last I-block to the card."""
        self._after_resynch = False
        """S(RESYNCH) passed during a secret exchange: the command may come again."""
        self._begins = True
        """The current I-block to the card begins a command."""
        self._continues_secret = False
        """The current I-block to the card continues a secret command."""
        self._doubt = False
        """An answer in a secret exchange was lost: the next bytes may be the rest of it."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """Characters to the card, masked. No characters: the host requests more of the answer."""
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
            self._begin_block(block[1])
        announced = block[2] if len(block) > 2 else 0
        end = PROLOGUE + announced + MAX_EDC
        if block[1] >= 0x80:
            longest_inf = 1 if block[1] >= 0xC0 else 0  # of an S-block, of an R-block
            return self._within(data, end if announced <= longest_inf else PROLOGUE)
        inf = block[PROLOGUE : PROLOGUE + announced]
        whole = len(inf) == announced and not block[1] & MORE
        starts = self._begins and len(inf) > 0 and self.commands.begins(inf, whole)
        if before < PROLOGUE + 2:
            self.secret = self._continues_secret or starts or is_secret(inf)
            self.commands.secret |= self.secret
        if len(block) > end:
            self._hide_exchange()
        if not self.secret:
            return data
        shown = PROLOGUE
        if starts:
            shown += visible_length(inf, whole)
        return hidden(data, shown - before)

    def _within(self, data: bytes, end: int) -> bytes:
        """``data``, masked after byte ``end`` of the current block, which must end there."""
        if len(self._out) <= end:
            return data
        self._hide_exchange()
        return hidden(data, end - (len(self._out) - len(data)))

    def _hide_exchange(self) -> None:
        """The block violates the protocol: hide the block, and the answer to it."""
        self.secret = self.commands.secret = True

    def _begin_block(self, pcb: int) -> None:
        """A block to the card begins with this PCB."""
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
            self._continues_secret = self.secret
        self._ns, self._more = ns, bool(pcb & MORE)

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """Characters from the card, masked."""
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
        """True if ``block``, which may be incomplete, has the form of a block from the card."""
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
        """The rest of a lost answer may still come."""
        self._out = self._in = b""
        self._doubt |= self.secret


def _is_right(block: bytes) -> bool:
    """True if ``block`` is a whole T=1 block with a right epilogue."""
    if len(block) < PROLOGUE:
        return False
    end = PROLOGUE + block[2]
    checked, edc = block[:end], block[end:]
    return edc == lrc(checked) or any(edc == code(checked) for code in CRC)


class T0Watch(Watch):
    """The watch for T=0 characters. It masks all of a secret command but the header."""

    def __init__(self) -> None:
        super().__init__()
        self._header = b""
        """The header of the current command, as far as it has passed."""
        self._ins = 0
        """INS of the current command."""
        self._lacking = 0
        """Number of data bytes of the command that have not passed yet."""
        self._granted = 0
        """Number of data bytes that follow the last procedure byte."""
        self._sw1 = False
        """The last character from the card was SW1."""
        self._doubt = False
        """The state of the card is unknown during a secret exchange: all characters are masked."""
        self._pps = 0
        """Number of characters that a PPS response may still have."""

    def out(self, data: bytes, level: int = Level.WHOLE) -> bytes:
        """Characters to the card, masked: a header, data, or a PPS request."""
        if self._doubt:
            return hidden(data)
        self._pps = 0
        shown = 0
        if not self._header and is_pps(data):
            self._pps = MAX_PPS
            return data
        if self._granted:
            self._granted = max(0, self._granted - len(data))
            self._lacking = max(0, self._lacking - len(data))
            if data and not self.commands.shows_data:  # unexpected data after the header
                self.secret = self.commands.secret = True
        else:
            shown = TPDU_HEADER - len(self._header)
            self._header += data
            if data and len(self._header) >= TPDU_HEADER:
                self._ins, self._lacking = self._header[1], self._header[4] or 256
                self.secret = self.commands.begins(self._header)
        return hidden(data, shown) if self.secret else data

    def back(self, data: bytes, chain: int = Chain.WHOLE) -> bytes:
        """Characters from the card, masked: procedure bytes, data, SW1 SW2."""
        if len(self._header) < TPDU_HEADER:
            self._header = b""
            fits = len(data) <= self._pps
            self._pps = max(0, self._pps - len(data))
            return data if fits and not self._doubt else hidden(data)
        shown = bytearray()
        for byte in data:
            shown.append(byte if self._follow(byte) or not self.secret else MASK)
        return bytes(shown)

    def _follow(self, byte: int) -> bool:
        """Follow one character from the card.

        Returns:
            True for a procedure byte, SW1 or SW2; False for data and for an unexpected character.
        """
        if self._doubt or len(self._header) < TPDU_HEADER:
            return False
        if self._sw1:
            self._sw1 = False
            self._header, self._granted = b"", 0
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
        """The end of the command is unknown now."""
        self._doubt |= self.secret
        self._header, self._granted, self._sw1 = b"", 0, False
