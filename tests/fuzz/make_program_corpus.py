"""The corpora of what the commands read, of tokens, and of contactless and virtual cards; part of
``python -m tests.fuzz.make_corpus``."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable

from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS
from ccid.pcsc.service.client_messages import CONNECT, ENTRY, THREE, TRANSMIT
from ccid.probe.timings import APDU, SCHEMA, STATUS, as_json, figures
from tests.fuzz.targets.pads import CARDS
from tests.fuzz.targets.programs import FACTS

Write = Callable[[str, Iterable[bytes]], None]
Piece = Callable[[bytes], bytes]
PSEUDO_APDUS = (
    "FFCA000000", "FFCA010000", "FF82000006FFFFFFFFFFFF", "FF860000050100046000", "FFB0000410",
    "FFD600041000112233445566778899AABBCCDDEEFF", "00A4000C023F00", "0020000104FFFFFFFF",
)  # fmt: skip
UNIT = b"0::/system.slice/a.service\n"
SESSION = b"0::/user.slice/user-1000.slice/session-3.scope\n"


def write_all(write: Write, piece: Piece, cards: list[bytes], apdus: list[bytes]) -> None:
    """Write them.

    Args:
        write: Writes the corpus of a target.
        piece: A piece of an input, with its length.
        cards: ATRs.
        apdus: Command APDUs.
    """
    write("iccd", tokens(cards))
    answers = (b"\x04\x01\x02\x03\x90\x00", b"\x90\0", b"\x63\0", b"\x69\x82", b"")
    write("storage", (bytes((n,)) + piece(answer) for answer in answers for n in range(4)))
    every = b"".join(piece(bytes.fromhex(text)) + b"\0" for text in PSEUDO_APDUS)
    write("virtual-card", (bytes((number,)) + every for number in range(len(CARDS))))
    write(
        "apdu-file",
        [
            b"# a comment\n" + b"\n".join(a.hex(" ").encode("ascii") for a in apdus[:6]) + b"\n",
            b"[0x00, 0xA4,\n 0x00, 0x0C]\n",
            "\ufeff00:A4:00:0C\r\n".encode("utf-16"),
        ],
    )
    names = f"{cards[0].hex(' ').upper()}\n\tOne card\n3B [6,7]. .* 9[0-3] ..\n\tMany cards\n"
    write("card-list", (piece(atr) + names.encode("ascii") for atr in cards[:3]))
    write("bench-run", bench_runs())
    write("shell", [
        b"help", b"select piv", b"select A000000308", b"verify 81 8", b"expect 90xx", b"sw 6A82",
        b"00 A4 00 0C 02 3F 00  # a remark", b"0020000104 31323334", b"< a file", b"reader one two",
        b"slot 1", b"reset cold",
    ])  # fmt: skip
    write("control-socket", [
        b"status", b"card out 1-1 0\ncard in 1-1 0", b"card in 1-2 1\nstatus 1-2",
        b"reader out 1-1\nreader in 1-1\nreader out 1-2", b"card out 1\ncard out",
    ])  # fmt: skip
    write("service-answers", service_answers(cards[0]))
    write("access", facts(piece))
    name = piece("A reader \u202e".encode("utf-16-le"))
    write("device-strings", [b"\0" + name + b"\1\0" + b"\2\0\0" + b"\3\0\0" + b"\1\0"])
    option = b"<key>ifdDriverOptions</key>\n<string>0x0035</string>"
    words = (b"\0--virtual 08e6:3437 --card echo --virtual", b"\0--reader 'a reader' --usb")
    write("settings", (b"\1" + option, *words))


def tokens(cards: list[bytes]) -> Iterable[bytes]:
    """Answers of an ICCD of version A, whose status says what it wants, and of version B, which
    puts a byte before each."""
    for atr in cards[:4]:
        status, block = b"\0\x20", b"\0" + atr
        yield b"\0" + b"\0\x10" + block + status + b"\0\0\0\x10" * 3 + b"\0\x90\0"
        yield b"\1" + b"\0\0" + atr + b"\0\0\x90\0" * 3
        yield b"\1" + b"\0\x80\1\0" + b"\0\0" + atr + b"\0\x40\0\0"


def bench_runs() -> Iterable[bytes]:
    """Saved runs."""
    measured = {STATUS: figures([1e-4, 2e-4], 1e-4), APDU: figures([3e-4, 5e-4], 2e-4)}
    run = {"schema": SCHEMA, "name": "One", "atr": "3B00", "measured": as_json(measured)}
    yield json.dumps(run).encode("ascii")
    yield json.dumps({**run, "exchange": {"command": "00", "sw": []}, "more": [[{}]]}).encode(
        "ascii"
    )
    yield json.dumps({**run, "name": 10**30, "id": None}).encode("ascii")


def service_answers(atr: bytes) -> Iterable[bytes]:
    """What the service says to the first questions: version, context, readers; connect, APDU."""
    head = THREE.pack(4, 4, 0) + THREE.pack(0, 7, 0)
    entry = ENTRY.pack(b"A reader 00 00", 1, 4, 0, atr.ljust(33, b"\0"), len(atr), 3)
    readers = entry + bytes((DEFAULT_SLOTS - 1) * ENTRY.size)
    connected = CONNECT.pack(7, b"A reader 00 00", 2, 3, 9, 2, 0)
    answer = TRANSMIT.pack(9, 2, 8, 7, 2, 8, 2, 0) + b"\x90\0"
    yield head + readers + connected + answer + THREE.pack(9, 0, 0)
    yield head + readers + CONNECT.pack(7, b"", 2, 3, 0, 0, 0x80100069)
    yield THREE.pack(4, 4, 0) + THREE.pack(0, 0, 0x8010001D)


def facts(piece: Piece) -> Iterable[bytes]:
    """Files of Linux, each in a machine of its own."""
    said = {
        "proc/self/cgroup": (UNIT, SESSION), "proc/sys/kernel/osrelease": (b"5.15-microsoft-WSL2",),
        "proc/self/uid_map": (b"0 1000 1\n",), "proc/1/cgroup": (b"0::/docker/abc\n",),
        "proc/self/mountinfo": (b"1 2 0:1 / / rw - overlay overlay lowerdir=/var/lib/docker/x\n",),
        "proc/self/attr/current": (b"snap.thing.cmd (enforce)\n",),
        "run/systemd/container": (b"lxc\n",), "run/.containerenv": (b'engine="podman-4"\n', b""),
        ".dockerenv": (b"",), ".flatpak-info": (b"[Application]\nname=org.a.B\n",),
        "run/systemd/users/": (b"ACTIVE_SEATS=seat0\n",),
        "run/systemd/sessions/": (b"REMOTE=1\n",), "run/udev/data/": (b"G:uaccess\n",),
    }  # fmt: skip
    for name, texts in said.items():
        for text in texts:
            for refusal in (1, 2):
                bit = struct.pack("<H", 1 << FACTS.index(name))
                yield (
                    bit
                    + struct.pack("<H", len(text))
                    + text
                    + b"\0\0"
                    + piece(b"")
                    + bytes((refusal,))
                )
    bits = (1 << FACTS.index("proc/self/cgroup")) | (1 << FACTS.index("run/systemd/sessions/"))
    session = struct.pack("<H", len(SESSION)) + SESSION
    yield struct.pack("<H", bits) + session + b"\x09\0REMOTE=1\n" + b"\1\1" + piece(b"box") + b"\1"
