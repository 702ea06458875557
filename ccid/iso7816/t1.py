"""T=1, the interface device's side: ISO/IEC 7816-3:2006 11.

Theory of operation. Blocks go to and fro in turn: prologue NAD PCB LEN, information field,
epilogue. An I-block carries a part of an APDU; its N(S) alternates, each side has its own. An
R-block acknowledges a part of a chain, or asks for a block again; its N(R) is the N(S) of the
I-block that its sender expects. S-blocks talk about the protocol itself: RESYNCH, IFS, ABORT,
WTX. An I-block with M = 1 is acknowledged by an R-block that asks for the next; the last one, and
every I-block of the card, is acknowledged by the next I-block of the other side (11.6.2).

The state of one command is one of :class:`State`, what comes is one of :class:`Heard`, and
:data:`~ccid.iso7816.t1_rules.TRANSITIONS` says for each pair what is done and which state follows.
There is no other rule.

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
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from ccid.errors import CardMute, InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, MAX_EXTENDED, MAX_RESPONSE, SW_LENGTH, Bytes
from ccid.iso7816.atr import DEFAULT_IFS, MAX_IFS
from ccid.iso7816.edc import CRC, LRC, Edc, exclusive_or
from ccid.iso7816.t1_rules import ACKNOWLEDGED, INSTEAD, TRANSITIONS, Act, Heard, State

PROLOGUE = 3
"""NAD, PCB, LEN."""
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


class Answer(NamedTuple):
    """What came in answer to a block.

    Attributes:
        pcb, inf: Of a valid block; 0 and nothing without.
        fault: What an R-block says of it, if it is not valid.
    """

    pcb: int = 0
    inf: bytes = b""
    fault: RCode | None = None


@dataclass(slots=True)
class _Command:
    """One command under way.

    Attributes:
        apdu: It.
        last: The I-block that was sent last.
        end: Up to which byte of ``apdu`` blocks went out.
        state: How far it has come.
        out: The block to send.
        multiplier: Of the waiting time for its answer.
        errors: Attempts in succession that did not bring it forward.
        notices: S-blocks in succession that did not.
        response: What came.
    """

    apdu: bytes
    last: bytes
    end: int
    state: State
    out: bytes
    multiplier: int = 0
    errors: int = 0
    notices: int = 0
    response: bytearray = field(default_factory=bytearray)

    def came_forward(self) -> None:
        self.errors = self.notices = 0


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

    def _ask(self, data: bytes, multiplier: int = 0) -> Generator[Block, Reply, Answer]:
        """Send a block; returns what came."""
        self.blocks += 1
        reply = yield Block(data, multiplier)
        return self._judge(reply)

    def _judge(self, reply: Reply) -> Answer:
        if isinstance(reply, LinkError):
            damaged = reply is LinkError.PARITY
            return Answer(fault=RCode.EDC_OR_PARITY if damaged else RCode.OTHER)
        if len(reply) < PROLOGUE + self.edc_length:
            return Answer(fault=RCode.EDC_OR_PARITY)
        size = PROLOGUE + reply[2]
        body, epilogue = reply[:size], reply[size : size + self.edc_length]
        if len(epilogue) < self.edc_length or not self._is_right(body, epilogue):
            if len(self._codes) > 1:  # not yet known which CRC the card has: the next, then
                self._codes = self._codes[1:] + self._codes[:1]
            return Answer(fault=RCode.EDC_OR_PARITY)
        pcb = body[1]
        is_i_block = pcb < R_BLOCK
        if (
            body[0] != self._their_nad
            or body[2] > MAX_IFS
            or (is_i_block and (body[2] > self.ifsd or pcb & 0x1F))
            or (pcb & 0xC0 == R_BLOCK and (body[2] or pcb & 0x2C))
        ):
            return Answer(fault=RCode.OTHER)
        return Answer(pcb, body[PROLOGUE:])

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
            if self._judge(reply) == Answer(S.IFS | RESPONSE, bytes((wanted,))):
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
        if not APDU_HEADER <= len(apdu) <= MAX_EXTENDED:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has {APDU_HEADER} to {MAX_EXTENDED}"
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

    # A block each way -------------------------------------------------------------------------

    def single(self, apdu: bytes) -> bytes | None:
        """The I-block that carries all of ``apdu``, for who knows a short way to send one; None
        where one block does not, or something else is to be said first. :meth:`single_answer` is
        to follow: until then the two sides count as out of step."""
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
        """The response in what came; None for anything but one sound I-block that ends a response.
        Then :meth:`exchange` has the same block sent, and is to be given this answer to it."""
        if (
            type(block) is bytes
            and len(block) > PROLOGUE + SW_LENGTH
            and block[0] == self._their_nad
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
        self._in_step = True  # as far as that exchange has come
        return None

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
            if answer == Answer(S.RESYNCH | RESPONSE):
                self._ns = self._nr = 0
                self.ifsc = min(self.ifsc, self._first_ifsc)
                return
        raise self._lost("the card does not answer S(RESYNCH)")

    def _next_i_block(self, apdu: bytes, start: int) -> tuple[bytes, int, State]:
        """The I-block that carries ``apdu`` from ``start`` on, where it ends, and the state that
        the command is in with it."""
        end = min(start + min(self.ifsc, self.max_inf), len(apdu))
        is_last = end == len(apdu)
        self._all_sent = self._all_sent or is_last
        block = self._block(N_S * self._ns | (0 if is_last else MORE), apdu[start:end])
        return block, end, State.SENT if is_last else State.SENDING

    def _converse(self, apdu: bytes) -> Machine:
        """One command and its response, without S(RESYNCH)."""
        block, end, state = self._next_i_block(apdu, 0)
        command = _Command(apdu, block, end, state, out=block)
        while True:
            answer = yield from self._ask(command.out, command.multiplier)
            command.multiplier = 0
            was = command.state
            act, command.state = TRANSITIONS[was][self._heard(answer)]
            match act:
                case Act.FINISH | Act.TAKE:
                    self._take(command, answer.inf, acknowledges=was in ACKNOWLEDGED)
                    if act is Act.FINISH:
                        self._in_step = was not in INSTEAD
                        return self._whole(command)
                    command.out = self._r_block(RCode.ACKNOWLEDGE)
                case Act.CONTINUE:
                    self._ns ^= 1
                    command.last, command.end, command.state = self._next_i_block(apdu, command.end)
                    command.out = command.last
                    command.came_forward()
                case Act.ASK:
                    command.errors += 1
                    if command.out[1] & 0xC0 != R_BLOCK:  # an R-block is repeated as it was
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
        """What ``answer`` is."""
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
            case S.WTX, 1 if inf[0]:
                return Heard.WTX
            case S.IFS, 1 if 1 <= inf[0] <= MAX_IFS:
                return Heard.IFS
            case S.ABORT, 0:
                return Heard.ABORT
        return Heard.NONSENSE

    def _take(self, command: _Command, inf: bytes, acknowledges: bool) -> None:
        """A part of the response came, which also acknowledges the last block of ours."""
        if acknowledges:
            self._ns ^= 1
        self._nr ^= 1
        command.came_forward()
        command.response += inf
        if len(command.response) > MAX_RESPONSE:
            raise self._lost(f"a response of more than {MAX_RESPONSE} bytes")

    def _whole(self, command: _Command) -> bytes:
        if len(command.response) < SW_LENGTH:
            raise self._lost(f"a response of {len(command.response)} bytes")
        return bytes(command.response)
