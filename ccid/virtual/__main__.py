"""``python -m ccid.virtual``: virtual readers for this machine's USB.

    python -m ccid.virtual --usbip 127.0.0.1:3240 --level extended --count 2 &
    sudo modprobe vhci_hcd && sudo usbip attach -r 127.0.0.1 -b 1-1

A card at TPDU or character level can be told how to behave on its contacts, and what to do wrong::

    python -m ccid.virtual --usbip 127.0.0.1 --level tpdu --manual --card echo \\
        --atr "3B 80 81 31 FE 45 8B" --fault corrupt:on=I,after=3 --fault asks-wtx:multiplier=2

It serves until SIGINT or SIGTERM. ``--control PATH`` is the hand at the readers: a Unix socket
that takes lines and answers each with a line, ``ok …`` or ``error …``::

    card out [BUSID] [SLOT]     reader out [BUSID]     status [BUSID]
    card in [BUSID] [SLOT]      reader in [BUSID]

Without BUSID and SLOT they mean the first reader and its slot 0; ``status`` means all readers. It
answers ``ok 1-1=attached:active,absent 1-2=free:inactive``: has a host the reader (attached,
free, or unplugged), and each slot's card.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import selectors
import signal
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import ExchangeLevel, Features, InterfaceProtocol
from ccid.errors import CcidError
from ccid.ground.safe_text import printable
from ccid.trace.log import TRAFFIC, PrintableFormatter
from ccid.virtual.cards import Application, Contact, EchoCard, FileSystemCard
from ccid.virtual.contact_options import add_arguments, on_contacts
from ccid.virtual.usbip import DEFAULT_PORT, UsbIpServer
from ccid.virtual.virtual_reader import (
    MANUAL,
    PRODUCT_ID,
    VENDOR_ID,
    VirtualReader,
    make_descriptor,
)
from ccid.virtual.virtual_slot import Card

LEVELS = {
    "character": ExchangeLevel.CHARACTER,
    "tpdu": ExchangeLevel.TPDU,
    "short": ExchangeLevel.SHORT_APDU,
    "extended": ExchangeLevel.EXTENDED_APDU,
}
CARDS: dict[str, type[Application] | None] = {
    "echo": EchoCard,
    "files": FileSystemCard,
    "none": None,
}
PROTOCOLS = {"t0": 0x01, "t1": 0x02, "both": 0x03}
ICCD = {"a": InterfaceProtocol.ICCD_A, "b": InterfaceProtocol.ICCD_B}
MAX_LINE = 1024
MAX_CLIENTS = 16
"""Of the control socket: of more, the oldest is hung up on."""
CLIENT_TIMEOUT_S = 1.0
"""A client of the control socket that takes no answer so long is hung up on."""


# Arguments ------------------------------------------------------------------------------------


def _host_port(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[(?P<six>[^]]+)]|(?P<host>[^:]+))(?::(?P<port>\d{1,5}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    port = int(match["port"] or DEFAULT_PORT)
    if port > 0xFFFF:
        raise argparse.ArgumentTypeError(f"there is no port {port}")
    return match["six"] or match["host"], port


def _identity(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not four hex digits, a colon, and four more")
    return int(match[1], 16), int(match[2], 16)


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 255")
    return int(text)


def _clock(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text) or not 100 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a clock from 100 to 100000 kHz")
    return int(text)


def _protocol(text: str) -> str:
    """``T=1``, ``T1`` or ``1`` as ``t1``."""
    found = re.fullmatch(r"(?:t\s*=?\s*)?([01])", text.strip(), re.ASCII | re.IGNORECASE)
    return text.lower() if found is None else f"t{found[1]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccid.virtual",
        description="Virtual smart-card readers, served over USB/IP to this machine's kernel.",
        epilog="PINs in the log are masked unless --log-secrets is given.",
    )
    add = parser.add_argument
    add(
        "--usbip",
        type=_host_port,
        required=True,
        metavar="HOST:PORT",
        help="listen there; a loopback address (port 0: any that is free)",
    )
    add("--level", choices=LEVELS, default="short", help="level of exchange (default: short)")
    add(
        "--manual",
        action="store_true",
        help="the host does PPS, parameters and IFSD; else the reader does",
    )
    add("--negotiating", action="store_true", help="the reader does all of that at power-on")
    add("--auto-activate", action="store_true", help="it powers a card as soon as it is put in")
    add(
        "--silent-removal",
        action="store_true",
        help="a command under way is never answered when its card is taken out",
    )
    add(
        "--protocol",
        type=_protocol,
        choices=PROTOCOLS,
        default="both",
        help="of the reader: T=0, T=1 or both (default: both)",
    )
    add("--clock", type=_clock, default=4000, metavar="KHZ", help="for cards (default: 4000)")
    add("--real-time", action="store_true", help="characters take the time they take")
    add("--iccd", choices=ICCD, help="a card that is a USB device itself, ICCD version A or B")
    add("--card", choices=CARDS, default="files", help="in every slot (default: files)")
    add("--slots", type=_count, default=1, metavar="N", help="slots of a reader (default: 1)")
    add("--count", type=_count, default=1, metavar="N", help="readers (default: 1)")
    add(
        "--id",
        type=_identity,
        default=(VENDOR_ID, PRODUCT_ID),
        metavar="VVVV:PPPP",
        help=f"vendor and product, hexadecimal (default: {VENDOR_ID:04x}:{PRODUCT_ID:04x})",
    )
    add(
        "--model",
        type=_identity,
        metavar="VVVV:PPPP",
        help="as this real reader is, by the figures of its descriptors; --level, --slots, --id, "
        "--no-interrupt and --high-speed count for nothing then",
    )
    add("--no-interrupt", action="store_true", help="without an interrupt endpoint")
    add("--high-speed", action="store_true", help="a high-speed device, with packets of 512 bytes")
    add("--log", action="store_true", help="the readers' traffic to stderr")
    add("--log-secrets", action="store_true", help="as --log, with PINs and keys")
    add("--control", metavar="PATH", help="listen there for the hand at the readers")
    add_arguments(parser)
    return parser


def _descriptor(options: argparse.Namespace) -> SmartCardDescriptor:
    level = LEVELS[options.level]
    fields: dict[str, int] = {"dwProtocols": PROTOCOLS[options.protocol]}
    fields |= {"dwDefaultClock": options.clock, "dwMaximumClock": options.clock}
    fields["dwMaxDataRate"] = options.clock * 1000 * 32 // 372
    if options.manual or options.negotiating:
        features = MANUAL | (Features.AUTO_NEGOTIATION if options.negotiating else 0)
        fields["dwFeatures"] = features | level
    made = make_descriptor(level, options.slots, **fields)
    if options.auto_activate:
        made = replace(made, dwFeatures=made.dwFeatures | Features.AUTO_ACTIVATION)
    return made


def _card(options: argparse.Namespace) -> Contact | None:
    """The card for a slot."""
    kind = CARDS[options.card]
    return None if kind is None else on_contacts(kind, options)


def _readers(options: argparse.Namespace) -> list[VirtualReader]:
    if options.model is not None:
        from ccid.virtual.models import newest, virtual_reader

        device = newest(*options.model)
        return [
            virtual_reader(device, CARDS[options.card], secrets=options.log_secrets)
            for _ in range(options.count)
        ]
    vendor_id, product_id = options.id
    shared: dict[str, Any] = {
        "vendor_id": vendor_id,
        "product_id": product_id,
        "secrets": options.log_secrets,
    }
    if options.iccd is not None:
        shared |= {"bInterfaceProtocol": ICCD[options.iccd]}
        return [VirtualReader(_card(options), **shared) for _ in range(options.count)]
    shared |= {
        "descriptor": _descriptor(options),
        "interrupt": not options.no_interrupt,
        "packet_size": 512 if options.high_speed else 64,
        "real_time": options.real_time,
        "answers_removal": not options.silent_removal,
    }
    slots = range(options.slots)
    return [VirtualReader([_card(options) for _ in slots], **shared) for _ in range(options.count)]


# The hand at the readers ----------------------------------------------------------------------


class Hand:
    """Does to the readers of a server what lines of text say.

    Args:
        server: The server.
        card: Makes what ``card in`` puts in where no card was taken out before.
    """

    def __init__(self, server: UsbIpServer, card: Callable[[], Card] = FileSystemCard) -> None:
        self._server = server
        self._card = card
        self._held: dict[tuple[str, int], Card] = {}

    def obey(self, line: str) -> str:
        """The answer to one line."""
        try:
            return f"ok {self._obey(line.split())}".rstrip()
        except ValueError as error:
            return f"error {printable(str(error))}"

    def _obey(self, words: Sequence[str]) -> str:
        match words:
            case ["status"]:
                return " ".join(self._status(busid) for busid in self._server.readers)
            case ["status", busid]:
                return self._status(self._which([busid])[0])
            case ["card", "in" | "out" as way, *place] if len(place) <= 2:
                busid, slot = self._which(place)
                self._put(busid, slot, way == "in")
                return self._status(busid)
            case ["reader", "in" | "out" as way, *place] if len(place) <= 1:
                busid, _ = self._which(place)
                self._plug(busid, way == "in")
                return self._status(busid)
        raise ValueError(
            "the commands are: card in|out [BUSID] [SLOT], reader in|out [BUSID], status [BUSID]"
        )

    def _which(self, place: Sequence[str]) -> tuple[str, int]:
        """The reader and the slot that ``place`` names."""
        busids = [word for word in place if "-" in word] or [next(iter(self._server.readers))]
        slots = [word for word in place if "-" not in word] or ["0"]
        if len(busids) > 1 or busids[0] not in self._server.readers:
            raise ValueError(f"no reader {' '.join(busids)}")
        there = len(self._server.readers[busids[0]].functions[0].slots)
        if len(slots) > 1 or not slots[0].isdecimal() or int(slots[0]) >= there:
            raise ValueError(f"no slot {' '.join(slots)}")
        return busids[0], int(slots[0])

    def _put(self, busid: str, slot: int, come: bool) -> None:
        reader = self._server.readers[busid]
        if come == (reader.functions[0].slots[slot].card is not None):
            raise ValueError(f"{busid} slot {slot} has {'a card' if come else 'no card'}")
        if come:
            held = self._held.pop((busid, slot)) if (busid, slot) in self._held else self._card()
            reader.insert(held, slot)
            return
        card = reader.remove(slot)
        if card is not None:
            self._held[busid, slot] = card

    def _plug(self, busid: str, come: bool) -> None:
        reader = self._server.readers[busid]
        if come != reader.device.is_unplugged:
            raise ValueError(f"{busid} is {'plugged in' if come else 'unplugged'}")
        if not come:
            reader.unplug()
            return
        if self._server.is_attached(busid):
            raise ValueError(f"{busid} is not let go of yet")
        with reader.port.changed:
            for function in reader.functions:
                function.is_unplugged = False

    def _status(self, busid: str) -> str:
        reader = self._server.readers[busid]
        state = "attached" if self._server.is_attached(busid) else "free"
        if reader.device.is_unplugged:
            state = "unplugged"
        cards = ",".join(slot.icc_status.name.lower() for slot in reader.functions[0].slots)
        return f"{busid}={state}:{cards}"


class Control:
    """The Unix socket of ``--control``.

    Args:
        path: Where; a socket that is left there from before goes away.
        hand: Does what the lines say.
        selector: Tells what is readable; its data are functions to call then.
    """

    def __init__(self, path: str, hand: Hand, selector: selectors.BaseSelector) -> None:
        self._path = path
        self._hand = hand
        self._selector = selector
        self._clients: dict[socket.socket, bytes] = {}
        if os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(path)
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        finally:
            os.umask(mask)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Hang up on everybody, and leave no socket behind."""
        for client in (*self._clients, self._listener):
            self._selector.unregister(client)
            client.close()
        with suppress(OSError):  # somebody else took it away
            os.unlink(self._path)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return  # it hung up first
        except OSError as error:
            if not self._clients:
                raise  # it would be told at once again
            print(f"a client of --control cannot be accepted: {error}", file=sys.stderr)
            self._hang_up(next(iter(self._clients)))
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._hang_up(next(iter(self._clients)))
        client.settimeout(CLIENT_TIMEOUT_S)
        self._clients[client] = b""
        self._selector.register(client, selectors.EVENT_READ, lambda: self._hear(client))

    def _hear(self, client: socket.socket) -> None:
        if client not in self._clients:
            return  # hung up on since that was told
        try:
            data = client.recv(MAX_LINE)
            *lines, self._clients[client] = (self._clients[client] + data).split(b"\n")
            for line in lines:
                client.sendall(self._hand.obey(line.decode(errors="replace")).encode() + b"\n")
        except OSError:
            data = b""
        if not data or len(self._clients[client]) > MAX_LINE:
            self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        client.close()


