"""The plug and its helper when resources run out, when callers pass odd arguments, and when frames
are broken: slots and clients that work correctly must not be affected."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_ubyte, c_ulong
from pathlib import Path

import pytest

from tests.integration.plug import Plug, SendHeader, build
from tests.integration.test_plug import (
    ABSENT,
    BROKEN,
    LUN,
    OK,
    PRESENT,
    RESET,
    SELECT,
    SILENCE_S,
    UP,
    helpers,
    ready,
    until_back,
)

SECOND = LUN + 1
"""Another reader of the same helper."""
TOO_LITTLE = 618
GONE = 617
FAULTS = Path(__file__).with_name("plug_faults.h")
LONGEST = (1 << 17) - 16
FEATURES = 0x42000D48


@pytest.fixture(scope="module")
def plug(tmp_path_factory: pytest.TempPathFactory) -> Plug:
    """The plug, with system calls that a test can make fail."""
    folder = tmp_path_factory.mktemp("plug")
    return Plug(build(folder, f"-DSILENCE_S={SILENCE_S}", "-include", str(FAULTS)))


@pytest.fixture
def lun(plug: Plug) -> Iterator[int]:
    assert plug.create(LUN, "virtual:") == 0
    ready(plug, LUN)
    yield LUN
    plug.lib.plug_fail(-1, 0)
    plug.close(LUN)
    assert helpers() == [], "the helper ended"


@contextmanager
def helper_program(plug: Plug, folder: Path, source: str) -> Iterator[None]:
    """A program that a helper runs before it begins; for helpers that start meanwhile."""
    program, named = folder / "python", plug.path.with_name("interpreter")
    (folder / "ccid.pcsc.plug.helper.py").write_text(
        source + "\nimport sys; sys.argv = ['helper', '']; helper.main()\n"
    )
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -I {folder}/ccid.pcsc.plug.helper.py\n")
    program.chmod(0o755)
    before = named.read_text()
    named.write_text(f"{program}\n")
    try:
        yield
    finally:
        named.write_text(before)


# Resources run out ----------------------------------------------------------------------------


def use(plug: Plug, lun: int) -> int:
    """All that pcscd does with a slot, whatever the result. Returns the code of opening the
    channel."""
    code = plug.create(lun, "virtual:")
    if code == 0:
        plug.presence(lun)
        plug.power(lun, UP)
        plug.protocol(lun, 2)
        plug.transmit(lun, 1, SELECT)
        plug.wait(lun, 10)
        plug.close(lun)
    return code


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS])
def test_a_slot_that_there_is_nothing_for_costs_no_other(plug: Plug, lun: int, error: int) -> None:
    """Each system call of the plug fails once, while another slot of the same helper is in use."""
    before = helpers()
    plug.lib.plug_fail(100_000, error)
    assert use(plug, SECOND) == 0
    calls = 100_000 - plug.lib.plug_left()
    assert calls > 15
    for n in range(calls):
        plug.lib.plug_fail(n, error)
        use(plug, SECOND)
        plug.lib.plug_fail(-1, 0)
        plug.close(SECOND)
        assert plug.transmit(lun, 1, SELECT) == (0, OK), n
        assert helpers() == before, n


def test_the_slot_itself_survives_what_was_not_sent(plug: Plug, lun: int) -> None:
    before = helpers()
    for error in (errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE):
        plug.lib.plug_fail(0, error)
        assert plug.transmit(lun, 1, SELECT) == (BROKEN, b"")
        assert plug.transmit(lun, 1, SELECT) == (0, OK)
    assert helpers() == before


def test_a_reply_that_there_was_no_memory_for_costs_its_channel(plug: Plug, lun: int) -> None:
    """Else the plug would take the reply for the reply to the next request."""
    assert plug.create(SECOND, "virtual:") == 0
    ready(plug, SECOND)
    before = helpers()
    plug.lib.plug_fail(1, errno.ENOMEM)
    assert plug.transmit(lun, 1, SELECT) == (BROKEN, b"")
    assert plug.transmit(SECOND, 1, SELECT) == (0, OK)
    assert until_back(plug, lun, 10)[0] == ABSENT
    ready(plug, lun)
    assert plug.transmit(SECOND, 1, SELECT) == (0, OK)
    assert helpers() == before
    plug.close(SECOND)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_a_helper_that_cannot_be_started(plug: Plug, error: int) -> None:
    """Whichever system call fails, the next attempt succeeds."""
    n = 0
    while True:
        plug.lib.plug_fail(n, error)
        code = plug.create(LUN, "virtual:")
        has_failed = plug.lib.plug_left() < 0
        plug.lib.plug_fail(-1, 0)
        if code == 0:
            plug.close(LUN)
        assert helpers() == []
        if not has_failed or n > 60:
            break
        n += 1
    assert 10 < n < 60
    assert code == 0


def test_a_replacement_that_there_is_nothing_for(plug: Plug, lun: int) -> None:
    """The replacement starts as soon as the resources are there."""
    os.kill(helpers()[0], signal.SIGKILL)
    assert plug.transmit(lun, 1, SELECT) == (BROKEN, b"")
    for n in range(8):
        plug.lib.plug_fail(n, errno.EMFILE)
        assert plug.presence(lun) in (ABSENT, BROKEN)
        plug.lib.plug_fail(-1, 0)
        assert plug.transmit(lun, 1, SELECT)[0] != 0
    until_back(plug, lun, 10)
    ready(plug, lun)


def test_out_of_descriptors(plug: Plug, lun: int) -> None:
    """Without a simulation: all descriptors are in use."""
    before = helpers()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(9):
            assert plug.create(SECOND, "virtual:") == BROKEN
            assert plug.transmit(lun, 1, SELECT) == (0, OK)
            plug.wait(lun, 5)
            assert plug.presence(lun) == PRESENT
            os.close(held.pop())
            if len(held) % 2:
                os.close(held.pop())
            if (code := plug.create(SECOND, "virtual:")) == 0:
                plug.close(SECOND)
                break
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert code == 0, "there was room in the end"
    assert helpers() == before


SMALL = """
import os, resource
from ccid.pcsc.plug import helper
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
"""


def test_a_helper_without_descriptors_keeps_the_channels_it_has(plug: Plug, tmp_path: Path) -> None:
    with helper_program(plug, tmp_path, SMALL):
        assert plug.create(LUN, "virtual:") == 0
        ready(plug, LUN)
        before = helpers()
        assert len(before) == 1
        assert BROKEN in [plug.create(LUN + n, "virtual:") for n in range(1, 5)]
        assert plug.transmit(LUN, 1, SELECT) == (0, OK)
        assert helpers() == before
        for n in range(5):
            plug.close(LUN + n)


# Odd requests ---------------------------------------------------------------------------------


def test_power_with_little_room(plug: Plug, lun: int) -> None:
    before = helpers()
    code, atr = plug.power(lun, RESET)
    assert code == 0
    for room in range(len(atr)):
        assert plug.power(lun, RESET, room) == (TOO_LITTLE, b"")
    assert plug.power(lun, RESET, len(atr)) == (0, atr)
    assert plug.protocol(lun, 2) == 0
    assert plug.transmit(lun, 1, SELECT) == (0, OK)
    assert plug.presence(lun) == PRESENT
    assert helpers() == before


def test_every_length_of_room(plug: Plug, lun: int) -> None:
    before = helpers()
    tags = [0x0303, 0x9_0300, 0x9_0301, 0x0FAC, 0x0FAE, 0x0FAF, 0x1_0100, 0x1_0102, 0x1_0103,
            0x2_0110, 0x7_A007, 0x9_0303, 0x0FB0, 0x0FB3, 0x0FB4, 0, 0xFFFF_FFFF]  # fmt: skip
    for room in (0, 1, 2, 3, 4, 5, 32, 33, 300, 70_000, LONGEST + 1):
        for tag in tags:
            code, value = plug.get(lun, tag, room)
            assert code in (0, 600, TOO_LITTLE)
            assert len(value) <= room
        for code in (FEATURES, 0x4233_0012, 0x4233_000A, 0x4200_0E11, 0x4200_0001, 0, 2**32 - 1):
            got, answer = plug.control(lun, code, b"", room)
            assert got in (0, 606, BROKEN, TOO_LITTLE)
            assert len(answer) <= room
        got, answer = plug.transmit(lun, 1, SELECT, room)
        assert (got, answer) == ((0, OK) if room >= 2 else (TOO_LITTLE, b""))
    assert helpers() == before


@pytest.mark.parametrize("size", [0, 1, 3, 65_549, LONGEST - 1, LONGEST, LONGEST + 1, 5_000_000])
def test_every_length_of_data(plug: Plug, lun: int, size: int) -> None:
    before = helpers()
    assert plug.transmit(lun, 1, bytes(size))[0] != 0 or size == LONGEST - 1
    assert plug.control(lun, 0x4200_0001, bytes(size))[0] == BROKEN
    assert plug.set(lun, 0x0303, bytes(size)) == (600 if size <= LONGEST else BROKEN)
    assert plug.set(lun, 0x0FB4, bytes(size)) == (0 if size <= LONGEST else BROKEN)
    ready(plug, lun)
    assert helpers() == before


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, 2**32, 2**32 + 2, 2**64 - 1])
def test_lengths_beyond_all_bounds(plug: Plug, lun: int, length: int) -> None:
    """Lengths of data that are not there, and of more room than is needed."""
    before, answer = helpers(), (c_ubyte * 100)()
    got = c_ulong(length)
    head = SendHeader(1, 16)
    tx = ctypes.create_string_buffer(SELECT, len(SELECT))
    arguments = (c_ulong(lun), head, tx, c_ulong(len(SELECT)), answer, byref(got), None)
    assert plug.lib.IFDHTransmitToICC(*arguments) == 0
    assert bytes(answer[: got.value]) == OK
    got = c_ulong(100)
    arguments = (c_ulong(lun), head, tx, c_ulong(length), answer, byref(got), None)
    assert plug.lib.IFDHTransmitToICC(*arguments) == BROKEN
    assert got.value == 0
    got = c_ulong(length)
    assert plug.lib.IFDHGetCapabilities(c_ulong(lun), c_ulong(0x0FAE), byref(got), answer) == 0
    assert got.value == 1
    got = c_ulong(length)
    assert plug.lib.IFDHPowerICC(c_ulong(lun), c_ulong(RESET), answer, byref(got)) == 0
    assert got.value > 2
    features = (c_ulong(lun), c_ulong(FEATURES))
    assert plug.lib.IFDHControl(*features, None, c_ulong(0), answer, c_ulong(length), None) == 0
    assert plug.lib.IFDHSetCapabilities(c_ulong(lun), c_ulong(0x303), c_ulong(length), tx) == BROKEN
    assert helpers() == before


def test_nowhere_to_write_to(plug: Plug, lun: int) -> None:
    """A null pointer counts as no room."""
    before, number = helpers(), c_ulong(lun)
    for tag in (0x0FAD, 0x0FB3, 0x0FB4, 0x0FAE, 0x0303):
        room = c_ulong(8 if tag == 0x0FB3 else 1)
        assert plug.lib.IFDHGetCapabilities(number, c_ulong(tag), byref(room), None) in (
            0, TOO_LITTLE,
        )  # fmt: skip
        assert plug.lib.IFDHGetCapabilities(number, c_ulong(tag), None, None) == BROKEN
    room = c_ulong(33)
    assert plug.lib.IFDHPowerICC(number, c_ulong(RESET), None, byref(room)) == TOO_LITTLE
    assert plug.lib.IFDHPowerICC(number, c_ulong(RESET), None, None) == BROKEN
    assert plug.lib.IFDHSetCapabilities(number, c_ulong(0x0303), c_ulong(4), None) == BROKEN
    assert plug.lib.IFDHSetCapabilities(number, c_ulong(0x0FB4), c_ulong(1), None) == BROKEN
    features = (number, c_ulong(FEATURES))
    assert plug.lib.IFDHControl(*features, None, c_ulong(9), None, c_ulong(9), None) == BROKEN
    assert plug.lib.IFDHControl(*features, None, c_ulong(0), None, c_ulong(99), None) == TOO_LITTLE
    ready(plug, lun)
    assert helpers() == before


@pytest.mark.parametrize("lun", [0xFFFF_FFFF, 2**32, 2**32 + LUN, 2**64 - 1])
def test_luns_out_of_range(plug: Plug, lun: int) -> None:
    for code in (plug.presence(lun), plug.close(lun), plug.power(lun, UP)[0]):
        assert code == BROKEN
    assert plug.create(lun, "virtual:") == (0 if lun < 2**32 else BROKEN)
    assert plug.close(lun) == (0 if lun < 2**32 else BROKEN)
    assert plug.close(lun) == BROKEN
    assert helpers() == []


def test_a_channel_opened_and_closed_by_many_threads(plug: Plug) -> None:
    """One thread gets the channel. A thread that waits for its turn when the channel is closed gets
    an error."""
    codes: list[int] = []

    def one() -> None:
        for _ in range(3):
            codes.append(plug.create(LUN, "virtual:"))
            codes.append(plug.presence(LUN))
            codes.append(plug.transmit(LUN, 1, SELECT)[0])
            codes.append(plug.close(LUN))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(codes) <= {0, BROKEN, PRESENT, ABSENT, GONE}
    assert 0 in codes
    plug.close(LUN)
    assert helpers() == []
    assert plug.create(LUN, "virtual:") == 0
    ready(plug, LUN)
    plug.close(LUN)


# Broken frames --------------------------------------------------------------------------------

FRAMES = """
from ccid.pcsc.plug import helper
from ccid.pcsc.plug.frames import REPLY
carry_out = helper.Channel._carry_out
def broken(self, handler, request):
    if request[0] != 8 or request[1] != 0x1234:
        return carry_out(self, handler, request)
    data = bytes(request[3])
    if data == b"raises": raise MemoryError
    if data == b"hangs up": self.requests.shutdown(2); return b""
    if data == b"closes": self.events.shutdown(2); return REPLY.pack(0, 0, 0)
    return data
