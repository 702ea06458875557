"""Cards from elsewhere: programs that connect to a virtual reader, well-behaved and others."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ccid
from ccid.codes import ExchangeLevel, IccStatus, Protocol
from ccid.errors import CardAbsent, CardMute, CardRemoved, CcidError, CommandCancelled
from ccid.probe.__main__ import main
from ccid.virtual import FileSystemCard, VirtualReader, vpcd_card, vpcd_listener
from ccid.virtual.card_kinds import card_kind
from ccid.virtual.vpcd_caller import CALL_LIMIT_S, VpcdCaller
from ccid.virtual.vpcd_listener import VpcdListener
from ccid.virtual.vpcd_messages import Control, MessageStream, control_in, frame
from tests.integration.tools import need

ATR = bytes.fromhex("3B 95 13 81 01 80 73 FF 01 00 0B")
CHALLENGE = bytes.fromhex("0084000008")
RANDOM = bytes.fromhex("0102030405060708 9000")
PIN = bytes.fromhex("00200001083733353139FFFFFF")
TIMEOUT_S = 20
VICC_MODULES = "/usr/lib/python3/site-packages/virtualsmartcard"
"""Where Debian's package has vicc's modules, outside its Python's path."""


class Peer:
    """A program with a card: answers as ``answer`` says, in a thread."""

    def __init__(
        self,
        address: tuple[str, int] | socket.socket,
        answer: Callable[[bytes], bytes | None] = lambda apdu: RANDOM,
        atr: bytes = ATR,
    ) -> None:
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.create_connection(address, TIMEOUT_S)
        self.controls: list[Control] = []
        self.apdus: list[bytes] = []
        self._answer = answer
        self._atr = atr
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stream = MessageStream()
        with contextlib.suppress(OSError):
            while data := self.sock.recv(1 << 16):
                for content in stream.feed(data):
                    self._take(content)

    def _take(self, content: bytes) -> None:
        code = control_in(content)
        if code is None:
            self.apdus.append(content)
            answer = self._answer(content)
        else:
            self.controls.append(code)
            answer = frame(self._atr) if code is Control.ATR else None
            if answer is None:
                return
            self.sock.sendall(answer)
            return
        if answer is not None:
            self.sock.sendall(frame(answer))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._thread.join(TIMEOUT_S)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def virtual(request: pytest.FixtureRequest) -> VirtualReader:
    level = getattr(request, "param", ExchangeLevel.EXTENDED_APDU)
    return VirtualReader(None, level=level)


@pytest.fixture
def listener(virtual: VirtualReader) -> Iterator[VpcdListener]:
    with VpcdListener(virtual, 0) as made:
        yield made


@pytest.fixture
def reader(virtual: VirtualReader) -> Iterator[ccid.Reader]:
    with ccid.open_reader(virtual) as opened:
        yield opened


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_empty(listener: VpcdListener) -> bool:
    return listener.reader.functions[0].slots[listener.slot].inserted is None


def still_works(listener: VpcdListener, reader: ccid.Reader) -> None:
    """The slot is empty, and takes the next card."""
    until(lambda: is_empty(listener))
    assert reader.slots[0].status() is IccStatus.ABSENT
    with Peer(listener.address):
        assert listener.wait_for_card(TIMEOUT_S)
        with reader.slots[0].connect() as card:
            assert card.transmit(CHALLENGE) == RANDOM


# Programs that behave ---------------------------------------------------------------------------

LEVELS = pytest.mark.parametrize("virtual", list(ExchangeLevel), indirect=True)


@LEVELS
def test_a_card_comes_works_and_goes(listener: VpcdListener, reader: ccid.Reader) -> None:
    assert not listener.wait_for_card(0)
    with pytest.raises(CardAbsent):
        reader.slots[0].connect()
    with Peer(listener.address) as peer:
        assert listener.wait_for_card(TIMEOUT_S)
        card = reader.slots[0].connect()
        assert card.atr.raw == ATR
        for _ in range(20):
            assert card.transmit(CHALLENGE) == RANDOM
        assert peer.apdus == [CHALLENGE] * 20
        card.reset()
        assert card.transmit(CHALLENGE) == RANDOM
    until(lambda: is_empty(listener))
    with pytest.raises(CardRemoved):
        card.transmit(CHALLENGE)
    still_works(listener, reader)


