"""The code in docs/ runs, and prints what the pages show.

Python runs on a virtual reader. In ``console`` and ``sh`` blocks our own commands run, without a
reader on USB; the output is compared where it is shown. What needs hardware, root, pcscd or another
program is named here.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ccid
from ccid.device import watching
from ccid.known import quirks
from ccid.known.quirks import reader_table
from ccid.transport import discovery, hotplug, usb
from tests.unit.conftest import Run
from tests.unit.fake_usb import FakeBackend

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
OTHERS = {
    "asyncio.md": "tests/unit/test_aio_docs.py",
    "clients.md": "tests/vm/test_clients.py",
}
"""Pages whose code another test runs."""
NOT_HERE = {
    "ccid-probe doctor": "a reader on USB, and a user over SSH: tests/vm/test_qemu_reader.py",
    "ccid-probe card --virtual --card vpcd:35963 &": "vicc: tests/integration/test_vpcd.py",
    "vicc --type iso7816 --hostname 127.0.0.1 --port 35963": "vicc: tests/integration/test_vpcd.py",
    "vicc --type iso7816 --reversed --port 35963 &": "vicc: tests/integration/test_vpcd.py",
    "ccid-run --virtual --card vpcd:127.0.0.1:35963 -- opensc-tool -w -a": (
        "vicc: tests/integration/test_vpcd.py"
    ),
    "ccid-probe lend --reader ACS 127.0.0.1:35963": "a vpcd: tests/integration/test_vpcd.py",
}
"""Commands of ``console`` blocks that need more than a virtual reader, and where they are tried."""
PROGRAMS = ("ccid-probe", "ccid-run")
CARD_LIST = """\
3B F8 13 00 00 81 31 FE 15 59 75 62 69 6B 65 79 34 D4
\tYubico Yubikey 4 OTP+CCID
"""
"""Lines of pcsc-tools' smartcard_list.txt, which the commands find here."""
FOREIGN = frozenset(
    {
        *(
            "sudo",
            "docker",
            "flatpak",
            "python",
            "python3",
            ".",
            "export",
            "pcsc_scan",
            "pkcs11-tool",
            "termux-usb",
        ),
        *(".venv/bin/pip", "/opt/ccid/bin/ccid-install-driver", "ccid-pcscd"),
    }
)
"""Programs that change the system, that go on, or that are not ours."""


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """The blocks of a page in these languages, each with the output that stands below it."""
    found = BLOCK.findall((ROOT / "docs" / page).read_text("utf-8"))
    text = (ROOT / "docs" / page).read_text("utf-8")
    made = []
    for language, code in found:
        if language in languages:
            below = text.partition(f"```{language}\n{code}```\n")[2]
            shown = re.match(r"\n```\n(.*?)```$", below, re.S | re.M)
            made.append((code, shown[1] if shown else ""))
    return made


def programs() -> Iterator[tuple[str, str, str]]:
    """Each Python block: page, code, output."""
    for page in PAGES:
        if page not in OTHERS:
            for code, shown in blocks(page, "python"):
                yield page, code, shown


def commands() -> Iterator[tuple[str, str, str]]:
    """Each command of a console block: page, command, output."""
    for page in PAGES:
        if page in OTHERS:
            continue
        for code, _ in blocks(page, "console"):
            for part in re.split(r"^\$ ", code, flags=re.M)[1:]:
                command, _, shown = part.partition("\n")
                yield page, command, shown


def lines() -> Iterator[tuple[str, str]]:
    """Each line of a shell block."""
    for page in PAGES:
        if page not in OTHERS:
            for code, _ in blocks(page, "sh"):
                yield from ((page, line) for line in code.splitlines() if line)


def tables() -> Iterator[tuple[str, str]]:
    """Each block for a file of readers."""
    for page in PAGES:
        yield from ((page, code) for code, _ in blocks(page, "toml"))


@pytest.fixture
def no_usb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever readers this machine has."""
    backend = FakeBackend()
    for module in (discovery, usb):
        monkeypatch.setattr(module, "backend", lambda: backend)
    monkeypatch.setattr(watching, "list_readers", list)
    monkeypatch.setattr(hotplug, "on_hotplug", lambda tell: lambda: None)


@pytest.mark.usefixtures("no_usb")
@pytest.mark.parametrize(("page", "code", "shown"), list(programs()))
def test_python(
    page: str,
    code: str,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "pytest" in code:
        return  # below
    monkeypatch.setattr(sys, "argv", [page])
    code = code.replace("open_reader()", "open_reader(ccid.VirtualReader())")
    with vpcd_program() as port:
        code = code.replace("35963", str(port))
        exec(compile(code, page, "exec"), {"__name__": "__main__", "ccid": ccid})
    assert capsys.readouterr().out == shown


@contextmanager
def vpcd_program() -> Iterator[int]:
    """A program that lends its card to a reader at this port, as soon as the reader is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = threading.Event()
    lending = threading.Thread(target=lend, args=(port, ends))
    lending.start()
    yield port
    ends.set()
    lending.join(10)
    assert not lending.is_alive()


