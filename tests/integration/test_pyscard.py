"""pyscard on :mod:`ccid.pcsc.scard`, in process: its examples, its monitors, its own tests. What
the examples print is the same through libpcsclite with our service, and with a real pcscd.

Debian's pyscard has a compiled part, which is not to be loaded; PyPI's source has none at all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccid.pcsc.scard import SCARD_E_INVALID_HANDLE
from tests.integration.private_pcscd import HAS_CARD, private_pcscd, virtual_reader
from tests.integration.scripted_service import SCRIPTS
from tests.integration.test_package import find_pip_config

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
"""The one that has Debian's pyscard."""
EXAMPLES = Path("/usr/share/doc/python3-pyscard/examples")
RUNNER = str(ROOT / "tests/vm/client_runner.py")
UNDER = ("-m", "ccid.pcsc.under_pyscard", "--virtual")
TIMEOUT_S = 120
NAMES = (
    *(f"simple/{name}.py" for name in ("getATR", "getATR_context", "selectDF_TELECOM")),
    *(
        f"scard-api/sample_{name}.py"
        for name in (
            *("control", "getATR", "getAttrib", "listCards", "listInterfaces", "locateCards"),
            *("readerGroups", "readers", "selectDFTelecom", "transaction"),
        )
    ),
    *(
        f"framework/sample_{name}.py"
        for name in (
            *("ATR", "CardConnectionDecorator", "ConsoleConnectionTracer", "CustomCardType"),
            *("CustomErrorChecker", "ErrorChecking", "ExclusiveCardConnection"),
            *("apduTracerInterpreter", "toHexString"),
        )
    ),
)
"""The examples that end by themselves, without a person who moves cards."""
OF_PCSCD = {
    "scard-api/sample_control.py": "Escape commands are a feature there only if its owner allows",
}
"""What differs with a real pcscd, and why."""
TIMED = {"scard-api/sample_getAttrib.py": "a card has no ATR there once its power is off"}
"""What may differ with a real pcscd, which takes the power after a while."""
NEW_EXAMPLES = ("simple/getATR.py", "simple/selectDF_TELECOM.py", "scard-api/sample_getAttrib.py",
                "scard-api/sample_readerGroups.py", "scard-api/sample_transaction.py",
                "framework/sample_ExclusiveCardConnection.py")  # fmt: skip


def environment(*folders: Path) -> dict[str, str]:
    """With our library, what it needs, and these folders."""
    needed = (*folders, ROOT, sysconfig.get_path("purelib"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, needed))}