def test_power_reaches_the_card(listener: VpcdListener, reader: ccid.Reader) -> None:
    with Peer(listener.address) as peer:
        assert listener.wait_for_card(TIMEOUT_S)
        with reader.slots[0].connect() as card:
            card.transmit(CHALLENGE)
            card.reset()
            card.transmit(CHALLENGE)
        on, off, reset, atr = Control.POWER_ON, Control.POWER_OFF, Control.RESET, Control.ATR
        until(lambda: len(peer.controls) == 6)
        assert peer.controls == [on, atr, off, on, reset, off]


def test_the_whole_apdu_arrives(listener: VpcdListener, reader: ccid.Reader) -> None:
    apdu = bytes.fromhex("00 D6 00 00 00 FFF0") + bytes(0xFFF0)
    with Peer(listener.address, lambda apdu: bytes(0xFF00) + b"\x90\0") as peer:
        assert listener.wait_for_card(TIMEOUT_S)
        with reader.slots[0].connect() as card:
            assert len(card.transmit(apdu)) == 0xFF02
        assert peer.apdus == [apdu]


def test_a_slow_card_asks_for_time(listener: VpcdListener, reader: ccid.Reader) -> None:
    def slow(apdu: bytes) -> bytes:
        time.sleep(1.0)
        return RANDOM

    with Peer(listener.address, slow):
        assert listener.wait_for_card(TIMEOUT_S)
        with reader.slots[0].connect() as card:
            began = time.monotonic()
            assert card.transmit(CHALLENGE) == RANDOM
            assert 1.0 <= time.monotonic() - began < 2.0


def test_a_reader_is_free_while_its_card_computes(
    virtual: VirtualReader, reader: ccid.Reader
) -> None:
    go = threading.Event()

    def waits(apdu: bytes) -> bytes:
        go.wait(TIMEOUT_S)
        return RANDOM

    with VpcdListener(virtual, 0) as listener, Peer(listener.address, waits):
        assert listener.wait_for_card(TIMEOUT_S)
        with reader.slots[0].connect() as card:
            answers: list[bytes] = []
            thread = threading.Thread(target=lambda: answers.append(card.transmit(CHALLENGE)))
            thread.start()
            until(lambda: virtual.functions[0].slots[0].late_reply is not None)
            assert virtual.port.changed.acquire(timeout=TIMEOUT_S)
            virtual.port.changed.release()
            go.set()
            thread.join(TIMEOUT_S)
            assert answers == [RANDOM]


def test_cancelling(listener: VpcdListener, reader: ccid.Reader) -> None:
    go = threading.Event()

    def waits(apdu: bytes) -> bytes:
        go.wait(TIMEOUT_S)
        return b"\x6f\0" if apdu[-1] == 1 else RANDOM

    with Peer(listener.address, waits) as peer:
        assert listener.wait_for_card(TIMEOUT_S)
        slot = reader.slots[0]
        with slot.connect() as card:
            raised: list[CcidError] = []

            def transmit() -> None:
                try:
                    card.transmit(CHALLENGE[:-1] + b"\1")
                except CcidError as error:
                    raised.append(error)

            thread = threading.Thread(target=transmit)
            thread.start()
            until(lambda: bool(peer.apdus))
            assert slot.cancel()
            thread.join(TIMEOUT_S)
            assert isinstance(raised[0], CommandCancelled)
            go.set()
            assert card.transmit(CHALLENGE) == RANDOM


def test_several_slots_have_several_ports() -> None:
    virtual = VirtualReader([None, None], slots=2)
    listeners = card_kind("vpcd:0").listeners([virtual])
    with contextlib.ExitStack() as stack:
        for number, listener in enumerate(listeners):
            stack.enter_context(listener)
            answer = bytes((number,)) + b"\x90\0"
            stack.enter_context(Peer(listener.address, lambda apdu, answer=answer: answer))  # type: ignore[misc]
            assert listener.wait_for_card(TIMEOUT_S)
        reader = stack.enter_context(ccid.open_reader(virtual))
        for number, slot in enumerate(reader.slots):
            with slot.connect() as card:
                assert card.transmit(CHALLENGE)[0] == number


def test_a_second_card_finds_the_slot_full(listener: VpcdListener, reader: ccid.Reader) -> None:
    with Peer(listener.address):
        assert listener.wait_for_card(TIMEOUT_S)
        with socket.create_connection(listener.address, TIMEOUT_S) as second:
            assert second.recv(1) == b""
        with reader.slots[0].connect() as card:
            assert card.transmit(CHALLENGE) == RANDOM


