"""What is known of a reader beyond its descriptors: ``readers/*.toml``, one file a USB vendor.

    vendor = "Gemalto"

    [reader.4433]
    name = "Gemalto GemPC433-Swap"
    status = "supported"

Code asks ``quirks.interfaces_take_turns``, never for a vendor's number.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any


@dataclass(frozen=True, slots=True)
class Quirks:
    """What the table says of one reader; the defaults for one that it does not know.

    Attributes:
        name: Its name, None if the table does not know it.
        status: ``supported``, ``should-work``, ``unsupported``, ``disabled`` or ``unknown``.
        reason: Why, where the status needs one.
        interfaces_take_turns: The CCID interfaces of the device cannot be talked to at the
            same time.
    """

    name: str | None = None
    status: str = "unknown"
    reason: str = ""
    interfaces_take_turns: bool = False


def table() -> Traversable:
    """The folder of the table: package data, or beside the package in a source tree."""
    package = importlib.resources.files("ccid")
    installed = package / "readers"
    if installed.is_dir():
        return installed
    return importlib.resources.files("ccid").joinpath("..", "readers")


@functools.cache
def _vendor(vendor_id: int) -> dict[str, Any]:
    """The readers of one vendor, by product id as four hexadecimal digits."""
    prefix = f"{vendor_id:04x}-"
    for file in table().iterdir():
        if file.name.startswith(prefix) and file.name.endswith(".toml"):
            readers: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))["reader"]
            return readers
    return {}


def lookup(vendor_id: int, product_id: int) -> Quirks:
    """What the table knows of ``vendor_id:product_id``."""
    entry = _vendor(vendor_id).get(f"{product_id:04x}")
    if entry is None:
        return Quirks()
    bends = {key.replace("-", "_"): value for key, value in entry.get("quirks", {}).items()}
    return Quirks(entry["name"], entry["status"], entry.get("reason", ""), **bends)
