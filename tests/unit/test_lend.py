"""``ccid-probe lend``: the card side of the vpcd protocol, with a card in a virtual reader."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.errors import CardRemoved, CcidError, MalformedMessage
from ccid.ground.host_port import host_port, shown
from ccid.probe import lend_command
from ccid.probe.__main__ import main
from ccid.probe.lend_command import CardSide, SlotCard, lend
from ccid.virtual import EchoCard, VirtualReader
from ccid.virtual.vpcd_messages import Control, MessageStream, control, frame

ECHO = bytes.fromhex("00 30 00 00 03 010203 00")
ATR = EchoCard.atr


@pytest.fixture
def virtual() -> VirtualReader:
    return VirtualReader(EchoCard(), level=ExchangeLevel.EXTENDED_APDU)


@pytest.fixture
def side(virtual: VirtualReader) -> Iterator[CardSide]:
    with ccid.open_reader(virtual) as reader:
        yield CardSide(SlotCard(reader.slots[0]))


def code(control_code: Control) -> bytes:
    return bytes((control_code,))


def echo_card(virtual: VirtualReader) -> EchoCard:
    card = virtual.functions[0].slots[0].card
    assert isinstance(card, EchoCard)
    return card


def test_a_card_is_lent(side: CardSide, virtual: VirtualReader) -> None:
    assert side.answer(code(Control.ATR)) == frame(ATR)
    assert side.answer(code(Control.POWER_ON)) == b""
    assert side.answer(ECHO) == frame(b"\1\2\3\x90\0")
    assert side.answer(code(Control.POWER_OFF)) == b""
    assert virtual.functions[0].slots[0].icc_status == ccid.IccStatus.INACTIVE
    assert side.answer(code(Control.ATR)) == frame(ATR)
    assert side.apdus == 1


def test_power_on_gives_a_fresh_card(side: CardSide, virtual: VirtualReader) -> None:
    card = echo_card(virtual)
    side.answer(code(Control.POWER_ON))
    assert card.resets == 1
    side.answer(ECHO)
    side.answer(code(Control.POWER_ON))
    assert card.resets == 2
    side.answer(code(Control.RESET))
    assert card.resets == 3


def test_an_apdu_to_a_card_without_power_powers_it(side: CardSide) -> None:
    side.answer(code(Control.POWER_OFF))
    assert side.answer(ECHO) == frame(b"\1\2\3\x90\0")


def test_a_malformed_apdu(side: CardSide) -> None:
    assert side.answer(b"\0\xb0") == frame(b"\x67\0")
    assert side.answer(ECHO)


def test_an_apdu_that_the_reader_cannot_send() -> None:
    with ccid.open_reader(VirtualReader(EchoCard(), level=ExchangeLevel.SHORT_APDU)) as reader:
        side = CardSide(SlotCard(reader.slots[0]))
        extended = bytes.fromhex("00 30 00 00 00 012C") + bytes(300)
        assert side.answer(extended) == frame(b"\x67\0")


def test_a_response_that_no_message_holds(side: CardSide) -> None:
    assert side.answer(bytes.fromhex("00 10 00 00 00 0000")) == frame(b"\x6f\0")
    assert len(side.answer(bytes.fromhex("00 10 00 00 00 FFF0"))) == 2 + 0xFFF0 + 2


def test_a_card_that_is_gone(side: CardSide, virtual: VirtualReader) -> None:
    side.answer(code(Control.POWER_ON))
    virtual.remove()
    with pytest.raises(CardRemoved):
        side.answer(ECHO)
    with pytest.raises(CardRemoved):
        side.answer(code(Control.ATR))


def test_an_unknown_control_code(side: CardSide) -> None:
    with pytest.raises(MalformedMessage):
        side.answer(b"\x09")


# The loop ---------------------------------------------------------------------------------------


class Loan:
    """:func:`lend` in a thread; ``there`` is the other side's end of the connection."""

    def __init__(self, side: CardSide) -> None:
        here, self.there = socket.socketpair()
        self.there.settimeout(10)
        changed, self.alarm = socket.socketpair()
        self.error: Exception | None = None
        self._sockets = (here, self.there, changed, self.alarm)

        def run() -> None:
            try:
                lend(here, side, changed, side._card.atr)
            except (CcidError, OSError) as error:
                self.error = error
            here.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def ask(self, raw: bytes) -> bytes:
        self.there.sendall(raw)
        stream = MessageStream()
        while True:
            for content in stream.feed(self.there.recv(1 << 16)):
                return content

    def end(self) -> Exception | None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.error

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self.thread.join(10)


