"""The programs of docs/asyncio.md and the README run, and print what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ccid
from ccid.device import watching
from ccid.transport import hotplug

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "asyncio.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", PAGE, re.S)


def test_there_are_four() -> None:
    assert [bool(printed) for _, printed in PROGRAMS] == [True, True, True, False]


@pytest.mark.parametrize(("source", "printed"), PROGRAMS)
def test_each_runs(
    source: str, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "list_readers", list)  # whatever readers this machine has
    monkeypatch.setattr(hotplug, "on_hotplug", lambda tell: lambda: None)
    exec(compile(source, "docs/asyncio.md", "exec"), {"__name__": "__main__"})
    expected = printed or "reader arrived\ncard arrived\ncard left\n"
    assert capsys.readouterr().out == expected


def test_the_one_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (source,) = (s for s in re.findall(r"```python\n(.*?)```", readme, re.S) if "aio" in s)
    source = source.replace("open_reader()", "open_reader(ccid.VirtualReader())")
    exec(compile(source, "README.md", "exec"), {"ccid": ccid})
    assert capsys.readouterr().out == "9000\n"
