"""What judges, unpacked from newer releases of Debian: what is said without it. Needs no
network."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from tests.integration.newer_clients import RELEASES  # noqa: E402
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


# Programs of newer releases ---------------------------------------------------------------------

CLIENTS = ROOT / "tools" / "prepare-clients"


def check_clients(*words: str) -> tuple[int, list[str]]:
    done = subprocess.run([CLIENTS, *words], capture_output=True, text=True, env=os.environ)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_the_check_of_newer_programs_says_what_is_there(cache: Path) -> None:
    assert check_clients("--check")[0] == 1
    for release in RELEASES:
        release.root.mkdir(parents=True)
        (release.root / "versions").write_text(f"format 1, {release.name}\nopensc 0.26.1-2\n")
    code, said = check_clients("--check")
    assert code == 0
    assert said == [
        f"tools/prepare-clients: ready ({cache}/clients/{one.name}: opensc 0.26.1-2)"
        for one in RELEASES
    ]
    assert check_clients() == (code, said)  # nothing to do
    (RELEASES[0].root / "versions").write_text("format 0, trixie\n")
    code, said = check_clients("--check")
    assert code == 1
    assert f"nothing is unpacked in {cache}/clients/trixie" in "\n".join(said)


def test_wrong_command_lines_of_the_newer_programs(cache: Path) -> None:
    assert check_clients("--frob") == (1, ["tools/prepare-clients: what is --frob? (--help)"])
    code, said = check_clients("--help")
    assert (code, said[0].startswith("Unpack the programs of PC/SC")) == (0, True)


def test_newer_programs_that_are_missing_are_told(cache: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="run tools/prepare-clients"):
        RELEASES[0].need()


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
