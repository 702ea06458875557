"""Files that a command is given, and those it writes."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

STANDARD_INPUT = "-"
PERMISSIONS = 0o7777


def taken(name: str, most: int) -> bytes:
    """The bytes of a file, ``-`` for standard input; of one that has more than ``most``, one byte
    more than that.

    Raises:
        OSError: It cannot be read.
    """
    if name != STANDARD_INPUT:
        with open(name, "rb") as file:
            return file.read(most + 1)
    if sys.stdin is None:
        raise OSError("standard input is closed")
    if not hasattr(sys.stdin, "buffer"):  # somebody's own, of text
        return sys.stdin.read(most + 1).encode("utf-8", "surrogatepass")
    return sys.stdin.buffer.read(most + 1)


def replace(file: Path, before: bytes, after: bytes) -> bool:
    """Put ``after`` in the place of a file's content, all of it or nothing: whatever happens
    meanwhile, the file has the one or the other. It keeps its permissions and, where that is
    allowed, its owner; of a symbolic link, the file that it leads to is replaced.

    Args:
        file: The file; it need not be there, nor its folder.
        before: What is in it.
        after: What shall be.

    Returns:
        False if something else than ``before`` is in it: then nothing was done.

    Raises:
        OSError: It cannot be written.
    """
    real = Path(os.path.realpath(file))
    real.parent.mkdir(parents=True, exist_ok=True)
    try:
        status = real.stat()
    except FileNotFoundError:
        status = None
    if status is not None and not os.access(real, os.W_OK):
        raise PermissionError(f"{real} may not be written")
    new = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        with open(new, "xb") as out:
            if status is not None and hasattr(os, "fchmod"):
                with suppress(OSError):
                    os.fchown(out.fileno(), status.st_uid, status.st_gid)
                os.fchmod(out.fileno(), status.st_mode & PERMISSIONS)
            out.write(after)
            out.flush()
            os.fsync(out.fileno())
        if (b"" if status is None else real.read_bytes()) != before:
            return False
        os.replace(new, real)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()
    _sync_folder(real.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file in ``folder`` survive a power failure, where systems can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
