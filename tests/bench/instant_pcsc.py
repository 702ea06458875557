"""A PC/SC service, or pyscard in process, whose virtual reader answers what is for the card at
once, with 9000, and does not even look at it: what it takes is our manager and our driver.

    instant_pcsc.py serve --socket PATH --virtual
    instant_pcsc.py under --virtual -- PROGRAM
"""

from __future__ import annotations

import sys

from ccid.codec.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header
from ccid.virtual.port import Port

real_out, real_receive = Port.out, Port.receive
answers: list[bytes] = []
"""Of the one slot there is."""


def out(self: Port, endpoint: int, data: bytes) -> None:
    if data[0] == XFR_BLOCK:
        answers.append(reply_header.pack(DATA_BLOCK, 2, data[5], data[6], 0, 0, 0) + b"\x90\x00")
    else:
        real_out(self, endpoint, data)


def receive(self: Port, endpoint: int, size: int, timeout_s: float) -> bytes:
    return answers.pop() if answers else real_receive(self, endpoint, size, timeout_s)


def main(how: str, *words: str) -> int:
    Port.out, Port.receive = out, receive  # type: ignore[method-assign]
    if how == "serve":
        from ccid.pcsc.service import __main__ as service

        return service.main(words)
    from ccid.pcsc import under_pyscard

    under_pyscard()  # the function; its module has the command line
    from importlib import import_module

    return int(import_module("ccid.pcsc.under_pyscard").main(words))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