# ----------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace, server: UsbIpServer) -> None:
    """Serve until a signal says stop."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        stopped, stop = socket.socketpair()
        for end in (stopped, stop):
            stack.callback(end.close)
            end.setblocking(False)
        signal.set_wakeup_fd(stop.fileno())
        stack.callback(signal.set_wakeup_fd, -1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        selector.register(stopped, selectors.EVENT_READ)
        stack.enter_context(server)
        if options.control is not None:
            hand = Hand(server, lambda: _card(options) or FileSystemCard())
            stack.callback(Control(options.control, hand, selector).close)
        host, port = server.address
        for busid, reader in server.readers.items():
            device = reader.device.descriptor
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            print(
                f"usbip: {busid} {device.idVendor:04x}:{device.idProduct:04x} "
                f"{reader.info.product} on {where}",
                flush=True,
            )
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                key.data()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.control is not None and not hasattr(socket, "AF_UNIX"):
        parser.error("--control needs Unix sockets, and this system has none")
    if options.log or options.log_secrets:
        handler = logging.StreamHandler()
        handler.setFormatter(PrintableFormatter("%(asctime)s %(name)s %(message)s"))
        logging.basicConfig(handlers=[handler])
        logging.getLogger("ccid.virtual").setLevel(TRAFFIC)
    try:
        readers = _readers(options)
    except CcidError as error:
        parser.error(f"--model: {error}")
    try:
        server = UsbIpServer(readers, *options.usbip)
    except (ValueError, OSError) as error:
        parser.error(f"--usbip: {error}")
    try:
        _serve(options, server)
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
