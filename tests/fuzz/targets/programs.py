"""What the commands read besides readers: files of APDUs, lists of cards, saved runs, lines of the
shell, what Linux's files say of this process, a control socket, answers of a PC/SC service; and
what they show of a device's strings."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from unittest import mock

from ccid.codes import ExchangeLevel
from ccid.device.watching import Event, EventKind
from ccid.errors import CcidError
from ccid.ground.hexadecimal import NotHexadecimal
from ccid.ground.safe_text import printable
from ccid.masking.secret_commands import carries_secret
from ccid.pcsc.manager.scard_codes import ScardError
from ccid.pcsc.plug import plist_options
from ccid.pcsc.scard.chosen_readers import choice_of_words
from ccid.pcsc.service.readers_client import ReadersClient
from ccid.pcsc.service.readers_client import show as show_readers
from ccid.probe import apdu_command, bench_command, card_names, text_file, timings
from ccid.probe import output as probe_output
from ccid.probe import shell_lines as shell_words
from ccid.probe.exchanges import Exchanges
from ccid.probe.watch_board import Board
from ccid.transport import ReaderInfo, access_cures, access_facts
from ccid.virtual import VirtualReader, make_descriptor
from ccid.virtual.control_socket import ControlCommands
from ccid.virtual.usbip import UsbIpServer
from tests.fuzz.taking import Taker

NOW = datetime(2026, 1, 1)


def _giving(value: object) -> Callable[..., object]:
    """A function that returns this: quicker than a Mock."""
    return lambda *_: value


def _lines(data: bytes) -> list[str]:
    """The lines of a file that holds ``data``."""
    with mock.patch.object(text_file, "taken", _giving(data)):
        return text_file.read_lines("a file")


def apdu_file(data: bytes) -> None:
    """A file with an APDU a line; no error quotes what is in it."""
    with mock.patch.object(apdu_command, "read_lines", _giving(_lines(data))):
        try:
            apdus = list(apdu_command.wanted(["@a file"], []))
        except NotHexadecimal as error:
            assert "a file: line " in str(error)
            assert str(error).isprintable()
            return
    exchanges = Exchanges(reveal=False)
    with redirect_stdout(io.StringIO()) as shown:
        for apdu in apdus:
            with suppress(CcidError):
                exchange = exchanges.send(_Answering(apdu[::-1]), apdu)
                exchange.show()
                json.dumps(exchange.as_json())
    assert shown.getvalue().replace("\n", "").isprintable()


class _Answering:
    """A card."""

    def __init__(self, response: bytes) -> None:
        self._response = response

    def transmit(self, apdu: bytes) -> bytes:
        return self._response + b"\x90\0"


def card_list(data: bytes) -> None:
    """An ATR, and a list that says which card has it."""
    taker = Taker(data)
    atr = taker.piece()
    for line in card_names.found(card_names.CardList(_lines(taker.rest())), atr):
        assert line.isprintable()


def bench_run(data: bytes) -> None:
    """A saved run of ``bench``, compared with itself, shown and written again."""
    document, measured = timings.read_run("\n".join(_lines(data)), "a file")
    told = {**document, "compared": timings.compared(measured, measured)}
    with redirect_stdout(io.StringIO()) as shown:
        bench_command.show(told, measured)
    assert shown.getvalue().replace("\n", "").isprintable()
    text = probe_output.json_text(told, indent=2)
    assert text.replace("\n", "").isprintable()
    assert timings.read_run(text, "a file")[1] == measured


def shell(data: bytes) -> None:
    """Lines of the shell: what they mean, what is shown while they are typed, how they are
    completed, and what is kept of them."""
    text = data.decode("utf-8", "surrogateescape")
    shown = shell_words.concealed(text)
    assert len(shown) == len(text)
    for completion in shell_words.completions(text, ["a reader"]):
        assert 0 <= completion.replaced <= len(text)
    is_kept = shell_words.is_kept(text)
    try:
        line = shell_words.parse(text)
        if line is None:
            return
        assert not (is_kept and line.apdu and carries_secret(line.apdu))
        match line.command:
            case "select":
                shell_words.select_apdu(line.arguments[0])
            case "verify":
                reference, *length = line.arguments
                apdu = shell_words.verify_apdu(reference, "".join(length), "1234")
                assert carries_secret(apdu)
            case "expect" | "sw":
                shell_words.fits(0x9000, line.arguments[0])
    except shell_words.WrongLine as error:
        assert printable(str(error))


@cache
def _commands() -> ControlCommands:
    readers = [VirtualReader(), VirtualReader(None, slots=2)]
    return ControlCommands(UsbIpServer(readers, port=0))


def control_socket(data: bytes) -> None:
    """Lines of a client of ``python -m ccid.virtual --control``."""
    for line in data.split(b"\n")[:20]:
        answer = _commands().obey(line.decode(errors="replace"))
        assert answer.startswith(("ok", "error "))
        assert answer.isprintable()


class _Service(socket.socket):
    """A socket whose other end says what is in the input."""

    said = b""

    def connect(self, address: object) -> None: ...

    def sendall(self, data: object, flags: int = 0) -> None: ...

    def recv(self, size: int, flags: int = 0) -> bytes:
        part, self.said = self.said[:size], self.said[size:]
        return part


def service_answers(data: bytes) -> None:
    """What a PC/SC service answers the client of ``ccid-run``."""
    service = _Service(socket.AF_UNIX)
    service.said = data + bytes(1 << 12)
    shown = io.StringIO()
    with service, redirect_stdout(shown):
        with (
            suppress(ScardError),
            mock.patch("ccid.pcsc.service.readers_client.socket.socket", _giving(service)),
        ):
            show_readers(ReadersClient("a socket"))
    assert shown.getvalue().replace("\n", "").isprintable()


FACTS = (
    "proc/self/cgroup", "proc/sys/kernel/osrelease", "proc/self/uid_map", "proc/self/mountinfo",
    "proc/1/cgroup", "proc/self/attr/apparmor/current", "proc/self/attr/current",
    "run/systemd/container", "run/host/container-manager", "run/.containerenv", ".dockerenv",
    ".flatpak-info", "run/systemd/users/", "run/systemd/sessions/", "run/udev/data/",
)  # fmt: skip
"""Files, or the beginnings of their names."""
IDS = (0x08E6, 0x3437)


def access(data: bytes) -> None:
    """What Linux's files say of this process and of a device's node, and the advice."""
    taker = Taker(data)
    there = taker.number(2)
    texts = {
        name: taker.long_piece().decode("utf-8", "replace")
        for bit, name in enumerate(FACTS)
        if there >> bit & 1
    }
    environ = {name: "1" for name in ("SSH_TTY", "KUBERNETES_SERVICE_HOST") if taker.number() & 1}
    environ["container"] = taker.piece().decode("utf-8", "surrogateescape")
    refusal = taker.one_of((None, *access_cures.Refusal))

    def text(root: Path, name: str) -> str:
        return next((said for begin, said in texts.items() if name.startswith(begin)), "")

    def is_there(root: Path, name: str) -> bool:
        return any(name.startswith(begin) for begin in texts)

    with (
        mock.patch.object(access_facts, "_text", text),
        mock.patch.object(access_facts, "_is_there", is_there),
        mock.patch.object(access_facts, "refused", _giving(refusal)),
    ):
        facts = access_facts.gather(Path("/nowhere"), environ)
        node = access_facts.gather_node(Path("/dev/null"), Path("/nowhere"))
    advice = access_cures.advice(facts, node, IDS)
    for said in (advice.cause, advice.cure, access_cures.without_usb(facts)):
        assert said.replace("\n", "").isprintable()
    assert access_cures.deaf(facts).replace("\n", "").isprintable()


@cache
def _info() -> ReaderInfo:
    return VirtualReader(descriptor=make_descriptor(ExchangeLevel.TPDU)).info


def device_strings(data: bytes) -> None:
    """Strings of devices, as ``watch`` shows them in its events and its live view."""
    taker = Taker(data)
    board = Board()
    infos: list[ReaderInfo] = []
    for _ in range(20):
        if taker.is_empty:
            break
        kind = taker.one_of(list(EventKind))
        if kind is EventKind.READER_ARRIVED or not infos:
            known = _info()
            string = taker.piece()
            name = string[: len(string) & ~1].decode("utf-16-le", "surrogatepass")
            path = f"usb:{taker.number()}"
            infos.append(
                ReaderInfo(
                    name, path, known.device, known.configuration, known.reader, known.connect,
                    product=name, serial=name,
                )
            )  # fmt: skip
        slot = None if kind in (EventKind.READER_ARRIVED, EventKind.READER_LEFT) else taker.number()
        event = Event(kind, taker.one_of(infos), slot)
        assert str(event.reader).isprintable()
        board.happened(event, NOW)
    for row in board.cells():
        assert all(map(str.isprintable, row))
    assert all(map(str.isprintable, board.latest))


def settings(data: bytes) -> None:
    """The driver's Info.plist, and the words of ``CCID_PCSC_READERS``."""
    taker = Taker(data)
    if taker.number() & 1:
        text = taker.rest().decode("utf-8", "replace")
        with mock.patch.object(Path, "read_text", _giving(text)):
            plist_options.read_options("/a/bundle/Linux")
        return
    with mock.patch("ccid.pcsc.service.virtual_options.make_readers", _giving([])):
        choice_of_words(taker.rest().decode("utf-8", "surrogateescape"))
