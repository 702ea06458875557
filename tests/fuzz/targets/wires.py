"""Protocols of other programs: pcscd by the plug, libpcsclite, USB/IP, vpcd."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from unittest import mock

import ccid
from ccid.errors import CcidError, MalformedMessage
from ccid.pcsc.ifd.device_strings import DeviceName
from ccid.pcsc.ifd.handler import IFDHandler
from ccid.pcsc.numbers.ifd_numbers import Action, Code, Tag
from ccid.pcsc.plug import helper as helper_module
from ccid.pcsc.plug.frames import REPLY, REQUEST
from ccid.pcsc.service.client_messages import BODIES, Command
from ccid.probe.lend_command import CardSide
from ccid.virtual import VirtualReader
from ccid.virtual.cards.application import Mute
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.usbip_cable import Cable
from ccid.virtual.vpcd_card import VpcdCard
from ccid.virtual.vpcd_messages import MessageStream, checked_atr
from tests.fuzz.taking import Taker
from tests.fuzz.virtual_readers import PromptCard, as_new
from tests.unit.fake_pcsc import FakeSlot
from tests.unit.pcsc_clients import Server, request

TAGS, ACTIONS = list(Tag), list(Action)
LUNS = (0, 1, 0x10000, 0xFFFF_FFFF)
MOST_CALLS = 40


@cache
def _reader(is_empty: bool) -> VirtualReader:
    """A reader with a card, which tells nothing by itself: so no thread listens to it. Or one
    without a card, which does."""
    return VirtualReader(None) if is_empty else VirtualReader(PromptCard(), interrupt=False)


def _handler() -> IFDHandler:
    asked = set[bool]()

    def find(name: DeviceName, taken: object = ()) -> ccid.ReaderInfo:
        is_empty = name.vendor_id == 1
        reader = _reader(is_empty)
        if is_empty not in asked:
            asked.add(is_empty)
            as_new(reader)
        return reader.info

    return IFDHandler(find=find, escape=True)


def ifd(data: bytes) -> None:
    """Calls of pcscd with any arguments."""
    taker = Taker(data)
    handler = _handler()
    try:
        for _ in range(MOST_CALLS):
            if taker.is_empty:
                break
            _call(handler, taker)
    finally:
        handler.close()


def _call(handler: IFDHandler, taker: Taker) -> None:
    lun = taker.one_of(LUNS)
    capacity = taker.one_of((0, 1, 33, 261, 65538))
    code: int = 0
    answer = b""
    match taker.number() % 10:
        case 0:
            name = taker.piece().decode("utf-8", "replace")
            code = handler.create_channel_by_name(lun, f"usb:{name}" if taker.number() else name)
        case 1:
            code = handler.close_channel(lun)
        case 2:
            tag = taker.number(4) if taker.number() == 0xFF else taker.one_of(TAGS)
            code, answer = handler.get_capabilities(lun, tag, capacity)
        case 3:
            code = handler.set_capabilities(lun, taker.number(4), taker.piece())
        case 4:
            code = handler.set_protocol_parameters(lun, *taker.take(5).ljust(5, b"\0"))
        case 5:
            action = taker.number(4) if taker.number() == 0xFF else taker.one_of(ACTIONS)
            code, answer = handler.power_icc(lun, action, capacity)
        case 6 | 7:
            code, answer = handler.transmit_to_icc(lun, taker.number(), taker.piece(), capacity)
        case 8:
            number = 0x42000000 + taker.number(2)
            code, answer = handler.control(lun, number, taker.piece(), capacity)
        case _:
            code = handler.icc_presence(lun, taker.number())
    assert code in tuple(Code)
    assert len(answer) <= capacity


class _Helper:
    """What a channel needs of its helper, without threads."""

    is_ending = has_reader = False

    def __init__(self) -> None:
        self.handler = _handler()
        self.faults: list[Exception] = []
        self.heart = self
        self.is_asleep = False

    def forget(self, channel: helper_module.Channel) -> None:
        self.handler.close()
        channel.requests.close()
        channel.events.close()

    def tell_fault(self, error: Exception) -> None:
        self.faults.append(error)


NO_COLLECTOR = SimpleNamespace(collect=lambda: 0)
"""Python's own collects often enough here."""


def _unsaid(text: str) -> None:
    """Instead of a line in the log of pcscd."""
    assert isinstance(text, str)