def run(*words: str | Path, path: tuple[Path, ...] = (), cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env=environment(*path),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# Debian's -----------------------------------------------------------------------------------------


def examples(*prefix: str) -> dict[str, str]:
    """What each example prints, by a command that runs a program."""
    paths = [str(EXAMPLES / name) for name in NAMES]
    said = run(*prefix, RUNNER, "none", *paths)
    parts = re.split(r"^\$ python3 .*\n", said, flags=re.MULTILINE)[1:]
    return dict(zip(NAMES, map(normal, parts), strict=True))


def normal(text: str) -> str:
    """Without addresses in memory."""
    return re.sub(r"0x[0-9a-f]{9,}", "ADDRESS", text)


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    is_there = EXAMPLES.is_dir()
    if is_there:
        is_there = not subprocess.run([PYTHON, "-c", "import smartcard"]).returncode
    assert is_there, "apt install python3-pyscard, with its documents"


@pytest.fixture(scope="module")
def in_process() -> dict[str, str]:
    """Each has a virtual reader of its own, as the readers are not chosen before the fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCID_PCSC_READERS", "--virtual")
        return examples(PYTHON, "-m", "ccid.pcsc.under_pyscard", "--")


def test_examples_say_something(in_process: dict[str, str]) -> None:
    assert "3B 9B 96 80 B1 FE 45 1F C7 80 31 F0 73 F6 21 E0" in in_process["simple/getATR.py"]
    assert "0x6A 0x82" in in_process["scard-api/sample_selectDFTelecom.py"].upper() or (
        "6E" in in_process["scard-api/sample_selectDFTelecom.py"].upper()
    )
    failed = {name for name, said in in_process.items() if "Traceback" in said}
    assert failed == set()


def test_the_same_through_libpcsclite(in_process: dict[str, str]) -> None:
    by_socket = examples(
        *(sys.executable, "-m", "ccid.pcsc.service.run_program", "--virtual", "--", PYTHON)
    )
    assert in_process == by_socket


@pytest.fixture
def pcscd(tmp_path: Path) -> Iterator[list[str]]:
    for name in ("plug", "pcscd"):
        (tmp_path / name).mkdir()
    readers = virtual_reader(tmp_path / "plug", "Virtual Reader (0001)")
    with private_pcscd(tmp_path / "pcscd", readers, [PYTHON, "-c", HAS_CARD]) as inside:
        yield inside


def test_the_same_through_pcscd(in_process: dict[str, str], pcscd: list[str]) -> None:
    by_pcscd = examples(*pcscd, PYTHON)
    different = {name for name in NAMES if in_process[name] != by_pcscd[name]}
    assert different - {*TIMED} == {*OF_PCSCD}


def test_its_compiled_part_is_not_loaded() -> None:
    code = (
        "from ccid.pcsc import under_pyscard; under_pyscard([''])\n"
        "import smartcard.System, sys; print(len(smartcard.System.readers()))\n"
        "maps = open('/proc/self/maps').read(); print('_scard' in maps, 'pcsclite' in maps)"
    )
    assert run(PYTHON, "-c", code) == "1\nFalse False\n"


MONITORED = """\
+ Other: 3B D5 96 00 80 31 FE 45 63 63 69 64 21 65
+ First: 3B 00
- First: 3B 00
NoCardException
CardRequestTimeoutException
([], 18, 52)
+ First
+ Other
- Other
"""


def test_monitors() -> None:
    assert run(PYTHON, ROOT / "tests/integration/pyscard_monitors.py") == MONITORED


NOT_IN_PROCESS = {
    "buffers": "of libpcsclite",
    "program_executed": "there is no socket",
    "service_ends": "there is no service",
}


def test_scripts_in_process() -> None:
    """What programs do, with the codes that they get through libpcsclite."""
    names = [name for name in SCRIPTS if name not in NOT_IN_PROCESS]
    names += ["reader_event_counted", "forked_beside_threads"]
    said = run(PYTHON, ROOT / "tests/integration/scripts_in_process.py", *names)
    child = f"{SCARD_E_INVALID_HANDLE:08X}\n"
    assert said == "".join(f"{child if name == 'forked' else ''}{name}\n" for name in names)


# PyPI's newest, without a compiled part -----------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pyscard's source; nothing of it is compiled."""
    folder = tmp_path_factory.mktemp("pyscard")
    settings = {"PIP_CONFIG_FILE": config} if (config := find_pip_config()) else {}
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--no-binary", "pyscard", "--dest", str(folder), "pyscard"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("pyscard-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    made = folder / archive.name.removesuffix(".tar.gz")
    assert not [*made.rglob("*.so"), *made.rglob("scard/scard.py")]
    return made


def test_newer_monitors(source: Path) -> None:
    script = ROOT / "tests/integration/pyscard_monitors.py"
    assert run(sys.executable, script, path=(source / "src",)) == MONITORED


@pytest.mark.parametrize("name", NEW_EXAMPLES)
def test_newer_examples(source: Path, name: str) -> None:
    program = source / "src/smartcard/Examples" / name
    said = run(sys.executable, *UNDER, "--", program, path=(source / "src",))
    assert "Virtual Reader" in said


def test_its_own_tests(source: Path) -> None:
    said = run(
        *(sys.executable, *UNDER, "-m", "pytest", "-q", "--color=no", "test"),
        path=(source / "src",),
        cwd=source,
    )
    assert re.search(r"\d{2,} passed", said)
    assert " failed" not in said


TWO_T0_CARDS = """\
import runpy, sys
import ccid
from ccid.pcsc import under_pyscard
from ccid.virtual import Answer, EchoCard

ATRS = "3BA70040188065A208010152", "3B6F0000805A28130210122B750DD382829000"

class Gsm(EchoCard):
    def process(self, command):
        return Answer(sw=0x6E00) if command.cla == 0xA0 else super().process(command)

cards = [Gsm(bytes.fromhex(atr)) for atr in ATRS]
under_pyscard([ccid.VirtualReader(card) for card in cards])
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""These tests want two readers with GSM cards at T=0."""


@pytest.mark.parametrize("name", ["scard", "framework"])
def test_its_tests_with_readers(source: Path, name: str) -> None:
    said = run(
        *(sys.executable, "-c", TWO_T0_CARDS, f"testsuite_{name}.py"),
        path=(source / "src",),
        cwd=source / "src/smartcard/test" / name,
    )
    assert re.search(r"^Ran \d{2,} tests.*\n\nOK$", said, re.MULTILINE)
    assert "setup is invalid" not in said
