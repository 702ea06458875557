"""The answer to reset: ISO/IEC 7816-3:2006 8.

TS tells the convention. T0 says which of TA1 to TD1 follow and how many historical bytes; every
TDi says which of the next group follow, and for which protocol T they are. The groups beyond
the second belong to the protocol that introduced them: the first TA for T=1 is IFSC, the first
TB the waiting integers, the first TC the check code; the first TA for T=15 is the clock stop
indicator and the operating classes. TCK closes the answer unless T=0 alone is offered.

Real cards are sloppy at the end: a missing or wrong TCK, bytes too many and historical bytes too
few are warnings here, and the rest is usable. An interface byte that is announced and missing is
an error: what follows from it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from operator import xor
from typing import TYPE_CHECKING

from ccid.errors import MalformedAtr

if TYPE_CHECKING:
    from ccid.iso7816.historical import Historical

MAX_ATR = 33
"""TS and at most 32 characters (ISO/IEC 7816-3:2006 8.1)."""

DIRECT, INVERSE = 0x3B, 0x3F

FI = (372, 372, 558, 744, 1116, 1488, 1860, None, None, 512, 768, 1024, 1536, 2048, None, None)
"""Clock rate conversion integers Fi (ISO/IEC 7816-3:2006, table 7); None is RFU."""
FMAX = (4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 20.0, None, None, 5.0, 7.5, 10.0, 15.0, 20.0, None, None)
"""f(max) in MHz (ISO/IEC 7816-3:2006, table 7)."""
DI = (None, 1, 2, 4, 8, 16, 32, 64, 12, 20, None, None, None, None, None, None)
"""Baud rate adjustment integers Di (ISO/IEC 7816-3:2006, table 8); None is RFU."""

DEFAULT_FIDI = 0x11
"""Fd = 372 and Dd = 1, in force after an ATR, coded as TA1 (ISO/IEC 7816-3:2006 8.3)."""
DEFAULT_WI = 10
DEFAULT_IFS = 32
"""IFSC and IFSD in bytes, before the card or the interface device says otherwise (11.4.2)."""
MAX_IFS = 254
"""Bytes of the longest information field; 255 is reserved (11.4.2)."""
DEFAULT_BWI = 4
DEFAULT_CWI = 13


@dataclass(frozen=True, slots=True)
class Group:
    """TAi TBi TCi TDi.

    Attributes:
        i: Number of the group, from 1.
        t: The T of the TD that introduced it; None for the first group.
    """

    i: int
    t: int | None
    ta: int | None = None
    tb: int | None = None
    tc: int | None = None
    td: int | None = None

    def items(self) -> Iterator[tuple[str, int]]:
        """The bytes that are there, by name (``TA1``)."""
        for letter, value in (("A", self.ta), ("B", self.tb), ("C", self.tc), ("D", self.td)):
            if value is not None:
                yield f"T{letter}{self.i}", value


@dataclass(frozen=True)
class Atr:
    """An answer to reset, parsed.

    Attributes:
        raw: All bytes as the card sent them.
        groups: The interface bytes.
        historical: The historical bytes.
        tck: The check byte, None if there is none.
        warnings: What is wrong with it without making it useless.
    """

    raw: bytes
    groups: tuple[Group, ...]
    historical: bytes
    tck: int | None
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Atr:
        """Take an answer to reset apart (ISO/IEC 7816-3:2006 8.2).

        Raises:
            MalformedAtr: Shorter than two bytes, a wrong TS, or an announced interface byte is
                missing; the message names the byte.
        """
        raw = bytes(raw)
        if len(raw) < 2:
            raise MalformedAtr(f"an ATR has at least TS and T0; {len(raw)} bytes came")
        if raw[0] not in (DIRECT, INVERSE):
            raise MalformedAtr(f"TS is 0x{raw[0]:02X}, neither 3B (direct) nor 3F (inverse)")
        groups, offset = _groups(raw)
        warnings = _order(groups)
        count = raw[1] & 0x0F
        historical = raw[offset : offset + count]
        if len(historical) < count:
            warnings.append(f"T0 announces {count} historical bytes, {len(historical)} are there")
        offset += len(historical)
        tck, extra = None, raw[offset:]
        expected = _wants_tck(groups)
        rest = reduce(xor, raw[1:offset])
        if expected and not extra:
            warnings.append("TCK is missing")
        elif extra and (expected or extra == bytes((rest,))):
            tck, extra = extra[0], extra[1:]
            if tck != rest:
                warnings.append(f"TCK is 0x{tck:02X}, and 0x{rest:02X} would be right")
            elif not expected:
                warnings.append("TCK is there though only T=0 is offered")
        if extra:
            many = "1 byte" if len(extra) == 1 else f"{len(extra)} bytes"
            warnings.append(f"{many} too many at the end")
        if len(raw) > MAX_ATR:
            warnings.append(f"{len(raw)} bytes; an ATR has {MAX_ATR} at most")
        return cls(raw, groups, historical, tck, tuple(warnings))

    def __str__(self) -> str:
        return self.raw.hex(" ").upper()

    def hex(self) -> str:
        """The bytes in hexadecimal, without spaces."""
        return self.raw.hex()

    def explain(self) -> str:
        """Every byte in words, one line each."""
        from ccid.iso7816.atr_text import explain

        return explain(self)

    def first(self, letter: str, t: int) -> int | None:
        """The first TA, TB or TC beyond the second group that TD gave to ``t``, None without it.

        It is the one that has a meaning (ISO/IEC 7816-3:2006 8.3 for T=15, 11.4 for T=1).

        Args:
            letter: ``"a"``, ``"b"`` or ``"c"``.
            t: The protocol, or 15 for the global bytes.
        """
        for group in self.groups[2:]:
            value: int | None = getattr(group, f"t{letter}")
            if group.t == t and value is not None:
                return value
        return None

    def _at(self, letter: str, i: int) -> int | None:
        value: int | None = (
            getattr(self.groups[i - 1], f"t{letter}") if len(self.groups) >= i else None
        )
        return value

    @property
    def tck_right(self) -> bool | None:
        """T0 to TCK exclusive-ored give zero (ISO/IEC 7816-3:2006 8.2.5); None without TCK."""
        if self.tck is None:
            return None
        end = 2 + sum(1 for group in self.groups for _ in group.items()) + len(self.historical)
        return not reduce(xor, self.raw[1 : end + 1])

    @property
    def tck_expected(self) -> bool:
        """TCK has to be there: anything but T=0 is named (ISO/IEC 7816-3:2006 8.2.5)."""
        return _wants_tck(self.groups)

    @cached_property
    def historical_data(self) -> Historical:
        """The historical bytes, decoded (ISO/IEC 7816-4:2013 12.1.1)."""
        from ccid.iso7816.historical import Historical

        return Historical.parse(self.historical)

    @property
    def inverse(self) -> bool:
        """Inverse convention (TS = 3F)."""
        return self.raw[0] == INVERSE

    @property
    def ta1(self) -> int | None:
        """TA1: the indicated Fi and Di."""
        return self._at("a", 1)

    @property
    def ta2(self) -> int | None:
        """TA2: there in specific mode only (ISO/IEC 7816-3:2006 6.3.1)."""
        return self._at("a", 2)

    @property
    def fi(self) -> int | None:
        """Fi that TA1 indicates, 372 without TA1; None for a reserved code."""
        return FI[0x1 if self.ta1 is None else self.ta1 >> 4]

    @property
    def di(self) -> int | None:
        """Di that TA1 indicates, 1 without TA1; None for a reserved code."""
        return DI[0x1 if self.ta1 is None else self.ta1 & 0x0F]

    @property
    def fmax_mhz(self) -> float | None:
        """f(max) that TA1 indicates, in MHz; None for a reserved code."""
        return FMAX[0x1 if self.ta1 is None else self.ta1 >> 4]

    @property
    def extra_guard_time(self) -> int:
        """N, TC1, in etu (ISO/IEC 7816-3:2006 8.3); 0 without TC1.

        255 is no time but the shortest delay: 12 etu between characters with T=0, 11 with T=1.
        """
        value = self._at("c", 1)
        return 0 if value is None else value

    @cached_property
    def protocols(self) -> tuple[int, ...]:
        """Every T offered, in the card's order, T=15 left out; T=0 if no TD names one."""
        named = [g.t for g in self.groups[1:] if g.t is not None and g.t != 15]
        return tuple(dict.fromkeys(named)) or (0,)

    @property
    def specific_mode(self) -> bool:
        """The card works in one mode only, that of TA2 (ISO/IEC 7816-3:2006 6.3.1)."""
        return self.ta2 is not None

    @property
    def can_change_mode(self) -> bool:
        """A card in specific mode can be reset into negotiable mode (TA2, bit 8, is 0).

        A card in negotiable mode is in that already: True (ISO/IEC 7816-3:2006 8.3).
        """
        return self.ta2 is None or not self.ta2 & 0x80

    @property
    def implicit_parameters(self) -> bool:
        """In specific mode F and D are agreed elsewhere, not those of TA1 (TA2, bit 5, is 1;
        ISO/IEC 7816-3:2006 8.3)."""
        return self.ta2 is not None and bool(self.ta2 & 0x10)

    @property
    def default_protocol(self) -> int:
        """T in force after this ATR if nobody asks for another: TA2's, or the first offered."""
        return self.protocols[0] if self.ta2 is None else self.ta2 & 0x0F

    @property
    def wi(self) -> int:
        """WI, TC2 (ISO/IEC 7816-3:2006 10.2); 10 without TC2."""
        value = self._at("c", 2)
        return DEFAULT_WI if value is None else value

    @property
    def ifsc(self) -> int:
        """IFSC in bytes (ISO/IEC 7816-3:2006 11.4.2); 32 without it, 254 for the reserved 255."""
        value = self.first("a", 1)
        return DEFAULT_IFS if not value else min(value, MAX_IFS)

    @property
    def bwi(self) -> int:
        """BWI (ISO/IEC 7816-3:2006 11.4.3); 4 without it."""
        value = self.first("b", 1)
        return DEFAULT_BWI if value is None else value >> 4

    @property
    def cwi(self) -> int:
        """CWI (ISO/IEC 7816-3:2006 11.4.3); 13 without it."""
        value = self.first("b", 1)
        return DEFAULT_CWI if value is None else value & 0x0F

    @property
    def crc(self) -> bool:
        """T=1 checks by CRC instead of LRC (ISO/IEC 7816-3:2006 11.4.4)."""
        return bool((self.first("c", 1) or 0) & 1)

    @property
    def clock_stop(self) -> int | None:
        """Clock stop indicator, 0 to 3 (ISO/IEC 7816-3:2006 8.3, X); None without it."""
        value = self.first("a", 15)
        return None if value is None else value >> 6

    @property
    def classes(self) -> int | None:
        """Operating classes, bit 0 A (5 V), bit 1 B (3 V), bit 2 C (1.8 V); None without them."""
        value = self.first("a", 15)
        return None if value is None else value & 0x3F

    @property
    def spu(self) -> int | None:
        """Use of contact C6, first TB for T=15 (ISO/IEC 7816-3:2006 8.3); None without it.

        0: not used. Bit 8 tells proprietary (1) from standard use (0).
        """
        return self.first("b", 15)


