"""What the stand-in counted, over all processes that use it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Counts:
    """``struct counters`` of ``standin/standin.h``: the same numbers in the same order."""

    out: int
    in_: int
    interrupt: int
    control: int
    submits: int
    timeouts: int
    cancels: int
    polls: int
    waits: int
    bytes_out: int
    bytes_in: int
    apdus: int

    def since(self, before: Counts) -> Counts:
        """What was counted since ``before``."""
        return Counts(*(getattr(self, n) - getattr(before, n) for n in NAMES))


NAMES = tuple(field.name for field in fields(Counts))
LAYOUT = struct.Struct(f"={len(NAMES)}Q")


class Counters:
    """A file that stand-ins count into.

    Args:
        path: The file; it is made, or set to 0.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(LAYOUT.size))

    def now(self) -> Counts:
        return Counts(*LAYOUT.unpack(self.path.read_bytes()))
