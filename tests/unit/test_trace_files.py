"""The files of traces: owner, mode, and errors of the file."""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ccid
from ccid import errors
from ccid.masking.censor import Censor
from ccid.masking.exchange_watch import Framing
from ccid.probe.__main__ import main
from ccid.trace import PcapngSink
from ccid.trace import private_files as files
from ccid.trace.private_files import open_private, write_private
from ccid.trace.tap import Sink, Transfer
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard
from tests.pcapng import packets
from tests.unit.open_descriptors import descriptors
from tests.unit.test_trace import PIN, VERIFY, Recorder

pytestmark = pytest.mark.usefixtures("collected")

SELECT = bytes.fromhex("00A40400")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def card() -> Iterator[ccid.Card]:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        with reader.slots[0].connect() as connected:
            yield connected


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Owner and mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("secrets", [True, False])
def test_a_trace_is_its_users_alone(card: ccid.Card, tmp_path: Path, secrets: bool) -> None:
    path = tmp_path / "trace.pcapng"
    with card.slot.reader.trace(path, secrets=secrets):
        card.transmit(VERIFY)
    assert mode(path) == 0o600
    assert (PIN in path.read_bytes()) is secrets


@pytest.mark.parametrize(
    "words", [["--trace", "FILE", "card"], ["--trace-secrets", "--trace", "FILE", "card"],
              ["report", "--output", "FILE"]],
)  # fmt: skip
def test_what_the_command_writes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    command = [str(path) if word == "FILE" else word for word in words]
    assert main(["--virtual", *command]) == 0
    assert mode(path) == 0o600
    assert path.stat().st_size > 100
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    command = [str(link) if word == "FILE" else word for word in words]
    assert main(["--virtual", *command]) == 1
    assert victim.read_text() == "precious"
    assert "symbolic link" in capsys.readouterr().err


def test_what_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.pcapng"
    monkeypatch.setenv("CCID_TRACE", str(path))
    ccid.open_reader(ccid.VirtualReader(EchoCard())).close()
    assert mode(path) == 0o600
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    monkeypatch.setenv("CCID_TRACE", str(link))
    virtual = ccid.VirtualReader(EchoCard())
    with pytest.raises(errors.TraceFailed, match="symbolic link"):
        ccid.open_reader(virtual)
    assert victim.read_text() == "precious"
    monkeypatch.delenv("CCID_TRACE")
    ccid.open_reader(virtual).close()


def test_a_file_that_others_may_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as others:
        with open_private(path) as file:
            file.write(PIN)
        assert others.read() == "old", "it is not theirs to read what comes"
    assert path.read_bytes() == PIN
    assert mode(path) == 0o600


def test_a_private_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    path.write_text("old, and longer")
    path.chmod(0o600)
    inode = path.stat().st_ino
    write_private(path, "new")
    assert path.read_text() == "new"
    assert (path.stat().st_ino, mode(path)) == (inode, 0o600)


