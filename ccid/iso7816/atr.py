"""The answer to reset (ATR), parsed: ISO/IEC 7816-3:2006 8.

TS names the convention. T0 says which of TA1 to TD1 follow, and how many historical bytes. Each TDi
says which bytes of the next group follow, and for which protocol T. A group after the second
belongs to the protocol that its TD names: for T=1 the first TA is IFSC, the first TB holds the
waiting time integers, the first TC names the error detection code; for T=15 the first TA holds the
clock stop indicator and the operating classes. TCK ends the ATR unless the card offers only T=0.

Real cards often violate the standard at the end of the ATR. A missing or wrong TCK, surplus bytes
and missing historical bytes are warnings: the ATR stays usable. A missing interface byte is an
error, because the parameters of the card are then unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from operator import xor
from typing import TYPE_CHECKING

from ccid.errors import MalformedAtr
from ccid.ground.records import record

if TYPE_CHECKING:
    from ccid.iso7816.historical_bytes import Historical

MAX_ATR = 33
"""TS and at most 32 characters (ISO/IEC 7816-3:2006 8.1)."""

DIRECT, INVERSE = 0x3B, 0x3F
"""TS of the direct and the inverse convention (ISO/IEC 7816-3:2006 8.1)."""

FI = (372, 372, 558, 744, 1116, 1488, 1860, None, None, 512, 768, 1024, 1536, 2048, None, None)
"""Clock rate conversion integers Fi (ISO/IEC 7816-3:2006, table 7); None is RFU."""
FMAX = (4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 20.0, None, None, 5.0, 7.5, 10.0, 15.0, 20.0, None, None)
"""f(max) in MHz (ISO/IEC 7816-3:2006, table 7)."""
DI = (None, 1, 2, 4, 8, 16, 32, 64, 12, 20, None, None, None, None, None, None)
"""Baud rate adjustment integers Di (ISO/IEC 7816-3:2006, table 8); None is RFU."""

DEFAULT_FIDI = 0x11
"""Fd = 372 and Dd = 1, in force after an ATR, coded as TA1 (ISO/IEC 7816-3:2006 8.3)."""
# The values in force without the interface byte (ISO/IEC 7816-3:2006 10.2, 11.4.2, 11.4.3)
DEFAULT_WI = 10
DEFAULT_IFS = 32
"""The default value of IFSC and IFSD in bytes (11.4.2)."""
MAX_IFS = 254
"""The greatest IFSC and IFSD in bytes; 255 is reserved (11.4.2)."""
DEFAULT_BWI = 4
DEFAULT_CWI = 13


@record
class Group:
    """One group of interface bytes: TAi, TBi, TCi, TDi.

    Attributes:
        i: Number of the group, from 1.
        t: T of the TD before the group; None for the first group.
        ta, tb, tc, td: The bytes; None for a byte that is absent.
    """

    i: int
    t: int | None
    ta: int | None = None
    tb: int | None = None
    tc: int | None = None
    td: int | None = None

    def items(self) -> Iterator[tuple[str, int]]:
        """The bytes that are present, each with its name (``TA1``)."""
        for letter, value in (("A", self.ta), ("B", self.tb), ("C", self.tc), ("D", self.td)):
            if value is not None:
                yield f"T{letter}{self.i}", value


@dataclass(frozen=True)
class Atr:
    """A parsed ATR.

    Attributes:
        raw: All bytes from the card.
        groups: The interface bytes.
        historical: The historical bytes.
        tck: The check byte TCK; None without TCK.
        warnings: Violations of the standard that leave the ATR usable, in words.
    """

    raw: bytes
    groups: tuple[Group, ...]
    historical: bytes
    tck: int | None
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Atr:
        """Parse an ATR (ISO/IEC 7816-3:2006 8.2).

        Args:
            raw: All bytes of the ATR, from TS on.

        Raises:
            MalformedAtr: The ATR has fewer than two bytes, TS is wrong, or an interface byte is
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
        expected = _needs_tck(groups)
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
        """The ATR in words, one line for each byte (:mod:`ccid.iso7816.atr_text`)."""
        from ccid.iso7816.atr_text import explain

        return explain(self)

    def first(self, letter: str, t: int) -> int | None:
        """The first TA, TB or TC for ``t`` after the second group; None without it.

        The standard defines a meaning for the first such byte alone (ISO/IEC 7816-3:2006 8.3 for
        T=15, 11.4 for T=1).

        Args:
            letter: ``"a"``, ``"b"`` or ``"c"``.
            t: The protocol number T; 15 for the global interface bytes.
        """
        for group in self.groups[2:]:
            value: int | None = getattr(group, f"t{letter}")
            if group.t == t and value is not None:
                return value
        return None

    def _at(self, letter: str, i: int) -> int | None:
        """The byte with this letter in group ``i``; None without it."""
        value: int | None = (
            getattr(self.groups[i - 1], f"t{letter}") if len(self.groups) >= i else None
        )
        return value

    @property
    def tck_right(self) -> bool | None:
        """True if TCK is right: the exclusive or of T0 to TCK is zero (ISO/IEC 7816-3:2006 8.2.5).
        None without TCK."""
        if self.tck is None:
            return None
        end = 2 + sum(1 for group in self.groups for _ in group.items()) + len(self.historical)
        return not reduce(xor, self.raw[1 : end + 1])

    @property
    def tck_expected(self) -> bool:
        """True if the ATR needs TCK: a TD names another T than 0 (ISO/IEC 7816-3:2006 8.2.5)."""
        return _needs_tck(self.groups)

    @cached_property
    def historical_data(self) -> Historical:
        """The historical bytes, decoded (ISO/IEC 7816-4:2013 12.1.1)."""
        from ccid.iso7816.historical_bytes import Historical

        return Historical.parse(self.historical)

    @property
    def inverse(self) -> bool:
        """True for the inverse convention (TS = 3F)."""
        return self.raw[0] == INVERSE

    @property
    def ta1(self) -> int | None:
        """TA1: the codes of Fi and Di; None without TA1."""
        return self._at("a", 1)

    @property
    def ta2(self) -> int | None:
        """TA2, present in specific mode only (ISO/IEC 7816-3:2006 6.3.1); None without TA2."""
        return self._at("a", 2)

    @property
    def fi(self) -> int | None:
        """Fi of TA1; 372 without TA1; None for a reserved code."""
        return FI[0x1 if self.ta1 is None else self.ta1 >> 4]

    @property
    def di(self) -> int | None:
        """Di of TA1; 1 without TA1; None for a reserved code."""
        return DI[0x1 if self.ta1 is None else self.ta1 & 0x0F]

    @property
    def fmax_mhz(self) -> float | None:
        """f(max) of TA1 in MHz; 5 without TA1; None for a reserved code."""
        return FMAX[0x1 if self.ta1 is None else self.ta1 >> 4]

    @property
    def extra_guard_time(self) -> int:
        """The extra guard time N of TC1, in etu (ISO/IEC 7816-3:2006 8.3); 0 without TC1.

        255 means the shortest guard time: 12 etu with T=0, 11 etu with T=1.
        """
        value = self._at("c", 1)
        return 0 if value is None else value

    @cached_property
    def protocols(self) -> tuple[int, ...]:
        """All protocols that the card offers, in the order of the ATR, without T=15; T=0 if no TD
        names a protocol."""
        named = [g.t for g in self.groups[1:] if g.t is not None and g.t != 15]
        return tuple(dict.fromkeys(named)) or (0,)

    @property
    def specific_mode(self) -> bool:
        """True in specific mode: the ATR has TA2 (ISO/IEC 7816-3:2006 6.3.1)."""
        return self.ta2 is not None

    @property
    def can_change_mode(self) -> bool:
        """True if a reset can bring the card to negotiable mode (bit 8 of TA2 is 0), or if the card
        is in negotiable mode (ISO/IEC 7816-3:2006 8.3)."""
        return self.ta2 is None or not self.ta2 & 0x80

    @property
    def implicit_parameters(self) -> bool:
        """True if, in specific mode, F and D are implicit, not those of TA1 (bit 5 of TA2 is 1;
        ISO/IEC 7816-3:2006 8.3)."""
        return self.ta2 is not None and bool(self.ta2 & 0x10)

    @property
    def default_protocol(self) -> int:
        """The protocol in force after this ATR without a PPS: the T of TA2, else the first protocol
        offered (ISO/IEC 7816-3:2006 6.3.1)."""
        return self.protocols[0] if self.ta2 is None else self.ta2 & 0x0F

    @property
    def wi(self) -> int:
        """The waiting time integer WI of TC2 (ISO/IEC 7816-3:2006 10.2); 10 without TC2."""
        value = self._at("c", 2)
        return DEFAULT_WI if value is None else value

    @property
    def ifsc(self) -> int:
        """IFSC in bytes (ISO/IEC 7816-3:2006 11.4.2): 32 without the byte or for the reserved 0,
        254 for the reserved 255."""
        value = self.first("a", 1)
        return DEFAULT_IFS if not value else min(value, MAX_IFS)

    @property
    def bwi(self) -> int:
        """The block waiting time integer BWI (ISO/IEC 7816-3:2006 11.4.3); 4 without the byte."""
        value = self.first("b", 1)
        return DEFAULT_BWI if value is None else value >> 4

    @property
    def cwi(self) -> int:
        """The character waiting time integer CWI (ISO/IEC 7816-3:2006 11.4.3); 13 without the
        byte."""
        value = self.first("b", 1)
        return DEFAULT_CWI if value is None else value & 0x0F

    @property
    def crc(self) -> bool:
        """True if blocks of T=1 have a CRC instead of an LRC (ISO/IEC 7816-3:2006 11.4.4)."""
        return bool((self.first("c", 1) or 0) & 1)

    @property
    def clock_stop(self) -> int | None:
        """The clock stop indicator X, 0 to 3 (ISO/IEC 7816-3:2006 8.3); None without the byte."""
        value = self.first("a", 15)
        return None if value is None else value >> 6

    @property
    def classes(self) -> int | None:
        """The class indicator Y (ISO/IEC 7816-3:2006 8.3): bit 0 for class A (5 V), bit 1 for B
        (3 V), bit 2 for C (1.8 V); None without the byte."""
        value = self.first("a", 15)
        return None if value is None else value & 0x3F

    @property
    def spu(self) -> int | None:
        """The use of contact C6: the first TB for T=15 (ISO/IEC 7816-3:2006 8.3); None without the
        byte.

        0 means not used. Bit 8 is 1 for proprietary use, 0 for standard use.
        """
        return self.first("b", 15)


def _needs_tck(groups: tuple[Group, ...]) -> bool:
    return any(group.t for group in groups)


def _order(groups: tuple[Group, ...]) -> list[str]:
    """Warnings about the order of the protocols (ISO/IEC 7816-3:2006 8.2.3)."""
    wrong = []
    if len(groups) > 1 and groups[1].t == 15:
        wrong.append("TD1 offers T=15, which is no protocol")
    for before, after in pairwise(groups[1:]):
        if (before.t or 0) > (after.t or 0):
            wrong.append(f"TD{after.i - 1} offers T={after.t} after T={before.t}")
    return wrong


def _groups(raw: bytes) -> tuple[tuple[Group, ...], int]:
    """The groups of interface bytes, and the offset of the first byte after them."""
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