def test_the_listener_closes(virtual: VirtualReader, reader: ccid.Reader) -> None:
    with VpcdListener(virtual, 0) as listener:
        peer = Peer(listener.address)
        assert listener.wait_for_card(TIMEOUT_S)
    assert reader.slots[0].status() is IccStatus.ABSENT
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.address, TIMEOUT_S)
    peer.close()


def test_a_port_in_use(virtual: VirtualReader, listener: VpcdListener) -> None:
    with pytest.raises(OSError, match="in use"):
        VpcdListener(virtual, listener.address[1]).start()


def test_only_this_machine_can_connect(listener: VpcdListener) -> None:
    assert listener.address[0] == "127.0.0.1"


# Programs that listen ---------------------------------------------------------------------------


@pytest.fixture
def program() -> Iterator[socket.socket]:
    """The socket of a program that listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(TIMEOUT_S)
        yield made


def called(program: socket.socket) -> socket.socket:
    return program.accept()[0]


def test_a_card_that_listens(
    virtual: VirtualReader, reader: ccid.Reader, program: socket.socket
) -> None:
    """It is called, and called again after its end."""
    (caller,) = card_kind(f"vpcd:127.0.0.1:{program.getsockname()[1]}").listeners([virtual])
    with caller:
        for _ in range(2):
            with Peer(called(program)) as peer:
                assert caller.wait_for_card(TIMEOUT_S)
                card = reader.slots[0].connect()
                assert card.transmit(CHALLENGE) == RANDOM
                assert peer.apdus == [CHALLENGE]
            until(lambda: is_empty(caller))
            with pytest.raises(CardRemoved):
                card.transmit(CHALLENGE)


def test_a_program_that_listens_later(virtual: VirtualReader, reader: ccid.Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with VpcdCaller(virtual, address) as caller:
        assert not caller.wait_for_card(0.1)
        with socket.create_server(address) as program:
            program.settimeout(TIMEOUT_S)
            with Peer(called(program)):
                assert caller.wait_for_card(TIMEOUT_S)
                with reader.slots[0].connect() as card:
                    assert card.transmit(CHALLENGE) == RANDOM


def test_a_slot_with_a_card_calls_nobody(virtual: VirtualReader, program: socket.socket) -> None:
    virtual.insert(FileSystemCard())
    with VpcdCaller(virtual, program.getsockname()) as caller:
        program.settimeout(0.2)
        with pytest.raises(TimeoutError):
            program.accept()
        virtual.remove()
        program.settimeout(TIMEOUT_S)
        with Peer(called(program)):
            until(lambda: not is_empty(caller))


def test_a_program_that_does_not_answer_keeps_nobody(virtual: VirtualReader) -> None:
    """A call is under way while the caller closes."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # the queue of the kernel is full then
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        began = time.monotonic()
        with VpcdCaller(virtual, full.getsockname()) as caller:
            until(lambda: caller._call is not None)
        assert time.monotonic() - began < CALL_LIMIT_S / 2


def test_a_host_that_there_is_not(virtual: VirtualReader) -> None:
    with pytest.raises(socket.gaierror):
        VpcdCaller(virtual, ("300.1.1.1", 1)).start()


# Programs that do not behave --------------------------------------------------------------------


@pytest.mark.parametrize(
    "atr", [b"\x3b", bytes(34), bytes(0xFFFF)], ids=["short", "long", "very long"]
)
def test_an_atr_that_is_none(listener: VpcdListener, reader: ccid.Reader, atr: bytes) -> None:
    with Peer(listener.address, atr=atr):
        assert not listener.wait_for_card(0.2)
        still_works(listener, reader)


@pytest.mark.parametrize("atr", [b"\0\0", b"\x3b\xff" + bytes(3), b"\xff" * 33])
def test_an_atr_of_nonsense(listener: VpcdListener, reader: ccid.Reader, atr: bytes) -> None:
    with Peer(listener.address, atr=atr):
        assert listener.wait_for_card(TIMEOUT_S)
        with pytest.raises(CcidError):
            reader.slots[0].connect()
    still_works(listener, reader)


