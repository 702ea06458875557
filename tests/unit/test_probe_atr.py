"""``ccid-probe atr`` and ``ccid-probe atr-stats``."""

from __future__ import annotations

import importlib.resources
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.conftest import Run

SIM = "3B9E96801FC78031E073FE2113574A33052936008A"
LIST = """\
# cards
3B 9E 96 80 1F C7 80 31 E0 73 FE 21 13 57 4A 33 05 29 36 00 8A
\tA SIM
3B 80 81 31 FE 45 8B
3B 80 81 21 [47]5 ..
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A list of ATRs."""
    path = tmp_path / "list.txt"
    path.write_text(LIST)
    return str(path)


# atr ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[SIM], [SIM.lower()], [bytes.fromhex(SIM).hex(":")]])
def test_an_atr_on_the_command_line(run: Run, words: list[str]) -> None:
    status, out, err = run("atr", *words)
    assert (status, err) == (0, "")
    assert out.startswith("ATR: 3B 9E 96 80 1F C7")
    assert "\n  TS  = 0x3B  direct convention\n" in out
    assert "class A (5 V), B (3 V), C (1.8 V)" in out


def test_words_of_a_byte_each_are_one_atr(run: Run) -> None:
    status, out, _ = run("atr", "3B", "02", "41", "42")
    assert status == 0
    assert out.startswith("ATR: 3B 02 41 42\n")


def test_several(run: Run, file: str) -> None:
    status, out, _ = run("atr", "3B00", file)
    assert status == 0
    blocks = out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "ATR: 3B 00",
        "ATR: 3B 9E 96 80 1F C7 80 31 E0 73 FE 21 13 57 4A 33 05 29 36 00 8A",
        "ATR: 3B 80 81 31 FE 45 8B",
        "ATR: 3B 80 81 21 45 00",
    ]
    assert blocks[1].splitlines()[1] == "  # A SIM"
    assert blocks[3].splitlines()[1] == "  the lowest of 3B 80 81 21 [47]5 .."


def test_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("3B 01 41\n"))
    assert run("atr", "-")[1].startswith("ATR: 3B 01 41\n")


def test_a_malformed_atr(run: Run) -> None:
    status, out, err = run("atr", "3B10", "3B00")
    assert status == 1
    assert "  malformed: TA1, byte 3, is announced by T0 = 0x10" in out
    assert "ccid-probe: atr: malformed: TA1" in err
    assert "ATR: 3B 00" in out


def test_a_malformed_atr_in_a_file_is_found_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("3B00\n3B10\n")
    status, _, err = run("atr", str(path))
    assert status == 1
    assert f"{path}: line 2: malformed" in err


def test_what_is_not_hexadecimal(run: Run, tmp_path: Path) -> None:
    status, out, err = run("atr", "3B0G")
    assert (status, out) == (2, "")
    assert "character 4, 'G', is not hexadecimal" in err
    path = tmp_path / "a"
    path.write_text("3B00\n3B 0\n")
    for command in ("atr", "atr-stats"):
        status, out, err = run(command, str(path))
        assert (status, out) == (2, "")
        assert f"ccid-probe: {command}: {path}: line 2: 3 digits" in err


def test_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for command in ("atr", "atr-stats"):
        status, _, err = run(command, str(tmp_path / "empty"))
        assert status == 1
        assert "there is no ATR in it" in err
        assert run(command, str(tmp_path))[0] == 1
    assert run("atr-stats", str(tmp_path / "none"))[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["atr"],
        ["atr-stats"],
        ["atr-stats", "x", "--byte"],
        ["atr", "--virtual", "3B00"],
        ["atr-stats", "--slot", "0", "x"],
    ],
)
def test_wrong_command_lines(run: Run, words: list[str]) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert "ccid-probe: " in err


# atr-stats ------------------------------------------------------------------------------------


