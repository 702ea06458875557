"""``ccid-probe shell``: what lines mean, what is masked and kept, scripts, and a real terminal."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccid.probe import shell_lines
from ccid.probe.shell_lines import WrongLine, completions, concealed, is_kept, parse
from ccid.probe.shell_prompt import MOST_BYTES, MOST_LINES, HistoryFile
from tests.unit.conftest import Run
from tests.unit.typist import PATIENCE_S, Typist

PIN = "1234"
"""The PIN of the virtual card."""
SELECT = "00A4000C023F00"
VERIFY = "00 20 00 81 04 31 32 33 34"


# Lines ------------------------------------------------------------------------------------------


def test_what_lines_mean() -> None:
    assert parse("  # nothing") is None
    assert parse("EXIT") == ("quit", (), b"")
    assert parse("reader Some Reader (1)") == ("reader", ("Some Reader (1)",), b"")
    assert parse("< my script") == ("<", ("my script",), b"")
    for text in (SELECT, "0x00,0xA4,0x00,0x0C,0x02,0x3F,0x00", f"<{SELECT}>", f"> {SELECT}  # MF"):
        line = parse(text)
        assert line is not None
        assert (line.command, line.apdu) == ("", bytes.fromhex(SELECT))


@pytest.mark.parametrize(
    "text", ["frob", "quit now", "select", "sw", "verify 81 8 1234", "00A", "<"]
)
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(WrongLine) as caught:
        parse(text)
    assert "1234" not in str(caught.value)


KEPT = [SELECT, "help", "verify 81", "verify 80 8", "select piv", "expect 63Cx", "sw 6A82",
        "reset cold", "reader Some Reader", "< a/script", "00 B0 00 00 00",
        "00 84 00 00 08"]  # fmt: skip
NOT_KEPT = [VERIFY, VERIFY.replace(" ", ""), f"C-APDU: {VERIFY}", "verify 81 1234", "1234",
            "verify 1234", "31323334", "select 1234", f"{SELECT}  # 1234",
            f"reader {VERIFY}", f"< {VERIFY}", VERIFY[:-1], "80D80001 08 0102030405060708",
            "00 20 00 81", "12345678", "1234 5678", "1234567890", ""]  # fmt: skip


@pytest.mark.parametrize("text", KEPT)
def test_history_has(text: str) -> None:
    assert is_kept(text)


@pytest.mark.parametrize("text", NOT_KEPT)
def test_history_has_not(text: str) -> None:
    assert not is_kept(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SELECT, SELECT),
        ("00 B0 00 00 1", "00 B0 00 00 1"),
        (VERIFY, "00 20 00 81 04 ** ** ** **"),
        (VERIFY.replace(" ", ""), "0020008104********"),
        ("0x00,0x20,0x00,0x81,0x01,0x31", "0x00,0x20,0x00,0x81,0x01,0x**"),
        (f"APDU: {VERIFY}", "APDU: 00 20 00 81 04 ** ** ** **"),
        ("verify 81 1234", "verify 81 ****"),
        ("verify 80 8 12 34", "verify 80 8 ** **"),
        ("verify 80 8", "verify 80 8"),
        ("sw 6A82", "sw 6A82"),
        ("", ""),
    ],
)
def test_a_pin_is_masked_in_the_line(text: str, shown: str) -> None:
    assert concealed(text) == shown


def test_a_pin_is_masked_from_its_first_digit_on() -> None:
    """At no length does the beginning of a line show a digit of the PIN."""
    typed = VERIFY.replace(" ", "")
    for end in range(11, len(typed) + 1):
        assert set(concealed(typed[:end])[10:]) == {"*"}


def test_completions() -> None:
    def texts(line: str, *readers: str) -> list[str]:
        return [one.text for one in completions(line, readers)]

    assert texts("re") == ["reset", "readers", "reader"]
    assert {"6A80", "6A82"} <= set(texts("sw 6a8"))
    assert texts("expect 9") == ["9000"]
    assert texts("select pi") == ["piv"]
    assert texts("reader v", "Virtual Reader", "Other") == ["Virtual Reader"]
    assert "00B00000" in texts("00B")
    assert texts("frob x") == []
    found = next(completions("sw 6A82"))
    assert (found.replaced, found.meaning) == (4, "file or application not found")


def test_apdus_of_commands() -> None:
    assert shell_lines.select_apdu("mf").hex() == "00a4000c023f00"
    assert shell_lines.select_apdu("a0:00:00:03:08").hex() == "00a4040005a00000030800"
    assert shell_lines.verify_apdu("80", "8", "12").hex() == "0020008008" + "3132" + "ff" * 6
    no_text = [("81", "", PIN + one) for one in ("\ufffd", "\udcff", "\x1b[D", "\0")]
    for wrong in (("8", "", "1"), ("81", "x", "1"), ("81", "2", PIN), ("81", "", ""), *no_text):
        with pytest.raises(WrongLine) as caught:
            shell_lines.verify_apdu(*wrong)
        assert PIN not in str(caught.value)


# Scripts ----------------------------------------------------------------------------------------

Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def script(run: Run, monkeypatch: pytest.MonkeyPatch) -> Script:
    def call(text: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run("shell", "--virtual", *words)

    return call


def test_a_script(script: Script) -> None:
    status, out, err = script(
        f"# comment\n{SELECT}\nexpect 9000\nselect demo\nverify 81\n{PIN}\nexpect 9000\n"
        "00B0810005\nexpect 90xx\nstatus\nreset cold\nsw 6A82\nreaders\nreader Virtual\nslot 0\n"
        "atr\nhelp\nquit\n00FF0000\n"
    )
    assert (status, err) == (0, "")
    assert "> 00 20 00 81 04 2A 2A 2A 2A  masked" in out
    assert "31 32 33 34" not in out
    assert "6A82: file or application not found" in out
    assert "TA1 = 0x96" in out
    assert "00 FF" not in out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("00FF0000\nexpect 9000\nstatus", "line 2: SW 9000 was expected, it is 6D00: instruction"),
        ("expect 9000", "line 1: no command was sent yet"),
        (f"{SELECT}\nexpect 90", "line 2: a status word has four hexadecimal digits"),
        ("00A4", "a command APDU has 4 to"),
        ("reader Nobody", "line 1: "),
        ("slot 7", "line 1: "),
        ("< nothing-there", "line 1: No such file or directory: 'nothing-there'"),
        (f"< {VERIFY}", "line 1: No such file or directory: (a word of 26 characters)"),
        ("< a\0b", "line 1: no file has a NUL character in its name"),
        ("< /dev/zero", "line 1: /dev/zero: more than 16 MiB are no script"),
        ("< /", "line 1: Is a directory: '/'"),
        ("verify 81\n12\ufffd4", "line 2: the PIN has characters that are no text"),
        ("verify 81\n", "the script ends where a PIN should be"),
    ],
)
def test_a_script_ends_where_a_line_fails(script: Script, text: str, error: str) -> None:
    status, out, err = script(text)
    assert "inactive" not in out
    assert (status, error in err) == (1, True), err


def test_a_script_runs_scripts_but_not_without_end(script: Script, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.write_text(f"{SELECT}\n")
    status, out, _ = script(f"< {inner}\nexpect 9000\n")
    assert (status, out.count("> 00 A4")) == (0, 1)
    inner.write_text(f"< {inner}\n")
    status, _, err = script(f"< {inner}\n")
    assert status == 1
    assert "one runs itself" in err


class Bytes:
    """A standard input of bytes, as sys.stdin is.

    Args:
        content: What comes, again and again.
        times: How often.
    """

    def __init__(self, content: bytes, times: int = 1) -> None:
        self.buffer = self
        self.taken = 0
        self._file = io.BytesIO(content * times)

    def isatty(self) -> bool:
        return False

    def readline(self, most: int) -> bytes:
        line = self._file.readline(most)
        self.taken += len(line)
        return line


def test_a_script_of_any_bytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Bytes(b"sw 9000\n\xff\xfe\x00\n"))
    status, out, err = run("shell", "--virtual")
    assert (status, out) == (1, "9000: normal processing\n")
    assert err == "ccid-probe: standard input: line 2 is not UTF-8: its byte 1 is FF\n"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"sw 9000\n# caf\xe9\n", "line 2 is not UTF-8: its byte 6 is E9"),
        (b"\xff\xfes\0w", "byte 5 is no text in utf-16-le, which its first bytes promise"),
    ],
)
def test_a_script_file_that_is_no_utf8_is_refused(
    script: Script, tmp_path: Path, content: bytes, error: str
) -> None:
    """No encoding is guessed, and no line is carried out."""
    file = tmp_path / "script"
    file.write_bytes(content)
    status, out, err = script(f"< {file}\n")
    assert (status, out) == (1, "")
    assert error in err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_script_file_of_another_editor(script: Script, tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "script"
    file.write_bytes("# größer\r\nsw 9000\r\n".encode(encoding))
    assert script(f"< {file}\n") == (0, "9000: normal processing\n", "")


def test_a_line_without_end_is_not_kept_in_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Bytes(b"0" * (4 << 20))
    monkeypatch.setattr("sys.stdin", endless)
    status, _, err = run("shell", "--virtual")
    assert status == 1
    assert "a line has more than 1 MiB" in err
    assert endless.taken <= (1 << 20) + 1


def test_a_script_whose_output_nobody_reads_ends_without_a_word() -> None:
    code = "from ccid.probe.__main__ import main; raise SystemExit(main(['shell', '--virtual']))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", code], input=b"sw 9000\nsw 6A82\n", stdout=pipe,
            stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_script_needs_no_package(tmp_path: Path) -> None:
    """A script imports neither prompt_toolkit nor readline."""
    code = (
        "import sys; from ccid.probe.__main__ import main; main(['shell', '--virtual']);"
        "print(*sorted({'prompt_toolkit', 'readline', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="sw 9000\n", capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("9000: normal processing\n", "\n")


# The history file -------------------------------------------------------------------------------


def test_the_history_file(tmp_path: Path) -> None:
    kept = HistoryFile(tmp_path / "deep" / "history")
    assert kept.lines() == []
    for line in (SELECT, VERIFY, "sw 6A82"):
        kept.add(line)
    assert kept.lines() == [SELECT, "sw 6A82"]
    assert stat.S_IMODE(kept.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.file.parent.stat().st_mode) == 0o700


def test_the_newest_lines_of_a_long_history_are_read(tmp_path: Path) -> None:
    kept = HistoryFile(tmp_path / "history")
    kept.file.write_text("sw 6A82\n" * (1 << 18))
    kept.add(SELECT)
    assert kept.lines()[-1] == SELECT
    assert set(kept.lines()) == {SELECT, "sw 6A82"}


def test_the_history_file_does_not_grow_without_limit(tmp_path: Path) -> None:
    kept = HistoryFile(tmp_path / "history")
    kept.file.write_text("sw 6A82\n" * (MOST_BYTES // 8))
    kept.add("sw 6A83")
    assert kept.lines() == ["sw 6A82"] * (MOST_LINES - 1) + ["sw 6A83"]
    assert kept.file.stat().st_size == MOST_LINES * 8
    assert stat.S_IMODE(kept.file.stat().st_mode) == 0o600
    long = f"00D6000000{'00' * (MOST_BYTES // 6)}"
    kept.file.write_text("sw 6A82\n" + f"# {long}\n" * 4)
    kept.add("sw 6A84")
    assert kept.file.stat().st_size <= MOST_BYTES // 2 + 1
    assert kept.lines()[-1] == "sw 6A84"
    assert [one.name for one in tmp_path.iterdir()] == ["history"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders are of POSIX")
def test_a_history_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "history"
    os.mkfifo(file)
    code = (
        "from pathlib import Path; from ccid.probe.shell_prompt import HistoryFile;"
        f"one = HistoryFile(Path({str(file)!r})); one.add('sw 9000'); print(one.lines())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == b"[]\n"


def test_a_history_file_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs\n")
    link = tmp_path / "history"
    link.symlink_to(other)
    HistoryFile(link).add(SELECT)
    assert other.read_text() == "theirs\n"


# A terminal -------------------------------------------------------------------------------------


@pytest.fixture(params=["prompt_toolkit", "readline"])
def typist(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Typist]:
    """The shell at a terminal: with prompt_toolkit, and as it is without."""
    env = {
        **os.environ,
        "TERM": "xterm" if request.param == "prompt_toolkit" else "dumb",
        "XDG_STATE_HOME": str(tmp_path),
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "NO_COLOR": "1",
    }
    one = Typist([sys.executable, "-m", "ccid.probe", "shell", "--virtual"], env)
    yield one
    one.close()


def test_the_shell_at_a_terminal(typist: Typist, tmp_path: Path) -> None:
    """Completion, a PIN that is asked for and shown nowhere, and a history without it."""
    typist.until("ccid>")
    typist.type(f"{SELECT}\r")
    typist.until("< 90 00  normal processing")
    typist.until("ccid>")
    typist.type("select dem\t")
    typist.until("demo")
    typist.type("\r")
    typist.until("> 00 A4 04 00 0A F0 63 63 69 64")
    typist.until("90 00")
    typist.type("verify 81\r")
    typist.until("PIN:")
    typist.type(f"{PIN}\r")
    typist.until("> 00 20 00 81 04 2A 2A 2A 2A")
    typist.until("90 00")
    typist.type("frob\r")
    typist.until("neither a command")
    typist.until("ccid>")
    typist.type("\x04")
    assert typist.process.wait(PATIENCE_S) == 0
    assert PIN not in typist.shown
    kept = (tmp_path / "ccid" / "shell_history").read_text()
    assert kept.splitlines() == [SELECT, "select demo", "verify 81"]


@pytest.mark.parametrize("typist", ["prompt_toolkit"], indirect=True)
def test_a_pin_in_an_apdu_is_masked_as_it_is_typed(typist: Typist, tmp_path: Path) -> None:
    """Nor does the key for the line before bring it back."""
    typist.until("ccid>")
    typist.type(f"{VERIFY}\r")
    typist.until("> 00 20 00 81 04 2A 2A 2A 2A  masked")
    typist.until("ccid>")
    typist.type("sw 9000\r")
    typist.until("9000: normal processing")
    typist.until("ccid>")
    typist.type("\x1b[A\x1b[A\x1b[A\r")
    typist.until("9000: normal processing")
    typist.type("quit\r")
    assert typist.process.wait(PATIENCE_S) == 0
    assert "31 32 33 34" not in typist.shown
    assert "33" not in typist.shown
    assert (tmp_path / "ccid" / "shell_history").read_text().splitlines() == ["sw 9000", "quit"]
