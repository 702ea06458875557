"""card.transmit with all its checks: ``ccid_loop.py COUNT``."""

import sys
import time

import ccid

count = int(sys.argv[1])
APDU = bytes.fromhex("0010000002")
with ccid.open_reader("08e6:4433") as reader, reader.slots[0].connect() as card:
    for _ in range(50):
        card.transmit(APDU)
    began = time.perf_counter()
    for _ in range(count):
        reply = card.transmit(APDU)
    print(f"{count / (time.perf_counter() - began):.1f} {reply.hex()}")