def lend(port: int, ends: threading.Event) -> None:
    while not ends.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as card:
                while head := card.recv(2):
                    if card.recv(int.from_bytes(head, "big")) == b"\x04":
                        card.sendall(b"\x00\x02\x3b\x00")
        except OSError:
            ends.wait(0.01)


def test_the_tests_of_the_page_on_ci(tmp_path: Path) -> None:
    """The first one: the other needs OpenSC (tests/integration/test_run_clients.py)."""
    ((code, _),) = (block for block in blocks("ci.md", "python") if "pytest" in block[0])
    (tmp_path / "test_it.py").write_text(code)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "my_library", "test_it.py"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "1 passed, 1 deselected" in done.stdout, done.stdout + done.stderr


def outcome(command: str, run: Run) -> tuple[int, str]:
    """The exit status and the output of one of our commands."""
    program, *words = shlex.split(command, comments=True)
    assert program in PROGRAMS
    if program == "ccid-run":
        words = [sys.executable, "-m", "ccid.pcsc.service.run_program", *words]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout
    status, out, _ = run(*words)
    return status, out


@pytest.mark.usefixtures("no_usb")
@pytest.mark.parametrize(("page", "command", "shown"), list(commands()))
def test_console(
    page: str,
    command: str,
    shown: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "list.txt").write_text(CARD_LIST)
    monkeypatch.setenv("CCID_CARD_LIST", str(tmp_path / "list.txt"))
    if command not in NOT_HERE:
        status, out = outcome(command, run)
        assert status == 0
        out, shown = (re.sub(r"virtual:\d+:", "virtual:1:", text) for text in (out, shown))
        assert not shown or out == shown


@pytest.mark.usefixtures("no_usb")
@pytest.mark.parametrize(("page", "line"), list(lines()))
def test_shell(page: str, line: str, run: Run) -> None:
    """Of lines that change the system, or begin what goes on, only the program is looked at here;
    that their commands and options exist is a matter of ``test_docs.py``."""
    parts = re.split(r"&&|\||&(?!\d)", line)
    for part in filter(str.strip, (part.partition("#")[0] for part in parts)):
        name = shlex.split(part)[0]
        is_run = name in PROGRAMS and len(parts) == 1 and " -- " not in part
        if is_run:
            status, _ = outcome(part, run)
            assert status == 0
        else:
            assert name in (*FOREIGN, *PROGRAMS)


@pytest.mark.parametrize(("page", "code"), list(tables()))
def test_toml(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages write into a file of readers is read, and gives its reader other quirks."""
    (reader,) = set(re.findall(r'^\[\[?reader\."([\w:]+)"', code, re.M))
    ids = [int(one, 16) for one in reader.split(":")]
    before = quirks.lookup(*ids)
    (tmp_path / "readers.toml").write_text(code)
    monkeypatch.setenv(reader_table.VARIABLE, str(tmp_path / "readers.toml"))
    assert quirks.lookup(*ids) != before, page


def test_the_code_is_as_wide_as_the_site() -> None:
    """At a width of 1280: what is wider begins in sight, and ends in a scroll bar."""
    code = [(page, text) for page in PAGES for text, _ in blocks(page, "python")]
    lines = [(page, line) for page, text in code for line in text.splitlines()]
    assert [one for one in lines if len(one[1]) > 80] == []


def test_the_pages_have_code() -> None:
    pages = {page for page, *_ in (*programs(), *commands())}
    assert {"first-steps.md", "tutorial.md", "wait-for-a-card.md", "which-reader.md"} <= pages
    for test in OTHERS.values():
        assert (ROOT / test).is_file()
    assert set(NOT_HERE) <= {command for _, command, _ in commands()}


# The site ---------------------------------------------------------------------------------------


def test_each_page_is_in_the_menu_and_on_the_first_page() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    first = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in PAGES:
        assert f"- {page}\n" in menu, page
        assert page == "index.md" or f"]({page})" in first, page


def test_the_first_page_has_the_words_of_the_titles() -> None:
    first = (ROOT / "docs" / "index.md").read_text("utf-8").partition("## To look")[0]
    for words, page in re.findall(r"^- \[(.+)\]\(([\w-]+\.md)\)", first, re.M):
        title = (ROOT / "docs" / page).read_text("utf-8").partition("\n")[0]
        assert title == f"# {words}"


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("UID contactless", "contactless.md"),
        ("beep LED", "beep-and-leds.md"),
        ("wait card", "wait-for-a-card.md"),
        ("asyncio", "asyncio.md"),
        ("pip install fails", "install.md"),
        ("access SSH", "access.md"),
        ("container", "access.md"),
        ("Flatpak", "access.md"),
        ("WSL", "access.md"),
        ("dead suspend", "resets.md"),
        ("Android root", "android.md"),
        ("which reader is this", "which-reader.md"),
        ("which card ATR", "which-card.md"),
    ],
)
def test_the_first_page_leads_to_the_answer(words: str, page: str) -> None:
    """The first link that has all words of a frequent question."""
    first = (ROOT / "docs" / "index.md").read_text("utf-8")
    links = re.findall(r"\[([^\]]+)\]\(([\w-]+\.md)\)", first)
    fitting = [to for text, to in links if all(w.lower() in text.lower() for w in words.split())]
    assert fitting[:1] == [page]
