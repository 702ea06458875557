"""``ccid-pcscd`` and ``ccid-run``: command lines, units, sockets; what they refuse."""

from __future__ import annotations

import ctypes.util
import logging
import os
import socket
import time
from pathlib import Path

import pytest

from ccid.errors import ReaderNotFound
from ccid.pcsc.service import __main__ as pcscd
from ccid.pcsc.service import package_hints, run_program, socket_place, user_units, virtual_options
from ccid.pcsc.service.socket_place import NoSocket, listen, passed_socket


def test_virtual_readers_of_a_command_line() -> None:
    words = ["--virtual", "--virtual", "08e6:3437", "--card", "echo", "--virtual", "--card", "none"]
    options = pcscd._parser().parse_args(words)
    settings = pcscd._settings(options)
    assert [info.id for info in settings.virtual] == ["1209:0001", "08e6:3437", "1209:0001"]
    assert not settings.usb
    again = pcscd._parser().parse_args(virtual_options.as_arguments(options))
    assert again.virtual == options.virtual


def test_cards_of_a_command_line() -> None:
    wanted = [virtual_options.Wanted("", card) for card in ("files", "echo", "none", "piv")]
    slots = [reader.functions[0].slots[0] for reader in virtual_options.make_readers(wanted)]
    kinds = [slot.inserted and type(slot.inserted).__name__ for slot in slots]
    assert kinds == ["FileSystemCard", "EchoCard", None, "PivCard"]


