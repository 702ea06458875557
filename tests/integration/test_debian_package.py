"""Debian's packages (packaging/debian): built, judged by lintian, and installed, used and purged in
a copy of this system that nobody else sees: an overlay of ``/`` in a mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import ccid

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILD_S, RUN_S = 900, 300
PACKAGES = ("pyccid-driver", "pyccid-user-service", "python3-ccid")
NONE_MISSING = "sudo tools/prepare-lab"

# The upper folder of the overlay must not be in the lower one: it is on a file system of its own.
COPY = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"
cp -r "$2" "$1/root/tmp/given"
chroot "$1/root" sh /tmp/given/installed_debian.sh /tmp/given /tmp/given/pcsc_select.py
cd "$1/upper"
find . -type f | grep -v -E '^./var/(lib/dpkg|log|cache)/' | sed 's/^/left: /'
find . -lname '*ccid*' | sed 's/^/left: /'
"""


def run(words: list[str], timeout: float, cwd: Path = ROOT) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the packages."""
    if shutil.which("dpkg-checkbuilddeps") is None:
        pytest.skip(f"needs a Debian with dpkg-dev: {NONE_MISSING}")
    control = str(ROOT / "packaging/debian/control")
    missing = subprocess.run(["dpkg-checkbuilddeps", control], capture_output=True, text=True)
    if missing.returncode:
        pytest.skip(f"{missing.stderr.strip()}; get them with: {NONE_MISSING}")
    folder = tmp_path_factory.mktemp("debian")
    run(["tools/debian-package", str(folder)], BUILD_S)
    return folder


def field(package: Path, name: str) -> list[str]:
    said = run(["dpkg-deb", "--field", str(package), name], 60)
    return [part.strip() for part in said.split(",")]


def package(built: Path, name: str) -> Path:
    (file,) = built.glob(f"{name}_*.deb")
    return file


def test_the_source_is_left_as_it_was(built: Path) -> None:
    """The packages can be built again from what is there: nothing but debian/ is changed."""
    (tree,) = (path for path in built.iterdir() if path.is_dir())
    run(["debian/rules", "clean"], 120, cwd=tree)
    wanted, here = (ROOT / "pyproject.toml", tree / "pyproject.toml")
    assert here.read_text() == wanted.read_text()
    assert not (tree / "debian/man").exists()


def test_what_they_depend_on(built: Path) -> None:
    library = field(package(built, "python3-ccid"), "Depends")
    assert "libusb-1.0-0" in library, "in place of libusb-package, which Debian does not have"
    assert not any("libusb-package" in each for each in library)
    assert any(each.startswith("python3-usb ") for each in library)
    assert any(each.startswith("python3-construct ") for each in library)
    driver = field(package(built, "pyccid-driver"), "Depends")
    assert "pcscd" in driver
    assert any(each.startswith("python3-ccid (=") for each in driver)
    assert field(package(built, "pyccid-driver"), "Provides") == [""], "it drives nothing at first"


def test_lintian_finds_nothing(built: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip(f"lintian is not installed; get it with: {NONE_MISSING}")
    (changes,) = built.glob("*.changes")
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", str(changes)]
    assert run(words, RUN_S).strip() == ""


def test_installed_used_and_purged(built: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace: run these tests as root, or with sudo")
    over, given = tmp_path / "over", tmp_path / "given"
    over.mkdir()
    given.mkdir()
    for name in PACKAGES:
        shutil.copy(package(built, name), given)
    for name in ("installed_debian.sh", "pcsc_select.py"):
        shutil.copy(HERE / name, given)
    words = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", COPY, "sh", str(over), str(given)]
    said = run(words, RUN_S).splitlines()
    version = ccid.__version__
    assert [line[2:] for line in said if line.startswith("= ")] == [
        f"ccid-probe {version}",
        f"ccid-run {version}",
        f"ccid-pcscd {version}",
        f"ccid-install-driver {version}",
        "library: /usr/lib/python3/dist-packages/ccid/__init__.py",
        "without pcscd: Virtual Reader (0001) 00 00 9000",
        "settings: /etc/pyccid-driver/Info.plist 0",
        "named: 1",
        "checked",
        "pcscd: Packaged 00 00 9000",
        f"helper: {os.path.realpath('/usr/bin/python3')}",
    ], said
    assert [line for line in said if line.startswith("left: ")] == []
