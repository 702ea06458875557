"""The package: built, installed in an empty environment, and used from an empty folder."""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)} | pip_settings(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip_settings() -> dict[str, str]:
    """The settings of pip that say where the package index is."""
    return {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_", "SSL_", "REQUESTS_")) or key.lower().endswith("_proxy")
    } | ({"PIP_CONFIG_FILE": config} if (config := find_pip_config()) else {})


def find_pip_config() -> str:
    """The file with pip's configuration of this user: the child process has another HOME."""
    for place in (".config/pip/pip.conf", ".pip/pip.conf"):
        if (file := Path.home() / place).is_file():
            return str(file)
    return ""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its dependencies only."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    run(folder / "bin/pip", "install", "-q", built["wheel"], cwd=folder)
    return folder


def test_the_wheel_needs_no_compiler(built: dict[str, Path]) -> None:
    assert built["wheel"].name.startswith("pyccid-")
    assert built["wheel"].name.endswith("-py3-none-any.whl")


def test_what_the_wheel_holds(built: dict[str, Path]) -> None:
    names = zipfile.ZipFile(built["wheel"]).namelist()
    assert {"ccid/__init__.py", "ccid/py.typed"} <= set(names)
    assert any(n.startswith("ccid/readers/") and n.endswith(".toml") for n in names)
    assert "ccid/readers/descriptors/08e6-gemalto.json" in names
    assert "ccid/probe/schemas/dump.json" in names
    assert "ccid/pcsc/plug/plug.c" in names
    assert any(n.endswith(".data/data/share/man/man1/ccid-probe.1") for n in names)
    assert not any(n.startswith(("tests/", "tools/", "examples/")) for n in names)


def test_what_the_sdist_holds(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {"/".join(n.split("/")[1:]) for n in archive.getnames()}
    assert "ccid/pcsc/plug/plug.c" in names
    folders = ("readers", "tests/unit", "tools", "examples", "docs")
    documents = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "ARCHITECTURE.md")
    for wanted in (*folders, *documents, "LICENSE", "pyproject.toml"):
        assert wanted in names or any(n.startswith(f"{wanted}/") for n in names), wanted


def test_they_are_reproducible(built: dict[str, Path], tmp_path: Path) -> None:
    """The same files make the same bytes, whenever and wherever they are built: the second time
    from the sdist, whose files have other times than those of the checkout."""
    with tarfile.open(built["sdist"]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (tree,) = (tmp_path / "source").iterdir()
    for path in tree.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "again", tree, cwd=tmp_path)
    for kind in ("sdist", "wheel"):
        again = tmp_path / "again" / built[kind].name
        assert again.read_bytes() == built[kind].read_bytes(), kind


def test_it_needs_three_packages(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "bin/python", "-c", REQUIRES, cwd=tmp_path)
    assert done.stdout.split() == ["construct", "libusb-package", "pyusb"]


REQUIRES = """
import importlib.metadata as m, re
wanted = [r for r in m.requires("pyccid") if "extra ==" not in r]
print(*sorted(re.match(r"[\\w-]+", r).group() for r in wanted))
"""


def test_the_commands_run_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    probe = installed / "bin/ccid-probe"
    assert run(probe, "--version", cwd=tmp_path).stdout.startswith("ccid-probe ")
    assert "Virtual Reader" in run(probe, "list", "--virtual", cwd=tmp_path).stdout
    assert "Protocol: T=" in run(probe, "--virtual", "card", cwd=tmp_path).stdout
    assert "TPDU level" in run(probe, "dump", "--virtual", "08e6:3437", cwd=tmp_path).stdout
    assert "dwFeatures" in run(probe, "dump", "--virtual", "--json", cwd=tmp_path).stdout


def test_the_driver_for_pcscd_is_made_of_the_package(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin/ccid-install-driver"
    assert "wrote" in run(command, "--dropdir", tmp_path, cwd=tmp_path).stdout
    (library,) = tmp_path.glob("*.bundle/Contents/Linux/*.so")
    assert library.read_bytes()[:4] == b"\x7fELF"
    named = (library.parent / "interpreter").read_text().strip()
    assert Path(named).parent == installed / "bin"


PLUG = "ccid/pcsc/plug/plug.elf"
MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of an ELF header (System V ABI: EM_X86_64, EM_AARCH64)."""


@pytest.fixture(scope="module")
def platforms(full: bool) -> dict[str, str]:
    """Platforms as ziglang calls them, and the beginning of their tags. Without full counts each
    processor and each C library once: ziglang takes long for each."""
    here = platform.machine()
    other = next(name for name in MACHINES if name != here)
    few = {
        f"{here}-linux-gnu.2.17": f"manylinux_{here}",
        f"{other}-linux-musl": f"musllinux_{other}",
    }
    more = {
        f"{other}-linux-gnu.2.17": f"manylinux_{other}", f"{here}-linux-musl": f"musllinux_{here}"
    }  # fmt: skip
    return few | more if full else few


@pytest.fixture(scope="module")
def wheels(
    built: dict[str, Path], platforms: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder with the wheels that have a compiled plug."""
    folder = tmp_path_factory.mktemp("wheels")
    shutil.copy(built["wheel"], folder)
    some = [] if len(platforms) == 2 * len(MACHINES) else platforms
    run(sys.executable, ROOT / "tools/build-wheels", folder, *some, cwd=folder)
    return folder


def test_each_wheel_for_linux_has_its_plug(
    built: dict[str, Path], wheels: Path, platforms: dict[str, str]
) -> None:
    """The plug's processor and C library are those in the name of the wheel; all else is as in the
    wheel for any platform."""
    names = sorted(path.name.split("-none-")[1] for path in wheels.glob("*linux*.whl"))
    made = [re.sub(r"_\d+_\d+_", "_", name.split(".")[0]) for name in names]
    assert made == sorted(platforms.values())
    pure = zipfile.ZipFile(built["wheel"])
    for path in wheels.glob("*linux*.whl"):
        wheel = zipfile.ZipFile(path)
        assert set(wheel.namelist()) - set(pure.namelist()) == {PLUG}
        plug = wheel.read(PLUG)
        machine = next(number for name, number in MACHINES.items() if name in path.name)
        assert plug[:5] == b"\x7fELF\x02"
        assert struct.unpack_from("<H", plug, 18) == (machine,)
        assert (b"\0libc.so.6\0" in plug) == ("manylinux" in path.name)
        assert (b"\0libc.so\0" in plug) == ("musllinux" in path.name)
        assert b"IFDHCreateChannel" in plug
        newest = max(
            (tuple(map(int, found.split(b"."))) for found in re.findall(rb"GLIBC_([\d.]+)", plug)),
            default=(0,),
        )
        assert newest <= (2, 17), "manylinux_2_17"


def test_a_wheel_with_a_plug_needs_no_compiler(
    installed: Path, wheels: Path, tmp_path: Path
) -> None:
    machine = platform.machine()
    (wheel,) = wheels.glob(f"*manylinux*_{machine}.*whl")
    target = tmp_path / "target"
    run(installed / "bin/pip", "install", "-q", "--no-deps", "-t", target, wheel, cwd=tmp_path)
    start = "from ccid.pcsc.plug.install import main; raise SystemExit(main())"
    done = subprocess.run(
        [installed / "bin/python", "-c", start, "--dropdir", tmp_path / "drivers"],
        env={"PATH": "/nonexistent", "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        cwd=tmp_path,  # not the source tree, whose ccid would come first
    )
    assert done.returncode == 0, done.stderr
    (library,) = (tmp_path / "drivers").glob("*.bundle/Contents/Linux/*.so")
    assert library.read_bytes() == zipfile.ZipFile(wheel).read(PLUG)


def test_the_library_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "bin/python", "-c", LIBRARY, cwd=tmp_path)
    assert done.stdout.split() == ["9000", "True", "True"]


LIBRARY = """
import ccid
from ccid.known.quirks import table, lookup
with ccid.open_reader(ccid.VirtualReader()) as reader:
    with reader.slots[0].connect() as card:
        print(card.transmit(bytes.fromhex("00A4000C023F00")).hex())
print(table().is_dir() and "site-packages" in str(table()))
print(lookup(0x08E6, 0x4433).name is not None)
"""


def test_the_table_of_readers_is_found_in_the_source_tree(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ccid.known.quirks import lookup; print(lookup(0x08e6, 0x4433).name)",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "433-Swap" in done.stdout
