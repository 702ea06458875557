"""``ccid-probe apdu``: send command APDUs to the card."""

from __future__ import annotations

import argparse

from ccid.iso7816.apdu import Secrecy, visible_length
from ccid.probe.card_command import show
from ccid.probe.session import flush, note, opened, protocol_of, slot_of


def run(options: argparse.Namespace) -> int:
    """Send the APDUs in order; what they carry as PIN or key is not printed."""
    apdus = []
    for word in options.hex:
        try:
            apdus.append(bytes.fromhex(word.replace(":", " ")))
        except ValueError:
            note(f"apdu: {word!r} is not hexadecimal")
            return 2
        if not apdus[-1]:
            note("apdu: an APDU without any byte")
            return 2
    secrecy = Secrecy()
    with opened(options) as reader:
        slot = slot_of(reader, options.slot)
        with slot.connect(protocol_of(options)) as card:
            for apdu in apdus:
                response = card.transmit(apdu)
                hide = secrecy.begins(apdu) and not options.trace_secrets
                show(_masked(apdu) if hide else apdu, response)
                flush()
    return 0


def _masked(apdu: bytes) -> bytes:
    """``apdu`` without the PIN or key in it."""
    visible = visible_length(apdu)
    return apdu[:visible] + b"\x2a" * (len(apdu) - visible)
