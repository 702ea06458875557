"""``ccid-probe doctor`` says where polkit keeps this user's programs from pcscd."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccid.errors import ReaderBusy
from ccid.probe import doctor_command, polkit_check
from ccid.transport.access_cures import PAGE
from tests.unit.conftest import Run
from tests.unit.test_docs import anchors

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pkcheck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pkcheck that says no, and notes what it was asked."""
    program = tmp_path / "pkcheck"
    program.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/asked\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


@pytest.mark.parametrize(
    ("status", "refuses"), [(0, False), (1, True), (2, True), (3, True), (127, False)]
)
def test_what_polkit_says(pkcheck: Path, status: int, refuses: bool) -> None:
    pkcheck.write_text(pkcheck.read_text().replace("exit 1", f"exit {status}"))
    assert polkit_check.pcscd_refuses() is refuses
    asked = (pkcheck.parent / "asked").read_text()
    assert asked.startswith("--action-id org.debian.pcsc-lite.access_pcsc --process ")


def test_without_polkit_nothing_is_said(pkcheck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pkcheck.parent / "none"))
    assert not polkit_check.pcscd_refuses()
    monkeypatch.setenv("PATH", str(pkcheck.parent))
    pkcheck.write_text("no program")
    assert not polkit_check.pcscd_refuses()


@pytest.mark.parametrize(("holder", "count"), [("pcscd (process 4)", 2), ("scdaemon", 1)])
def test_the_doctor_says_so_where_pcscd_has_the_reader(
    run: Run, pkcheck: Path, monkeypatch: pytest.MonkeyPatch, holder: str, count: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ReaderBusy(f"held by {holder}; stop it", holder=holder, cure="stop it")

    monkeypatch.setattr(doctor_command, "opened", fail)
    status, out, _ = run("doctor", "--virtual")
    assert status == 1
    assert out.count("TROUBLE") == count
    assert (polkit_check.REFUSES in out) is (count == 2)


def test_it_is_no_trouble_where_pcscd_only_runs(
    pkcheck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "PCSCD_SOCKET", tmp_path)
    machine = doctor_command.Patient("this machine", "", "")
    doctor_command._look_at_linux(machine)
    (said,) = (fact for fact in machine.facts if polkit_check.REFUSES in fact)
    assert f"{PAGE}#{polkit_check.SECTION}" in said
    assert not any("polkit" in trouble["trouble"] for trouble in machine.troubles)
    assert polkit_check.SECTION in set(anchors(ROOT / PAGE))
