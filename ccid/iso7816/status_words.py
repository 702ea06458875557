"""Status words SW1 SW2 in words (ISO/IEC 7816-4:2013 5.6)."""

from __future__ import annotations

MEANINGS = {
    0x9000: "normal processing",
    0x6200: "warning, nothing changed",
    0x6281: "part of the data may be corrupted",
    0x6282: "end of file before Ne bytes",
    0x6283: "selected file deactivated",
    0x6285: "selected file in termination state",
    0x6300: "warning, something changed",
    0x6381: "file filled up by the last write",
    0x6400: "error, nothing changed",
    0x6500: "error, something changed",
    0x6581: "memory failure",
    0x6700: "wrong length",
    0x6881: "logical channel not supported",
    0x6882: "secure messaging not supported",
    0x6883: "last command of the chain expected",
    0x6884: "command chaining not supported",
    0x6981: "command incompatible with file structure",
    0x6982: "security status not satisfied",
    0x6983: "authentication method blocked",
    0x6984: "reference data not usable",
    0x6985: "conditions of use not satisfied",
    0x6986: "command not allowed, no current EF",
    0x6987: "secure messaging data objects missing",
    0x6988: "secure messaging data objects incorrect",
    0x6A80: "incorrect parameters in the data field",
    0x6A81: "function not supported",
    0x6A82: "file or application not found",
    0x6A83: "record not found",
    0x6A84: "not enough memory in the file",
    0x6A85: "Nc inconsistent with TLV structure",
    0x6A86: "incorrect P1 P2",
    0x6A87: "Nc inconsistent with P1 P2",
    0x6A88: "referenced data not found",
    0x6A89: "file exists already",
    0x6A8A: "DF name exists already",
    0x6B00: "wrong P1 P2",
    0x6D00: "instruction not supported or invalid",
    0x6E00: "class not supported",
    0x6F00: "no precise diagnosis",
}
"""The status words with one meaning."""


def explain(sw: int) -> str:
    """The meaning of a status word.

    Args:
        sw: SW1 SW2 as one number, 0 to 0xFFFF.
    """
    if sw in MEANINGS:
        return MEANINGS[sw]
    sw1, sw2 = sw >> 8, sw & 0xFF
    if sw1 == 0x61:
        return f"{sw2 or 256} bytes more by GET RESPONSE"
    if sw1 == 0x6C:
        return f"wrong Le, {sw2 or 256} would be right"
    if sw & 0xFFF0 == 0x63C0:
        return f"{sw2 & 0x0F} tries left"
    return "not defined by ISO/IEC 7816-4"
