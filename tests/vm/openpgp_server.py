"""Serves a reader with an OpenPGP card over USB/IP: runs in the guest.

    openpgp_server.py PORT FOLDER

The card is jcecard's (PyPI), written by others for trying OpenPGP programs; ours are the reader
and all that is between. FOLDER keeps what the card stores.
"""

from __future__ import annotations

import logging
import signal
from pathlib import Path

from jcecard.main import OpenPGPCard

from ccid.codes import ExchangeLevel
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import Answer, Application
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.virtual_reader import VirtualReader, make_descriptor

VENDOR_ID, PRODUCT_ID = 0x08E6, 0x3437
ATR = bytes.fromhex("3BDA18FF81B1FE751F030031F573C001600090001C")
"""The ATR of the OpenPGP card 3.4, from pcsc-tools' list: T=1, command chaining, extended
length."""


class OpenPgp(Application):
    """jcecard's OpenPGP card.

    Args:
        folder: The folder for the keys and data objects of the card.
    """

    atr = ATR

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._card = OpenPGPCard(storage_path=folder)

    def reset(self) -> None:
        super().reset()
        self._card.power_off()
        self._card.power_on()

    def process(self, command: CommandApdu) -> Answer:
        reply = self._card.process_apdu(command.build())
        return Answer(reply[:-2], int.from_bytes(reply[-2:], "big"))


def main(port: int, folder: str) -> None:
    """Serve until a signal comes."""
    logging.disable()
    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU)
    reader = VirtualReader(
        OpenPgp(Path(folder)), descriptor=descriptor, vendor_id=VENDOR_ID, product_id=PRODUCT_ID
    )
    with UsbIpServer([reader], "127.0.0.1", port):
        print("serving", reader.info.serial, flush=True)
        signal.pause()
