"""A client that calls every function of libpcsclite, by ctypes: ``python3 scard_calls.py LIBRARY``.

It says a word when the test is to do something at the reader, and waits for a line. At the end it
prints the names of the functions that it has called. It needs nothing but the standard library."""

from __future__ import annotations

import sys
import threading
import time
from ctypes import (
    CDLL,
    Array,
    Structure,
    byref,
    c_char_p,
    c_long,
    c_ubyte,
    c_ulong,
    c_void_p,
    create_string_buffer,
    string_at,
)
from typing import Any

OK, CANCELLED, INSUFFICIENT, TIMEOUT = 0, 0x80100002, 0x80100008, 0x8010000A
INVALID_HANDLE, INVALID_PARAMETER, UNKNOWN_READER = 0x80100003, 0x80100004, 0x80100009
UNSUPPORTED, REMOVED, NO_READERS = 0x8010001F, 0x80100069, 0x8010002E
UNAVAILABLE = 0x80100017
SHARED, EXCLUSIVE, DIRECT, ANY, LEAVE, RESET = 2, 1, 3, 3, 0, 1
CHANGED, UNKNOWN, GONE, EMPTY, PRESENT = 2, 4, 8, 0x10, 0x20
AUTOALLOCATE = c_ulong(-1).value
INFINITE = 0xFFFFFFFF
ATR_STRING, FRIENDLY_NAME, SUPPRESS_T1 = 0x00090303, 0x7FFF0003, 0x7FFF0007
FEATURES = 0x42000000 + 3400
SELECT_MF = bytes.fromhex("00A4000C023F00")
CHALLENGE = bytes.fromhex("0084000008")
PNP = b"\\\\?PnP?\\Notification"


class Header(Structure):
    """SCARD_IO_REQUEST."""

    _fields_ = (("protocol", c_ulong), ("length", c_ulong))


class ReaderState(Structure):
    """SCARD_READERSTATE."""

    _fields_ = (
        ("reader", c_char_p),
        ("user_data", c_void_p),
        ("current", c_ulong),
        ("event", c_ulong),
        ("atr_length", c_ulong),
        ("atr", c_ubyte * 33),
    )


lib = CDLL(sys.argv[1])
called: set[str] = set()


def call(name: str, *arguments: Any, code: int = OK) -> None:
    """Call a function, which must return this code."""
    called.add(name)
    function = getattr(lib, f"SCard{name}")
    function.restype = c_long
    found = function(*arguments) & 0xFFFFFFFF
    if found != code:
        raise AssertionError(f"SCard{name}: 0x{found:08X}, not 0x{code:08X}")


def ask(word: str) -> None:
    """Have the test do something."""
    print(word, flush=True)
    sys.stdin.readline()


def context() -> c_long:
    made = c_long()
    call("EstablishContext", c_ulong(2), None, None, byref(made))
    return made


def names(of: c_long) -> list[bytes]:
    """The readers, by a buffer that libpcsclite makes."""
    memory, length = c_char_p(), c_ulong(AUTOALLOCATE)
    call("ListReaders", of, None, byref(memory), byref(length))
    told = string_at(memory, length.value)
    call("FreeMemory", of, memory)
    assert told.endswith(b"\0\0")
    return told[:-2].split(b"\0")


def states(*readers: tuple[bytes, int]) -> Array[ReaderState]:
    made = (ReaderState * len(readers))()
    for one, (name, current) in zip(made, readers, strict=True):
        one.reader, one.current = name, current
    return made


def change(of: c_long, timeout: int, which: Array[ReaderState], code: int = OK) -> None:
    call("GetStatusChange", of, c_ulong(timeout), which, c_ulong(len(which)), code=code)


def contexts(of: c_long) -> None:
    call("IsValidContext", of)
    call("IsValidContext", c_long(of.value ^ 1), code=INVALID_HANDLE)
    length = c_ulong()
    call("ListReaderGroups", of, None, byref(length))
    groups = create_string_buffer(length.value)
    call("ListReaderGroups", of, groups, byref(length))
    assert groups.raw == b"SCard$DefaultReaders\0\0"
    memory, length = c_char_p(), c_ulong(AUTOALLOCATE)
    call("ListReaderGroups", of, byref(memory), byref(length))
    assert string_at(memory, length.value) == groups.raw
    call("FreeMemory", of, memory)
    short = c_ulong(3)
    call("ListReaders", of, None, create_string_buffer(3), byref(short), code=INSUFFICIENT)
    assert short.value > 3