@pytest.fixture
def loan(side: CardSide) -> Iterator[Loan]:
    with contextlib.closing(Loan(side)) as made:
        yield made


def test_messages_over_a_connection(loan: Loan) -> None:
    assert loan.ask(control(Control.POWER_ON) + control(Control.ATR)) == ATR
    assert loan.ask(frame(ECHO)) == b"\1\2\3\x90\0"
    loan.there.close()
    assert loan.end() is None


def test_the_card_is_removed(loan: Loan, virtual: VirtualReader) -> None:
    virtual.remove()
    loan.alarm.send(b"\0")
    assert isinstance(loan.end(), CardRemoved)
    assert loan.there.recv(1) == b""


def test_an_empty_message_ends_the_loan(loan: Loan) -> None:
    loan.there.sendall(b"\0\0")
    assert isinstance(loan.end(), MalformedMessage)


def test_a_message_that_breaks_off(monkeypatch: pytest.MonkeyPatch, side: CardSide) -> None:
    monkeypatch.setattr(lend_command, "PARTIAL_LIMIT_S", 0.1)
    with contextlib.closing(Loan(side)) as loan:
        loan.there.sendall(b"\0\5\0")
        assert "breaks off" in str(loan.end())


def test_answers_that_are_not_taken(monkeypatch: pytest.MonkeyPatch, side: CardSide) -> None:
    monkeypatch.setattr(lend_command, "PARTIAL_LIMIT_S", 0.1)
    with contextlib.closing(Loan(side)) as loan:
        question = frame(bytes.fromhex("00 10 00 00 00 FFF0"))
        with contextlib.suppress(OSError):
            loan.there.sendall(question * 100)
        assert isinstance(loan.end(), OSError)


# The command line -------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        status: list[int] = []
        words = ["lend", "--virtual", f"127.0.0.1:{server.getsockname()[1]}"]
        thread = threading.Thread(target=lambda: status.append(main(words)))
        thread.start()
        there, _ = server.accept()
        with there:
            there.settimeout(20)
            there.sendall(control(Control.POWER_ON) + control(Control.ATR))
            assert there.recv(2) == b"\0\x15"
            there.recv(100)
            there.sendall(frame(bytes.fromhex("0020000104 39393939")))
            assert there.recv(100)[2:]
        thread.join(20)
    assert status == [0]
    told = capsys.readouterr()
    assert "closed the connection after 1 APDUs" in told.err
    assert "3939" not in told.err + told.out


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["lend", "--virtual", f"127.0.0.1:{port}"]) == 1
    assert f"no connection to 127.0.0.1:{port}" in capsys.readouterr().err


def test_no_card_to_lend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lend", "--virtual", "--card", "none", "127.0.0.1:1"]) == 1
    assert "there is no card" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", ":", "a:b", "a:999999", "a:70000", "[::1", "a:1:2"])
def test_what_is_no_host_and_port(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lend", "--virtual", text]) == 2
    assert "HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("h", "h", 7), ("h:1", "h", 1), ("[::1]:2", "::1", 2), ("[::1]", "::1", 7)],
)
def test_hosts_and_ports(text: str, host: str, port: int) -> None:
    assert host_port(text, 7) == (host, port)
    assert host_port(shown(host, port), 9) == (host, port)
