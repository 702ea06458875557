"""Programs of newer Debian releases on our service, as they are: libpcsclite 2.3 (protocol 4:5) and
2.5 (4:6), with pcsc-tools, OpenSC and pyscard of their release. ``tools/prepare-clients`` unpacks
them. There is no pcscd."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.newer_clients import RELEASES, Release
from tests.integration.scripted_service import CALLS, FUNCTIONS, SAID, SCRIPTS, TIMEOUT_S, Service
from tests.integration.tools import need

RUN = [sys.executable, "-m", "ccid.pcsc.service.run_program"]
ATR = "3B 9B 96 80 B1 FE 45 1F C7 80 31 F0 73 F6 21 E0 83 05 90 00 4C"
ENDING = (
    "transmit_while_removed",
    "removed_reader",
    "reader_comes",
    "reader_event_counted",
    "service_ends",
)
"""Scripts that leave no reader with a card."""
NOT_TOLD = {"trixie": {"monitor"}}
"""pyscard 2.2 tells its observers nothing of a card that is in already."""
VERSION, EVENTS, SIZE, ARRAY = 0x11, 0x15, 0x16, 0x17
IN_ALL, MORE = 16, 20


@pytest.fixture(params=RELEASES, ids=[one.name for one in RELEASES])
def release(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    found.need()
    return found


@contextlib.contextmanager
def served(folder: Path, release: Release, readers: int = 1) -> Iterator[Service]:
    folder.mkdir(exist_ok=True)
    service = Service(folder, release.python, readers)
    try:
        yield service
    finally:
        if service.path.exists():
            service.end()


class Tapped:
    """A socket before the service's that keeps what passes.

    Attributes:
        path: Of the socket.
        said: What each connection's client and the service said, in the order of connecting.
    """

    def __init__(self, path: Path) -> None:
        self._service = path
        self.path = path.with_name("tapped.comm")
        self.said: list[tuple[bytearray, bytearray]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                service = socket.socket(socket.AF_UNIX)
                service.connect(str(self._service))
                self._sockets += [client, service]
                pair = bytearray(), bytearray()
                self.said.append(pair)
                for source, sink, kept in ((client, service, pair[0]), (service, client, pair[1])):
                    thread = threading.Thread(target=self._pass, args=(source, sink, kept))
                    self._threads.append(thread)
                    thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                kept += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        for one in self._sockets:
            one.close()


def run(words: list[str], **settings: str) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        words,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def headers(said: bytes) -> list[int]:
    """The commands of a client that sends no variable data and no event."""
    found, at = [], 0
    while at < len(said):
        size, command = struct.unpack_from("=2I", said, at)
        found.append(command)
        at += 8 + size
    return found


def test_the_version_that_is_spoken(release: Release, tmp_path: Path) -> None:
    """The client's own is asked for and granted, and its messages are used."""
    with served(tmp_path, release) as service:
        tapped = Tapped(service.path)
        try:
            said = run(
                [*release.command("pcsc_scan"), "-c", "-n", "-t", "1"],
                PCSCLITE_CSOCK_NAME=str(tapped.path),
            )
        finally:
            tapped.close()
    assert f"ATR: {ATR}" in said
    asked, answered = tapped.said[0]
    assert struct.unpack_from("=4I", asked) == (12, VERSION, 4, release.minor)
    assert struct.unpack_from("=3I", answered) == (4, release.minor, 0)
    for client, _ in tapped.said:
        used = set(headers(bytes(client)))
        assert (SIZE in used, ARRAY in used) == (release.minor >= 6,) * 2
        assert EVENTS in used


def test_programs_under_ccid_run(release: Release) -> None:
    tool, scan = (shlex.join(release.command(one)) for one in ("opensc-tool", "pcsc_scan"))
    script = f"set -e; {tool} -l; {tool} -a; {tool} -s 00A4000C023F00; {scan} -r"
    said = run([*RUN, "--virtual", "08e6:3437", "--", "sh", "-c", script])
    assert ATR.replace(" ", ":").lower() in said
    assert "SW1=0x90, SW2=0x00" in said
    assert re.search(r"^0: +Gemalto PC Twin Reader \(\w+\) 00 00$", said, re.MULTILINE)


def test_pkcs11_tool_signs(release: Release, tmp_path: Path) -> None:
    """With our PIV card; the card's certificate says that the signature is right."""
    need("openssl")
    (tmp_path / "text").write_text("to be signed\n")
    tool = [*release.command("pkcs11-tool"), "--module", release.file("opensc-pkcs11.so")]
    script = f"""set -e
cd {tmp_path}
"$@" --login --pin 123456 --id 01 --sign -m SHA256-RSA-PKCS -i text -o signature
"$@" --id 01 --read-object --type cert -o cert
openssl x509 -inform der -in cert -pubkey -noout >key
openssl dgst -sha256 -verify key -signature signature text
"""
    shell = ["sh", "-c", script, "sh", *tool]
    assert "Verified OK" in run([*RUN, "--virtual", "--card", "piv", "--", *shell])


def test_each_function(release: Release, tmp_path: Path) -> None:
    """Buffers that libpcsclite makes, attributes, events, a wait that is cancelled, a reader that
    goes."""
    with served(tmp_path, release) as service:
        words = [str(CALLS), release.file("libpcsclite.so.1")]
        assert service.play_words(words) == FUNCTIONS + "\n"


def test_scripts_of_pyscard(release: Release, tmp_path: Path) -> None:
    """In some groups, each with a service of its own: they mostly wait."""
    left_out = NOT_TOLD.get(release.name, set())
    others = [one for one in SCRIPTS if one not in ENDING and one not in left_out]

    def play(number: int) -> None:
        with served(tmp_path / str(number), release) as service:
            names = *others[number :: len(ENDING)], ENDING[number]
            assert service.play(*names) == "".join(SAID.get(name, "") for name in names)

    with ThreadPoolExecutor(len(ENDING)) as pool:
        list(pool.map(play, range(len(ENDING))))


def test_more_than_sixteen_readers(release: Release, tmp_path: Path) -> None:
    """Clients of 4:6 see them all, others the first sixteen."""
    sees_all = release.minor >= 6
    with served(tmp_path, release, MORE) as service:
        words = [str(CALLS), release.file("libpcsclite.so.1"), "many"]
        told = service.play_words(words if sees_all else [*words, "few"])
    assert int(told) == (MORE if sees_all else IN_ALL)
