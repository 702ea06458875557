"""pyusb's own read and write: ``pyusb_loop.py COUNT BUFFER``."""

import struct
import sys
import time

import usb.core
import usb.util

count, size = int(sys.argv[1]), int(sys.argv[2])
device = usb.core.find(idVendor=0x08E6, idProduct=0x4433)
interface = device.get_active_configuration()[(0, 0)]
bulk = [e for e in interface if e.bmAttributes == 2]
(out,) = (e.bEndpointAddress for e in bulk if not e.bEndpointAddress & 0x80)
(into,) = (e.bEndpointAddress for e in bulk if e.bEndpointAddress & 0x80)
usb.util.claim_interface(device, 0)
sequence = 0


def transact(kind: int, data: bytes = b"") -> bytes:
    global sequence
    sequence = sequence + 1 & 0xFF
    device.write(out, struct.pack("<BIBB", kind, len(data), 0, sequence) + b"\0\0\0" + data)
    while True:
        reply = device.read(into, size, 5000)
        if len(reply) >= 10 and reply[6] == sequence:
            return bytes(reply)


APDU = bytes.fromhex("0010000002")
transact(0x65)
transact(0x62)
messages = [struct.pack("<BIBB", 0x6F, 5, 0, s) + b"\0\0\0" + APDU for s in range(256)]


def loop(n: int) -> bytes:
    """As fast as it goes: messages made before, no check but the number."""
    global sequence
    for _ in range(n):
        sequence = sequence + 1 & 0xFF
        device.write(out, messages[sequence])
        reply = device.read(into, size, 5000)
        while len(reply) < 10 or reply[6] != sequence:
            reply = device.read(into, size, 5000)
    return bytes(reply)


loop(50)
began = time.perf_counter()
reply = loop(count)
print(f"{count / (time.perf_counter() - began):.1f} {reply[10:].hex()}")
usb.util.dispose_resources(device)
