"""Whose ``ccid`` is this? Another distribution has our import name.

This library is the distribution ``pyccid``, and its folder is called ``ccid``. A distribution
``ccid`` (0.0.1 of 2019) is somebody else's and has a folder ``ccid`` too. Where both are installed,
one overwrites files of the other; what is installed last wins, and what is uninstalled takes files
of both away.
"""

from __future__ import annotations

import email
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

DISTRIBUTION = "pyccid"
"""What ``pip`` installs."""
OTHER = "ccid"
"""The distribution that has the same folder."""
CURE = (
    f"python -m pip uninstall {OTHER}, then install {DISTRIBUTION} again, with "
    f"--force-reinstall: the two share files, and uninstalling one takes them from both"
)


def troubles(package: ModuleType, path: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong with the name ``ccid`` here: each trouble with its cure.

    Args:
        package: What ``import ccid`` gives.
        path: Where to look for distributions; None for all that Python looks at.
    """
    for version, place in others(path):
        where = f"is installed in {place!r}, and has our import name"
        yield f"a distribution {OTHER} {version!r} {where}", CURE
    if not is_ours(package):
        file = getattr(package, "__file__", None)
        place = "a folder without __init__.py" if file is None else repr(str(file))
        yield f"`import {OTHER}` gives {place}, which is not this library's", CURE


def others(path: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The version and folder of each distribution called ``ccid`` that is installed."""
    arguments = {"name": OTHER} if path is None else {"name": OTHER, "path": list(path)}
    found = importlib.metadata.distributions(**arguments)
    return [(_version(one), str(one.locate_file(""))) for one in found]


def _version(one: importlib.metadata.Distribution) -> str:
    """Its version; nothing where an interrupted uninstall left no metadata."""
    text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    return str(email.message_from_string(text)["Version"] or "")


def is_ours(package: ModuleType) -> bool:
    """True if ``package`` is the one that this module belongs to, and its ``__init__`` is ours."""
    file = getattr(package, "__file__", None)
    if file is None or Path(file).resolve().parent != Path(__file__).resolve().parents[1]:
        return False
    return "open_reader" in getattr(package, "__all__", ())
