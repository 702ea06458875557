"""A helper whose virtual reader answers what is for the card at once, with 9000, and does not even
look at it. Runs instead of ``python -I -m ccid.pcsc.plug.helper``: what it takes is plug, helper
and driver, and hardly any reader."""

from __future__ import annotations

import sys

from ccid.codec.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header
from ccid.pcsc.plug import helper
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


Port.out, Port.receive = out, receive  # type: ignore[method-assign]
sys.argv = sys.argv[-1:]
helper.main()
