"""Makes the files that traffic is written to.

A trace may hold what is nobody else's business, and its name is often one in a folder that
everybody may write to, as ``CCID_TRACE=/tmp/…`` of a process that is root's. So a file is made for
its owner alone (mode 0600), and what is there already under its name is used only if it is our
own: a symbolic link or a second name of a file may lead to somebody else's, and who has a file of
mode 0644 open reads on whatever its mode becomes.

A named pipe of our own, a character device, and a descriptor that the process has open
(``/dev/stdout``, ``/dev/fd/63`` of a shell's ``>(…)``) are written to as they are: whoever gives
one of these means it. If nobody reads at their other end, writing fails after
:data:`PATIENCE_S`.
"""

from __future__ import annotations

import io
import os
import re
import select
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

from ccid.errors import TraceFailed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MODE = 0o600
PATIENCE_S = 5.0
"""How long a pipe may be full."""
PIECE = 4096
"""Bytes that a pipe takes at once when it takes any (PIPE_BUF)."""
ATTEMPTS = 5
STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
DESCRIPTOR = re.compile(
    r"/dev/(stdin|stdout|stderr)|(?:/dev|/proc/self|/proc/thread-self)/fd/(\d+)"
)
FLAGS = (
    os.O_WRONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
HAS_OWNERS = hasattr(os, "geteuid")
"""Files have an owner and a mode, as POSIX has them."""


def open_private(name: str | os.PathLike[str]) -> BinaryIO:
    """Open the file ``name`` for writing, empty, for this user alone.

    Raises:
        TraceFailed: It cannot be made; or what is there is a symbolic link, somebody else's, or
            no file.
    """
    try:
        descriptor = _open(os.fspath(name))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceFailed(f"{os.fspath(name)!r} cannot be written: {reason}", file=name) from error
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) or not HAS_OWNERS:
            return os.fdopen(descriptor, "wb")
        return cast("BinaryIO", io.BufferedWriter(_Outlet(descriptor)))
    except BaseException:
        os.close(descriptor)
        raise


def write_private(name: str | os.PathLike[str], text: str) -> None:
    """Have the file ``name`` hold ``text``, UTF-8, for this user alone.

    Raises:
        TraceFailed: As :func:`open_private`; or it cannot be written.
    """
    try:
        with open_private(name) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except TraceFailed:
        raise
    except OSError as error:
        raise TraceFailed(
            f"{os.fspath(name)!r} cannot be written: {error.strerror}", file=name
        ) from error


def _open(name: str) -> int:
    """A descriptor of the file."""
    given = DESCRIPTOR.fullmatch(name)
    if given is not None and HAS_OWNERS:
        return os.dup(STANDARD[given[1]] if given[1] else int(given[2]))
    for _ in range(ATTEMPTS):  # what is there may come and go
        try:
            return os.open(name, FLAGS | os.O_CREAT | os.O_EXCL, MODE)
        except FileExistsError:
            pass
        try:
            there = _existing(name)
        except FileNotFoundError:
            continue
        if there is not None:
            return there
    raise FileExistsError(f"it comes and goes, {ATTEMPTS} times by now")


def _existing(name: str) -> int | None:
    """A descriptor of the file that is there; None if it was removed, to be made anew.

    Raises:
        OSError: It is not to be written to.
    """
    found = os.lstat(name)
    kind = stat.S_IFMT(found.st_mode)
    _check(found)
    if kind == stat.S_IFREG and HAS_OWNERS and found.st_mode & 0o077:
        try:
            os.unlink(name)  # somebody may have it open
        except PermissionError as error:
            raise PermissionError("others may read it, and it cannot be replaced") from error
        return None
    descriptor = os.open(name, FLAGS)  # that of a pipe waits for somebody who reads it
    try:
        opened = os.fstat(descriptor)
        if HAS_OWNERS and (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino):
            raise FileExistsError("it was exchanged meanwhile")
        _check(opened)
        if kind == stat.S_IFREG:
            os.ftruncate(descriptor, 0)
        elif kind == stat.S_IFIFO:
            os.fchmod(descriptor, MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result) -> None:
    """Raise OSError unless a file like this may be written to."""
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        raise OSError("it is a symbolic link, and those are not followed")
    if kind == stat.S_IFDIR:
        raise IsADirectoryError("it is a folder")
    if kind == stat.S_IFCHR:
        return
    if kind not in (stat.S_IFREG, stat.S_IFIFO):
        raise OSError("it is no file")
    if not HAS_OWNERS:
        return
    if found.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to somebody else (user {found.st_uid})")
    if kind == stat.S_IFREG and found.st_nlink != 1:
        raise OSError("it has another name, too, which may be somebody else's (a hard link)")


class _Outlet(io.RawIOBase):
    """A pipe or a device. It is asked whether it takes something before it is given any, so that
    whoever does not read at the other end holds nobody up for longer than :data:`PATIENCE_S`."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        if not select.select([], [self._descriptor], [], PATIENCE_S)[1]:
            raise TimeoutError(f"nobody reads it for {PATIENCE_S:.0f} s")
        return os.write(self._descriptor, memoryview(data)[:PIECE])

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)
