"""The Python examples in the README run, and print what the README shows."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ccid
from ccid.known.quirks import known_readers
from ccid.probe.__main__ import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_longer_example(tmp_path: Path) -> None:
    source = blocks("python")[1]
    (printed,) = re.findall(rf"{re.escape(source)}```\n\n```\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == printed
    assert b"1234" not in (tmp_path / "session.pcapng").read_bytes()


def test_the_first_example_on_a_virtual_reader(tmp_path: Path) -> None:
    source = blocks("python")[0].replace("open_reader()", "open_reader(ccid.VirtualReader())")
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "9000"


def test_the_commands_that_need_no_reader(tmp_path: Path) -> None:
    """The README shows these commands with their output."""
    (console,) = (block for block in blocks("console") if "--virtual" in block)
    known = r"[^\n]*--virtual[^\n]*|atr [^\n]*"
    shown = re.findall(rf"\$ ccid-probe ({known})\n(.*?)(?=\n\n\$|\Z)", console, re.S)
    assert len(shown) == 3
    for words, output in shown:
        command = [sys.executable, "-m", "ccid.probe", *words.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.strip() == output.strip(), words


@pytest.mark.usefixtures("table")
def test_how_many_readers_are_known() -> None:
    count = str(sum(1 for _ in known_readers()))
    told = re.findall(r"table of (\d+) known readers|Known readers \| (\d+),", README)
    assert told == [(count, ""), ("", count)]


def test_each_command_is_told_of_and_has_its_schema() -> None:
    (commands,) = (
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    for name, command in commands.choices.items():
        assert f"| `ccid-probe {name}" in README
        if "--json" in command.format_help():
            assert (ROOT / "ccid" / "probe" / "schemas" / f"{name}.json").is_file(), name


def test_public_names() -> None:
    for name in ccid.__all__:
        assert getattr(ccid, name) is not None
    assert set(ccid.__all__) <= set(dir(ccid))
