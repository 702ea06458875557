"""``ccid.pcsc.under_pyscard`` puts our ``smartcard.scard`` under a package ``smartcard``, whatever
is the matter with the compiled part of that. The package here has the shape of pyscard's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """\
import sys
from smartcard.System import readers
import smartcard.scard
from smartcard.scard import scard
print(*readers(), sep="|")
print(smartcard.scard.SCardGetErrorMessage(0), scard.SCARD_PCI_T0, sys.argv, __name__)
print("_scard" in str(list(sys.modules)), sys.path[0])
"""
BROKEN = {
    "missing": None,
    "does not load": "raise ImportError('undefined symbol: SCardFoo')\n",
    "stops Python": "import os; os._exit(9)\n",
}
"""What is the matter with the compiled part."""


def pyscard(folder: Path, compiled: str | None) -> Path:
    """A package of pyscard's shape in ``folder``."""
    files = {
        "__init__.py": "import smartcard.scard\nfrom smartcard.System import readers\n",
        "System.py": "from smartcard.scard import *\n"
        "import smartcard.scard as low\n"
        "def readers():\n"
        "    code, context = SCardEstablishContext(SCARD_SCOPE_USER)\n"
        "    return low.SCardListReaders(context, [])[1]\n",
        "scard/__init__.py": "from smartcard.scard.scard import *\n",
        "scard/scard.py": "from smartcard.scard import _scard\n",
    }
    if compiled is not None:
        files["scard/_scard.py"] = compiled
    for name, text in files.items():
        path = folder / "smartcard" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(folder: Path, *words: str, status: int = 0, **environment: str) -> str:
    """What Python prints, with the package in ``folder``; the errors if it is to fail."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(params=BROKEN)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Has the package, and a program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return pyscard(tmp_path, BROKEN[request.param])


@pytest.fixture
def well(tmp_path: Path) -> Path:
    """The same with a compiled part that loads."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return pyscard(tmp_path, "")


def test_without_us_it_does_not_work(folder: Path) -> None:
    """Else the other tests would show nothing."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode != 0


def test_by_a_command(folder: Path) -> None:
    words = ("-m", "ccid.pcsc.under_pyscard", "--virtual", "--", "program.py", "-a", "--virtual")
    names, said, where = run(folder, *words).splitlines()
    assert names.startswith("Virtual Reader (")
    assert said == "Command successful. 1 ['program.py', '-a', '--virtual'] __main__"
    assert where == f"False {folder}"


def test_by_a_function(folder: Path) -> None:
    code = (
        "from ccid.pcsc import under_pyscard; under_pyscard(['', '08e6:4433'])\n"
        "from smartcard import readers; print(len(readers()))"
    )
    assert run(folder, "-c", code) == "2\n"


def test_by_a_variable(folder: Path) -> None:
    code = (
        "import ccid.pcsc; ccid.pcsc.under_pyscard()\n"
        "from smartcard import readers; print(readers()[0][:14])"
    )
    said = run(folder, "-c", code, CCID_PCSC_READERS="--virtual --card none")
    assert said == "Virtual Reader\n"


def test_a_variable_that_means_nothing(well: Path) -> None:
    """Told when the readers are first needed."""
    code = "import ccid.pcsc; ccid.pcsc.under_pyscard(); from smartcard import readers; readers()"
    said = run(well, "-c", code, status=1, CCID_PCSC_READERS="--nonsense")
    assert "WrongReaders: CCID_PCSC_READERS: unrecognized arguments: --nonsense" in said


def test_a_module(well: Path) -> None:
    words = ("-m", "ccid.pcsc.under_pyscard", "--virtual", "-m", "program", "x")
    _, said, where = run(well, *words).splitlines()
    assert said == f"Command successful. 1 ['{well}/program.py', 'x'] __main__"
    assert where == f"False {well}"


def test_a_program_in_path(well: Path) -> None:
    program = well / "bin" / "tool"
    program.parent.mkdir()
    program.write_text("#!/usr/bin/env python3\n" + PROGRAM)
    program.chmod(0o755)
    words = ("-m", "ccid.pcsc.under_pyscard", "--virtual", "--", "tool")
    said = run(well, *words, PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert said.splitlines()[1] == f"Command successful. 1 ['{program}'] __main__"


def test_the_module_is_the_function_too(well: Path) -> None:
    code = (
        "import ccid.pcsc.under_pyscard\n"
        "ccid.pcsc.under_pyscard([''])\n"
        "from smartcard import readers; print(len(readers()))"
    )
    assert run(well, "-c", code) == "1\n"


def test_too_late(well: Path) -> None:
    (well / "smartcard/scard/scard.py").write_text("def SCardEstablishContext(x): return [0, 1]\n")
    (well / "smartcard/System.py").write_text("from smartcard.scard import *\nreaders = list\n")
    said = run(well, "-c", "import smartcard, ccid.pcsc; ccid.pcsc.under_pyscard()", status=1)
    assert "PyscardInUse: smartcard.scard was imported before" in said


def test_again_is_no_fault(well: Path) -> None:
    code = (
        "import ccid.pcsc; ccid.pcsc.under_pyscard(['']); import smartcard\n"
        "ccid.pcsc.under_pyscard(['', '']); print(len(smartcard.readers()))\n"
        "import sys; print(sum(type(f).__module__.startswith('ccid') for f in sys.meta_path))"
    )
    assert run(well, "-c", code) == "2\n1\n"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "which program?"),
        (("--virtual",), 2, "which program?"),
        (("--virtual", "program.py"), 2, "'program.py' is not vvvv:pppp"),
        (("--card", "echo", "program.py"), 2, "there is no --virtual before it"),
        (("--virtual", "--", "no-such-program"), 127, "there is no program 'no-such-program'"),
        (("--virtual", "ffff:ffff", "program.py"), 1, "no figures of a reader ffff:ffff"),
        (("--virtual", "-m", "no_such_module"), 1, "No module named no_such_module"),
    ],
)
def test_wrong_words(well: Path, words: tuple[str, ...], status: int, says: str) -> None:
    assert says in run(well, "-m", "ccid.pcsc.under_pyscard", *words, status=status)


def test_without_pyscard(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("")
    words = ("-m", "ccid.pcsc.under_pyscard", "--virtual", "--", "program.py")
    assert "pip install pyscard" in run(tmp_path, *words, status=1)


def test_the_exit_status_is_the_programs(well: Path) -> None:
    (well / "program.py").write_text("raise SystemExit(7)")
    run(well, "-m", "ccid.pcsc.under_pyscard", "--virtual", "--", "program.py", status=7)


def test_a_daemon_thread_that_waits_says_nothing_at_the_end(well: Path) -> None:
    """As pyscard's CardMonitor: with libpcsclite it is simply gone."""
    code = (
        "import ccid.pcsc, threading, time; ccid.pcsc.under_pyscard([''])\n"
        "from smartcard.scard import *\n"
        "def monitor():\n"
        "    _, context = SCardEstablishContext(0)\n"
        "    code, states = 0, [(SCardListReaders(context, [])[1][0], 0)]\n"
        "    while True:\n"
        "        code, states = SCardGetStatusChange(context, INFINITE, [states[0][:2]])\n"
        "        code or ready.set()\n"
        "        code, names = SCardListReaders(context, [])\n"
        "        if code: print('told', hex(code), flush=True)\n"
        "ready = threading.Event()\n"
        "threading.Thread(target=monitor, daemon=True).start()\n"
        "ready.wait(); time.sleep(0.1); print('end')"
    )
    assert run(well, "-c", code) == "end\n"
