"""C, D: pyscard, in the reader with that number, from 0: ``pyscard_loop.py APDU NUMBER``."""

from __future__ import annotations

import sys

from measured_loop import read_apdu, serve
from smartcard.System import readers

connection = readers()[int(sys.argv[2])].createConnection()
connection.connect()
apdu = list(read_apdu(sys.argv[1]))


def once() -> list[int]:
    data, sw1, sw2 = connection.transmit(apdu)
    return [*data, sw1, sw2]


serve(once)
