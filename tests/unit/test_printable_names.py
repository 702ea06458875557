"""Names from a device, a file or a client cannot control the terminal that shows them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import logging
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.errors import AccessDenied, CcidError, ReaderBusy, ReaderTableError
from ccid.known import catalog
from ccid.known.quirks import lookup, reader_table
from ccid.probe.output import json_text, note, say, say_lines
from ccid.trace.log import PrintableFormatter
from ccid.transport import access_problems as cures
from ccid.transport import discovery, linux
from ccid.transport.libusb import Status
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.printing import EVIL, TAMED, printed
from tests.unit.test_descriptors import QEMU

ROOT = Path(__file__).parents[2]
QUOTED = EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00")

READER = f"""\
[reader."1209:aaaa"]
name = "{QUOTED}"
status = "unsupported"
reason = "{QUOTED}"
quirks.pseudo-apdus = {{ "00 20 00 01" = "{QUOTED}" }}
"""
FIGURES = f"""\
[[figures."1209:aaaa"]]
iManufacturer = "{QUOTED}"
iProduct = "{QUOTED}"
[[figures."1209:aaaa".interfaces]]
bNumEndpoints = 3
iInterface = "{QUOTED}"
dwFeatures = 0x000404BE
dwMaxCCIDMessageLength = 1034
dwProtocols = 3
dwDefaultClock = 4000
dwMaximumClock = 4000
dwDataRate = 10752
dwMaxDataRate = 344086
dwMaxIFSD = 254
"""


@pytest.fixture
def evil_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's file with control characters in its names."""
    file = tmp_path / "readers.toml"
    file.write_text(f"{READER}\n{FIGURES}", "utf-8")
    monkeypatch.setenv(reader_table.VARIABLE, str(file))
    return file


@pytest.fixture
def evil_usb(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """A reader on USB with control characters in its strings; the table of readers does not know
    it."""
    backend = FakeBackend(FakeDevice(QEMU))
    backend.fail["claim_interface"] = Status.BUSY
    use_backend(monkeypatch, backend)
    monkeypatch.setattr(discovery, "LINUX", True)
    strings = {"manufacturer", "product", "serial", "interface"}
    monkeypatch.setattr(linux, "attribute", lambda _, name: EVIL if name in strings else None)
    monkeypatch.setenv(reader_table.VARIABLE, "")
    return backend


COMMANDS = [
    ("list",), ("list", "--json"), ("dump",), ("dump", "--json"), ("check",), ("check", "--json"),
    ("card",), ("card", "--log"), ("apdu", "00A40000"), ("doctor",), ("doctor", "--json"),
    ("report",), ("watch", "--timeout", "0"), ("watch", "--timeout", "0", "--json"),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_names_of_a_file(evil_table: Path, words: tuple[str, ...]) -> None:
    _, out, _ = printed(*words, "--virtual", "1209:aaaa")
    if words[0] != "apdu":  # this argument names no reader
        assert TAMED in out.replace("\\\\", "\\")


@pytest.mark.parametrize("words", [("readers",), ("readers", "--json")])
def test_names_of_the_table(evil_table: Path, words: tuple[str, ...]) -> None:
    status, out, _ = printed(*words, "1209:aaaa")
    assert status == 0
    assert TAMED in out.replace("\\\\", "\\")


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] != "watch"], ids=" ".join)
def test_names_of_a_device(evil_usb: FakeBackend, words: tuple[str, ...]) -> None:
    _, out, err = printed(*words)
    assert TAMED in (out + err).replace("\\\\", "\\")


def test_what_a_reader_is_called(evil_usb: FakeBackend) -> None:
    (info,) = ccid.list_readers()
    strings = (info.manufacturer, info.product, info.serial, info.interface_name)
    for text in (info.name, info.model, *strings):
        assert text is not None
        assert TAMED in text
        assert text.isprintable()
    assert str(info).isprintable()
    assert replace(info, name=EVIL).name == TAMED


def test_a_virtual_reader_of_an_evil_name() -> None:
    virtual = ccid.VirtualReader(name=f"{EVIL}\ud800" * 20)
    assert virtual.info.name.isprintable()
    for error in (cures.access_denied(virtual.info), cures.busy(virtual.info)):
        assert isinstance(error, AccessDenied | ReaderBusy)
        assert all(line.isprintable() for line in str(error).split("\n"))
    assert len(virtual.device._get_descriptor(0x0302)) == 254


def test_the_name_of_a_process(tmp_path: Path) -> None:
    process = tmp_path / "proc/42"
    process.mkdir(parents=True)
    (process / "comm").write_text("x\x1b\n")
    (holder,) = linux.running({"x\x1b"}, tmp_path)
    assert str(holder) == "x\\x1b (process 42)"


