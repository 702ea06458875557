"""Each example, run on virtual readers; and its message when a reader or a card is missing."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ccid
from ccid.device import find
from ccid.virtual import FileSystemCard, models
from ccid.virtual.cards.mifare_classic import MifareClassic
from tests.pcapng import packets
from tests.unit.fake_usb import FakeBackend, use_backend

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
EXAMPLES = sorted(file.name for file in FOLDER.glob("*.py"))
WITH_PYTEST = "test_with_virtual_reader.py"

Example = Callable[..., tuple[object, str]]


@pytest.fixture(autouse=True)
def empty_usb(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader on USB, whatever readers this machine has."""
    backend = FakeBackend()
    use_backend(monkeypatch, backend)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run an example as a program; returns the exit status and the output."""

    def run(name: str, *words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [name, *words])
        status: object = None
        try:
            runpy.run_path(str(FOLDER / name), run_name="__main__")
        except SystemExit as left:
            status = left.code
        return status, capsys.readouterr().out

    return run


def typed(monkeypatch: pytest.MonkeyPatch, *pins: str) -> None:
    """The user types these words when the program asks for a PIN."""
    waiting = list(pins)
    monkeypatch.setattr("getpass.getpass", lambda _: waiting.pop(0))


def test_there_are_ten_and_the_readme_names_each() -> None:
    assert len(EXAMPLES) == 10
    text = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in EXAMPLES if f"[{name}]({name})" not in text] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_says_how_it_is_run(name: str) -> None:
    source = (FOLDER / name).read_text("utf-8")
    code = source.split('"""', 2)[2]
    assert f"examples/{name}" in source.split('"""')[1]
    assert len(code.strip().splitlines()) <= 45
    if name != WITH_PYTEST:
        assert "--virtual" in source.split('"""')[1]


@pytest.mark.parametrize(
    "name", [name for name in EXAMPLES if name not in (WITH_PYTEST, "watch_readers.py")]
)
def test_without_a_reader_each_says_so(name: str, example: Example, tmp_path: Path) -> None:
    words = {
        "write_trace.py": [str(tmp_path / "t.pcapng")],
        "pin_with_retries.py": ["D27600012401", "82"],
    }
    status, out = example(name, *words.get(name, []))
    assert re.search("no CCID reader on USB|no such CCID interface", f"{status}{out}")


def test_list_readers(example: Example) -> None:
    status, out = example("list_readers.py", "--virtual")
    assert status is None
    assert out.startswith("Virtual Reader (1209:0001 at virtual:")
    assert ": works\n" in out


def test_wait_for_card(example: Example) -> None:
    status, out = example("wait_for_card.py", "--virtual")
    assert status is None
    first, second, *_ = out.splitlines()
    assert first == "put a card into Virtual Reader"
    assert second == "TS  = 0x3B  direct convention"


def test_apdu_script(example: Example) -> None:
    assert example("apdu_script.py", "--virtual") == (
        None,
        "line 2: 90 00  normal processing\nline 3: 6A 82  file or application not found\n",
    )


def test_apdu_script_of_a_file(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("# nothing\n00 A4 00 0C 02 3F 00 -> 6A82\n00B0810019\n")
    status, out = example("apdu_script.py", str(file), "--virtual")
    assert (status, out) == (
        "line 2: 6A82 was expected",
        "line 2: 90 00  normal processing\n",
    )
    file.write_text("0020008104 1234z5678\n")
    assert example("apdu_script.py", "--virtual", str(file)) == (
        "line 1 is not hexadecimal",
        "",
    )


def test_contactless_uid(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runpy.run_path(str(FOLDER / "contactless_uid.py"))["main"]
    virtual = models.make("072f:2200", MifareClassic)
    monkeypatch.setattr(find, "list_readers", lambda: virtual.infos)
    main([])
    assert capsys.readouterr().out == "DE:AD:BE:EF\n"
    assert virtual.gadgets is not None
    assert virtual.gadgets.tones == [0.1]


def test_a_virtual_card_has_a_uid(example: Example) -> None:
    assert example("contactless_uid.py", "--virtual") == (None, "DE:AD:BE:EF\n")


def test_a_card_with_contacts_has_no_uid(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "list_readers", lambda: [ccid.VirtualReader().info])
    status, out = example("contactless_uid.py")
    assert out == ""
    assert status == (
        "Virtual Reader: UID of the card: 6E00, class not supported: "
        "only a contactless reader knows such commands"
    )


def test_pin_with_retries(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "1234")
    assert example("pin_with_retries.py", "--virtual") == (None, "3 tries left\nverified\n")


def test_a_wrong_pin_is_told_and_the_last_try_is_left(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = FileSystemCard()
    monkeypatch.setattr(ccid, "VirtualReader", lambda: ccid.virtual.VirtualReader(card))
    typed(monkeypatch, "9999", "8888")
    told = [example("pin_with_retries.py", "--virtual") for _ in range(3)]
    assert told == [
        ("wrong PIN, 2 tries left", "3 tries left\n"),
        ("wrong PIN, 1 tries left", "2 tries left\n"),
        ("a wrong PIN would block the card", "1 tries left\n"),
    ]


def test_write_trace(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "session.pcapng"
    status, out = example("write_trace.py", "--virtual", str(file))
    assert status is None
    assert "SELECT MF: 90 00\n" in out
    assert len(packets(file.read_bytes())) > 4
    assert example("write_trace.py", "--virtual") == ("name a file to write", "")


def test_watch_readers(example: Example) -> None:
    status, out = example("watch_readers.py", "--virtual")
    assert status is None
    assert out.splitlines() == [
        "reader arrived: Virtual Reader",
        "card arrived: Virtual Reader, slot 0",
        "card left: Virtual Reader, slot 0",
        "reader left: Virtual Reader",
    ]


def test_composite_reader(example: Example) -> None:
    status, out = example("composite_reader.py", "--virtual")
    assert status is None
    head, *slots = out.splitlines()
    assert head == "Virtual Reader [0]: 2 interfaces, 3 slots"
    assert [line.partition(" 3B ")[0] for line in slots] == [
        "slot 0:",
        "slot 1: no card",
        "slot 2:",
    ]


def test_ifd_handler(example: Example) -> None:
    status, out = example("ifd_handler.py", "--virtual")
    assert status is None
    assert out.splitlines()[0] == "slots: 01; presence: ICC_PRESENT"
    assert out.splitlines()[-2:] == ["T=1: SUCCESS", "SELECT MF: SUCCESS 90 00"]


def test_the_example_for_pytest() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_ccid"]
    done = subprocess.run(
        [*command, str(FOLDER / WITH_PYTEST)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
