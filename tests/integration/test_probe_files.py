"""Files, tables and streams that are odd: ``ccid-probe`` says so, with an exit status."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccid.device.watching import watch
from ccid.errors import ReaderTableError
from ccid.known import descriptor_figures
from ccid.known.descriptor_figures import HIGHEST, SMART_CARD_FIELDS
from ccid.known.quirks import lookup, reader_table
from ccid.probe import command_files as files
from ccid.virtual.models import make
from tests.unit.printing import printed

FIGURES = """\
[[figures."1209:aaaa"]]
[[figures."1209:aaaa".interfaces]]
bNumEndpoints = 3
"""


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's file."""
    file = tmp_path / "readers.toml"
    file.write_text("")
    monkeypatch.setenv(reader_table.VARIABLE, str(file))
    return file


# The user's table -----------------------------------------------------------------------------

HUGE = "0x" + "F" * 5_000
ODD = ["inf", "nan", "-inf", "-1", "1.5", "true", HUGE, '"x"', "[inf]", "[[[]]]", "{}", "[{a = 1}]",
       "1979-05-27", "07:32:00", "[true]", "[-1]", "[1.0]", '"\\u001b"']  # fmt: skip
KEYS = ["dwFeatures", "bMaxSlotIndex", "bDescriptorType", "data-rates", "clock-frequencies",
        "endpoints", "frob"]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:12])
def test_odd_values_of_figures(user: Path, key: str, value: str) -> None:
    user.write_text(f"{FIGURES}{key} = {value}\n")
    with pytest.raises(ReaderTableError, match=r"readers\.toml:1: ") as caught:
        descriptor_figures.figures(0x1209, 0xAAAA)
    assert len(str(caught.value)) < 400
    assert printed("card", "--virtual", "1209:aaaa")[0] == 1
    assert printed("readers", "1209:aaaa")[0] == 1


@pytest.mark.parametrize("key", ["iProduct", "bcdDevice", "interfaces"])
@pytest.mark.parametrize("value", ["inf", "1.5", "true", "[]", "[1]", "[{}, {}]", "1979-05-27"])
def test_odd_values_of_a_device(user: Path, key: str, value: str) -> None:
    own = "" if key == "interfaces" else "interfaces = [{}]\n"
    user.write_text(f'[[figures."1209:aaaa"]]\n{own}{key} = {value}\n')
    with pytest.raises(ReaderTableError, match="wrong figures"):
        descriptor_figures.figures(0x1209, 0xAAAA)


@pytest.mark.parametrize(
    "text", ["figures = 1", "figures = []", 'figures."1209:aaaa" = 1', '[figures."1209:aaaa"]\na=1']
)
def test_figures_that_are_none(user: Path, text: str) -> None:
    user.write_text(text)
    with pytest.raises(ReaderTableError):
        descriptor_figures.figures(0x1209, 0xAAAA)
    with pytest.raises(ReaderTableError):
        list(descriptor_figures.all_figures())


QUIRKS = ["dwMaxIFSD", "open-delay-s", "data-rates", "no-pps", "power-on-escape", "pseudo-apdus",
          "composite-interfaces", "pin-sizes", "exchange-level", "escapes-allowed"]  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS)
@pytest.mark.parametrize("value", ["inf", "nan", "-1", HUGE, "1979-05-27", "[inf]", "{a = [[]]}"])
def test_odd_values_of_quirks(user: Path, quirk: str, value: str) -> None:
    user.write_text(f'[reader."1209:aaaa"]\nquirks.{quirk} = {value}\n')
    with pytest.raises(ReaderTableError, match=r":2: .* is wanted here") as caught:
        lookup(0x1209, 0xAAAA)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "{a = " * 50_000,
        "a = " + "9" * 5_000,
        f'[reader."1209:aaaa"]\nquirks.dwMaxIFSD{".a" * 500} = 1',
        f'[reader."1209:aaaa"]\nname = {"9" * 5_000}',
    ],
    ids=lambda text: text[:20],
)
def test_tables_that_are_deep_or_huge(user: Path, text: str) -> None:
    user.write_text(text)
    with pytest.raises(ReaderTableError, match=r"readers\.toml") as caught:
        lookup(0x1209, 0xAAAA)
    assert len(str(caught.value)) < 400


def test_a_table_that_is_far_too_long(user: Path) -> None:
    os.truncate(user, 1 << 30)
    with pytest.raises(ReaderTableError, match="1073741824 bytes"):
        lookup(0x1209, 0xAAAA)


def test_a_table_with_a_mark_of_its_encoding(user: Path) -> None:
    user.write_bytes(b'\xef\xbb\xbf[reader."1209:aaaa"]\r\nname = "x"\r\n')
    assert lookup(0x1209, 0xAAAA).name == "x"