@pytest.mark.parametrize(
    "said",
    [b"", b"\0", b"\0\0", b"\0\5\0", frame(ATR) + frame(RANDOM), frame(ATR) + b"\0\0"],
    ids=["nothing", "half a length", "empty", "half", "an answer unasked", "empty after the ATR"],
)
def test_a_peer_that_says_something_else_and_goes(
    listener: VpcdListener, reader: ccid.Reader, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        with socket.create_connection(listener.address, TIMEOUT_S) as sock:
            sock.sendall(said)
        until(lambda: "the connection of a card is closed" in caplog.text)
    still_works(listener, reader)


@LEVELS
@pytest.mark.parametrize("answer", [b"\x90", None], ids=["one byte", "dies"])
def test_a_peer_that_answers_wrongly_or_dies(
    listener: VpcdListener, reader: ccid.Reader, answer: bytes | None
) -> None:
    peers: list[Peer] = []

    def answers(apdu: bytes) -> bytes | None:
        if answer is None:
            peers[0].sock.shutdown(socket.SHUT_RDWR)
        return answer

    with Peer(listener.address, answers) as peer:
        peers.append(peer)
        assert listener.wait_for_card(TIMEOUT_S)
        card = reader.slots[0].connect(Protocol.T1)
        with pytest.raises((CardRemoved, CardMute)):
            card.transmit(CHALLENGE)
        until(lambda: is_empty(listener))
        with pytest.raises(CardRemoved):
            card.transmit(CHALLENGE)
    still_works(listener, reader)


@LEVELS
def test_a_peer_that_never_answers(
    listener: VpcdListener, reader: ccid.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd_card, "RESPONSE_LIMIT_S", 0.5)
    monkeypatch.setattr(vpcd_card, "WAIT_LIMIT_S", 0.5)
    with Peer(listener.address, lambda apdu: None):
        assert listener.wait_for_card(TIMEOUT_S)
        with pytest.raises((CardRemoved, CardMute)), reader.slots[0].connect(Protocol.T1) as card:
            card.transmit(CHALLENGE)
        still_works(listener, reader)


def test_a_peer_that_sends_no_atr(
    listener: VpcdListener, reader: ccid.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd_listener, "ATR_LIMIT_S", 0.2)
    with socket.create_connection(listener.address, TIMEOUT_S) as sock:
        sock.settimeout(TIMEOUT_S)
        while sock.recv(100):
            pass
    still_works(listener, reader)


def test_a_message_that_drips(
    listener: VpcdListener, reader: ccid.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd_listener, "PARTIAL_LIMIT_S", 0.2)
    with socket.create_connection(listener.address, TIMEOUT_S) as sock:
        sock.sendall(frame(ATR) + b"\0")
        sock.settimeout(TIMEOUT_S)
        while sock.recv(100):
            pass
    still_works(listener, reader)


@LEVELS
def test_a_flood_of_answers(listener: VpcdListener, reader: ccid.Reader) -> None:
    def floods(apdu: bytes) -> bytes:
        with contextlib.suppress(OSError):
            for _ in range(200):
                peer.sock.sendall(frame(RANDOM) * 100)
        return RANDOM

    with Peer(listener.address, floods) as peer:
        assert listener.wait_for_card(TIMEOUT_S)
        with contextlib.suppress(CardRemoved, CardMute):
            reader.slots[0].connect(Protocol.T1).transmit(CHALLENGE)
        still_works(listener, reader)


def test_a_peer_that_takes_nothing(
    listener: VpcdListener, reader: ccid.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd_listener, "MAX_UNSENT", 1 << 12)
    with socket.create_connection(listener.address, TIMEOUT_S) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        sock.sendall(frame(ATR))
        assert listener.wait_for_card(TIMEOUT_S)
        virtual = listener.reader
        apdu = bytes.fromhex("00 D6 00 00 00 FFF0") + bytes(0xFFF0)
        for _ in range(200):
            with virtual.port.changed:
                card = virtual.functions[0].slots[0].card
                if card is None:
                    break
                assert isinstance(card, vpcd_card.VpcdCard)
                card._link.send(frame(apdu))
            time.sleep(0.01)
        until(lambda: is_empty(listener))
    still_works(listener, reader)


def test_nothing_of_an_apdu_is_logged(
    listener: VpcdListener, reader: ccid.Reader, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(1):
        with Peer(listener.address):
            assert listener.wait_for_card(TIMEOUT_S)
            with reader.slots[0].connect() as card:
                card.transmit(PIN)
        until(lambda: is_empty(listener))
    logged = [record for record in caplog.records if record.name == "ccid.virtual.vpcd"]
    assert [record.levelno for record in logged] == [logging.INFO] * 2
    assert "37333531" not in caplog.text.replace(" ", "")


# Command lines, and Debian's vicc ---------------------------------------------------------------


@contextlib.contextmanager
def vicc(port: int) -> Iterator[subprocess.Popen[str]]:
    """The virtual card of the vsmartcard project, connected to ``port``."""
    program = need("vicc")
    assert importlib.util.find_spec("Crypto"), "vicc needs pycryptodome: pip install -e '.[test]'"
    command = [sys.executable, program, "-t", "iso7816", "-H", "127.0.0.1", "-P", str(port)]
    environment = os.environ | {"PYTHONPATH": VICC_MODULES, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        process.kill()


REVERSED = """
import runpy, socket, sys

class Inside(socket.socket):
    \"\"\"It binds to all addresses, and asks for its own by one of the Internet.\"\"\"

    def bind(self, address):
        super().bind(("127.0.0.1", address[1]))

    def connect(self, address):
        super().connect(("127.0.0.1", 9))

socket.socket = Inside
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_vicc_that_listens(virtual: VirtualReader, reader: ccid.Reader) -> None:
    """Debian's, as it is, on this machine's loopback alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    command = [sys.executable, "-c", REVERSED, need("vicc"), "-t", "iso7816", "--reversed"]
    environment = os.environ | {"PYTHONPATH": VICC_MODULES, "PYTHONWARNINGS": "ignore"}
    with (
        VpcdCaller(virtual, address) as caller,
        subprocess.Popen(
            [*command, "-P", str(address[1])],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            assert caller.wait_for_card(TIMEOUT_S)
            with reader.slots[0].connect() as card:
                assert card.transmit(bytes.fromhex("00A4000C023F00")) == b"\x90\0"
                assert len(card.transmit(CHALLENGE)) == 10
        finally:
            process.kill()
        until(lambda: is_empty(caller))


@LEVELS
def test_vicc(listener: VpcdListener, reader: ccid.Reader) -> None:
    with vicc(listener.address[1]) as process:
        assert listener.wait_for_card(TIMEOUT_S)
        card = reader.slots[0].connect()
        assert card.transmit(bytes.fromhex("00A4000C023F00")) == b"\x90\0"
        one, two = card.transmit(CHALLENGE), card.transmit(CHALLENGE)
        assert one != two
        assert len(one) == 10
        card.reset()
        assert card.transmit(CHALLENGE)[-2:] == b"\x90\0"
        process.kill()
        until(lambda: is_empty(listener))
        with pytest.raises(CardRemoved):
            card.transmit(CHALLENGE)
    still_works(listener, reader)


def test_the_command_line_of_ccid_probe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status: list[int] = []
    words = ["card", "--virtual", "--card", f"vpcd:{port}"]
    thread = threading.Thread(target=lambda: status.append(main(words)))
    thread.start()
    peer = None
    deadline = time.monotonic() + TIMEOUT_S
    while peer is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            peer = Peer(("127.0.0.1", port))
        time.sleep(0.01)
    assert peer is not None
    thread.join(TIMEOUT_S)
    peer.close()
    assert status == [0]
    told = capsys.readouterr()
    assert f"slot 0 waits for a card at 127.0.0.1:{port}" in told.err
    assert "3B 95 13 81" in told.out


def test_the_command_line_of_ccid_virtual() -> None:
    command = [sys.executable, "-m", "ccid.virtual", "--usbip", "127.0.0.1:0", "--slots", "2"]
    with subprocess.Popen(
        [*command, "--card", "vpcd:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("usbip: 1-1 ")
        for number, line in enumerate(lines[1:]):
            assert line.startswith(f"vpcd: 1-1 slot {number} waits for a card at 127.0.0.1:")
            peer = Peer(("127.0.0.1", int(line.rpartition(":")[2])))
            until(lambda peer=peer: len(peer.controls) >= 3)  # type: ignore[misc]
            peer.close()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_lend_and_card_meet(
    virtual: VirtualReader, listener: VpcdListener, reader: ccid.Reader
) -> None:
    """A card that one virtual reader lends is the card in another."""
    status: list[int] = []
    words = ["lend", "--virtual", f"127.0.0.1:{listener.address[1]}"]
    thread = threading.Thread(target=lambda: status.append(main(words)))
    thread.start()
    assert listener.wait_for_card(TIMEOUT_S)
    with reader.slots[0].connect() as card:
        assert card.atr.raw == ccid.virtual.FileSystemCard.atr
        assert card.transmit(CHALLENGE)[-2:] == b"\x90\0"
    listener.close()
    thread.join(TIMEOUT_S)
    assert status == [0]