def _wants_tck(groups: tuple[Group, ...]) -> bool:
    return any(group.t for group in groups)


def _order(groups: tuple[Group, ...]) -> list[str]:
    """What is wrong with the order of the protocols (ISO/IEC 7816-3:2006 8.2.3)."""
    wrong = []
    if len(groups) > 1 and groups[1].t == 15:
        wrong.append("TD1 offers T=15, which is no protocol")
    for before, after in pairwise(groups[1:]):
        if (before.t or 0) > (after.t or 0):
            wrong.append(f"TD{after.i - 1} offers T={after.t} after T={before.t}")
    return wrong


def _groups(raw: bytes) -> tuple[tuple[Group, ...], int]:
    """The interface bytes and where they end."""
    groups: list[Group] = []
    follow, t, offset, by = raw[1] >> 4, None, 2, f"T0 = 0x{raw[1]:02X}"
    while True:
        i = len(groups) + 1
        values: list[int | None] = []
        for bit, letter in enumerate("ABCD"):
            if not follow >> bit & 1:
                values.append(None)
            elif offset >= len(raw):
                raise MalformedAtr(
                    f"T{letter}{i}, byte {offset + 1}, is announced by {by}, "
                    f"and the ATR ends after {len(raw)} bytes"
                )
            else:
                values.append(raw[offset])
                offset += 1
        groups.append(Group(i, t, *values))
        td = values[3]
        if td is None:
            return tuple(groups), offset
        follow, t, by = td >> 4, td & 0x0F, f"TD{i} = 0x{td:02X}"
