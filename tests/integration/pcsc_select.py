"""A client of libpcsclite: prints the first reader's name, and its card's answer to SELECT of the
master file. It needs no package but the standard library."""

import ctypes
import sys
from ctypes import byref, c_ulong

SELECT_MF = bytes.fromhex("00A4000C023F00")
lib = ctypes.CDLL("libpcsclite.so.1")


class Header(ctypes.Structure):
    """SCARD_IO_REQUEST."""

    _fields_ = (("protocol", c_ulong), ("length", c_ulong))


def call(name: str, *arguments: object) -> None:
    code = getattr(lib, name)(*arguments) & 0xFFFFFFFF
    if code:
        sys.exit(f"{name}: {code:08X}")


def main() -> None:
    context, card, protocol, length = c_ulong(), c_ulong(), c_ulong(), c_ulong()
    call("SCardEstablishContext", c_ulong(2), None, None, byref(context))
    call("SCardListReaders", context, None, None, byref(length))
    names = ctypes.create_string_buffer(length.value)
    call("SCardListReaders", context, None, names, byref(length))
    name = names.value
    call("SCardConnect", context, name, c_ulong(2), c_ulong(3), byref(card), byref(protocol))
    answer, length = ctypes.create_string_buffer(258), c_ulong(258)
    header = byref(Header(protocol.value, 16))
    apdu = (card, header, SELECT_MF, c_ulong(len(SELECT_MF)), None, answer, byref(length))
    call("SCardTransmit", *apdu)
    print(name.decode(), answer.raw[: length.value].hex())
    call("SCardDisconnect", card, c_ulong(0))
    call("SCardReleaseContext", context)


if __name__ == "__main__":
    main()
