"""The programs of PC/SC that ``tools/prepare-clients`` unpacks, of newer Debian releases. They run
on this host, by the dynamic linker and with the libraries of their own release."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.qemu import cache_dir  # noqa: E402

LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class Release:
    """The programs of a release of Debian.

    Attributes:
        name: Of the release.
        minor: Of the protocol of its libpcsclite, 4:minor.
    """

    name: str
    minor: int

    @property
    def root(self) -> Path:
        """The folder with its packages."""
        return cache_dir() / "clients" / self.name

    def need(self) -> None:
        """Skip the test if they are not unpacked."""
        if not (self.root / "versions").is_file():
            pytest.skip(f"the programs of {self.name} are not unpacked: run tools/prepare-clients")

    def file(self, name: str) -> str:
        """The path of one of its libraries."""
        return str(self.root / LIBRARIES / name)

    def command(self, program: str) -> list[str]:
        """How to run one of its programs."""
        linker = self.root / "lib64/ld-linux-x86-64.so.2"
        libraries = str(self.root / LIBRARIES)
        return [
            *(str(linker), "--inhibit-cache", "--library-path", libraries),
            str(self.root / "usr/bin" / program),
        ]

    @property
    def python(self) -> list[str]:
        """How to run its Python."""
        home = self.root / "usr"
        return [
            *("env", f"PYTHONHOME={home}", f"PYTHONPATH={home}/lib/python3/dist-packages"),
            *self.command("python3"),
        ]


RELEASES = (Release("trixie", 5), Release("forky", 6))
