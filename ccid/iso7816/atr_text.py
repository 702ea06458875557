"""An ATR in words, one line for each byte (ISO/IEC 7816-3:2006 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccid.iso7816.historical_bytes_text import lines as historical_lines

if TYPE_CHECKING:
    from ccid.iso7816.atr import Atr, Group

CLOCK_STOP = ("not supported", "state L", "state H", "no preference")
"""The clock stop indicator X (ISO/IEC 7816-3:2006 8.3)."""
CLASSES = ((1, "A (5 V)"), (2, "B (3 V)"), (4, "C (1.8 V)"))
"""The bits of the class indicator Y (ISO/IEC 7816-3:2006 8.3)."""
KNOWN_CLASSES = (1, 2, 3, 4, 6, 7)
"""The values of Y that are not reserved (ISO/IEC 7816-3:2006 8.3)."""
II = ("25 mA", "50 mA", "reserved", "reserved")
"""Programming current, TB1 bits 7 and 6 (ISO/IEC 7816-3:1997 6.5.4)."""


def explain(atr: Atr) -> str:
    """``atr`` in words: a line for each interface byte, then the historical bytes, TCK and warnings
    (ISO/IEC 7816-3:2006 8.2 and 8.3)."""
    count = atr.raw[1] & 0x0F
    many = "1 historical byte" if count == 1 else f"{count} historical bytes"
    lines = [
        f"TS  = 0x{atr.raw[0]:02X}  {'inverse' if atr.inverse else 'direct'} convention",
        f"T0  = 0x{atr.raw[1]:02X}  {_follows(atr.raw[1] >> 4, 1)}, {many}",
    ]
    seen: set[tuple[str, int]] = set()
    for group in atr.groups:
        for name, value in group.items():
            lines.append(f"{name} = 0x{value:02X}  {_byte(atr, group, name[1], value, seen)}")
    if atr.historical:
        printable = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in atr.historical)
        lines.append(f"Historical bytes: {atr.historical.hex(' ').upper()}  {printable!r}")
        lines.extend(f"  {line}" for line in historical_lines(atr.historical_data))
    if atr.tck is not None:
        lines.append(f"TCK = 0x{atr.tck:02X}  {'right' if atr.tck_right else 'wrong'}")
    lines.extend(f"Warning: {warning}" for warning in atr.warnings)
    return "\n".join(lines)


def _follows(bits: int, i: int) -> str:
    """Which bytes of group ``i`` follow, by the four high bits of T0 or TD."""
    names = [f"T{letter}{i}" for bit, letter in enumerate("ABCD") if bits >> bit & 1]
    if not names:
        return "no interface bytes follow"
    return f"{', '.join(names)} follow{'s' if len(names) == 1 else ''}"


def _byte(atr: Atr, group: Group, letter: str, value: int, seen: set[tuple[str, int]]) -> str:
    """The meaning of one interface byte; ``seen`` collects the bytes (letter, T) before it."""
    if letter == "D":
        return f"{_protocol(value & 0x0F)}, {_follows(value >> 4, group.i + 1)}"
    match group.i, letter:
        case 1, "A":
            return f"global: {_ta1(atr)}"
        case 1, "B":
            return f"global: {_tb1(value)}"
        case 1, "C":
            return f"global: {_tc1(value)}"
        case 2, "A":
            return f"global: {_ta2(value)}"
        case 2, "B":
            return f"global: {_tb2(value)}"
        case 2, "C":
            return f"specific to T=0: {_tc2(atr, value)}"
    first = (letter, group.t or 0) not in seen
    seen.add((letter, group.t or 0))
    where = "global" if group.t == 15 else f"specific to T={group.t}"
    if group.t not in (1, 15):
        return f"{where}, no meaning in the standard"
    if not first:
        return f"{where}, a second one, no meaning in the standard"
    return f"{where}: {_t1(atr, letter, value) if group.t == 1 else _t15(letter, value)}"


def _protocol(t: int) -> str:
    if t == 15:
        return "T=15, no protocol: global interface bytes"
    if t == 14:
        return "T=14, a protocol outside the standard"
    return f"T={t}" if t in (0, 1) else f"T={t}, a reserved protocol"


def _ta1(atr: Atr) -> str:
    value = atr.ta1 or 0
    if atr.fi is None or atr.di is None or atr.fmax_mhz is None:
        fi = "a reserved code" if atr.fi is None else f"{atr.fi}, f(max) = {atr.fmax_mhz:g} MHz"
        di = "a reserved code" if atr.di is None else str(atr.di)
        return f"Fi = {fi} (F = {value >> 4}), Di = {di} (D = {value & 0x0F})"
    rate = atr.di / atr.fi
    return (
        f"Fi = {atr.fi}, Di = {atr.di}, {atr.fi / atr.di:.6g} clock cycles a bit, "
        f"{4e6 * rate:.0f} bit/s at 4 MHz, "
        f"{atr.fmax_mhz * 1e6 * rate:.0f} bit/s at f(max) = {atr.fmax_mhz:g} MHz"
    )


def _tb1(value: int) -> str:
    """PI1 and II (ISO/IEC 7816-3:1997 6.5.4); the edition of 2006 deprecates them."""
    pi1, ii = value & 0x1F, value >> 5 & 3
    if pi1 == 0:
        return "programming voltage, deprecated: VPP not connected"
    volts = f"{pi1} V" if 5 <= pi1 <= 25 else "a reserved code"
    return f"programming voltage, deprecated: PI1 = {pi1}, {volts}; II = {ii}, {II[ii]}"


def _tb2(value: int) -> str:
    """PI2 (ISO/IEC 7816-3:1997 6.5.4)."""
    volts = f"{value / 10:g} V, in place of PI1" if 50 <= value <= 250 else "a reserved code"
    return f"programming voltage, deprecated: PI2 = {value}, {volts}"


def _tc1(value: int) -> str:
    if value == 255:
        return "N = 255, minimum delay: 12 etu with T=0, 11 etu with T=1"
    return f"N = {value}, extra guard time in etu"


def _ta2(value: int) -> str:
    change = "unable" if value & 0x80 else "able"
    where = "implicitly known" if value & 0x10 else "given by the interface bytes"
    reserved = ", reserved bits set" if value & 0x60 else ""
    return f"specific mode, T={value & 0x0F}, {change} to change, parameters {where}{reserved}"


def _tc2(atr: Atr, value: int) -> str:
    if not value:
        return "WI = 0, a reserved value"
    wwt = "" if atr.fi is None else f", {value * 960 * atr.fi / 4e6:.3g} s at 4 MHz and Fi"
    return f"WI = {value}, waiting time of {960 * value} × Fi clock cycles{wwt}"


def _t1(atr: Atr, letter: str, value: int) -> str:
    """The bytes of T=1 (ISO/IEC 7816-3:2006 11.4)."""
    if letter == "A":
        return f"IFSC = {value}{'' if 0 < value < 255 else ', a reserved value'}"
    if letter == "B":
        cwt = f"{11 + 2**atr.cwi} etu between characters"
        if atr.bwi > 9:
            return f"BWI = {atr.bwi}, a reserved value, CWI = {atr.cwi}: {cwt}"
        bwt = f"{2**atr.bwi * 960 * 372 / 4e6:.3g} s a block at 4 MHz"
        return f"BWI = {atr.bwi}, CWI = {atr.cwi}: {bwt}, {cwt}"
    reserved = ", reserved bits set" if value & 0xFE else ""
    return f"error detection by {'CRC' if value & 1 else 'LRC'}{reserved}"


def _t15(letter: str, value: int) -> str:
    """The bytes of T=15 (ISO/IEC 7816-3:2006 8.3)."""
    if letter == "A":
        y = value & 0x3F
        names = ", ".join(text for bit, text in CLASSES if y & bit)
        reserved = "" if y in KNOWN_CLASSES else f"{', ' if names else ''}a reserved code"
        stop = CLOCK_STOP[value >> 6]
        return f"clock stop: {stop}; class {names}{reserved}"
    if letter == "B":
        if not value:
            return "contact C6 (SPU) not used"
        if value & 0x80:
            return "contact C6 (SPU) in proprietary use"
        return "contact C6 (SPU) in standard use, a reserved code"
    return "no meaning in the standard"
