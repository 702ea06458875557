"""A process that verifies a PIN and then waits; :mod:`tests.unit.test_wiping` searches its memory.

The reader is behind a fake libusb that copies nothing: PIN and answer are in the memory of the
library and of this program alone. ``python -m tests.unit.pin_in_memory LEVEL``; the PIN comes on
standard input, each byte XORed with :data:`BAR`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest

import ccid
from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import ExchangeLevel
from ccid.transport import asynchronous
from ccid.transport.asynchronous import Transfer
from tests.unit.fake_events import FakeEvents
from tests.unit.usb_over_port import over_usb

BAR = 0x5A
SIZE = 16
"""Bytes of the PIN, and of the answer."""
SW = b"\x90\x00"
LEVELS = {"short": ExchangeLevel.SHORT_APDU, "extended": ExchangeLevel.EXTENDED_APDU}
XFR_BLOCK, POWER_ON, GET_STATUS, SET_PARAMETERS = 0x6F, 0x62, 0x65, 0x61


class QuietReader(FakeEvents):
    """Reads no data of a command. An answer becomes plain in the buffer of the transfer.

    Args:
        answer: To each XfrBlock, XORed with BAR.
    """

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.hidden = answer
        self.bulk.answer = self._reply

    def _submit_bulk(self, address: int) -> int:
        transfer = Transfer.from_address(address)
        length = transfer.length
        if not transfer.endpoint & 0x80 and ctypes.string_at(transfer.buffer, 1)[0] == XFR_BLOCK:
            transfer.length = MESSAGE_HEADER  # of which a copy is made
        result = super()._submit_bulk(address)
        transfer.length = length
        return result

    def _reply(self, command: bytes) -> bytes:
        kind, body = {
            XFR_BLOCK: (0x80, self.hidden + SW),
            POWER_ON: (0x80, bytes.fromhex("3B00")),
            SET_PARAMETERS: (0x82, command[MESSAGE_HEADER:]),
        }.get(command[0], (0x81, b""))
        self.bulk.sent.clear()
        return bytes((kind, len(body), 0, 0, 0, command[5], command[6], 0, 0, 0)) + body

    def _complete(self, transfer: Any, status: int, data: bytes) -> None:
        super()._complete(transfer, status, data)
        if data[MESSAGE_HEADER:] == self.hidden + SW:
            reply = (ctypes.c_ubyte * SIZE).from_address(transfer.buffer + MESSAGE_HEADER)
            for i in range(SIZE):
                reply[i] ^= BAR


def main(level: str) -> None:
    came = bytearray(2 * SIZE)
    os.readv(0, [came])
    virtual = ccid.VirtualReader(level=LEVELS[level])
    with pytest.MonkeyPatch.context() as patch:
        info = over_usb(virtual, patch)
        events = QuietReader(bytes(came[SIZE:]))
        patch.setattr(asynchronous, "calls", events.calls)
        with ccid.open_reader(info) as reader, reader.slots[0].connect() as card:
            apdu = bytearray(bytes.fromhex("00200081") + bytes((SIZE,)) + bytes(SIZE))
            for i in range(SIZE):
                apdu[5 + i] = came[i] ^ BAR
            response = card.transmit(apdu)
            os.write(1, response[-2:])
            os.readv(0, [bytearray(1)])
            assert len(apdu) > SIZE, "the caller's own copies are kept"
            assert response


if __name__ == "__main__":
    main(sys.argv[1])
