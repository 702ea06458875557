"""``python -m ccid.virtual``: virtual readers for this machine's USB.

    python -m ccid.virtual --usbip 127.0.0.1:3240 --level extended --count 2 &
    sudo modprobe vhci_hcd && sudo usbip attach -r 127.0.0.1 -b 1-1

At TPDU and character level, options choose the behaviour and the faults of a card's contacts::

    python -m ccid.virtual --usbip 127.0.0.1 --level tpdu --manual --card echo \\
        --atr "3B 80 81 31 FE 45 8B" --fault corrupt:on=I,after=3 --fault asks-wtx:multiplier=2

The program serves until SIGINT or SIGTERM. ``--control PATH`` is a Unix socket that takes commands:
:mod:`ccid.virtual.control_socket`.
"""

from __future__ import annotations

import argparse
import logging
import re
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import ExchangeLevel, Features, InterfaceProtocol
from ccid.errors import CcidError
from ccid.ground.host_port import host_port, shown
from ccid.ground.printable_log import TRAFFIC, PrintableFormatter
from ccid.virtual.card_kinds import NAMES, CardKind, card_argument
from ccid.virtual.cards import Contact, FileSystemCard
from ccid.virtual.contact_options import add_arguments, on_contacts
from ccid.virtual.control_socket import ControlCommands, ControlSocket
from ccid.virtual.usbip import DEFAULT_PORT, UsbIpServer
from ccid.virtual.virtual_reader import (
    MANUAL,
    PRODUCT_ID,
    VENDOR_ID,
    VirtualReader,
    make_descriptor,
)
from ccid.virtual.vpcd_listener import VpcdListener

LEVELS = {
    "character": ExchangeLevel.CHARACTER,
    "tpdu": ExchangeLevel.TPDU,
    "short": ExchangeLevel.SHORT_APDU,
    "extended": ExchangeLevel.EXTENDED_APDU,
}
PROTOCOLS = {"t0": 0x01, "t1": 0x02, "both": 0x03}
ICCD = {"a": InterfaceProtocol.ICCD_A, "b": InterfaceProtocol.ICCD_B}


# Arguments ------------------------------------------------------------------------------------


def _host_port(text: str) -> tuple[str, int]:
    try:
        return host_port(text, DEFAULT_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    """``t1`` for ``T=1``, ``T1`` or ``1``."""
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
        help="address to listen on, loopback (port 0: any free port)",
    )
    add("--level", choices=LEVELS, default="short", help="level of exchange (default: short)")
    add(
        "--manual",
        action="store_true",
        help="the host does PPS, parameters and IFSD, not the reader",
    )
    add(
        "--negotiating",
        action="store_true",
        help="the reader does PPS, parameters and IFSD at power-on",
    )
    add("--auto-activate", action="store_true", help="the reader powers a card at insertion")
    add(
        "--silent-removal",
        action="store_true",
        help="a command under way never gets an answer when its card is removed",
    )
    add(
        "--protocol",
        type=_protocol,
        choices=PROTOCOLS,
        default="both",
        help="protocols of the reader: T=0, T=1 or both (default: both)",
    )
    add("--clock", type=_clock, default=4000, metavar="KHZ", help="clock for cards (default: 4000)")
    add("--real-time", action="store_true", help="characters on the contacts take their real time")
    add("--iccd", choices=ICCD, help="a card that is a USB device itself, ICCD version A or B")
    add(
        "--card",
        type=card_argument,
        default="files",
        metavar="CARD",
        help=f"card in every slot: {', '.join(NAMES)} (default: files)",
    )
    add(
        "--slots",
        type=_count,
        default=1,
        metavar="N",
        help="number of slots of a reader (default: 1)",
    )
    add("--count", type=_count, default=1, metavar="N", help="number of readers (default: 1)")
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
        help="use the descriptors of this real reader, and ignore --level, --slots, --id, "
        "--no-interrupt and --high-speed",
    )
    add("--no-interrupt", action="store_true", help="without an interrupt endpoint")
    add("--high-speed", action="store_true", help="a high-speed device, with packets of 512 bytes")
    add("--log", action="store_true", help="log the readers' traffic to stderr")
    add("--log-secrets", action="store_true", help="as --log, with PINs and keys")
    add("--control", metavar="PATH", help="path of the control socket")
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
    """A new card for a slot."""
    kind: CardKind = options.card
    return None if kind.make is None else on_contacts(kind.make(), options)


def _readers(options: argparse.Namespace) -> list[VirtualReader]:
    if options.model is not None:
        from ccid.virtual.models import newest, virtual_reader

        device = newest(*options.model)
        return [
            virtual_reader(device, options.card.make, secrets=options.log_secrets)
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


# ----------------------------------------------------------------------------------------------


def _serve(
    options: argparse.Namespace, server: UsbIpServer, listeners: Sequence[VpcdListener]
) -> None:
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
        for listener in listeners:
            stack.enter_context(listener)
        if options.control is not None:
            commands = ControlCommands(server, lambda: _card(options) or FileSystemCard())
            stack.callback(ControlSocket(options.control, commands, selector).close)
        host, port = server.address
        for busid, reader in server.readers.items():
            device = reader.device.descriptor
            print(
                f"usbip: {busid} {device.idVendor:04x}:{device.idProduct:04x} "
                f"{reader.info.product} on {shown(host, port)}",
                flush=True,
            )
        for listener in listeners:
            busid = next(b for b, r in server.readers.items() if r is listener.reader)
            host, port = listener.address
            print(
                f"vpcd: {busid} slot {listener.slot} waits for a card at {shown(host, port)}",
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
        listeners = options.card.listeners(readers, lambda card: on_contacts(card, options))
    except ValueError as error:
        parser.error(f"--card: {error}")
    try:
        server = UsbIpServer(readers, *options.usbip)
    except (ValueError, OSError) as error:
        parser.error(f"--usbip: {error}")
    try:
        _serve(options, server, listeners)
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