@pytest.mark.parametrize("name", ["/", "/dev/null", "/nowhere/x", "x" * 300, "/etc/passwd/x"])
def test_a_table_that_is_no_file(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(reader_table.VARIABLE, name)
    with pytest.raises(ReaderTableError, match="CCID_READERS names it"):
        lookup(0x1209, 0xAAAA)


def test_a_table_that_goes_meanwhile(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_table, "user_files", lambda: [user / "gone"])
    with pytest.raises(ReaderTableError, match="cannot be read"):
        lookup(0x1209, 0xAAAA)


def test_interfaces_in_any_order(user: Path) -> None:
    one = '[[figures."1209:aaaa".interfaces]]\nbNumEndpoints = 3\ndwFeatures = 0x000104BA\n'
    text = f'[[figures."1209:aaaa"]]\n{one}bInterfaceNumber = 2\n{one}bInterfaceNumber = 0\n'
    user.write_text(text)
    assert [info.interface_number for info in make("1209:aaaa").infos] == [0, 2]
    user.write_text(text.replace("bInterfaceNumber = 2\n", ""))
    with pytest.raises(ReaderTableError, match="bInterfaceNumber: 0 twice"):
        make("1209:aaaa")


@pytest.mark.parametrize("name", [n for n in SMART_CARD_FIELDS if n != "bDescriptorType"])
def test_the_edges_of_every_field(user: Path, name: str) -> None:
    usual = {"dwFeatures": 0x000404BE, "dwMaxCCIDMessageLength": 1034, "dwProtocols": 3,
             "dwDefaultClock": 4000, "dwMaximumClock": 4000, "dwDataRate": 10752,
             "dwMaxDataRate": 344086, "dwMaxIFSD": 254}  # fmt: skip
    for value in (0, HIGHEST[name]):
        lines = "".join(f"{n} = {v}\n" for n, v in {**usual, name: value}.items())
        user.write_text(FIGURES + lines)
        for command in ("check", "dump", "card"):
            assert printed(command, "--virtual", "1209:aaaa")[0] in (0, 1)


# Files of the command line --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["atr", "atr-stats", "import"])
@pytest.mark.parametrize("content", [b"\xff\xfe3\x80", b"\x9b\x80", bytes(range(256)), b"\0" * 99])
def test_a_file_that_is_no_text(tmp_path: Path, command: str, content: bytes) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    status, out, err = printed(command, str(file))
    assert (status in (1, 2), out) == (True, "")
    assert str(file) in err


@pytest.mark.parametrize("command", ["atr", "atr-stats", "import"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, command: str) -> None:
    status, out, err = printed(command, str(tmp_path))
    assert (status, out) == (1, "")
    assert str(tmp_path) in err


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--virtual", "--output"),
        ("card", "--virtual", "--trace"),
        ("atr-stats", "LIST", "--svg"),
        ("atr-stats", "LIST", "--png"),
    ],
    ids=lambda words: words[-1],
)
@pytest.mark.parametrize("where", ["", "none/x"])
def test_a_file_that_cannot_be_written(tmp_path: Path, words: tuple[str, ...], where: str) -> None:
    (tmp_path / "list").write_text("3B 00\n")
    command = [str(tmp_path / "list") if word == "LIST" else word for word in words]
    status, _, err = printed(*command, str(tmp_path / where))
    assert (status, "Traceback" in err) == (1, False)
    assert str(tmp_path / where) in err


# Standard streams -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["atr", "atr-stats", "import"])
@pytest.mark.parametrize("content", [b"\xff\xfe3\x80", b"3B\x80 00\n"])
def test_standard_input_that_is_no_text(
    monkeypatch: pytest.MonkeyPatch, command: str, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8", "strict"))
    status, out, err = printed(command, "-")
    assert (status in (1, 2), out) == (True, "")
    assert "Traceback" not in err


def test_atrs_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO(b"\xef\xbb\xbf3B 00\n\tcard \xff\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, "ascii"))
    status, out, _ = printed("atr", "-")
    assert status == 0
    assert "  # card \ufffd\n" in out


@pytest.mark.parametrize("command", ["atr", "atr-stats", "import"])
def test_no_standard_input(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = printed(command, "-")
    assert (status, "standard input is closed" in err) == (1, True)


def test_a_file_is_read_up_to_a_length(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(100))
    assert len(files.taken(str(file), 10)) == 11


PROBE = [sys.executable, "-m", "ccid.probe"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
LINUX = sys.platform.startswith("linux")


@pytest.mark.parametrize("words", ["list --virtual", "--help", "report --virtual"])
def test_a_pipe_that_nobody_reads(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*PROBE, *words.split()], stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_that_nobody_reads_hides_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PROBE, "atr", "3B 80"]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize("words", ["list --virtual", "--version"])
def test_a_full_disk(words: str) -> None:
    if not LINUX:
        return
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROBE, *words.split()], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert done.returncode == 1
    assert b"ccid-probe: [Errno 28]" in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_standard_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ccid.probe.__main__ import main

    words = ["atr-stats", str(tmp_path / "list")]
    (tmp_path / "list").write_text("3B 00\n")
    for command in (["list", "--virtual"], ["apdu", "--virtual", "00A40000"], words):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            status = main(command)
        assert status in (0, 1)


def test_an_encoding_that_lacks_a_character(user: Path) -> None:
    user.write_text('[reader."1209:aaaa"]\nname = "Véga"\n', "utf-8")
    done = subprocess.run(
        [*PROBE, "readers", "1209:aaaa"],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "CCID_READERS": str(user)},
    )
    assert done.returncode == 0
    assert b"V\\xe9ga" in done.stdout


@pytest.mark.parametrize("seconds", [float("inf"), 1e18])
def test_a_watch_that_ends_after_ages_never_ends(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    told: list[float | None] = []
    monkeypatch.setattr("ccid.device.watching._watch", lambda _, limit: told.append(limit))
    watch(seconds)
    watch(1e6)
    assert told == [None, 1e6]
