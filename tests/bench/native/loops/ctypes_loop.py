"""The limit of a driver in Python: four calls of libusb's through ctypes for an APDU (submit,
submit, handle events, handle events), with arguments and messages made before, and nothing else.
``card.transmit`` makes these four calls, too, and can cost no less.

ctypes_loop.py APDU                     in the first reader
ctypes_loop.py APDU THREADS             as many readers, a thread each
ctypes_loop.py APDU THREADS contexts    the same; each reader has a context of libusb's of its own
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import usb.core
import usb.util
from measured_loop import read_apdu, serve, serve_threads
from usb.backend import libusb1

from ccid.transport.asynchronous import Timeval, Transfer

SONAME = "libusb-1.0.so.0"
TIMEOUT_MS = 5000
SIZE = 512
BULK, IN = 2, 0x80


libusb = ctypes.CDLL(SONAME)
libusb.libusb_alloc_transfer.restype = ctypes.c_void_p
submit, handle_events = libusb.libusb_submit_transfer, libusb.libusb_handle_events_timeout_completed


def new_backend() -> Any:
    """pyusb's, with a new context of libusb's."""
    shared = libusb1.get_backend()
    assert shared is not None
    return libusb1._LibUSB(shared.lib)


def at(address: int) -> object:
    """A pointer that is passed without conversion."""
    return ctypes.byref(ctypes.c_char.from_address(address))


class Reader:
    """An open reader with a powered card; pyusb opens it.

    Args:
        backend: pyusb's, with the context of libusb's to use.
        number: Which of its readers.
        apdu: What is sent.
    """

    def __init__(self, backend: Any, number: int, apdu: bytes) -> None:
        device = list(usb.core.find(find_all=True, backend=backend))[number]
        interface = device.get_active_configuration()[(0, 0)]
        bulk = [e.bEndpointAddress for e in interface if e.bmAttributes == BULK]
        (out,) = (address for address in bulk if not address & IN)
        (into,) = (address for address in bulk if address & IN)
        usb.util.claim_interface(device, 0)
        for kind in (0x65, 0x62):  # GetSlotStatus, IccPowerOn
            device.write(out, bytes([kind]) + bytes(9))
            device.read(into, SIZE, TIMEOUT_MS)
        self.handle = device._ctx.handle.handle
        self.out, self.into = (ctypes.c_ubyte * SIZE)(), (ctypes.c_ubyte * SIZE)()
        self.length = 10 + len(apdu)
        self.out[0], self.out[1], self.out[10 : self.length] = 0x6F, len(apdu), list(apdu)
        self.command = self.transfer(out, self.out, self.length)
        self.reply = self.transfer(into, self.into, SIZE)
        self.context = at(backend.ctx.value)
        self.view = memoryview(self.into).cast("B")

    def transfer(self, endpoint: int, buffer: ctypes.Array[ctypes.c_ubyte], size: int) -> Transfer:
        made = Transfer.from_address(libusb.libusb_alloc_transfer(0))
        made.dev_handle, made.endpoint, made.type = self.handle, endpoint, BULK
        made.buffer, made.length = ctypes.addressof(buffer), size
        return made

    def once(self) -> Callable[[], bytes]:
        """The loop's body: nothing is looked up in it that could be looked up before."""
        command, reply = (at(ctypes.addressof(x)) for x in (self.command, self.reply))
        fields = self.reply
        actual = ctypes.c_int.from_address(ctypes.addressof(fields) + Transfer.actual_length.offset)
        came, context, view = ctypes.byref(actual), self.context, self.view
        wait, out = ctypes.byref(Timeval(1, 0)), memoryview(self.out).cast("B")

        def once() -> bytes:
            out[6] = out[6] + 1 & 0xFF
            actual.value = 0
            assert not submit(command)
            assert not submit(reply)
            handle_events(context, wait, came)
            while not actual.value:
                handle_events(context, wait, came)
            assert view[6] == out[6]
            return view[10 : actual.value].tobytes()

        return once


def main(what: str, threads: str = "", contexts: str = "") -> None:
    apdu = read_apdu(what)
    if threads:
        number = int(threads)
        backends = [new_backend()] * number
        if contexts == "contexts":
            backends = [new_backend() for _ in range(number)]
        serve_threads([Reader(one, i, apdu).once() for i, one in enumerate(backends)])
    else:
        serve(Reader(new_backend(), 0, apdu).once())


if __name__ == "__main__":
    main(*sys.argv[1:])