@pytest.mark.parametrize("private", [True, False])
def test_a_file_with_another_name_is_left_alone(tmp_path: Path, private: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "trace.pcapng"
    victim.write_text("precious")
    victim.chmod(0o600 if private else 0o644)
    path.hardlink_to(victim)
    with pytest.raises(errors.TraceFailed, match="hard link"):
        open_private(path)
    assert victim.read_text() == "precious"


def test_a_link_to_nothing_makes_nothing(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new")
    with pytest.raises(errors.TraceFailed, match="symbolic link"):
        open_private(link)
    assert not (tmp_path / "new").exists()


def test_what_belongs_to_somebody_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pipe = tmp_path / "trace.pcapng", tmp_path / "pipe"
    path.write_text("theirs")
    os.mkfifo(pipe)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    for name in path, pipe:
        with pytest.raises(errors.TraceFailed, match="somebody else"):
            open_private(name)
    assert path.read_text() == "theirs"


def test_what_is_exchanged_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, victim = tmp_path / "trace.pcapng", tmp_path / "victim"
    for one in path, victim:
        one.write_text("precious")
        one.chmod(0o600)
    look = os.lstat

    def look_and_lose(name: str) -> os.stat_result:
        found = look(name)
        victim.replace(path)
        return found

    monkeypatch.setattr(os, "lstat", look_and_lose)
    before = descriptors()
    with pytest.raises(errors.TraceFailed, match="exchanged"):
        open_private(path)
    assert descriptors() == before
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "reason"),
    [(".", "folder"), ("none/x", "No such file"), ("", "No such file"), ("a\0b", "null")],
)
def test_names_that_name_no_file(name: str, reason: str, tmp_path: Path) -> None:
    before = descriptors()
    full = name if name in ("", "a\0b") else str(tmp_path / name)
    with pytest.raises(errors.CcidError, match=reason) as raised:
        open_private(full)
    assert isinstance(raised.value, OSError)
    assert repr(full) in str(raised.value)
    assert descriptors() == before


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(errors.TraceFailed, match="no file"):
            open_private(path)


# Pipes and devices ----------------------------------------------------------------------------


