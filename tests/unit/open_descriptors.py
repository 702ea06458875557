"""How many descriptors a test leaves open."""

from __future__ import annotations

import os

FOLDER = "/proc/self/fd"


def descriptors() -> int:
    """How many this process has open; 0 where the system does not tell. Modules that compare two
    counts use the fixture ``collected``."""
    return len(os.listdir(FOLDER)) if os.path.isdir(FOLDER) else 0
