"""Writes the corpora anew: ``python -m tests.fuzz.make_corpus``.

The inputs are real data: descriptors of known readers (``readers/descriptors``), ATRs of cards in
the tests, what virtual readers and cards say in a session, what the programs print. Files whose
names begin with ``found-`` are inputs that once broke a target; they stay.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ccid.codec.descriptors import DeviceDescriptor
from ccid.codec.messages import COMMANDS, RDR_to_PC_HardwareError, RDR_to_PC_NotifySlotChange
from ccid.device.control import ControlCode
from ccid.errors import CcidError
from ccid.iso7816.atr import Atr
from ccid.known.descriptor_figures import as_toml, figures
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands
from ccid.pcsc.plug.frames import Operation
from ccid.pcsc.service.client_messages import BODIES, Command
from ccid.probe.dump_command import Dump, as_json
from ccid.session.activation import Activation
from ccid.session.exchange import choose
from ccid.virtual import FileSystemCard, VirtualReader
from ccid.virtual.models import make
from ccid.virtual.usbip_messages import ImportRequest, Op, OpHeader
from ccid.virtual.virtual_transport import VirtualTransport
from tests.fuzz import make_program_corpus
from tests.fuzz.targets import usb
from tests.unit.test_pin import modify, verify

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODELS = [
    "08e6:3437", "072f:2200", "04e6:5790", "076b:3021", "0c4b:9102", "1050:0407", "20a0:4211",
    "08e6:4433", "0bda:0169", "096e:0503",
]  # fmt: skip
"""Readers of many kinds: levels, several slots, PIN pads, vendor classes, tokens."""
CASES = (
    "00A40400", "00B0000000", "00D6000004AABBCCDD", "00CB3FFF055C035FC10200", "00A4000C023F00",
    "00B000000004FF", "00D600000000020102", "00CB3FFF0000055C035FC1020000",
    "002000810831323334FFFFFFFF", "00C200000680040020000131", "10DB3FFF04AABBCCDD",
)  # fmt: skip


def piece(data: bytes) -> bytes:
    """A piece as :class:`~tests.fuzz.taking.Taker` takes it."""
    return bytes((len(data),)) + data


def long_piece(data: bytes) -> bytes:
    """The same, with two bytes of length."""
    return len(data).to_bytes(2, "little") + data


def write(target: str, inputs: Iterable[bytes]) -> None:
    """The corpus of a target, but for what was found."""
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if not file.name.startswith("found-"):
            file.unlink()
    for number, data in enumerate(dict.fromkeys(inputs)):
        (folder / f"{number:02}").write_bytes(data)


def atrs() -> list[bytes]:
    """ATRs of the tests that can be parsed, no two of the same form."""
    by_form: dict[tuple[str, ...], bytes] = {}
    for file in sorted((ROOT / "tests/unit").glob("test_*.py")):
        for text in re.findall(r'"(3[BF](?: ?[0-9A-Fa-f]{2}){1,32})"', file.read_text("utf-8")):
            try:
                parsed = Atr.parse(bytes.fromhex(text))
            except (CcidError, ValueError):
                continue
            form = tuple(f"{group.t}{list(group.items())}"[:12] for group in parsed.groups)
            by_form.setdefault((*form, str(bool(parsed.historical))), parsed.raw)
    return list(by_form.values())[:40]


def configurations() -> Iterable[bytes]:
    """The descriptors of readers: of the device, then the whole configuration."""
    for model in MODELS:
        reader = make(model)
        info = reader.info
        yield info.device.build() + info.raw_configuration
    yield DeviceDescriptor(idVendor=1, idProduct=2).build() + make().info.raw_configuration


class Recorded(VirtualTransport):
    """Notes what a virtual reader answers, in the form that :class:`tests.fuzz.targets.usb.Liar`
    reads."""

    def __init__(self, reader: VirtualReader) -> None:
        super().__init__(reader.port, reader.info)
        self.heard = b""
        self.messages: list[tuple[bool, bytes]] = []

    def send(self, length: int, timeout_ms: int, /) -> None:
        super().send(length, timeout_ms)
        self.messages.append((False, bytes(self.out[:length])))

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        got = super().receive(offset, size, timeout_ms)
        message = bytes(self.inp[offset : offset + got])
        self.messages.append((True, message))
        if message:
            self.heard += b"\1" + message[7:10] + piece(message[10:][:255])
        return got

    def take_events(self, wait_ms: int = 0, /) -> None:
        self.heard += b"\0"


def sessions() -> Iterable[tuple[bytes, bytes]]:
    """A session with each kind of virtual reader: for ``activation``, and for ``replies``."""
    for number, descriptor in enumerate(usb.DESCRIPTORS):
        transport = Recorded(VirtualReader(FileSystemCard(), descriptor=descriptor))
        with suppress(CcidError):
            slot = Commands(Pipe(transport, name="recorded", longest_message=271), 0)
            _, agreement = Activation(slot, descriptor, []).run(None)
            way = choose(slot, descriptor, agreement)
            for index in range(3):
                transport.heard += bytes((index,))
                way.transmit(usb.APDUS[index])
        transport.close()
        messages = b"".join(bytes((is_in,)) + long_piece(m) for is_in, m in transport.messages)
        yield bytes((number, 0, 0)) + transport.heard, bytes((1, 1 + number % 3)) + messages


def block(nad: int, pcb: int, inf: bytes = b"") -> bytes:
    """A block for the targets of T=1: they make its length and epilogue."""
    return bytes((0, nad, pcb)) + piece(inf)


def t1_blocks() -> Iterable[bytes]:
    """Answers of a card, after three commands at most."""
    head = bytes((32, 0, 254))
    command = piece(bytes.fromhex("00A4000C023F00"))
    ok = b"\0" + block(0, 0, b"\x90\0") + command + b"\0" + block(0, 0x40, b"\x90\0")
    yield head + command + ok
    yield head + command + b"\0" + block(0, 0xC3, b"\1") + b"\0" + block(0, 0, b"\x90\0")
    yield head + command + b"\0" + block(0, 0xC1, b"\x20") + b"\0" + block(0, 0, b"\x90\0")
    yield head + command + b"\0" + block(0, 0x20, b"abc") + b"\0" + block(0, 0x40, b"\x90\0")
    yield head + command + b"\x45\0" + b"\0" + block(0, 0x81) + b"\0" + block(0, 0, b"\x90\0")
    yield head + piece(bytes(200)) + b"\0" + block(0, 0x90) + b"\0" + block(0, 0x80) + ok
    yield bytes((254, 1, 254)) + command + b"\0\1" + piece(b"\0\0\2\x90\0\x12\x34")


def requests() -> Iterable[bytes]:
    """What libpcsclite says."""
    numbers = list(Command)

    def ask(command: Command, body: bytes = b"", known: int = 0, extra: bytes = b"") -> bytes:
        sizes = BODIES[command]
        body = body.ljust(sizes[0], b"\0")[: sizes[0]]
        tail = b"\1" if extra else b""
        head = b"\0\3" + bytes((numbers.index(command), 0)) + body
        return head + (b"\1\0" if known else b"\0") + piece(extra) + tail

    establish = ask(Command.ESTABLISH)
    name = struct.pack("=I128sIIIII", 0, b"Reader 00 00", 2, 3, 0, 0, 0)
    connect = ask(Command.CONNECT, name, 1)
    yield b"\0" + establish + connect + ask(Command.TRANSMIT, b"", 1, bytes.fromhex("00A4000000"))
    for command in numbers:
        yield b"\0" + establish + ask(command, b"", 1)
    yield b"\1" + establish + connect + ask(Command.BEGIN, b"", 1) + b"\0\1\5" + ask(Command.END)


def calls() -> Iterable[bytes]:
    """What pcscd calls."""
    opened = b"\0\4\0" + piece(b"08e6/3437:libudev:0:/dev/bus/usb/001/002") + b"\1"
    up = b"\0\4\5\0\0"
    for action in range(3):
        yield opened + b"\0\4\5\0" + bytes((action,)) + b"\0\4\4\1\0\0\0\0"
    for apdu in CASES:
        yield opened + up + b"\0\4\4\2\0\0\0\0" + b"\0\4\6\1" + piece(bytes.fromhex(apdu))
    for tag in range(8):
        yield opened + b"\0\4\2\0" + bytes((tag,)) + b"\0\4\x09\0" + b"\0\4\1"
    yield opened + b"\0\4\x08" + struct.pack("<H", 3400) + piece(b"")


def frames() -> Iterable[bytes]:
    """What the plug writes."""

    def frame(operation: int, argument: int, body: bytes = b"") -> bytes:
        return bytes((0, operation)) + struct.pack("<H", argument) + piece(body) + b"\2"

    opened = frame(Operation.OPEN, 0, b"usb:08e6/3437:libudev:0:/dev/bus/usb/001/002")
    for operation in Operation:
        for argument in (0, 500, 3400):
            yield opened + frame(operation, argument, b"\0\0\0\0")
    yield opened + frame(Operation.POWER, 500) + frame(Operation.TRANSMIT, 1, b"\0\xa4\0\0")
    yield opened + b"\xff" + piece(b"\7\0\0\0\1\0\0\0\2\1\0\0\xff\xff\xff\xff")


def urbs() -> Iterable[bytes]:
    """What a host writes to a reader that it has imported."""

    def submit(number: int, ep: int, direction: int, setup: bytes, data: bytes, size: int) -> bytes:
        head = struct.pack(">6I4i8s", 1, number, 1, direction, ep, 0, size, 0, 0, 0, setup)
        return head + data

    device = submit(1, 0, 1, bytes.fromhex("8006000100001200"), b"", 18)
    configuration = submit(2, 0, 1, bytes.fromhex("800600020000FF00"), b"", 255)
    chosen = submit(3, 0, 0, bytes.fromhex("0009010000000000"), b"", 0)
    power = submit(4, 1, 0, bytes(8), bytes.fromhex("62000000000000000000"), 10)
    reply = submit(5, 2, 1, bytes(8), b"", 64)
    unlink = struct.pack(">6I24x", 2, 6, 1, 0, 0, 5)
    yield device + configuration + chosen + power + reply
    yield chosen + reply + unlink
    yield chosen + submit(7, 3, 1, bytes(8), b"", 16) + power + reply + reply


def found_texts() -> Iterable[bytes]:
    """Descriptions of readers."""
    for name in ("lsusb.txt", "parse.txt"):
        yield (ROOT / "tests/unit/data" / name).read_bytes()[:4096]
    for model in MODELS[:3]:
        yield make(model).info.raw_configuration.hex(" ").encode("ascii")
        yield json.dumps(_report(model)).encode("utf-8")
    raw = make().info.raw_configuration
    yield b"".join(
        f"{at:04x}  {raw[at : at + 16].hex(' ')}\n".encode("ascii") for at in range(0, len(raw), 16)
    )
    yield b"> " + raw.hex(" ").encode("ascii").replace(b" 07", b"\n> 07")
    yield ("uint8_t d[] = {" + ", ".join(f"0x{b:02x}" for b in raw) + "};").encode("ascii")
    yield "\ufeffidVendor 0x08e6\r\nidProduct 0x3437\r\n".encode("utf-16")


def _report(model: str) -> dict[str, object]:
    """What ``ccid-probe dump --json`` prints of a reader."""
    return {"schema": "ccid-probe/dump/1", "readers": [as_json(Dump(make(model).info))]}


def tomls() -> Iterable[bytes]:
    """Files of readers."""
    for model in MODELS[:3]:
        vendor, product = (int(part, 16) for part in model.split(":"))
        yield as_toml(figures(vendor, product)[0]).encode("utf-8")
    yield (
        b'[reader."1209:0001"]\nname = "One"\nstatus = "should-work"\nquirks.power-on-escape = '
        b'"DE AD"\nquirks.max-ifsd = 0x20\n[[reader."1209:0001".when]]\nbcdDevice = [0x0100]\n'
        b'quirks.protocols = ["T=0"]\n'
    )
    for file in sorted((ROOT / "readers").glob("*.toml"))[:40:8]:
        yield file.read_bytes()[:2048]


def main() -> None:
    """Write all."""
    cards = atrs()
    recorded = list(sessions())
    apdus = [bytes.fromhex(text) for text in CASES]
    write("descriptors", configurations())
    write("commands", (bytes((k,)) + bytes(9) for k in COMMANDS))
    write("replies", (said for _, said in recorded))
    write(
        "notifications",
        [RDR_to_PC_NotifySlotChange.of([(True, True)] * n).build() for n in (1, 5, 256)]
        + [RDR_to_PC_HardwareError(bHardwareErrorCode=1).build()],
    )
    write("activation", (heard for heard, _ in recorded))
    write("atr", cards)
    write("historical", (Atr.parse(atr).historical for atr in cards))
    write(
        "pps",
        (
            bytes((protocol, 1, 0x95, 0, 0)) + piece(answer) + piece(atr) + piece(answer)
            for protocol in (0, 1)
            for answer in (b"\xff\x10\x95\x7a", b"\xff\x11\x95\x7b", b"\xff\1\xfe", b"\xff\0\xff")
            for atr in cards[:3]
        ),
    )
    write("apdu", apdus)
    write("t0-host", _t0(apdus))
    write("t0-card", (b"\1" + piece(apdu[:5]) + piece(apdu[5:]) for apdu in apdus))
    write("t1-host", t1_blocks())
    write("t1-card", _t1_card(apdus))
    structures = [b"\0" + verify(), b"\1" + modify()]
    write("pin", (s[:1] + order + s[1:] for s in structures for order in (b"\0\0\0", b"\1\1\0")))
    write(
        "control",
        [b"\1\0" + bytes((n,)) + piece(b"") + b"\1" for n in range(len(ControlCode))]
        + [b"\1\0" + bytes((list(ControlCode).index(ControlCode.VERIFY_PIN_DIRECT),))
           + piece(verify()) + b"\1"],
    )  # fmt: skip
    write("ifd", calls())
    write("plug", frames())
    write("usbip", urbs())
    asks = [OpHeader(code=Op.REQ_DEVLIST).build(), OpHeader(code=Op.REQ_IMPORT).build()]
    write("usbip-questions", [asks[0], asks[1] + ImportRequest(busid="1-1").build()])
    write("pcsc", requests())
    write(
        "vpcd",
        (piece(atr) + piece(b"\x90\0") + b"\0\1\4\0\1\1" + len(a).to_bytes(2, "big") + a
         for atr, a in zip(cards, apdus, strict=False)),
    )  # fmt: skip
    write("import", found_texts())
    write("toml", tomls())
    lines = [f"{atr.hex(' ').upper()}\n\tA card of many\n" for atr in cards[:6]]
    write(
        "atr-list",
        [
            "".join(lines).encode("ascii"),
            b"3B 6. 00 .. 73\n\tA pattern\n# a comment\n",
            b"  Card state: Card inserted,\n  ATR: 3B 65 00 00 9C 02 02 07 02\n",
            b"Using reader with a card: One\n3b:65:00:00:9c:02:02:07:02\n",
        ],
    )
    write(
        "hexadecimal",
        [b"3B 65", b"3b:65", b"3B-65", b"0x3B,0x65", b"[0x3B, 0x65]", b'"\\x3b\\x65"', b"3Bh 65h",
         b"3B;65", b"ATR: 3B 65", b"bytes.fromhex('3B65')"],
    )  # fmt: skip
    make_program_corpus.write_all(write, piece, cards, apdus)


def _t0(apdus: list[bytes]) -> Iterable[bytes]:
    for apdu in apdus:
        if len(apdu) <= 255:
            yield b"\0" + piece(apdu) + piece(b"\x61\x10") + piece(bytes(16) + b"\x90\0")
            yield b"\0" + piece(apdu) + piece(b"\x6c\x04") + piece(bytes(4) + b"\x90\0")
            yield b"\1" + piece(apdu) + b"\1" + apdu[1:2] + b"\2\x90\0"
            yield b"\1" + piece(apdu) + b"\1\x60\1" + bytes((apdu[1] ^ 0xFF,)) + b"\1\x90\1\0"


def _t1_card(apdus: list[bytes]) -> Iterable[bytes]:
    for apdu in apdus:
        yield b"\1" + block(0, 0xC1, b"\xfe") + block(0, 0, apdu) + block(0, 0x90)
        yield b"\0" + block(0, 0x20, apdu[:5]) + block(0, 0x40, apdu[5:]) + block(0, 0xC0)


if __name__ == "__main__":
    main()
