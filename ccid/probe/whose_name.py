"""Find out whether another distribution named ``ccid`` conflicts with this library.

This library is the distribution ``pyccid``, and its folder is called ``ccid``. A distribution
``ccid`` (0.0.1 of 2019) belongs to another project and has a folder ``ccid``, too. If both are
installed, the later one overwrites files of the earlier one, and uninstalling one removes files of
both.
"""

from __future__ import annotations

import email
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

DISTRIBUTION = "pyccid"
"""The distribution of this library, as pip names it."""
OTHER = "ccid"
"""The distribution that has the same folder."""
CURE = (
    f"python -m pip uninstall {OTHER}, then install {DISTRIBUTION} again, with "
    f"--force-reinstall: both have files of the same names, and uninstalling removes them"
)


def troubles(package: ModuleType, path: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong with the name ``ccid`` here: each trouble with its cure.

    Args:
        package: The module that ``import ccid`` loads.
        path: Folders to search for distributions; None for Python's search path.
    """
    for version, place in others(path):
        where = f"is installed in {place!r}, and has our import name"
        yield f"a distribution {OTHER} {version!r} {where}", CURE
    if not is_ours(package):
        file = getattr(package, "__file__", None)
        place = "a folder without __init__.py" if file is None else repr(str(file))
        yield f"`import {OTHER}` gives {place}, which is not this library's", CURE


def others(path: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The version and folder of each installed distribution named ``ccid``."""
    arguments = {"name": OTHER} if path is None else {"name": OTHER, "path": list(path)}
    found = importlib.metadata.distributions(**arguments)
    return [(_version(one), str(one.locate_file(""))) for one in found]


def _version(one: importlib.metadata.Distribution) -> str:
    """The version of a distribution; empty if an interrupted uninstall left no metadata."""
    text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    return str(email.message_from_string(text)["Version"] or "")


def is_ours(package: ModuleType) -> bool:
    """Whether ``package`` is the package of this module, with this library's ``__init__``."""
    file = getattr(package, "__file__", None)
    if file is None or Path(file).resolve().parent != Path(__file__).resolve().parents[1]:
        return False
    return "open_reader" in getattr(package, "__all__", ())
