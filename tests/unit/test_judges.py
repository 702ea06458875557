"""The judges of the differential test: what is said without the newest one. Needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from tests.vm.differential.judges import VERSIONS, judges  # noqa: E402

TOOL = ROOT / "tools" / "prepare-judge"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCID_LAB_CACHE", str(tmp_path))
    monkeypatch.delenv("CCID_JUDGE_SUITE", raising=False)
    return tmp_path


def unpack(
    cache: Path,
    stamp: str = "format 1, forky",
    versions: str = "pcscd 2.5.2-1\nlibccid 1.8.4-1\n",
) -> None:
    (cache / "judge").mkdir()
    (cache / "judge" / "versions").write_text(f"{stamp}\n{versions}")


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run([TOOL, *words], capture_output=True, text=True, env=os.environ)
    return done.returncode, done.stdout + done.stderr


def test_without_the_newest_the_installed_one_judges(cache: Path) -> None:
    newest, installed = judges()
    assert newest.missing == "the newest libccid is not unpacked: run tools/prepare-judge"
    assert (installed.root, installed.missing) == (None, "")
    unpack(cache)
    assert newest.missing == ""
    assert newest.versions == "libccid 1.8.4-1, pcscd 2.5.2-1"


def test_the_check_says_what_is_there(cache: Path) -> None:
    code, said = run("--check")
    assert (code, "nothing is unpacked in" in said) == (1, True)
    unpack(cache)
    assert run("--check") == (
        0,
        f"tools/prepare-judge: ready ({cache}/judge: pcscd 2.5.2-1 libccid 1.8.4-1)\n",
    )
    assert run() == run("--check")  # nothing to do
    assert not (cache / "judge.lock").exists()


def test_a_folder_of_another_version_is_none(cache: Path) -> None:
    unpack(cache, "format 0, forky")
    assert run("--check")[0] == 1


def test_wrong_command_lines(cache: Path) -> None:
    assert run("--frob") == (1, "tools/prepare-judge: what is --frob? (--help)\n")
    code, said = run("--help")
    assert (code, said.startswith("Unpack the newest libccid")) == (0, True)


@pytest.mark.parametrize(
    ("versions", "is_moved"),
    [
        ("pcscd 2.5.2-1\nlibccid 1.8.4-1\n", False),
        ("pcscd 2.5.2-2\nlibccid 1.8.4-1+b3\n", False),
        ("pcscd 2.5.2-1\nlibccid 1.9.0-1\n", True),
        ("pcscd 2.6.0-1\nlibccid 1.8.4-1\n", True),
    ],
)
def test_a_judge_of_another_version_is_named(cache: Path, versions: str, is_moved: bool) -> None:
    """A scenario that comes out otherwise says whether the judge moved, or we."""
    unpack(cache, versions=versions)
    newest, _ = judges()
    assert newest.moved.startswith("THE JUDGE HAS MOVED") == is_moved
    said = newest.new_difference("a NEW DIFFERENCE", ["9000"], ["failed"])
    assert ("MOVED" in said) == is_moved
    assert ("we have changed" in said) != is_moved
    assert "9000" in said
    assert "failed" in said


def test_the_page_of_differences_is_of_the_same_versions() -> None:
    page = (ROOT / "docs/differences.md").read_text()
    for known in tomllib.loads(VERSIONS.read_text()).values():
        assert known["libccid"] in page
        assert known["pcscd"] in page