helper.Channel._carry_out = broken
"""
HEAD = (0).to_bytes(4, sys.byteorder)


def frame(kind: int, code: int, length: int, data: bytes = b"") -> bytes:
    numbers = b"".join(n.to_bytes(4, sys.byteorder) for n in (kind, code, length))
    return numbers + data


@pytest.fixture
def odd_helper(plug: Plug, tmp_path: Path) -> Iterator[list[int]]:
    """A helper that answers control code 0x1234 with the bytes of the request. Two channels."""
    with helper_program(plug, tmp_path, FRAMES):
        for lun in (LUN, SECOND):
            assert plug.create(lun, "virtual:") == 0
            ready(plug, lun)
        there = helpers()
        assert len(there) == 1
        yield there
        for lun in (LUN, SECOND):
            plug.close(lun)


@pytest.mark.parametrize(
    "data",
    [
        b"hangs up", b"a", frame(0, 0, 0)[:-1], frame(0, 0, 5, b"four"), frame(0, 0, 3, b"four"),
        frame(2, 0, 0), frame(0xFFFF_FFFF, 0, 4, b"four"), frame(0, 0, 0xFFFF_FFFF, b"four"),
        frame(0, 0, 20, b"four" * 50),
    ],
    ids=str,
)  # fmt: skip
def test_a_broken_frame_costs_its_channel_alone(
    plug: Plug, odd_helper: list[int], data: bytes
) -> None:
    assert plug.control(LUN, 0x1234, data, 100) == (BROKEN, b"")
    assert plug.transmit(SECOND, 1, SELECT) == (0, OK)
    assert plug.transmit(LUN, 1, SELECT) == (BROKEN, b"")
    said = until_back(plug, LUN, 10)
    assert said[0] == ABSENT, "nobody takes the next card for the one before"
    ready(plug, LUN)
    assert plug.transmit(SECOND, 1, SELECT) == (0, OK)
    assert helpers() == odd_helper


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(0, 0, 400, bytes(400)), TOO_LITTLE), (frame(0, 77, 101, bytes(101)), TOO_LITTLE),
     (b"raises", BROKEN), (frame(0, 9999, 0), 9999), (b"closes", 0)],
    ids=str,
)  # fmt: skip
def test_an_odd_answer_costs_nothing(
    plug: Plug, odd_helper: list[int], data: bytes, code: int
) -> None:
    assert plug.control(LUN, 0x1234, data, 100) == (code, b"")
    for lun in (LUN, SECOND):
        assert plug.transmit(lun, 1, SELECT) == (0, OK)
    assert plug.wait(LUN, 50) in (0, BROKEN)
    assert helpers() == odd_helper


def test_a_frame_of_nothing_at_all(plug: Plug, odd_helper: list[int]) -> None:
    """An empty message looks as if the helper had hung up."""
    assert plug.control(LUN, 0x1234, b"", 100) == (BROKEN, b"")
    assert plug.transmit(SECOND, 1, SELECT) == (0, OK)
    until_back(plug, LUN, 10)
    assert helpers() == odd_helper


# The reader is unplugged ----------------------------------------------------------------------

UNPLUGGED = """
import signal
from ccid.pcsc.plug import helper
from ccid.virtual import models
made, make = [], models.make
def keep(*arguments, **more):
    made.append(make(*arguments, **more))
    return made[-1]
