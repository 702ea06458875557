"""Call the functions of IFD handler 3.0 as pcscd does, without pcscd.

    python examples/ifd_handler.py            the first reader that is plugged in
    python examples/ifd_handler.py --virtual  a virtual reader
    python examples/ifd_handler.py NAME       a device string of pcscd, such as usb:08e6/3437

No function raises an exception for an error of a reader or card: each returns a response code.
"""

from __future__ import annotations

import sys
from contextlib import closing

import ccid
from ccid.pcsc.ifd import Action, Code, IFDHandler, Tag

LUN = 0x0000_0000
"""Reader number << 16 | slot."""
T1, T1_HEADER = 2, 1
"""T=1 in IFDHSetProtocolParameters, and in the send header of IFDHTransmitToICC."""


def main(words: list[str]) -> None:
    name = "virtual:" if "--virtual" in words else "".join(words)
    with closing(IFDHandler()) as handler:
        code = handler.create_channel_by_name(LUN, name)
        if code is not Code.SUCCESS:
            sys.exit(f"{code.name}: {handler.last_error}")
        code, slots = handler.get_capabilities(LUN, Tag.SLOTS_NUMBER, 1)
        print(f"slots: {slots.hex()}; presence: {handler.icc_presence(LUN).name}")
        code, atr = handler.power_icc(LUN, Action.POWER_UP)
        print(f"power: {code.name} {atr.hex(' ').upper()}")
        print(f"T=1: {handler.set_protocol_parameters(LUN, T1).name}")
        code, response = handler.transmit_to_icc(LUN, T1_HEADER, bytes.fromhex("00A4000C023F00"))
        print(f"SELECT MF: {code.name} {response.hex(' ').upper()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
