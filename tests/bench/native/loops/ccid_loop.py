"""B: ``card.transmit`` with all its checks, notifications armed.

ccid_loop.py APDU               in the first reader
ccid_loop.py APDU THREADS       as many readers, a thread each
ccid_loop.py modules            what a program has imported when the first response is there
ccid_loop.py connect MODULES    once, with those imported before: ms to the first response
ccid_loop.py watch              ``ccid.watch()`` until standard input ends
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

began = time.perf_counter()

from measured_loop import read_apdu, say, serve, serve_threads  # noqa: E402

import ccid  # noqa: E402

FIRST = bytes.fromhex("0010000002")


def first_response() -> list[float]:
    """Open, connect, transmit, close; the time at the beginning and after each of the first 3."""
    times = [time.perf_counter()]
    reader = ccid.open_reader()
    times.append(time.perf_counter())
    card = reader.slots[0].connect()
    times.append(time.perf_counter())
    card.transmit(FIRST)
    times.append(time.perf_counter())
    reader.close()
    return times


def modules() -> None:
    first_response()
    ours = ("ccid", "usb", "libusb_package", "construct")
    say(modules=[name for name in sys.modules if name.split(".")[0] in ours])


def connect(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)
    imported = time.perf_counter()
    start, opened, connected, done = first_response()
    say(
        ms=(done - start) * 1e3,
        imports=(imported - began) * 1e3,
        opens=(opened - start) * 1e3,
        connects=(connected - opened) * 1e3,
    )


def watch() -> None:
    from ccid.transport import stale_list

    # The stand-in plays udev, too, which this machine may lack.
    setattr(stale_list, "why_deaf", str)  # noqa: B010 - its type is that of one module

    def tell() -> None:
        for _event in ccid.watch():
            pass

    threading.Thread(target=tell, daemon=True).start()
    say(ready=True)
    sys.stdin.read()


def transmits(apdu: bytes, number: int) -> list[Callable[[], bytes]]:
    """What sends the APDU to the card in each of so many readers."""
    cards = [ccid.open_reader(info).slots[0].connect() for info in ccid.list_readers()[:number]]
    assert len(cards) == number
    return [partial(card.transmit, apdu) for card in cards]


def main(what: str, *more: str) -> None:
    if what == "modules":
        modules()
    elif what == "connect":
        connect(more[0].split(","))
    elif what == "watch":
        watch()
    elif more:
        serve_threads(transmits(read_apdu(what), int(more[0])))
    else:
        apdu = read_apdu(what)
        with ccid.open_reader() as reader, reader.slots[0].connect() as card:
            serve(lambda: card.transmit(apdu))


if __name__ == "__main__":
    main(*sys.argv[1:])
