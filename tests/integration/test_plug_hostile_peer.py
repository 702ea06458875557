"""The plug's C code: strict warnings, the analyzer, and sanitizers while a helper breaks every
rule; and how often a helper that always ends is started."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.integration.plug import SOURCE, STRICT, Plug, build
from tests.integration.test_plug import ABSENT, BROKEN, LUN, helpers

HERE = Path(__file__).parent
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SHORT_TIMES = ["-DSILENCE_S=1", "-DSTART_S=2", "-DRESTART_S=0.002"]
WARNINGS = ["-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wpointer-arith", "-Wundef"]


def compile_with(*options: str) -> None:
    done = subprocess.run(["gcc", *STRICT, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("options", [WARNINGS, ["-fanalyzer"]], ids=["warnings", "analyzer"])
def test_the_compiler_has_nothing_to_say(tmp_path: Path, options: list[str]) -> None:
    compile_with(*options, "-c", str(SOURCE), "-o", str(tmp_path / "plug.o"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug and its hostile helper in one program, with sanitizers."""
    folder = tmp_path_factory.mktemp("hostile")
    made, program = folder / "plug.o", folder / "plug_hostile_peer"
    faults = ["-include", str(HERE / "plug_faults.h")]
    compile_with(*SANITIZE, *SHORT_TIMES, *faults, "-c", str(SOURCE), "-o", str(made))
    peer = HERE / "plug_hostile_peer.c"
    compile_with(*SANITIZE, str(peer), str(made), "-o", str(program), "-pthread", "-ldl")
    (folder / "interpreter").write_text(f"{program}\n")
    return program


def test_a_hostile_helper_harms_nothing(hostile: Path, full: bool, tell: Tell) -> None:
    """Broken frames, lies, ends in the middle, silence; system calls that fail; no descriptors. No
    call takes long or writes beyond its room, and no process, descriptor or memory is left."""
    told = []
    for seed in range(40 if full else 2):
        ran = subprocess.run(
            [hostile, str(seed), "4000"], capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, f"seed {seed}: {ran.stdout}{ran.stderr[-3000:]}"
        told.append(f"seed {seed}: {ran.stdout.strip()}")
        assert int(ran.stdout.split()[2]) > 500, "most of the plug was reached"
        assert ran.stderr.count("hung up") > 50
    tell(f"plug under sanitizers with a hostile helper: {'; '.join(told[:2])} …")


def test_many_slots_do_not_start_more_helpers(tmp_path: Path) -> None:
    """A helper that ends at once, and a thread for each of eight slots that asks all the time: one
    start a second for the device."""
    plug, count = Plug(build(tmp_path)), tmp_path / "count"
    luns = [LUN + n for n in range(8)]
    for lun in luns:
        assert plug.create(lun, "virtual:") == 0
    (pid,) = helpers()
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ >>{count}\n")
    script.chmod(0o755)
    (tmp_path / "interpreter").write_text(f"{script}\n")
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    began = time.monotonic()

    def ask(lun: int) -> None:
        while time.monotonic() - began < 2.5:
            assert plug.presence(lun) in (ABSENT, BROKEN)
            time.sleep(0.005)

    threads = [threading.Thread(target=ask, args=(lun,)) for lun in luns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    took = time.monotonic() - began
    for lun in luns:
        plug.close(lun)
    assert 1 <= len(count.read_text().split()) <= took + 1