def test_a_card_that_connects() -> None:
    """``--card vpcd:PORT`` listens; a port in use is an error of ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = [virtual_options.Wanted("", f"vpcd:{port}")]
    (reader,) = virtual_options.make_readers(wanted)
    assert reader.functions[0].slots[0].inserted is None
    with pytest.raises(ReaderNotFound, match=f"vpcd:{port}"):
        virtual_options.make_readers(wanted)
    atr = bytes.fromhex("3B80800101")
    with socket.create_connection(("127.0.0.1", port), 10) as card:
        limit = time.monotonic() + 10
        card.settimeout(10)
        while reader.functions[0].slots[0].inserted is None and time.monotonic() < limit:
            length = int.from_bytes(card.recv(2), "big")
            if card.recv(length) == b"\x04":  # the request for the ATR
                card.sendall(len(atr).to_bytes(2, "big") + atr)
                time.sleep(0.01)
        assert reader.functions[0].slots[0].inserted is not None


@pytest.mark.parametrize(
    "word",
    [
        "",
        "gold",
        "vpcd:",
        "vpcd:99999",
        "vpcd:1\n",
        "vpcd::1",
        "vpcd:a:",
        "vpcd:a:0",
        "vpcd:a b:1",
        "vpcd:::1:5",
    ],
)
def test_a_card_that_there_is_not(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pcscd._parser().parse_args(["--virtual", "--card", word])
    assert "--card" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "usb", "names"),
    [
        ([], True, ()),
        (["--virtual"], False, ()),
        (["--virtual", "--usb"], True, ()),
        (["--virtual", "--reader", "ACR"], True, ("ACR",)),
        (["--reader", "ACR", "--usb"], True, ()),
    ],
)
def test_which_readers(words: list[str], usb: bool, names: tuple[str, ...]) -> None:
    settings = pcscd._settings(pcscd._parser().parse_args(words))
    assert (settings.usb, settings.names) == (usb, names)


@pytest.mark.parametrize(
    "words",
    [
        ["--card", "echo"],
        ["--virtual", "nonsense"],
        ["--readers", "0"],
        ["--readers", "256"],
        ["--entries", "x"],
        ["--group", "no such group"],
    ],
)
def test_wrong_command_lines(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pcscd.main(words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_virtual_reader_that_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pcscd.main(["--socket", str(tmp_path / "s"), "--virtual", "9999:9999"]) == 1
    assert "9999:9999" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_flood_of_records_is_dammed() -> None:
    gate = pcscd.FloodGate(2, 10)
    records = [logging.makeLogRecord({"msg": str(n), "created": 100.0 + n}) for n in range(12)]
    assert [gate.filter(record) for record in records] == [True] * 2 + [False] * 8 + [True] * 2
    assert records[10].getMessage() == "(8 more before this) 10"


# Units --------------------------------------------------------------------------------------------


def test_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert pcscd.main(["--install-user-units"]) == 0
    folder = tmp_path / "systemd" / "user"
    listening = (folder / "ccid-pcscd.socket").read_text()
    assert "ListenStream=%t/ccid/pcscd.comm\nSocketMode=0600\nDirectoryMode=0700\n" in listening
    assert "SocketGroup" not in listening
    service = (folder / "ccid-pcscd.service").read_text()
    (command,) = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    assert Path(command.removeprefix("ExecStart=").split()[0]).is_absolute()
    assert "systemctl --user enable --now ccid-pcscd.socket" in capsys.readouterr().out


def test_units_for_a_group() -> None:
    units = user_units.units("scard")
    assert "SocketMode=0660" in units["ccid-pcscd.socket"]
    assert "SocketGroup=scard" in units["ccid-pcscd.socket"]
    assert "--group scard" in units["ccid-pcscd.service"]


def test_a_path_in_a_unit() -> None:
    assert user_units._quoted("/usr/bin/ccid-pcscd") == "/usr/bin/ccid-pcscd"
    assert user_units._quoted('/a b/100%/$x"') == '"/a b/100%%/$$x\\""'


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "systemd").write_text("a file")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_units.install() == 1
    assert "systemd" in capsys.readouterr().err


# The socket ---------------------------------------------------------------------------------------


def test_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(NoSocket, match="a service listens"):
            listen(path)
    with listen(path):  # the one before is no more
        pass


def test_a_socket_for_a_group(tmp_path: Path) -> None:
    with listen(tmp_path / "s", os.getgid()):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660


def test_no_file_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(NoSocket, match="no socket"):
        listen(path)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(NoSocket, match="107"):
        listen(tmp_path / ("x" * 108))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoSocket, match="No such file"):
        listen(tmp_path / "no" / "s")


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = socket_place.default_path()
    assert path == tmp_path / "ccid" / "pcscd.comm"
    socket_place.make_folder(path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(os.getuid()) in str(socket_place.default_path())


def test_sockets_of_systemd_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert passed_socket() is None
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    with pytest.raises(NoSocket, match="not one"):
        passed_socket()


def test_who_connects(tmp_path: Path) -> None:
    with listen(tmp_path / "s") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        connection, _ = listener.accept()
        with connection:
            peer = socket_place.peer_of(connection)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())


# ccid-run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "hint"),
    [
        ("ID=debian\n", "apt install libpcsclite1"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install libpcsclite1"),
        ("ID=fedora\n", "dnf install pcsc-lite-libs"),
        ("", "libpcsclite.so.1"),
    ],
)
def test_how_to_get_the_library(release: str, hint: str) -> None:
    assert hint in package_hints.library_hint(release)


@pytest.mark.parametrize(
    ("program", "release", "hint"),
    [
        ("opensc-tool", "ID=debian\n", "apt install opensc"),
        ("pcsc_scan", "ID=fedora\n", "dnf install pcsc-tools"),
        ("pkcs11-tool", "ID=gentoo\n", "emerge dev-libs/opensc"),
        ("ykman", "", "the package yubikey-manager"),
        ("no-such-program", "ID=debian\n", None),
    ],
)
def test_how_to_get_a_program(program: str, release: str, hint: str | None) -> None:
    assert package_hints.program_hint(program, release) == hint


def test_a_missing_library_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    run_program._warn_without_library()
    assert "libpcsclite.so.1 is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "is_there", "arguments", "said"),
    [
        (["--virtual", "--"], False, ["--virtual", "--card", "files"], ""),
        ([], False, ["--virtual"], "no reader on USB: this is a virtual one"),
        ([], True, [], ""),
        (["--usb"], False, ["--usb"], ""),
    ],
)
def test_without_a_program_readers_are_shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    is_there: bool,
    arguments: list[str],
    said: str,
) -> None:
    ran: list[object] = []

    def run(*what: object) -> int:
        ran.extend(what)
        return 0

    monkeypatch.setattr(run_program, "_has_usb_reader", lambda: is_there)
    monkeypatch.setattr(run_program, "_with_service", run)
    assert run_program.main(words) == 0
    assert ran == [run_program.OWN_CLIENT, arguments]
    assert said in capsys.readouterr().err
