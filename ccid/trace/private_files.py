"""Files for traces, which only this user can read.

A trace may hold secrets. The name of its file is often in a folder that every user may write to, as
``CCID_TRACE=/tmp/…`` of a process of root. So a new file belongs to this user alone (mode 0600). An
existing file is used only if it belongs to this user and has one name: a symbolic link, or a second
name (hard link), may lead to a file of another user. An existing file that others may read is
replaced by a new one: a process that has the old file open could go on reading.

A named pipe of this user, a character device, and a descriptor that the process has open
(``/dev/stdout``, ``/dev/fd/63`` of a shell's ``>(…)``) are used unchanged. If no process reads at
the other end, writing fails after :data:`PATIENCE_S`.
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
"""Seconds that a pipe may be full."""
PIECE = 4096
"""Bytes that a pipe takes at once if it is writable (PIPE_BUF)."""
ATTEMPTS = 5
"""How often opening is tried while other processes make and remove the file."""
STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
"""Descriptors of the standard streams."""
DESCRIPTOR = re.compile(
    r"/dev/(stdin|stdout|stderr)|(?:/dev|/proc/self|/proc/thread-self)/fd/(\d+)"
)
"""Names of descriptors that the process has open."""
FLAGS = (
    os.O_WRONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Flags of ``os.open``: for writing only, and without following a symbolic link."""
HAS_OWNERS = hasattr(os, "geteuid")
"""True if files have an owner and a mode (POSIX)."""


def open_private(name: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for writing, empty, that only this user can read.

    Args:
        name: Name of the file, named pipe, character device, or open descriptor.

    Returns:
        The open file.

    Raises:
        TraceFailed: The file cannot be made; or the name is that of a symbolic link, of a file of
            another user or with a second name, of a folder or of a socket.
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
    """Write a text to a file that only this user can read.

    Args:
        name: As for :func:`open_private`.
        text: The whole content of the file; written as UTF-8.

    Raises:
        TraceFailed: As :func:`open_private`; or the file cannot be written.
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
    """Open the file ``name``, and return its descriptor.

    Raises:
        OSError, ValueError: The file cannot be opened, or must not be used.
    """
    given = DESCRIPTOR.fullmatch(name)
    if given is not None and HAS_OWNERS:
        return os.dup(STANDARD[given[1]] if given[1] else int(given[2]))
    for _ in range(ATTEMPTS):  # another process may make or remove the file meanwhile
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
    """Open an existing file, and empty the file.

    Returns:
        The descriptor; None if the file was removed here, because others may read it.

    Raises:
        OSError: The file must not be used, or was removed by another process.
    """
    found = os.lstat(name)
    kind = stat.S_IFMT(found.st_mode)
    _check(found)
    if kind == stat.S_IFREG and HAS_OWNERS and found.st_mode & 0o077:
        try:
            os.unlink(name)  # another process may have the file open
        except PermissionError as error:
            raise PermissionError("others may read it, and it cannot be replaced") from error
        return None
    descriptor = os.open(name, FLAGS)  # blocks for a named pipe until a process reads it
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
    """Check that a file may be used.

    Raises:
        OSError: The file is a symbolic link, a folder or a socket, belongs to another user, or has
            a second name.
    """
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
    """A pipe or a device. Each write first waits until the pipe takes data, for at most
    :data:`PATIENCE_S`: if no process reads at the other end, writing does not block for ever.

    Args:
        descriptor: The open descriptor; :meth:`close` closes it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        """Write a part of ``data``, and return how many bytes were written.

        Raises:
            TimeoutError: The pipe was full for :data:`PATIENCE_S`.
            OSError: The pipe or device cannot be written.
        """
        if not select.select([], [self._descriptor], [], PATIENCE_S)[1]:
            raise TimeoutError(f"nobody reads it for {PATIENCE_S:.0f} s")
        return os.write(self._descriptor, memoryview(data)[:PIECE])

    def close(self) -> None:
        """Close the descriptor. A second call has no effect."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)
