"""A PC/SC service, or pyscard in process, whose virtual reader answers what is for the card at
once, with 9000, and does not even look at it: what it takes is our manager and our driver.

    instant_pcsc.py serve --socket PATH --virtual
    instant_pcsc.py echo --socket PATH --virtual
    instant_pcsc.py under --virtual -- PROGRAM
    instant_pcsc.py driver --virtual -- PROGRAM
    instant_pcsc.py nothing --virtual -- PROGRAM

``echo`` and ``nothing`` are what no work of ours can get below. With ``echo`` the thread that has a
client's socket reads and writes the same bytes, and does nothing in between. With ``nothing``
SCardTransmit returns the same list, and pyscard's own Python is all there is. With ``driver`` it is
``Card.transmit`` of a reader that answers at once: there is a driver, and no resource manager.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

import ccid
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


def echo() -> None:
    """Have threads that are lent a socket answer each request as the first one."""
    from ccid.pcsc.service.lent_sockets import Lease

    def run(self: Lease) -> None:
        reply = self.session.received(self._request)
        receive, send = self.connection.recv, self.connection.send
        size = len(self._request)
        with suppress(BlockingIOError):
            send(reply)
            while True:
                data = receive(4096)
                while len(data) < size:  # libpcsclite sends it in three pieces
                    more = receive(4096)
                    if not more:
                        return
                    data += more
                send(reply)

    Lease.run = run  # type: ignore[method-assign]


def main(how: str, *words: str) -> int:
    Port.out, Port.receive = out, receive  # type: ignore[method-assign]
    if how in ("serve", "echo"):
        from ccid.pcsc.service import __main__ as service

        if how == "echo":
            echo()
        return service.main(words)
    from ccid.pcsc import under_pyscard

    under_pyscard()  # the function; its module has the command line
    scard = import_module("ccid.pcsc.scard")
    if how == "nothing":
        scard.SCardTransmit = lambda *_: [0, [0x90, 0x00]]  # type: ignore[attr-defined]
    if how == "driver":
        with ccid.open_reader(ccid.VirtualReader()) as reader:
            transmit = reader.slots[0].connect().transmit
            scard.SCardTransmit = (  # type: ignore[attr-defined]
                lambda hcard, pci, apdu: [0, list(transmit(bytes(apdu)))]
            )
            return int(import_module("ccid.pcsc.under_pyscard").main(words))
    return int(import_module("ccid.pcsc.under_pyscard").main(words))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
