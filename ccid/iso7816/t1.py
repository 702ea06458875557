"""The protocol T=1, as the interface device runs it (ISO/IEC 7816-3:2006 11). Pure.

Theory of operation. Card and interface device send blocks in turn: prologue NAD PCB LEN,
information field, epilogue. An I-block carries a part of an APDU; its N(S) alternates between 0 and
1, for each side separately. An R-block acknowledges a part of a chain, or requests a block again;
its N(R) is the N(S) of the next I-block that the sender of the R-block expects. S-blocks control
the protocol: RESYNCH, IFS, ABORT, WTX. An R-block acknowledges an I-block with M = 1. The next
I-block of the other side acknowledges an I-block with M = 0 (11.6.2).

The state of a command is a :class:`State`, a received block is a :class:`Heard`, and
:data:`~ccid.iso7816.t1_rules.TRANSITIONS` names the action and the next state for each pair. There
is no other rule.

The class :class:`T1` has no input and no output. Its generators yield the :class:`Block` to send
and receive the answer: the bytes of a block, or a :class:`LinkError` if no block came. A fault of
the card is an input like any other. :func:`ccid.iso7816.protocol_runner.run` drives a generator.

Error handling (11.6.3). After an invalid or missing block an R-block requests the lost block, at
most twice in succession. An R-block of the card that requests the last block again gets the block,
under the same limit. A block that continues the exchange resets the count. When the limit is
reached, card and interface device are out of step, and S(RESYNCH request) starts again, with at
most three attempts. The command is sent again only if its last I-block was never sent: a card must
not debit twice. Otherwise the exchange ends with a :class:`~ccid.errors.ProtocolError` whose
``may_have_executed`` is True, and the next exchange begins with S(RESYNCH request). Waiting time
extensions are not counted: a card may compute for minutes, and the caller limits the total time.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from ccid.errors import CardMute, InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, MAX_EXTENDED, MAX_RESPONSE, SW_LENGTH, Bytes
from ccid.iso7816.atr import DEFAULT_IFS, MAX_IFS
from ccid.iso7816.error_detection import CRC, LRC, Edc, exclusive_or
from ccid.iso7816.t1_rules import ACKNOWLEDGED, INSTEAD, TRANSITIONS, Act, Heard, State

PROLOGUE = 3
"""Bytes of the prologue: NAD, PCB, LEN."""
RETRIES = 2
"""Further attempts in succession before a resynchronisation (11.6.3.2)."""
RESYNCH_ATTEMPTS = 3
"""S(RESYNCH request) in succession (11.6.3.2); also the number of attempts for one command."""
MAX_NOTICES = 8
"""S-blocks other than WTX in succession that a card may send without continuing the exchange."""


class LinkError(Enum):
    """The reason why no block came."""

    PARITY = "parity error"
    MUTE = "no block within the waiting time"
    OTHER = "another error on the way"


class Block(NamedTuple):
    """A block to send.

    Attributes:
        data: All bytes of the block.
        multiplier: The card requested this many block waiting times for its answer, by S(WTX
            request); 0 without a request.
    """

    data: bytes
    multiplier: int = 0

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        return f"Block(data=<{len(self.data)} bytes>, multiplier={self.multiplier})"


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
"""The bit in PCB of an S-block response."""
N_S, MORE = 0x40, 0x20
"""N(S) and M in PCB of an I-block (11.3.2.2)."""
N_R, R_BLOCK = 0x10, 0x80
"""N(R) in PCB of an R-block, and PCB of an R-block without it (11.3.2.2)."""

Machine = Generator[Block, "bytes | LinkError", bytes]
"""A generator that yields blocks, receives answers, and returns the response APDU."""
Reply = bytes | LinkError
"""The bytes of a block from the card, or the reason why no block came."""


class Answer(NamedTuple):
    """A checked block from the card.

    Attributes:
        pcb, inf: PCB and information field of a valid block; 0 and empty for an invalid block.
        fault: The error code of the R-block for an invalid block; None for a valid block.
    """

    pcb: int = 0
    inf: bytes = b""
    fault: RCode | None = None

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        return f"Answer(pcb=0x{self.pcb:02X}, inf=<{len(self.inf)} bytes>, fault={self.fault})"


@dataclass(slots=True)
class _Command:
    """The progress of one command.

    Attributes:
        apdu: The command APDU.
        last: The I-block that was sent last.
        end: Number of bytes of ``apdu`` in the I-blocks sent so far.
        state: The state of the command.
        out: The next block to send.
        multiplier: The multiplier of the block waiting time for the next answer; 0 for none.
        errors: Number of errors since the exchange last continued.
        notices: Number of S-blocks other than WTX since the exchange last continued.
        response: The parts of the response received so far.
    """

    apdu: bytes = field(repr=False)
    last: bytes = field(repr=False)
    end: int
    state: State
    out: bytes = field(repr=False)
    multiplier: int = 0
    errors: int = 0
    notices: int = 0
    response: bytearray = field(default_factory=bytearray, repr=False)

    def count_from_zero(self) -> None:
        """Reset the counts: the exchange continues."""
        self.errors = self.notices = 0


class _OutOfStep(Exception):
    """Card and interface device are out of step: only S(RESYNCH) helps."""


class T1:
    """The state of T=1 with one card, from the reset of the card on.

    Args:
        ifsc: IFSC of the ATR in bytes.
        crc: True if the epilogue is a CRC, False for an LRC.
        max_inf: Greatest length of an information field, in bytes, that the reader can transfer.
        nad: NAD of the blocks to the card (11.3.2.1).
        name: Name of reader and slot, for errors.

    Attributes:
        ifsc: IFSC in force, in bytes.
        ifsd: IFSD in force, in bytes.
        max_inf: Greatest length of an information field, in bytes, that the reader can transfer.
        edc_length: Length of the epilogue in bytes.
        blocks: Number of blocks sent.
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
        self._card_nad = (nad << 4 | nad >> 4) & 0xFF
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

    def _ask(self, data: bytes, multiplier: int = 0) -> Generator[Block, Reply, Answer]:
        """Send a block; returns the checked answer."""
        self.blocks += 1
        reply = yield Block(data, multiplier)
        return self._check(reply)

    def _check(self, reply: Reply) -> Answer:
        """Check epilogue, NAD, LEN and PCB of a block."""
        if isinstance(reply, LinkError):
            damaged = reply is LinkError.PARITY
            return Answer(fault=RCode.EDC_OR_PARITY if damaged else RCode.OTHER)
        if len(reply) < PROLOGUE + self.edc_length:
            return Answer(fault=RCode.EDC_OR_PARITY)
        size = PROLOGUE + reply[2]
        body, epilogue = reply[:size], reply[size : size + self.edc_length]
        if len(epilogue) < self.edc_length or not self._is_right(body, epilogue):
            if len(self._codes) > 1:  # the CRC of the card is not known yet: try the next CRC
                self._codes = self._codes[1:] + self._codes[:1]
            return Answer(fault=RCode.EDC_OR_PARITY)
        pcb = body[1]
        is_i_block = pcb < R_BLOCK
        if (
            body[0] != self._card_nad
            or body[2] > MAX_IFS
            or (is_i_block and (body[2] > self.ifsd or pcb & 0x1F))
            or (pcb & 0xC0 == R_BLOCK and (body[2] or pcb & 0x2C))
        ):
            return Answer(fault=RCode.OTHER)
        return Answer(pcb, body[PROLOGUE:])

    def _is_right(self, body: bytes, epilogue: bytes) -> bool:
        """True if an error detection code fits; the first code that fits is kept."""
        for code in self._codes:
            if code(body) == epilogue:
                self._codes = (code,)
                return True
        return False

    # Before the first command -----------------------------------------------------------------

    def announce_ifsd(self, ifsd: int) -> Generator[Block, Reply, int]:
        """Announce IFSD to the card by S(IFS request) (11.6.2.3, rule 4).

        Args:
            ifsd: IFSD in bytes; 0 and values above 254 count as 254.

        Returns:
            IFSD in force: ``ifsd``, or 32 if the card does not confirm ``ifsd``.

        Raises:
            CardMute: The card never answers.
        """
        wanted = ifsd if 1 <= ifsd <= MAX_IFS else MAX_IFS
        is_mute = True
        for _ in range(1 + RETRIES):
            self.blocks += 1
            reply = yield Block(self._block(S.IFS, bytes((wanted,))))
            is_mute = is_mute and reply is LinkError.MUTE
            if self._check(reply) == Answer(S.IFS | RESPONSE, bytes((wanted,))):
                self.ifsd = wanted
                return wanted
        if is_mute:
            raise CardMute(f"{self._name}: the card answers no block")
        return self.ifsd

    # One command ------------------------------------------------------------------------------

    def exchange(self, apdu: Bytes) -> Machine:
        """Send a command APDU as a chain of I-blocks, and collect the response APDU (11.6).

        Args:
            apdu: The command APDU.

        Raises:
            InvalidApdu: ``apdu`` has fewer than 4 or more than 65,544 bytes.
            ProtocolError: Card and interface device are out of step. ``may_have_executed`` is True
                if the card may have executed the command.
        """
        if not APDU_HEADER <= len(apdu) <= MAX_EXTENDED:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has {APDU_HEADER} to {MAX_EXTENDED}"
            )
        command = bytes(apdu)
        self._all_sent = False
        if not self._in_step:
            yield from self._resynchronise()
        self._in_step = False  # until the exchange succeeds
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

    # Short way: one block in each direction ---------------------------------------------------

    def single(self, apdu: bytes) -> bytes | None:
        """The I-block that carries all of ``apdu``, for a caller with a short way to send a block.

        The caller must pass the answer to :meth:`single_answer`; until then card and interface
        device count as out of step.

        Returns:
            The I-block; None if ``apdu`` needs several blocks, the epilogue is a CRC, or S(RESYNCH
            request) must come first: :meth:`exchange` then sends the command.
        """
        length = len(apdu)
        if not (
            APDU_HEADER <= length <= self.ifsc
            and length <= self.max_inf
            and self.edc_length == 1
            and self._in_step
        ):
            return None
        self._in_step, self._all_sent = False, True
        block = bytes((self._nad, N_S * self._ns, length)) + apdu
        return block + bytes((exclusive_or(block),))

    def single_answer(self, block: Reply) -> bytes | None:
        """The response APDU in the answer to the I-block of :meth:`single`.

        Args:
            block: The answer.

        Returns:
            The response APDU; None if the answer is no valid I-block with M = 0. The caller must
            then call :meth:`exchange` and pass ``block`` as the answer to its first block, which is
            the same I-block.
        """
        if (
            type(block) is bytes
            and len(block) > PROLOGUE + SW_LENGTH
            and block[0] == self._card_nad
            and block[1] == N_S * self._nr
            and SW_LENGTH <= block[2] <= self.ifsd
            and len(block) == PROLOGUE + block[2] + 1
            and not exclusive_or(block)
        ):
            self.blocks += 1
            self._ns ^= 1
            self._nr ^= 1
            self._in_step = True
            return block[PROLOGUE:-1]
        self._in_step = True  # exchange() handles the answer
        return None

    def interrupted(self) -> None:
        """Note that another sender may have sent blocks to the card: the next exchange begins with
        S(RESYNCH request)."""
        self._in_step = False

    def not_sent(self) -> None:
        """Note that the only block of the last exchange, which failed, was never sent to the
        card."""
        self._in_step = True

    def _lost(self, what: str) -> ProtocolError:
        """The error for an exchange that ends because of ``what``."""
        may = self._all_sent
        tail = "; the command may have been carried out" if may else "; nothing was carried out"
        return ProtocolError(f"{self._name}: {what}{tail}", may_have_executed=may)

    def _resynchronise(self) -> Generator[Block, Reply, None]:
        """Send S(RESYNCH request) until the card confirms (11.6.2.3, rule 6)."""
        for _ in range(RESYNCH_ATTEMPTS):
            answer = yield from self._ask(self._block(S.RESYNCH))
            if answer == Answer(S.RESYNCH | RESPONSE):
                self._ns = self._nr = 0
                self.ifsc = min(self.ifsc, self._first_ifsc)
                return
        raise self._lost("the card does not answer S(RESYNCH)")

    def _next_i_block(self, apdu: bytes, start: int) -> tuple[bytes, int, State]:
        """The I-block that carries ``apdu`` from byte ``start`` on, the end of the part of ``apdu``
        in the block, and the state of the command after the block."""
        end = min(start + min(self.ifsc, self.max_inf), len(apdu))
        is_last = end == len(apdu)
        self._all_sent = self._all_sent or is_last
        block = self._block(N_S * self._ns | (0 if is_last else MORE), apdu[start:end])
        return block, end, State.SENT if is_last else State.SENDING

    def _converse(self, apdu: bytes) -> Machine:
        """Exchange one command and its response, without S(RESYNCH)."""
        block, end, state = self._next_i_block(apdu, 0)
        command = _Command(apdu, block, end, state, out=block)
        while True:
            answer = yield from self._ask(command.out, command.multiplier)
            command.multiplier = 0
            state = command.state
            act, command.state = TRANSITIONS[state][self._heard(answer)]
            match act:
                case Act.FINISH | Act.TAKE:
                    self._take(command, answer.inf, acknowledges=state in ACKNOWLEDGED)
                    if act is Act.FINISH:
                        self._in_step = state not in INSTEAD
                        return self._whole(command)
                    command.out = self._r_block(RCode.ACKNOWLEDGE)
                case Act.CONTINUE:
                    self._ns ^= 1
                    command.last, command.end, command.state = self._next_i_block(apdu, command.end)
                    command.out = command.last
                    command.count_from_zero()
                case Act.ASK:
                    command.errors += 1
                    if command.out[1] & 0xC0 != R_BLOCK:  # an R-block is repeated unchanged
                        command.out = self._r_block(answer.fault or RCode.OTHER)
                case Act.REPEAT:
                    command.errors += 1
                    command.out = command.last
                case Act.GRANT:
                    command.out = self._block(S.WTX | RESPONSE, answer.inf)
                    command.multiplier, command.errors = answer.inf[0], 0
                case Act.AGREE:
                    self.ifsc = answer.inf[0]
                    command.out = self._block(S.IFS | RESPONSE, answer.inf)
                    command.notices += 1
                case Act.GIVE_WAY:
                    command.out = self._block(S.ABORT | RESPONSE)
                    command.notices += 1
                    command.response.clear()
                case Act.LOSE:
                    raise self._lost("the card gave the chain up")
            if command.errors > RETRIES or command.notices > MAX_NOTICES:
                raise _OutOfStep

    def _heard(self, answer: Answer) -> Heard:
        """The kind of block that ``answer`` is."""
        pcb, inf = answer.pcb, answer.inf
        if answer.fault is not None:
            return Heard.DAMAGED if answer.fault is RCode.EDC_OR_PARITY else Heard.NONSENSE
        if pcb < R_BLOCK:
            if bool(pcb & N_S) != bool(self._nr):
                return Heard.NONSENSE
            return Heard.PART if pcb & MORE else Heard.LAST
        if pcb < S.RESYNCH:
            return Heard.AGAIN if bool(pcb & N_R) == bool(self._ns) else Heard.NEXT
        match pcb, len(inf):
            case S.WTX, 1:  # 11.4.3 reserves no multiplier: 0 asks for nothing beyond BWT
                return Heard.WTX
            case S.IFS, 1 if 1 <= inf[0] <= MAX_IFS:
                return Heard.IFS
            case S.ABORT, 0:
                return Heard.ABORT
        return Heard.NONSENSE

    def _take(self, command: _Command, inf: bytes, acknowledges: bool) -> None:
        """Store a part of the response.

        Args:
            command: The command.
            inf: The part.
            acknowledges: The I-block acknowledges the last I-block of the interface device.
        """
        if acknowledges:
            self._ns ^= 1
        self._nr ^= 1
        command.count_from_zero()
        command.response += inf
        if len(command.response) > MAX_RESPONSE:
            raise self._lost(f"a response of more than {MAX_RESPONSE} bytes")

    def _whole(self, command: _Command) -> bytes:
        """The complete response APDU."""
        if len(command.response) < SW_LENGTH:
            raise self._lost(f"a response of {len(command.response)} bytes")
        return bytes(command.response)