def connect(of: c_long, name: bytes, share: int = SHARED) -> tuple[c_long, c_ulong]:
    card, protocol = c_long(), c_ulong()
    call("Connect", of, name, c_ulong(share), c_ulong(ANY), byref(card), byref(protocol))
    return card, protocol


def transmit(
    card: c_long, protocol: c_ulong, apdu: bytes, room: int = 258, code: int = OK
) -> bytes:
    answer, length = create_string_buffer(room), c_ulong(room)
    header, received = Header(protocol.value, 16), Header(0, 16)
    sent = (byref(header), apdu, c_ulong(len(apdu)), byref(received), answer, byref(length))
    call("Transmit", card, *sent, code=code)
    return answer.raw[: length.value]


def card_calls(of: c_long, name: bytes) -> None:
    call(
        *("Connect", of, b"none", c_ulong(SHARED), c_ulong(ANY), byref(c_long()), byref(c_ulong())),
        code=UNKNOWN_READER,
    )
    card, protocol = connect(of, name)
    assert protocol.value in (1, 2)
    call("BeginTransaction", card)
    assert transmit(card, protocol, SELECT_MF) == b"\x90\0"
    assert len(transmit(card, protocol, CHALLENGE)) == 10
    answer, length = create_string_buffer(5), c_ulong(5)
    header = Header(protocol.value, 16)
    sent = (byref(header), CHALLENGE, c_ulong(5), None, answer, byref(length))
    call("Transmit", card, *sent, code=INSUFFICIENT)
    assert length.value == 10
    call("EndTransaction", card, c_ulong(LEAVE))
    again = c_ulong()
    how = (c_ulong(SHARED), c_ulong(ANY), c_ulong(RESET), byref(again))
    call("Reconnect", card, *how)
    assert again.value == protocol.value
    atr = status(card, name)
    attributes(card, name, atr)
    call("Disconnect", card, c_ulong(LEAVE))
    call("Disconnect", card, c_ulong(LEAVE), code=INVALID_HANDLE)


def status(card: c_long, name: bytes) -> bytes:
    """By buffers of one's own, and by those that libpcsclite makes; returns the ATR."""
    told, length = create_string_buffer(128), c_ulong(128)
    state, protocol = c_ulong(), c_ulong()
    atr, atr_length = create_string_buffer(33), c_ulong(33)
    rest = (byref(state), byref(protocol), atr, byref(atr_length))
    call("Status", card, told, byref(length), *rest)
    assert told.raw[: length.value] == name + b"\0\0"[: length.value - len(name)]
    assert state.value & 0xFFFF == 0x34
    found = atr.raw[: atr_length.value]
    assert found[0] == 0x3B
    text, memory = c_char_p(), c_void_p()
    length, atr_length = c_ulong(AUTOALLOCATE), c_ulong(AUTOALLOCATE)
    made = (byref(state), byref(protocol), byref(memory), byref(atr_length))
    call("Status", card, byref(text), byref(length), *made)
    assert text.value == name
    assert memory.value is not None
    assert string_at(memory.value, atr_length.value) == found
    of = context()
    call("FreeMemory", of, text)
    call("FreeMemory", of, memory)
    call("ReleaseContext", of)
    return found


def attributes(card: c_long, name: bytes, atr: bytes) -> None:
    value, length = create_string_buffer(264), c_ulong(264)
    call("GetAttrib", card, c_ulong(ATR_STRING), value, byref(length))
    assert value.raw[: length.value] == atr
    memory, length = c_void_p(), c_ulong(AUTOALLOCATE)
    call("GetAttrib", card, c_ulong(FRIENDLY_NAME), byref(memory), byref(length))
    assert memory.value is not None
    assert string_at(memory.value, length.value) == name + b"\0"
    call("FreeMemory", context(), memory)
    length = c_ulong(3)
    call("GetAttrib", card, c_ulong(ATR_STRING), value, byref(length), code=INSUFFICIENT)
    assert length.value == len(atr)
    call("GetAttrib", card, c_ulong(0x0000FFFF), value, byref(c_ulong(264)), code=UNSUPPORTED)
    call("SetAttrib", card, c_ulong(0x0000FFFF), b"\1", c_ulong(1), code=UNSUPPORTED)
    got = c_ulong()
    call("Control", card, c_ulong(FEATURES), None, c_ulong(0), value, c_ulong(264), byref(got))
    assert got.value
    assert got.value % 6 == 0
    assert value.raw[1] == 4
    arguments = (c_ulong(FEATURES), None, c_ulong(0), value, c_ulong(3), byref(got))
    call("Control", card, *arguments, code=INSUFFICIENT)