def test_a_named_pipe(card: ccid.Card, tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    listener = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    listener.start()
    with card.slot.reader.trace(pipe):
        card.transmit(SELECT)
    listener.join(10)
    assert len(packets(heard[0])) == 8
    assert mode(pipe) == 0o600


def test_a_descriptor_that_is_open(card: ccid.Card) -> None:
    ours, theirs = os.pipe()
    with card.slot.reader.trace(f"/dev/fd/{theirs}"):
        card.transmit(SELECT)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        assert len(packets(file.read())) == 8
    with pytest.raises(errors.TraceFailed, match="Bad file descriptor"):
        open_private("/dev/fd/99999")


def test_a_device(card: ccid.Card) -> None:
    with card.slot.reader.trace("/dev/null"):
        assert card.transmit(SELECT) == b"\x90\x00"


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_private("/dev/stdout") as file:
        file.write(b"said")
    os.write(1, b", and open still")
    assert capfdbinary.readouterr().out == b"said, and open still"


def test_nobody_who_does_not_read_holds_up_an_apdu(
    card: ccid.Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.02)
    ours, theirs = os.pipe()
    before = descriptors()
    trace = card.slot.reader.trace(f"/dev/fd/{theirs}")
    for _ in range(200):
        assert card.transmit(bytes.fromhex("00100000FF"))[-2:] == b"\x90\x00"
    trace.stop()
    assert "the trace ends here: nobody reads it" in caplog.text
    assert descriptors() == before
    os.close(ours)
    os.close(theirs)


# Errors of the file ---------------------------------------------------------------------------


def test_a_full_disk_is_told_when_a_trace_begins(card: ccid.Card) -> None:
    before = descriptors()
    with pytest.raises(errors.TraceFailed, match="No space left"):
        card.slot.reader.trace("/dev/full")
    assert descriptors() == before
    assert card.slot.reader.traces == []
    assert card.slot.reader.tap is None
    assert card.transmit(SELECT) == b"\x90\x00"


def test_a_disk_that_is_full_later(
    card: ccid.Card, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = descriptors()
    trace = card.slot.reader.trace(tmp_path / "trace.pcapng")
    size = (tmp_path / "trace.pcapng").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        for _ in range(3):
            assert card.transmit(SELECT) == b"\x90\x00"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    trace.stop()
    assert caplog.text.count("the trace ends here") == 1
    assert descriptors() == before


class Confused(Censor):
    def command(self, message: bytes, framings: tuple[Framing, ...]) -> bytes:
        raise ZeroDivisionError(message)

    def reply(self, message: bytes) -> bytes:
        raise ZeroDivisionError(message)


def test_a_message_that_cannot_be_judged_hurts_no_apdu(
    card: ccid.Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, reader = Recorder(), card.slot.reader
    with reader.trace(recorder):
        assert reader.tap is not None
        monkeypatch.setattr(reader.tap, "_censor", Confused())
        assert card.transmit(VERIFY) == b"\x90\x00"
    assert PIN not in b"".join(recorder.bulk)
    assert len(recorder.bulk) == 2
    assert "is not known: ZeroDivisionError" in caplog.text
    assert PIN.decode() not in caplog.text


# Readers that cannot be used any more ---------------------------------------------------------


def test_a_closed_reader_has_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    reader.close()
    before = descriptors()
    with pytest.raises(errors.ReaderClosed):
        reader.trace(path)
    assert not path.exists()
    assert descriptors() == before


def test_an_unplugged_reader_has_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    path.write_text("of before")
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        virtual.unplug()
        with pytest.raises(errors.ReaderRemoved):
            reader.slots[0].status()
        with pytest.raises(errors.ReaderRemoved):
            reader.trace(path)
    assert path.read_text() == "of before"


def test_a_forked_reader_has_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                reader.trace(path)
            except errors.ReaderForked:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    assert not path.exists()


class Closing(Sink):
    """Closes the reader while its trace begins."""

    def __init__(self, reader: ccid.Reader) -> None:
        self.reader = reader
        self.ended = 0

    def begin(self, info: ReaderInfo) -> None:
        self.reader.close()

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        raise AssertionError("it has nothing to tell")

    def end(self) -> None:
        self.ended += 1


def test_a_reader_that_is_closed_while_its_trace_begins() -> None:
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    sink = Closing(reader)
    with pytest.raises(errors.ReaderClosed):
        reader.trace(sink)
    assert sink.ended == 1
    assert reader.traces == []


def test_a_reader_that_is_closed_while_its_trace_waits_for_a_turn(tmp_path: Path) -> None:
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    card = reader.slots[0].connect()
    told: list[BaseException] = []
    before = descriptors()

    def trace() -> None:
        try:
            reader.trace(tmp_path / "trace.pcapng")
        except errors.CcidError as error:
            told.append(error)

    with card.exclusive():
        thread = threading.Thread(target=trace)
        thread.start()
        while not (tmp_path / "trace.pcapng").exists():
            pass
        reader.close()
        thread.join(10)
        assert not thread.is_alive(), "it does not wait for a turn that nobody gives any more"
    assert [type(error) for error in told] == [errors.ReaderClosed]
    assert reader.traces == []
    assert descriptors() <= before


def test_a_trace_may_end_while_a_notification_comes() -> None:
    """The attribute ``tap`` is read once."""

    class Vanishing(ccid.Reader):
        looks = 0

        @property  # type: ignore[override]
        def tap(self) -> object:
            self.looks += 1
            return self._tap if self.looks == 1 else None

        @tap.setter
        def tap(self, value: object) -> None:
            self._tap, self.looks = value, 0

    (info,) = ccid.VirtualReader(EchoCard()).infos
    with Vanishing(info) as reader:
        recorder = Recorder()
        reader.trace(recorder)
        reader.looks = 0
        reader._notified(b"\x50\x02")
        assert [t.data for t in recorder.transfers] == [b"\x50\x02"]


def test_the_same_sink_twice(card: ccid.Card) -> None:
    recorder, reader = Recorder(), card.slot.reader
    with reader.trace(recorder):
        with reader.trace(recorder):
            card.transmit(SELECT)
        card.transmit(SELECT)
    assert len(recorder.bulk) == 6
    assert recorder.ended == 2


def test_a_sink_that_ends_its_own_trace(card: ccid.Card) -> None:
    class Once(Recorder):
        def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
            super().transfer(info, transfer)
            trace.stop()

    once = Once()
    trace = card.slot.reader.trace(once)
    card.transmit(SELECT)
    assert len(once.transfers) == 1
    assert once.ended == 1


def test_a_sink_that_was_ended_is_closed(tmp_path: Path) -> None:
    before = descriptors()
    PcapngSink(tmp_path / "x.pcapng").end()
    assert descriptors() == before