def test_names_of_the_user_are_printable(evil_table: Path) -> None:
    quirks = lookup(0x1209, 0xAAAA)
    assert (quirks.name, quirks.reason) == (TAMED, TAMED)


@pytest.mark.parametrize(
    "text",
    [
        '"\\u001b\\n" = 1',
        'reader."\\u001b\\n" = 1',
        'figures."\\u001b\\n" = 1',
        'figures."1209:aaaa" = [{ "\\u001b\\n" = 1 }]',
        'reader."1209:aaaa"."\\u001b\\n" = 1',
        'reader."1209:aaaa".status = "\\u001b\\n"',
        'reader."1209:aaaa".quirks."\\u001b\\n" = 1',
        'reader."1209:aaaa".quirks.dwMaxIFSD = "\\u001b\\n"',
    ],
)
def test_what_is_wrong_in_a_file(evil_table: Path, text: str) -> None:
    evil_table.write_text(text)
    with pytest.raises(ReaderTableError) as caught:
        list(catalog.catalog())
    assert str(caught.value).isprintable()
    assert caught.value.key.isprintable()
    status, out, err = printed("readers", "x")
    assert (status, out) == (1, "")
    assert "\\x1b\\n" in err.replace("\\\\", "\\")


def test_what_an_error_says() -> None:
    assert str(CcidError(f"{EVIL}: no")).replace("\n", "").isprintable()


def test_descriptions_of_a_list_of_atrs(tmp_path: Path) -> None:
    file = tmp_path / "list\x1b.txt"
    file.write_text(f"3B 00\n\t{EVIL}\n3B\x1b 00\n".replace("\u2028", ""), "utf-8")
    status, _, err = printed("atr", str(file))
    assert status == 2
    assert "\\x1b" in err
    file.write_text("3B 00\n\tevil\x1b7\x07\x9b\u202e\n")
    status, out, _ = printed("atr", str(file))
    assert "# evil\\x1b7\\x07\\x9b\\u202e\n" in out
    assert printed("atr", "--json", str(file))[0] == status == 0


@pytest.mark.parametrize("words", [("list", EVIL), (f"--virtual={EVIL}",), (f"--{EVIL}",)])
def test_a_wrong_command_line(words: tuple[str, ...]) -> None:
    status, out, err = printed(*words)
    assert (status, out) == (2, "")
    assert all(line.isprintable() for line in err.splitlines())
    assert "(a word of" in err, "what may be bytes is not repeated"


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say_lines("a\x1b\nb")
    note("a\x1b\nb")
    captured = capsys.readouterr()
    assert captured.out == f"{TAMED}\na\\x1b\nb\n"
    assert captured.err == "ccid-probe: a\\x1b\nb\n"


def test_json_is_of_ascii_without_control_characters() -> None:
    text = json_text({EVIL: [EVIL, "\ud800", "é"]})
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {EVIL: [EVIL, "\ud800", "é"]}


def test_a_line_of_a_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(name)s %(message)s"))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.warning("%s", EVIL)
    try:
        raise ValueError("\x1b")
    except ValueError:
        logger.exception("it failed")
    first, *rest = stream.getvalue().split("\n")
    assert first == f"x {TAMED}"
    assert rest[0] == "x it failed"
    assert all(line.isprintable() for line in rest)


# What tools write -----------------------------------------------------------------------------


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    loader = importlib.machinery.SourceFileLoader(
        name.replace("-", "_"), str(ROOT / "tools" / name)
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv(reader_table.VARIABLE, "")
    loader.exec_module(module)
    return module


def test_the_page_of_readers(
    evil_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tool("readers-page", monkeypatch)
    own = tmp_path / "own.toml"
    own.write_text(
        f"{FIGURES.replace('evil', '<b>')}\n"
        + READER.replace("evil", "</summary><script>alert(1)</script>' onclick='x")
    )
    monkeypatch.setenv(reader_table.VARIABLE, str(own))
    (entry,) = [one for one in catalog.catalog() if one.known.id == "1209:aaaa"]
    text = page.row(entry)
    assert all(line.isprintable() for line in text.split("\n"))
    tags: set[str] = set()
    names: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            names.update(name for name, _ in attrs)

    Tags().feed(text)
    assert tags.isdisjoint({"script", "b"})
    assert "onclick" not in names


def test_the_list_of_readers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tool("supported-readers", monkeypatch)
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/1209-x.toml").write_text(
        f'vendor = "{QUOTED}"\n[reader.aaaa]\nname = "{QUOTED}"\nstatus = "supported"\n'
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)
    lines = module.lines()
    assert all(line.isprintable() for line in lines)
    assert f"0x1209:0xAAAA:{TAMED}" in lines