def test_stats(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    status, out, _ = run("atr-stats", file)
    assert status == 0
    assert out.splitlines()[:2] == [
        "TB3 (first after T=15 or T=1)",
        "of 3 ATRs 1 have it, 1 do not, 1 are patterns that tell neither",
    ]
    assert "BWI (T=1)  #       %" in out
    assert "\n        4  1  100.00  █" in out
    assert max(len(line) for line in out.splitlines()[2:]) == 40


def test_stats_of_another_byte(run: Run, file: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("3B 10 96\n3B 10\n")
    _, out, _ = run("atr-stats", str(tmp_path / "bad"), "--byte", "ta1")
    assert "TA1\nof 2 ATRs 1 have it, 0 do not, 1 are malformed\n" in out
    assert "9: 512" in out
    status, out, _ = run("atr-stats", file, "--byte", "TC4")
    assert (status, out) == (0, "TC4\nof 3 ATRs 0 have it, 3 do not\n")


@pytest.mark.parametrize("byte", ["TE1", "TA0", "frob"])
def test_no_such_byte(run: Run, file: str, byte: str) -> None:
    status, out, err = run("atr-stats", file, "--byte", byte)
    assert (status, out) == (2, "")
    assert f"{byte.upper()!r} is no interface byte" in err


def test_no_blocks_where_the_terminal_has_none(file: str) -> None:
    for encoding, has in (("ascii", "#####"), ("utf-8", "█████")):
        done = subprocess.run(
            [sys.executable, "-m", "ccid.probe", "atr-stats", file],
            capture_output=True,
            env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
        assert has in done.stdout.decode(encoding)


def test_pictures(run: Run, file: str, tmp_path: Path) -> None:
    svg, png = tmp_path / "t.svg", tmp_path / "t.png"
    assert run("atr-stats", file, "--svg", str(svg), "--png", str(png))[0] == 0
    assert svg.read_text("utf-8").startswith("<svg ")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written(run: Run, file: str) -> None:
    for option in ("--svg", "--png"):
        status, _, err = run("atr-stats", file, option, "/none/at/all")
        assert status == 1
        assert "/none/at/all" in err


def test_png_needs_an_extra(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    status, _, err = run("atr-stats", file, "--png", "x.png")
    assert status == 1
    assert "pip install 'pyccid[plot]'" in err


def test_pillow_is_loaded_for_a_png_only(file: str) -> None:
    script = (
        f"import sys; from ccid.probe.__main__ import main; main(['atr-stats', {file!r}]); "
        "sys.exit('PIL' in sys.modules or 'usb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# JSON -----------------------------------------------------------------------------------------


def checked(name: str, text: str) -> Any:
    folder = importlib.resources.files("ccid.probe") / "schemas"
    schema = json.loads((folder / f"{name}.json").read_text())
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    document = json.loads(text)
    checker.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        checker.validate({**document, "more": 1})
    return document


STORAGE = "3B8F8001804F0CA000000306030001000000006A"
EVERYTHING = "3B9F9680B1FE451FC78031F073F621E08305900041F1A010"


@pytest.mark.parametrize(
    "words",
    [
        [SIM],
        [STORAGE],
        [EVERYTHING],
        ["3B00"],
        ["3B 10"],
        ["3B10AA", "3F8F808F011180"],
        ["3B021042"],
        ["3B0400039000"],
    ],
)
def test_json_is_as_documented(run: Run, words: list[str]) -> None:
    _, out, _ = run("atr", "--json", *words)
    assert len(checked("atr", out)["atrs"]) == len(words)


def test_json_of_an_atr(run: Run) -> None:
    status, out, _ = run("atr", "--json", SIM)
    (one,) = checked("atr", out)["atrs"]
    assert (status, one["raw"], one["malformed"], one["file"]) == (0, SIM, None, None)
    atr = one["atr"]
    assert (atr["Fi"], atr["Di"], atr["IFSC"], atr["protocols"]) == (512, 32, 32, [0])
    assert atr["interface_bytes"][-1] == {"name": "TA3", "value": 0xC7, "T": 15}
    assert (atr["clock_stop"], atr["classes"]) == ("no preference", ["A", "B", "C"])
    assert atr["historical"]["card_service_data"]["select_by_full_df_name"] is True
    assert atr["historical"]["card_capabilities"]["logical_channels"] == 4
    assert (atr["TCK"], atr["TCK_right"]) == (0x8A, True)


def test_json_of_a_file(run: Run, file: str) -> None:
    first, _, third = checked("atr", run("atr", "--json", file)[1])["atrs"]
    assert (first["file"], first["line"], first["description"]) == (file, 2, ["A SIM"])
    assert third["pattern"] == "3B 80 81 21 [47]5 .."


def test_json_of_a_malformed_atr(run: Run) -> None:
    status, out, _ = run("atr", "--json", "3B10")
    (one,) = checked("atr", out)["atrs"]
    assert status == 1
    assert one["atr"] is None
    assert "TA1" in one["malformed"]


@pytest.mark.parametrize("byte", ["TB3", "TA1", "TD1", "TA3", "TC4"])
def test_json_of_stats(run: Run, file: str, byte: str) -> None:
    status, out, _ = run("atr-stats", "--json", file, "--byte", byte)
    document = checked("atr-stats", out)
    assert (status, document["byte"], document["atrs"]) == (0, byte, 3)
    assert document["present"] == document["tables"][0]["total"]