def waits(of: c_long, name: bytes) -> None:
    """The card goes and comes, the wait is cancelled, the reader goes."""
    one = states((name, 0), (PNP, 0))
    change(of, 0, one)
    assert one[0].event & (CHANGED | PRESENT) == CHANGED | PRESENT
    assert bytes(one[0].atr[: one[0].atr_length])[0] == 0x3B
    count = one[0].event >> 16
    here, pnp = one[0].event & ~CHANGED, one[1].event & ~CHANGED
    one = states((name, here), (PNP, pnp))
    change(of, 50, one, TIMEOUT)
    card, _ = connect(of, name)
    one = states((name, here))
    for word, wanted, more in (("take out", EMPTY, 1), ("put in", PRESENT, 2)):
        one = states((name, here))
        waits_while(of, one, wanted, word)
        assert one[0].event >> 16 == count + more
        here = one[0].event & ~CHANGED
    told = create_string_buffer(128), c_ulong(128)
    rest = (byref(c_ulong()), byref(c_ulong()), create_string_buffer(33), byref(c_ulong(33)))
    call("Status", card, told[0], byref(told[1]), *rest, code=REMOVED)
    again = c_ulong()
    call("Reconnect", card, c_ulong(SHARED), c_ulong(ANY), c_ulong(LEAVE), byref(again))
    call("Disconnect", card, c_ulong(RESET))
    cancelled(of, states((name, 0), (PNP, 0)))


def waits_while(of: c_long, one: Array[ReaderState], wanted: int, word: str) -> None:
    """A thread waits for a state of the first, while the test does something."""
    seen: list[int] = []
    waiting = threading.Thread(target=lambda: seen.append(wait_for(of, one, wanted)))
    waiting.start()
    time.sleep(0.1)
    ask(word)
    waiting.join(10)
    assert seen == [OK], seen


def wait_for(of: c_long, one: Array[ReaderState], wanted: int) -> int:
    """Wait until the first has that state."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        change(of, 5000, one)
        if one[0].event & wanted:
            return OK
        one[0].current = one[0].event & ~CHANGED
    return TIMEOUT


def cancelled(of: c_long, one: Array[ReaderState]) -> None:
    change(of, 0, one)
    for state in one:
        state.current = state.event & ~CHANGED
    ended: list[float] = []

    def wait() -> None:
        change(of, INFINITE, one, CANCELLED)
        ended.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    begun = time.monotonic()
    call("Cancel", of)
    waiting.join(10)
    assert ended
    assert ended[0] - begun < 2
    assert names(of)  # the context is as it was


def reader_goes(of: c_long, name: bytes) -> None:
    card, _ = connect(of, name)
    one = states((name, 0), (PNP, 0))
    change(of, 0, one)
    for state in one:
        state.current = state.event & ~CHANGED
    waits_while(of, one, UNKNOWN | GONE, "unplug")
    told = create_string_buffer(128), c_ulong(128)
    rest = (byref(c_ulong()), byref(c_ulong()), create_string_buffer(33), byref(c_ulong(33)))
    call("Status", card, told[0], byref(told[1]), *rest, code=UNAVAILABLE)
    call("Disconnect", card, c_ulong(LEAVE))
    call("ListReaders", of, None, None, byref(c_ulong()), code=NO_READERS)
    change(of, 0, states((name, 0)), UNKNOWN_READER)


def main() -> None:
    of = context()
    (name,) = names(of)
    contexts(of)
    card_calls(of, name)
    waits(of, name)
    reader_goes(of, name)
    call("ReleaseContext", of)
    call("ReleaseContext", of, code=INVALID_HANDLE)
    print(" ".join(sorted(called)))


def many() -> None:
    """Each reader is seen, has a card, tells a change."""
    of = context()
    found = names(of)
    one = states(*((name, 0) for name in found), (PNP, 0))
    if len(found) >= 16 and len(sys.argv) > 3:  # libpcsclite before 2.5 takes 16 at once
        one = states(*((name, 0) for name in found[:16]))
    change(of, 0, one)
    assert all(state.event & PRESENT for state in one if state.reader != PNP)
    for name in found:
        card, protocol = connect(of, name)
        assert transmit(card, protocol, SELECT_MF) == b"\x90\0"
        status(card, name)
        call("Disconnect", card, c_ulong(LEAVE))
    change(of, 0, one)
    for state in one:
        state.current = state.event & ~CHANGED
    waits_while(of, one, EMPTY, "take out")
    print(len(found))


if __name__ == "__main__":
    many() if "many" in sys.argv else main()
