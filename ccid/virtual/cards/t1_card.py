"""A card that speaks T=1: ISO/IEC 7816-3:2006 clause 11 from the card's side, pure.

    card = T1Card(application.transmit)
    card.receive(bytes.fromhex("00 00 05 00 A4 04 00 00 A5"))

A block in, the card's block out, with the time that the card takes. Comments name the rules of
11.6.2 and 11.6.3 by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ccid.iso7816.atr import DEFAULT_FIDI
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.contact_faults import ContactFault, strike
from ccid.virtual.cards.line import BLOCK_GUARD_ETU, DEFAULT_CLOCK_HZ, Line, Sent
from ccid.virtual.cards.t1_blocks import (
    ABORT,
    EDC_ERROR,
    IFS,
    MAX_INF,
    MORE,
    OTHER_ERROR,
    PROLOGUE,
    RESYNCH,
    S_REQUEST,
    S_RESPONSE,
    WTX,
    Check,
    block,
    kind,
)

DEFAULT_IFS = 32
"""The first IFSC and IFSD (ISO/IEC 7816-3:2006 11.4.2)."""
WTX_AT = 0.75
"""A card that needs more time asks after this fraction of the time that it has."""
VPP_BITS = 0x88


@dataclass(frozen=True, slots=True)
class T1Options:
    """The behaviour of a card in T=1.

    Attributes:
        check: LRC or CRC; None for the check that the ATR announces.
        ifsc: Bytes of INF that the card takes; None for the IFSC of the ATR.
        announces_ifsc: The card answers the first I-block with S(IFS request) for this value.
        accepts_ifs: The card takes S(IFS request); otherwise it answers R with "other error".
        ignores_ifsd: The card sends INF of 254 bytes, regardless of IFSD.
        wtx: The card asks by S(WTX request) when a command takes longer than BWT; otherwise the
            card is late.
        wtx_multiplier: INF of S(WTX request); None for as many BWT as the card needs.
        attempts: Number of invalid blocks at the start of the protocol that the card answers
            before it stays in reception (rule 7.4.3).
    """

    check: Check | None = None
    ifsc: int | None = None
    announces_ifsc: int | None = None
    accepts_ifs: bool = True
    ignores_ifsd: bool = False
    wtx: bool = True
    wtx_multiplier: int | None = None
    attempts: int = 2


class T1Card:
    """The card's end of T=1.

    Args:
        transmit: Carries out a command APDU.
        options: The behaviour of the card in T=1.
        ifsc, check: The values of the ATR; ``options`` override them.
        line: The waiting times.
        faults: The faults of the card; the caller may append to the list later.

    Attributes:
        ifsc: Bytes of INF that the card takes.
        ifsd: Bytes of INF that the interface device takes.
        check: LRC or CRC.
        line: The waiting times in force.
    """

    def __init__(
        self,
        transmit: Callable[[bytes], Answer],
        options: T1Options | None = None,
        *,
        ifsc: int = DEFAULT_IFS,
        check: Check = Check.LRC,
        line: Line | None = None,
        faults: list[ContactFault] | None = None,
    ) -> None:
        self.options = options or T1Options()
        self.transmit = transmit
        self.line = line or Line.of(DEFAULT_FIDI, DEFAULT_CLOCK_HZ)
        self.faults = [] if faults is None else faults
        self.reset(ifsc, check)

    def reset(self, ifsc: int | None = None, check: Check | None = None) -> None:
        """Reset: the protocol begins anew, with ``ifsc`` and ``check`` of the ATR if given."""
        if ifsc is not None:
            self._initial_ifsc = self.options.ifsc or ifsc
        if check is not None:
            self.check = self.options.check or check
        self._failures = 0
        self._started = False
        self._to_announce = self.options.announces_ifsc
        self._announced: int | None = None
        self._initialize()

    def _initialize(self) -> None:
        """Set the initial values of the protocol, as after S(RESYNCH request) (rule 6).

        The card can still take an IFSC that it announced by S(IFS request).
        """
        self.ifsc = max(self._initial_ifsc, self._announced or 0)
        self.ifsd = DEFAULT_IFS
        self._vs = self._vr = 0
        self._in = bytearray()
        self._out = b""
        self._more = False
        self._kept: bytes | None = None
        self._last: bytes | None = None
        self._request: bytes | None = None
        self._held: tuple[float, bytes] | None = None
        self._busy_s = 0.0
        self._nad = 0

    # A block in, a block out ------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Sent]:
        """What the card sends after ``data``, a whole or incomplete block; empty if the card
        stays in reception."""
        self._after_s = 0.0
        error = self._error(data)
        answer = self._invalid(error) if error else self._react(data)
        if answer is None:
            return []
        if self.faults and self._request is None:
            answer = self._interject(answer)
        self._last = answer
        sent = [Sent(self._after_s, answer)]
        return strike(self.faults, sent, self.check) if self.faults else sent

    def wanted(self, data: bytes) -> int:
        """Number of characters that a block that begins with ``data`` still lacks."""
        if len(data) < PROLOGUE:
            return PROLOGUE - len(data)
        return max(0, PROLOGUE + data[2] + self.check.length - len(data))

    def _error(self, data: bytes) -> int:
        """0 for a block with a valid form, otherwise the error bits for an R-block."""
        end = len(data) - self.check.length
        if end < PROLOGUE or data[2] != end - PROLOGUE:
            return OTHER_ERROR
        if self.check.of(data[:end]) != data[end:]:
            return EDC_ERROR
        nad, pcb, length = data[:PROLOGUE]
        if nad & VPP_BITS or length > MAX_INF or (nad and nad >> 4 == nad & 0x0F):
            return OTHER_ERROR
        if pcb < 0x80:
            return OTHER_ERROR if pcb & 0x1F or length > self.ifsc else 0
        if pcb < 0xC0:
            return OTHER_ERROR if pcb & 0x2C or pcb & 3 == 3 or length else 0
        name = pcb & 0x1F
        if name > WTX or length != (name in (IFS, WTX)):
            return OTHER_ERROR
        return 0

    def _react(self, data: bytes) -> bytes | None:
        """The answer to a block with a valid form."""
        self._started = True
        nad, pcb = data[0], data[1]
        self._nad = (nad & 0x07) << 4 | nad >> 4
        inf = data[PROLOGUE : PROLOGUE + data[2]]
        if pcb >= S_REQUEST:
            return self._on_response(pcb, inf) if pcb & 0x20 else self._on_request(pcb, inf)
        if self._request is not None:
            return self._invalid(OTHER_ERROR)
        if pcb & 0x80:
            return self._on_r(pcb >> 4 & 1)
        return self._on_i(pcb >> 6, bool(pcb & MORE), inf)

    def _invalid(self, error: int) -> bytes | None:
        """The answer to a block that is invalid, or that is not allowed in this state (rule 7)."""
        if not self._started:
            self._failures += 1
            if self._failures > self.options.attempts:
                return None  # rule 7.4.3
        if self._request is not None:
            return self._request  # rule 7.3
        if self._last is not None and kind(self._last) == "R":
            return self._last  # rule 7.2
        return self._r(error)  # rule 7.1, and 7.3 after an S(response)

    # Blocks of the interface device -----------------------------------------------------------

    def _on_i(self, ns: int, more: bool, inf: bytes) -> bytes | None:
        if ns != self._vr or self._more:
            return self._invalid(OTHER_ERROR)
        self._vr ^= 1
        self._kept = None  # an I-block acknowledges the card's last I-block (rule 2.1)
        self._in += inf
        if more:
            return self._r(0)  # rule 5
        apdu = bytes(self._in)
        self._in.clear()
        answer = self.transmit(apdu) if apdu else Answer()
        self._out = answer.apdu if apdu else b""
        self._busy_s = answer.after_s
        return self._computed(self.line.bwt_s)

    def _on_r(self, nr: int) -> bytes | None:
        """The R-block asks for the I-block with N(S) = ``nr``, or for the last block again."""
        if self._kept is not None and nr == self._vs ^ 1:
            return self._kept  # rule 7.1
        if self._more:
            return self._next_i()  # rules 2.2 and 5
        if self._last is not None and kind(self._last) != "I":
            return self._last  # rule 7.2
        return self._invalid(OTHER_ERROR)

    def _on_request(self, pcb: int, inf: bytes) -> bytes | None:
        name = pcb & 0x1F
        if name == RESYNCH:
            self._initialize()  # rule 6
            return self._block(S_RESPONSE | RESYNCH)
        if self._request is not None or name == WTX:
            return self._invalid(OTHER_ERROR)
        if name == IFS:
            if not self.options.accepts_ifs or not 1 <= inf[0] <= MAX_INF:
                return self._invalid(OTHER_ERROR)
            self.ifsd = inf[0]  # rule 4
        else:
            self._drop_chains()  # rule 9
        return self._block(pcb | S_RESPONSE, inf)

    def _on_response(self, pcb: int, inf: bytes) -> bytes | None:
        """The answer to an S(response), which ends the card's own S(request)."""
        request = self._request
        if request is None or request[1] != pcb & ~0x20 or request[3 : 3 + request[2]] != inf:
            return self._invalid(OTHER_ERROR)
        self._request = None
        held, self._held = self._held, None
        name, time_s = pcb & 0x1F, self.line.bwt_s
        if name == IFS and 1 <= inf[0] <= MAX_INF:
            self.ifsc = self._announced = inf[0]  # rule 4
        elif name == WTX:
            time_s *= inf[0] or 1  # rule 3
        elif name == ABORT:
            return self._r(0)  # rule 9: the card hands over the right to send
        if held is None:
            return self._computed(time_s)
        self._after_s, answer = held
        return answer

    # Blocks of the card -----------------------------------------------------------------------

    def _block(self, pcb: int, inf: bytes = b"") -> bytes:
        return block(pcb, inf, self.check, self._nad)

    def _r(self, error: int) -> bytes:
        return self._block(0x80 | self._vr << 4 | error)

    def _computed(self, time_s: float) -> bytes:
        """The response, if the time suffices, or a request for time (rule 3)."""
        if self._to_announce is not None:
            value, self._to_announce = self._to_announce, None
            return self._ask(IFS, bytes((value,)), None)
        guard = BLOCK_GUARD_ETU * self.line.etu_s
        if not self.options.wtx or self._busy_s + guard <= time_s:
            self._after_s, self._busy_s = self._busy_s, 0.0
            return self._next_i()
        self._after_s = max(0.0, WTX_AT * time_s - guard)
        self._busy_s = max(0.0, self._busy_s - self._after_s)
        needed = math.ceil(self._busy_s / (WTX_AT * self.line.bwt_s))
        multiplier = self.options.wtx_multiplier or min(max(needed, 1), 255)
        return self._ask(WTX, bytes((multiplier,)), None)

    def _ask(self, name: int, inf: bytes, held: tuple[float, bytes] | None) -> bytes:
        """An S(request). ``held`` is what the card sends after the S(response), and when; None
        for the next block of the response APDU."""
        self._held = held
        self._request = self._block(S_REQUEST | name, inf)
        return self._request

    def _next_i(self) -> bytes:
        """The next I-block of the response."""
        most = MAX_INF if self.options.ignores_ifsd else self.ifsd
        part, self._out = self._out[:most], self._out[most:]
        self._more = bool(self._out)
        pcb = self._vs << 6 | (MORE if self._more else 0)
        self._vs ^= 1
        self._kept = self._block(pcb, part)
        return self._kept

    def _drop_chains(self) -> None:
        self._in.clear()
        self._out = b""
        self._more = False
        self._kept = None

    def _interject(self, answer: bytes) -> bytes:
        """The S(request) that a fault makes the card send before ``answer``."""
        name = kind(answer)
        for fault in self.faults:
            if fault.request is None or (fault.on is None and name == "S"):
                continue
            if not fault.has_its_turn(name):
                continue
            asked, inf = fault.request
            if asked == ABORT:
                if name == "I":
                    self._vs ^= 1  # the card does not send that I-block
                self._drop_chains()
            held, self._after_s = (self._after_s, answer), 0.0
            return self._ask(asked, inf, held)
        return answer