def plug(data: bytes) -> None:
    """What a plug writes to its helper: whole requests, then anything, then the end."""
    taker = Taker(data)
    frames = b""
    while not taker.is_empty and len(frames) < 1 << 15:
        if taker.number() == 0xFF:
            frames += taker.piece()
            continue
        operation, argument, body = taker.number(), taker.number(2), taker.piece()
        argument = 0x42000000 + argument if operation == 8 else argument
        frames += REQUEST.pack(operation, argument, taker.one_of((0, 33, 65538)), len(body)) + body
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    events = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    helper = _Helper()
    with here, events[0], mock.patch.multiple(helper_module, say=_unsaid, gc=NO_COLLECTOR):
        here.sendall(frames)
        here.shutdown(socket.SHUT_WR)
        channel = helper_module.Channel(helper, 0, there, events[1])  # type: ignore[arg-type]
        channel.run()
        _whole_replies(here)
    for fault in helper.faults:
        if not isinstance(fault, (ValueError, TypeError)):
            raise fault


def _whole_replies(here: socket.socket) -> None:
    answers = b""
    while more := here.recv(1 << 16):
        answers += more
    while answers:
        kind, _, size = REPLY.unpack_from(answers)
        assert kind in (0, 1)
        assert len(answers) >= REPLY.size + size
        answers = answers[REPLY.size + size :]


@cache
def _imported() -> VirtualReader:
    return VirtualReader(PromptCard())


def usbip(data: bytes) -> None:
    """What a host writes on the connection of an imported reader."""
    reader = _imported()  # Cable resets it
    here, there = socket.socketpair()
    with here:
        here.sendall(data[: 1 << 15])
        here.shutdown(socket.SHUT_WR)
        cable = Cable(there, reader.port)
        try:
            cable.serve()
        finally:
            cable.close()
            there.close()


@cache
def _server() -> UsbIpServer:
    return UsbIpServer([], port=0)


def usbip_questions(data: bytes) -> None:
    """The one request of a connection to a USB/IP server, of a client that then leaves."""
    server = _server()
    here, there = socket.socketpair()
    with here, there:
        here.sendall(data[: 1 << 15])
        here.shutdown(socket.SHUT_WR)
        server._question(there)


def pcsc(data: bytes) -> None:
    """What two clients of the PC/SC service say, message by message."""
    taker = Taker(data)
    server = Server(FakeSlot(), FakeSlot(None), lends=bool(taker.number() & 1))
    clients = [server.client(), server.client()]
    commands = list(Command)
    for _ in range(MOST_CALLS):
        if taker.is_empty:
            break
        client = taker.one_of(clients)
        if client not in server.clients:
            continue
        match taker.number() % 8:
            case 0:
                client.say(taker.piece())
            case 1:
                server.sleep(taker.number() / 10)
            case 2:
                client.hang_up()
            case _:
                client.say(_request(taker, server, taker.one_of(commands)))
        if client in server.clients:
            client.take()
    for client in list(server.clients):
        client.hang_up()
    resources = server.core.resources
    assert not resources.contexts
    assert not resources.handles


def _request(taker: Taker, server: Server, command: Command) -> bytes:
    """A request whose numbers may be those of contexts and cards that there are."""
    known = [*server.core.resources.contexts, *server.core.resources.handles] or [0]
    size = taker.one_of(BODIES[command])
    body = bytearray(taker.take(size).ljust(size, b"\0"))
    if taker.number() & 1 and size >= 4:
        struct.pack_into("=I", body, 0, taker.one_of(known))
    extra = taker.piece()
    if command in (Command.TRANSMIT, Command.CONTROL) and taker.number() & 1:
        at = 12 if command is Command.TRANSMIT else 8
        if len(body) >= at + 4:
            struct.pack_into("=I", body, at, len(extra))
        return request(command, bytes(body), extra)
    return request(command, bytes(body))


class _Link:
    """The connection of a card, whose other end says what is in the input."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker

    def send(self, data: bytes) -> None:
        assert len(data) <= 0xFFFF + 2

    def wait(self, timeout_s: float) -> bytes | None:
        return None if self.taker.is_empty else self.taker.piece()

    def close(self) -> None:
        self.taker.rest()


class _Lent:
    """A card that is lent."""

    def power_off(self) -> None: ...

    def power_on(self) -> None: ...

    def reset(self) -> None: ...

    def atr(self) -> bytes:
        return b"\x3b\x00"

    def transmit(self, apdu: bytes) -> bytes:
        return bytes(PromptCard().transmit(apdu).data[:65533]) + b"\x90\0"


def vpcd(data: bytes) -> None:
    """Both sides of vpcd: a card that somebody else is, and a card that is lent."""
    taker = Taker(data)
    atr = checked_atr(taker.piece())
    side, stream = CardSide(_Lent()), MessageStream()
    card = VpcdCard(atr, _Link(taker))
    card.reset()
    with suppress(Mute):
        assert card.transmit(b"\0\xa4\0\0").sw >= 0
    try:
        for message in stream.feed(taker.rest()):
            answer = side.answer(message)
            assert len(answer) <= 0xFFFF + 2
    except MalformedMessage:
        assert len(bytes(stream._buffer)) <= 0xFFFF + 2 + len(data)
    except CcidError:
        pass