models.make = keep
signal.signal(signal.SIGUSR1, lambda *_: [one.unplug() for one in made])
"""


@pytest.fixture
def pulled(plug: Plug, tmp_path: Path) -> Iterator[int]:
    """A reader that is unplugged when its helper gets SIGUSR1."""
    with helper_program(plug, tmp_path, UNPLUGGED):
        assert plug.create(LUN, "virtual:") == 0
        plug.wait(LUN, 300)
        ready(plug, LUN)
        yield helpers()[0]
        plug.close(LUN)
        assert helpers() == []


def test_waiting_ends_when_the_reader_is_gone(plug: Plug, pulled: int) -> None:
    """The code makes pcscd wait for udev's event before it asks for the card."""
    threading.Timer(0.2, os.kill, (pulled, signal.SIGUSR1)).start()
    began = time.monotonic()
    assert plug.wait(LUN, 60_000) == GONE
    assert time.monotonic() - began < 5
    assert plug.wait(LUN, 60_000) == GONE
    assert plug.transmit(LUN, 1, SELECT) == (GONE, b"")
    assert plug.presence(LUN) == ABSENT


def test_what_pcscd_says_of_a_reader_that_is_gone(plug: Plug, pulled: int) -> None:
    """A channel gets an error. A thread that waits at the channel afterwards returns at once, and
    no helper is started."""
    assert plug.set(LUN, 0x0FB4, b"\x00") == 0
    assert plug.presence(LUN) == PRESENT
    assert plug.set(LUN, 0x0FB4, b"\x01") == 0
    assert plug.wait(LUN, 60_000) == GONE
    assert plug.transmit(LUN, 1, SELECT) == (GONE, b"")
    os.kill(pulled, signal.SIGKILL)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert plug.presence(LUN) in (ABSENT, BROKEN)
        time.sleep(0.05)
    assert helpers() in ([], [pulled])


# Several slots --------------------------------------------------------------------------------

SLOTS = """
from ccid.pcsc.plug import helper
from ccid.virtual import EchoCard, VirtualReader, models
def make(model):
    cards = [EchoCard(bytes.fromhex(f"3B610000{n:02x}")) for n in range(3)]
    return VirtualReader(cards, slots=3)
models.make = make
"""


def test_slots_are_the_same_after_a_new_start(plug: Plug, tmp_path: Path) -> None:
    """Whatever the order in which pcscd's threads ask for the slots."""
    luns = [LUN, LUN + 1, LUN + 2]
    with helper_program(plug, tmp_path, SLOTS):
        for lun in luns:
            assert plug.create(lun, "virtual:") == 0
        assert len(helpers()) == 1
        atrs = [plug.power(lun, UP) for lun in luns]
        assert [atr[-1] for _, atr in atrs] == [0, 1, 2]
        os.kill(helpers()[0], signal.SIGKILL)
        for lun in reversed(luns):
            while plug.presence(lun) != ABSENT:
                pass
            until_back(plug, lun, 10)
        assert [plug.power(lun, UP) for lun in luns] == atrs
        for lun in luns:
            plug.close(lun)
