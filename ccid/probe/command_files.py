"""Read input files and replace output files."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

STANDARD_INPUT = "-"
PERMISSIONS = 0o7777


def taken(name: str, most: int) -> bytes:
    """The bytes of a file, ``-`` for standard input. From a longer file, ``most`` + 1 bytes.

    Raises:
        OSError: The file cannot be read.
    """
    if name != STANDARD_INPUT:
        with open(name, "rb") as file:
            return file.read(most + 1)
    if sys.stdin is None:
        raise OSError("standard input is closed")
    if not hasattr(sys.stdin, "buffer"):  # a caller has put a text stream there
        return sys.stdin.read(most + 1).encode("utf-8", "surrogatepass")
    return sys.stdin.buffer.read(most + 1)


def replace(file: Path, before: bytes, after: bytes) -> bool:
    """Replace the content of a file atomically: at every moment the file has the old content or
    the new content. The file keeps its permissions and, where the system allows, its owner. For a
    symbolic link, the target of the link is replaced.

    Args:
        file: The file. The file and its folder may be missing.
        before: The content that the file must have; empty for a missing file.
        after: The new content.

    Returns:
        False if the content is not ``before``; the file is unchanged then.

    Raises:
        OSError: The file cannot be written.
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
    """Write the folder to disk, so that a new file name survives a power failure. A system that
    cannot do that is no error."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
