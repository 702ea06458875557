"""T=1, the interface device's side: ISO/IEC 7816-3:2006 11.

Theory of operation. Blocks go to and fro in turn: prologue NAD PCB LEN, information field,
epilogue. An I-block carries a part of an APDU; its N(S) alternates, each side has its own. An
R-block acknowledges a part of a chain, or asks for a block again; its N(R) is the N(S) of the
I-block that its sender expects. S-blocks talk about the protocol itself: RESYNCH, IFS, ABORT,
WTX. An I-block with M = 1 is acknowledged by an R-block that asks for the next; the last one, and
every I-block of the card, is acknowledged by the next I-block of the other side (11.6.2).

This is a machine without input or output. Its generators yield the :class:`Block` to send and
are sent what came back: the bytes of a block, or a :class:`LinkError` if there was none. What the
card may do wrong is an input like any other. :func:`ccid.iso7816.machine.run` drives it.

What can go wrong (11.6.3). After an invalid block or none, an R-block asks for what was lost, at
most twice in succession; an R-block of the card that asks for our block again gets it, under the
same limit. Whatever brings the exchange forward ends the succession. When the limit is reached
the two sides have lost each other and S(RESYNCH) starts anew, with at most three attempts. The
command is sent again only if its last I-block never went out: a card must not debit twice. Else
the exchange ends in a :class:`~ccid.errors.ProtocolError` that says it may have been executed, and
the next exchange begins with S(RESYNCH). Only waiting time extensions are not counted: a card may
compute for minutes, and whoever drives the machine bounds that by time.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum, IntEnum
from typing import NamedTuple

from ccid.errors import CardMute, InvalidApdu, ProtocolError
from ccid.iso7816.apdu import HEADER_LENGTH, MAX_EXTENDED, MAX_RESPONSE, SW_LENGTH, Bytes
from ccid.iso7816.edc import CRC, LRC, Edc

PROLOGUE = 3
"""NAD, PCB, LEN."""
DEFAULT_IFS = 32
"""IFSC and IFSD before anybody said anything else, in bytes (11.4.2)."""
MAX_IFS = 254
"""255 is reserved (11.4.2)."""
RETRIES = 2
"""More attempts in succession, before the two sides have to synchronise (11.6.3.2)."""
RESYNCH_ATTEMPTS = 3
"""S(RESYNCH request) in succession (11.6.3.2), and also how often one command starts anew."""
MAX_NOTICES = 8
"""S-blocks other than WTX that a card may send without bringing the exchange forward."""


class LinkError(Enum):
    """Why there is no block."""

    PARITY = "parity error"
    MUTE = "no block within the waiting time"
    OTHER = "another error on the way"


class Block(NamedTuple):
    """A block to send.

    Attributes:
        data: All its bytes.
        multiplier: How many times the block waiting time the card may take for its answer, as
            it asked for by S(WTX request); 0 if it did not ask.
    """

    data: bytes
    multiplier: int = 0


class RCode(IntEnum):
    """The low bits of an R-block's PCB (11.3.2.2)."""

    ACKNOWLEDGE = 0
    EDC_OR_PARITY = 1
    OTHER = 2


class S(IntEnum):
    """PCB of the S-block requests (11.3.2.2); responses have bit 6 set in addition."""

    RESYNCH = 0xC0
    IFS = 0xC1
    ABORT = 0xC2
    WTX = 0xC3


RESPONSE = 0x20
N_S, MORE = 0x40, 0x20
N_R, R_BLOCK = 0x10, 0x80

Machine = Generator[Block, "bytes | LinkError", bytes]
Reply = bytes | LinkError


class _OutOfStep(Exception):
    """The two sides have lost each other."""


