"""``ccid-probe apdu``: send command APDUs to the card."""

from __future__ import annotations

import argparse
import sys

from ccid.iso7816.apdu import is_secret, visible_length
from ccid.probe.card_command import show
from ccid.probe.session import note, opened, protocol_of, slot_of


def run(options: argparse.Namespace) -> int:
    """Send the APDUs in order; what they carry as PIN or key is not printed."""
    apdus = []
    for word in options.hex:
        try:
            apdus.append(bytes.fromhex(word.replace(":", " ")))
        except ValueError:
            note(f"apdu: {word!r} is not hexadecimal")
            return 2
    with opened(options) as reader:
        slot = slot_of(reader, options.slot)
        with slot.connect(protocol_of(options)) as card:
            for apdu in apdus:
                response = card.transmit(apdu)
                show(apdu if options.trace_secrets else _shown(apdu), response)
                sys.stdout.flush()
    return 0


def _shown(apdu: bytes) -> bytes:
    """``apdu``, a PIN or key in it masked."""
    if not is_secret(apdu):
        return apdu
    visible = visible_length(apdu)
    return apdu[:visible] + b"\x2a" * (len(apdu) - visible)
