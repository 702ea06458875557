"""pyscard, pcscd, libccid: ``pyscard_loop.py COUNT``."""

import sys
import time

from smartcard.System import readers

count = int(sys.argv[1])
connection = readers()[0].createConnection()
connection.connect()
APDU = [0x00, 0x10, 0x00, 0x00, 0x02]
for _ in range(50):
    connection.transmit(APDU)
began = time.perf_counter()
for _ in range(count):
    data, sw1, sw2 = connection.transmit(APDU)
print(f"{count / (time.perf_counter() - began):.1f} {bytes([*data, sw1, sw2]).hex()}")