class T1:
    """The protocol with one card, from its reset on.

    Args:
        ifsc: Bytes of information field the card takes, as its ATR says.
        crc: The epilogue is a CRC instead of an LRC.
        max_inf: Bytes of information field that the way to the card carries.
        nad: Node address of the interface device's blocks (11.3.2.1).
        name: Of reader and slot, for errors.

    Attributes:
        ifsc: What the card takes now, in bytes.
        ifsd: What the card may send now, in bytes.
        max_inf: Bytes of information field that the way to the card carries.
        edc_length: Bytes of the epilogue.
        blocks: How many blocks were sent.
    """

    def __init__(
        self,
        ifsc: int = DEFAULT_IFS,
        *,
        crc: bool = False,
        max_inf: int = MAX_IFS,
        nad: int = 0,
        name: str = "T=1",
    ) -> None:
        self.ifsc = self._first_ifsc = min(max(ifsc, 1), MAX_IFS)
        self.ifsd = DEFAULT_IFS
        self.max_inf = max_inf
        self.edc_length = 2 if crc else 1
        self.blocks = 0
        self._codes: tuple[Edc, ...] = CRC if crc else LRC
        self._nad = nad
        self._their_nad = (nad << 4 | nad >> 4) & 0xFF
        self._name = name
        self._ns = 0
        self._nr = 0
        self._in_step = True
        self._all_sent = False

    # Blocks -----------------------------------------------------------------------------------

    def _block(self, pcb: int, inf: bytes = b"") -> bytes:
        body = bytes((self._nad, pcb, len(inf))) + inf
        return body + self._codes[0](body)

    def _r_block(self, code: int) -> bytes:
        return self._block(R_BLOCK | N_R * self._nr | code)

    def _ask(self, data: bytes, multiplier: int = 0) -> Generator[Block, Reply, tuple[int, bytes]]:
        """Send a block; returns PCB and INF of a valid answer, or a negative PCB and nothing:
        minus the code of the R-block that an invalid one deserves."""
        self.blocks += 1
        reply = yield Block(data, multiplier)
        return self._judge(reply)

    def _judge(self, reply: Reply) -> tuple[int, bytes]:
        if isinstance(reply, LinkError):
            code = RCode.EDC_OR_PARITY if reply is LinkError.PARITY else RCode.OTHER
            return -code, b""
        if len(reply) < PROLOGUE + self.edc_length:
            return -RCode.EDC_OR_PARITY, b""
        size = PROLOGUE + reply[2]
        body, epilogue = reply[:size], reply[size : size + self.edc_length]
        if len(epilogue) < self.edc_length or not self._is_right(body, epilogue):
            if len(self._codes) > 1:  # not yet known which CRC the card has: the next, then
                self._codes = self._codes[1:] + self._codes[:1]
            return -RCode.EDC_OR_PARITY, b""
        pcb = body[1]
        is_i_block = pcb < R_BLOCK
        if (
            body[0] != self._their_nad
            or body[2] > MAX_IFS
            or (is_i_block and (body[2] > self.ifsd or pcb & 0x1F))
            or (pcb & 0xC0 == R_BLOCK and (body[2] or pcb & 0x2C))
        ):
            return -RCode.OTHER, b""
        return pcb, body[PROLOGUE:]

    def _is_right(self, body: bytes, epilogue: bytes) -> bool:
        for code in self._codes:
            if code(body) == epilogue:
                self._codes = (code,)
                return True
        return False

    # Before the first command -----------------------------------------------------------------

    def announce_ifsd(self, ifsd: int) -> Generator[Block, Reply, int]:
        """Tell the card how long its blocks may be: S(IFS request) (11.6.2.3, rule 4).

        Args:
            ifsd: Bytes of information field; 0 and more than 254 are taken as 254.

        Returns:
            IFSD in force: ``ifsd``, or 32 if the card does not agree to anything else.

        Raises:
            CardMute: The card answers nothing at all.
        """
        wanted = ifsd if 1 <= ifsd <= MAX_IFS else MAX_IFS
        heard = False
        for _ in range(1 + RETRIES):
            self.blocks += 1
            reply = yield Block(self._block(S.IFS, bytes((wanted,))))
            heard = heard or reply is not LinkError.MUTE
            if self._judge(reply) == (S.IFS | RESPONSE, bytes((wanted,))):
                self.ifsd = wanted
                return wanted
        if not heard:
            raise CardMute(f"{self._name}: the card answers no block")
        return self.ifsd

    # One command ------------------------------------------------------------------------------

    def exchange(self, apdu: Bytes) -> Machine:
        """Send a command APDU as a chain of I-blocks and collect the response (11.6).

        Raises:
            InvalidApdu: Fewer than 4 bytes, or more than 65,544.
            ProtocolError: The two sides have lost each other; ``may_have_executed`` tells
                whether the card may have carried the command out.
        """
        if not HEADER_LENGTH <= len(apdu) <= MAX_EXTENDED:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has {HEADER_LENGTH} to {MAX_EXTENDED}"
            )
        command = bytes(apdu)
        self._all_sent = False
        if not self._in_step:
            yield from self._resynchronise()
        self._in_step = False  # until it has ended well
        for _ in range(RESYNCH_ATTEMPTS):
            try:
                response = yield from self._converse(command)
            except _OutOfStep:
                if self._all_sent:
                    break
                yield from self._resynchronise()
            else:
                return response
        raise self._lost("card and reader have lost each other")

    def interrupted(self) -> None:
        """Note that somebody else may have spoken to the card: the next exchange begins with
        S(RESYNCH request)."""
        self._in_step = False

    def not_sent(self) -> None:
        """Note that the only block of the exchange just given up never went to the card."""
        self._in_step = True

    def _lost(self, what: str) -> ProtocolError:
        may = self._all_sent
        tail = "; the command may have been carried out" if may else "; nothing was carried out"
        return ProtocolError(f"{self._name}: {what}{tail}", may_have_executed=may)

    def _resynchronise(self) -> Generator[Block, Reply, None]:
        """S(RESYNCH request), until the card answers it (11.6.2.3, rule 6)."""
        for _ in range(RESYNCH_ATTEMPTS):
            answer = yield from self._ask(self._block(S.RESYNCH))
            if answer == (S.RESYNCH | RESPONSE, b""):
                self._ns = self._nr = 0
                self.ifsc = min(self.ifsc, self._first_ifsc)
                return
        raise self._lost("the card does not answer S(RESYNCH)")

    def _next_i_block(self, command: bytes, start: int) -> tuple[bytes, int]:
        """The I-block that carries ``command`` from ``start`` on, and where it ends."""
        end = min(start + min(self.ifsc, self.max_inf), len(command))
        self._all_sent = self._all_sent or end == len(command)
        more = MORE if end < len(command) else 0
        return self._block(N_S * self._ns | more, command[start:end]), end

    def _converse(self, command: bytes) -> Machine:
        """One command and its response, without S(RESYNCH)."""
        mine, end = self._next_i_block(command, 0)
        out, multiplier = mine, 0
        errors = notices = 0
        receiving = aborted = False
        response = bytearray()
        while True:
            pcb, inf = yield from self._ask(out, multiplier)
            multiplier = 0
            wrong = RCode.ACKNOWLEDGE
            if pcb < 0:
                wrong = RCode(-pcb)
            elif pcb < R_BLOCK:
                if not self._may_answer(pcb, end == len(command) or aborted):
                    wrong = RCode.OTHER
                else:
                    if not receiving:  # it acknowledges the last block of ours
                        self._ns ^= 1
                    self._nr ^= 1
                    receiving, errors, notices = True, 0, 0
                    response += inf
                    if len(response) > MAX_RESPONSE:
                        raise self._lost(f"a response of more than {MAX_RESPONSE} bytes")
                    if not pcb & MORE:
                        self._in_step = not aborted
                        if len(response) < SW_LENGTH:
                            raise self._lost(f"a response of {len(response)} bytes")
                        return bytes(response)
                    out = self._r_block(RCode.ACKNOWLEDGE)
            elif pcb < S.RESYNCH:
                asks_again = bool(pcb & N_R) == bool(self._ns)
                if aborted:
                    raise self._lost("the card gave the chain up")
                if receiving:
                    wrong = RCode.OTHER
                elif asks_again:
                    out, errors = mine, errors + 1
                elif end < len(command):
                    self._ns ^= 1
                    errors = notices = 0
                    mine, end = self._next_i_block(command, end)
                    out = mine
                else:
                    wrong = RCode.OTHER
            else:
                said = self._notice(pcb, inf)
                if said is None:
                    wrong = RCode.OTHER
                else:
                    out, notices = said, notices + 1
                    if pcb == S.WTX:
                        multiplier, errors, notices = inf[0], 0, notices - 1
                    elif pcb == S.ABORT:
                        aborted = True
                        receiving = False
                        response.clear()
            if wrong:
                errors += 1
                if out[1] & 0xC0 != R_BLOCK:  # an R-block is repeated as it was
                    out = self._r_block(wrong)
            if errors > RETRIES or notices > MAX_NOTICES:
                raise _OutOfStep

    def _may_answer(self, pcb: int, is_their_turn: bool) -> bool:
        return is_their_turn and bool(pcb & N_S) == bool(self._nr)

    def _notice(self, pcb: int, inf: bytes) -> bytes | None:
        """Our answer to an S-block request; None for one that must not come (11.6.2.3)."""
        match pcb, len(inf):
            case S.WTX, 1 if inf[0]:
                return self._block(S.WTX | RESPONSE, inf)
            case S.IFS, 1 if 1 <= inf[0] <= MAX_IFS:
                self.ifsc = inf[0]
                return self._block(S.IFS | RESPONSE, inf)
            case S.ABORT, 0:
                return self._block(S.ABORT | RESPONSE)
        return None
