"""The judges of the differential test: a pcscd and the libccid that it loads, in the guest.

``newest`` is that of Debian's next release, which ``tools/prepare-judge`` unpacks into the lab's
cache; it runs in that folder as its root, because it needs a newer C library than the guest has.
``installed`` is the one of the guest's own Debian.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lab.qemu import cache_dir

PACKAGES = ("libccid", "pcscd")
VERSIONS = Path(__file__).with_name("versions.toml")


@dataclass(frozen=True)
class Judge:
    """A pcscd with its libccid.

    Attributes:
        name: ``newest`` or ``installed``.
        root: The folder that is its root; None for the guest's own.
        pcscd: Arguments more for its pcscd.
    """

    name: str
    root: Path | None = None
    pcscd: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What is missing, and how to get it; empty if the judge is there."""
        if self.root is None or (self.root / "versions").is_file():
            return ""
        return "the newest libccid is not unpacked: run tools/prepare-judge"

    @property
    def versions(self) -> str:
        """Such as ``libccid 1.8.4-1, pcscd 2.5.2-1``."""
        if self.root is not None:
            lines = (self.root / "versions").read_text().splitlines()[1:]
        else:
            asked = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES]
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            lines = done.stdout.splitlines()
        return ", ".join(sorted(lines))

    @property
    def moved(self) -> str:
        """What to say if this judge is of another version than the tags of the scenarios; empty if
        it is of the same. Debian's own revision of a version does not count."""
        known = tomllib.loads(VERSIONS.read_text())[self.name]
        expected = ", ".join(f"{package} {known[package]}" for package in PACKAGES)
        there = re.sub(r"-[^-, ]+(?=,|$)", "", self.versions)
        if there == expected:
            return ""
        return (
            f"THE JUDGE HAS MOVED: {self.name} is {there}, the tags are of {expected} "
            f"({VERSIONS.name})"
        )

    def new_difference(self, what: str, ours: object, theirs: object) -> str:
        """The message where a scenario comes out otherwise than its tags say."""
        why = (
            self.moved or f"the {self.name} judge is the one that the tags are of: we have changed"
        )
        return f"{what}; {why}\nours:    {ours}\nlibccid: {theirs}"


def judges() -> list[Judge]:
    """All judges, the one that counts first."""
    # the newest asks polkit who its clients are, and there is none in the guest
    return [Judge("newest", cache_dir() / "judge", ("--disable-polkit",)), Judge("installed")]
