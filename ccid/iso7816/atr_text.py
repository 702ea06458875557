"""An answer to reset in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccid.iso7816.atr import Atr, Group

CLOCK_STOP = ("clock stop not supported", "state L", "state H", "no preference")
CLASSES = ((1, "A (5 V)"), (2, "B (3 V)"), (4, "C (1.8 V)"))


def explain(atr: Atr) -> str:
    """Every byte of ``atr`` in words, one line each (ISO/IEC 7816-3:2006 8.2 and 8.3)."""
    count = atr.raw[1] & 0x0F
    lines = [
        f"TS  = 0x{atr.raw[0]:02X}  {'inverse' if atr.inverse else 'direct'} convention",
        f"T0  = 0x{atr.raw[1]:02X}  {_follows(atr.raw[1] >> 4, 1)}, {count} historical bytes",
    ]
    seen: set[tuple[str, int]] = set()
    for group in atr.groups:
        for name, value in group.items():
            lines.append(f"{name} = 0x{value:02X}  {_byte(atr, group, name[1], value, seen)}")
    if atr.historical:
        printable = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in atr.historical)
        lines.append(f"Historical bytes: {atr.historical.hex(' ').upper()}  {printable!r}")
    if atr.tck is not None:
        wrong = any(w.startswith("TCK is 0x") for w in atr.warnings)
        lines.append(f"TCK = 0x{atr.tck:02X}  {'wrong' if wrong else 'right'}")
    lines.extend(f"Warning: {warning}" for warning in atr.warnings)
    return "\n".join(lines)


def _follows(bits: int, i: int) -> str:
    names = [f"T{letter}{i}" for bit, letter in enumerate("ABCD") if bits >> bit & 1]
    return f"{', '.join(names)} follow" if names else "no interface bytes follow"


def _byte(atr: Atr, group: Group, letter: str, value: int, seen: set[tuple[str, int]]) -> str:
    if letter == "D":
        return f"T={value & 0x0F}, {_follows(value >> 4, group.i + 1)}"
    match group.i, letter:
        case 1, "A":
            return _ta1(atr)
        case 1, "B":
            return "programming voltage, deprecated"
        case 1, "C":
            return _tc1(value)
        case 2, "A":
            return _ta2(value)
        case 2, "B":
            return "programming voltage, deprecated"
        case 2, "C":
            return f"WI = {value}, waiting integer of T=0"
    first = (letter, group.t or 0) not in seen
    seen.add((letter, group.t or 0))
    if first:
        match group.t, letter:
            case 1, "A":
                return f"IFSC = {value}{'' if 0 < value < 255 else ', a reserved value'}"
            case 1, "B":
                return f"BWI = {value >> 4}, CWI = {value & 0x0F}"
            case 1, "C":
                return f"T=1 checks by {'CRC' if value & 1 else 'LRC'}"
            case 15, "A":
                names = [text for bit, text in CLASSES if value & bit]
                return f"{CLOCK_STOP[value >> 6]}; class {', '.join(names) or 'reserved'}"
            case 15, "B":
                return f"contact C6: {_spu(value)}"
    return f"specific to T={group.t}"


def _ta1(atr: Atr) -> str:
    if atr.fi is None or atr.di is None:
        return "Fi and Di: a reserved code"
    at4 = 4_000_000 * atr.di / atr.fi
    return (
        f"Fi = {atr.fi}, Di = {atr.di}, {atr.fi / atr.di:.6g} clock cycles a bit, "
        f"{at4:.0f} bit/s at 4 MHz, f(max) = {atr.fmax_mhz:g} MHz"
    )


def _tc1(value: int) -> str:
    if value == 255:
        return "N = 255, minimum delay: 12 etu with T=0, 11 etu with T=1"
    return f"N = {value}, extra guard time"


def _ta2(value: int) -> str:
    change = "unable" if value & 0x80 else "able"
    where = "implicitly known" if value & 0x10 else "given by the interface bytes"
    return f"specific mode, T={value & 0x0F}, {change} to change, parameters {where}"


def _spu(value: int) -> str:
    if not value & 0x7F:
        return "not used"
    return "proprietary use" if value & 0x80 else "standard use"
