"""A: pyusb's own write and read, the messages made before, with no check but the number:
``pyusb_loop.py APDU BUFFER``, BUFFER being the size in bytes of each read."""

from __future__ import annotations

import struct
import sys

import usb.core
import usb.util
from measured_loop import read_apdu, serve

TIMEOUT_MS = 5000
apdu, size = read_apdu(sys.argv[1]), int(sys.argv[2])
device = next(iter(usb.core.find(find_all=True)))
interface = device.get_active_configuration()[(0, 0)]
bulk = [e for e in interface if e.bmAttributes == 2]
(out,) = (e.bEndpointAddress for e in bulk if not e.bEndpointAddress & 0x80)
(into,) = (e.bEndpointAddress for e in bulk if e.bEndpointAddress & 0x80)
usb.util.claim_interface(device, 0)


def message(kind: int, bSeq: int, data: bytes = b"") -> bytes:
    return struct.pack("<BIBB", kind, len(data), 0, bSeq) + b"\0\0\0" + data


for kind in (0x65, 0x62):  # GetSlotStatus, IccPowerOn
    device.write(out, message(kind, kind))
    device.read(into, size, TIMEOUT_MS)
messages = [message(0x6F, bSeq, apdu) for bSeq in range(256)]
sequence = 0


def once() -> bytes:
    global sequence
    sequence = sequence + 1 & 0xFF
    device.write(out, messages[sequence])
    reply = device.read(into, size, TIMEOUT_MS)
    while len(reply) < 10 or reply[6] != sequence:
        reply = device.read(into, size, TIMEOUT_MS)
    return reply[10:]  # type: ignore[no-any-return]


serve(once)
