"""Another distribution has our import name: ``ccid-probe doctor`` reports it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

import ccid
from ccid.probe import whose_name
from tests.unit.conftest import Run


def distribution(folder: Path, name: str, version: str) -> None:
    """The files that pip leaves of an installed distribution."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, "utf-8")


def package(folder: Path, text: str) -> ModuleType:
    """A package that ``import ccid`` might find."""
    module = ModuleType("ccid")
    module.__file__ = str(folder / "ccid" / "__init__.py")
    exec(text, module.__dict__)
    return module


def test_nothing_is_said_where_only_ours_is_installed(tmp_path: Path) -> None:
    distribution(tmp_path, "pyccid", "0.1.0")
    distribution(tmp_path, "ccid_tools", "3")
    assert list(whose_name.troubles(ccid, [str(tmp_path)])) == []


def test_the_other_distribution_is_told_of(tmp_path: Path) -> None:
    distribution(tmp_path, "pyccid", "0.1.0")
    distribution(tmp_path, "ccid", "0.0.1")
    ((trouble, cure),) = whose_name.troubles(ccid, [str(tmp_path)])
    assert trouble == (
        f"a distribution ccid '0.0.1' is installed in {str(tmp_path)!r}, and has our import name"
    )
    assert "pip uninstall ccid" in cure
    assert "--force-reinstall" in cure


def test_each_folder_that_has_it_is_named(tmp_path: Path) -> None:
    """For example in the user's site-packages and in the system's; in any spelling."""
    places = [tmp_path / "user", tmp_path / "system"]
    for place, name in zip(places, ("ccid", "CCID"), strict=True):
        place.mkdir()
        distribution(place, name, "0.0.1")
    told = [trouble for trouble, _ in whose_name.troubles(ccid, [str(p) for p in places])]
    assert [str(place) in text for place, text in zip(places, told, strict=True)] == [True, True]


def test_a_distribution_without_metadata_does_no_harm(tmp_path: Path) -> None:
    """An interrupted uninstall leaves such a folder."""
    (tmp_path / "ccid-0.0.1.dist-info").mkdir()
    assert [version for version, _ in whose_name.others([str(tmp_path)])] == [""]


@pytest.mark.parametrize(
    "other",
    [
        package(Path("/elsewhere"), "__all__ = ['open_reader']"),
        package(Path(whose_name.__file__).parents[2], "__all__ = []"),  # overwrote ours
        ModuleType("ccid"),  # a folder without __init__.py
    ],
    ids=["elsewhere", "overwritten", "namespace"],
)
def test_an_import_that_is_not_ours(other: ModuleType, tmp_path: Path) -> None:
    assert not whose_name.is_ours(other)
    ((trouble, _),) = whose_name.troubles(other, [str(tmp_path)])
    assert trouble.startswith("`import ccid` gives ")
    assert trouble.endswith("which is not this library's")


def test_what_is_imported_here_is_ours() -> None:
    assert whose_name.is_ours(ccid)


def test_the_doctor_says_so(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distribution(tmp_path, "ccid", "0.0.1\x1b[2J")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    status, out, _ = run("doctor")
    assert status == 1
    assert "TROUBLE: a distribution ccid '0.0.1" in out
    assert "cure: python -m pip uninstall ccid" in out
    assert "\x1b" not in out
