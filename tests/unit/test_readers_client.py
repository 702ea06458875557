"""The client that ``ccid-run`` has itself, with our service and with what is none."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ccid
from ccid.pcsc.manager import ScardError
from ccid.pcsc.service import readers_client
from ccid.pcsc.service.service_thread import ServiceThread


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceThread]:
    made = ServiceThread([ccid.VirtualReader(), ccid.VirtualReader(None)])
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(made.path))
    yield made
    made.end()


def test_it_shows_readers_and_cards(
    service: ServiceThread, capsys: pytest.CaptureFixture[str]
) -> None:
    assert readers_client.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Virtual Reader (")
    assert lines[1].startswith("  card: 3B 9B 96")
    assert lines[2:4] == ["  > 00 A4 00 0C 02 3F 00", "  < 90 00"]
    assert lines[5:] == ["  no card"]


def test_a_refusal_is_a_code(service: ServiceThread) -> None:
    client = readers_client.ReadersClient(str(service.path))
    with pytest.raises(ScardError, match="SCARD_E_UNKNOWN_READER"):
        client.transmit("none such", bytes(4))
    client.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "No such file"),
        (b"", "ended the connection"),
        (bytes(5), "ended the connection"),
        (struct.pack("=III", 4, 4, 0x8010001D), "SCARD_E_NO_SERVICE"),
        (struct.pack("=III", 4, 4, 7), "unknown code 0x00000007"),
    ],
)
def test_a_service_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    answer: bytes | None,
    said: str,
) -> None:
    path = tmp_path / "pcscd.comm"
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        if answer is not None:
            listener.bind(str(path))
            listener.listen()
            threading.Thread(target=_answers, args=(listener, answer), daemon=True).start()
        assert readers_client.main() == 1
    assert said in capsys.readouterr().err


def _answers(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(answer)


def test_own_client_needs_to_know_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PCSCLITE_CSOCK_NAME", raising=False)
    assert readers_client.main() == 1
    assert "PCSCLITE_CSOCK_NAME" in capsys.readouterr().err
