"""The plug as a wheel for Linux has it: compiled, so that no compiler is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).with_name("plug.elf")
"""The shared object. It is missing in a source tree, and in a wheel for any platform;
`tools/build-wheels` makes the wheels that have it. It is called .elf since it is no module of
Python, as an .so in a package would be."""
OPTIONS = ("CC", "CPPFLAGS", "CFLAGS", "LDFLAGS")
"""Variables that ask for compiling: their values would have no effect on what is compiled."""
TRY = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).IFDHCreateChannel"
TRY_LIMIT_S = 30.0


def is_wanted(file: Path = FILE) -> bool:
    """Whether the compiled plug is there, loads on this machine (its processor and its C library
    are those of the plug), and nobody asks for another one by compiler options."""
    if not file.is_file() or any(os.environ.get(name) for name in OPTIONS):
        return False
    command = [sys.executable, "-I", "-S", "-c", TRY, str(file)]
    try:  # in a process of its own: a shared object may do anything when it is loaded
        done = subprocess.run(command, capture_output=True, timeout=TRY_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def copy(to: Path, file: Path = FILE) -> None:
    """Copy the compiled plug.

    Raises:
        OSError: It cannot be copied.
    """
    shutil.copyfile(file, to)
