"""Where the socket of the service is, how it is made, and who may come in."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from pathlib import Path

from ccid.errors import CcidError
from ccid.ground.private_socket import bind_private
from ccid.ground.records import record

NAME = "pcscd.comm"
SOCKET_VARIABLE = "PCSCLITE_CSOCK_NAME"
"""The variable of the environment that tells libpcsclite where the socket is."""
BACKLOG = 1024
MAX_PATH = 107
"""Bytes of the longest path of a Unix socket, which libpcsclite has, too."""
FIRST_FD = 3
"""Where systemd passes sockets (sd_listen_fds(3))."""
CREDENTIALS = struct.Struct("=iII")
"""Of SO_PEERCRED: process, user, group (socket(7))."""


class NoSocket(CcidError):
    """The service cannot listen where it was told to."""


@record
class Peer:
    """Who is at the other end of a connection.

    Attributes:
        pid: Of the process; 0 where the system does not tell.
        uid: Its user; None where the system does not tell.
    """

    pid: int = 0
    uid: int | None = None

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid else "a client"


def peer_of(connection: socket.socket) -> Peer:
    """Who connected."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return Peer()
    raw = connection.getsockopt(socket.SOL_SOCKET, option, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


def default_path() -> Path:
    """``$XDG_RUNTIME_DIR/ccid/pcscd.comm``; without such a directory, one of this user's in the
    directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "ccid" / NAME
    import tempfile  # which brings much along

    return Path(tempfile.gettempdir()) / f"ccid-{os.getuid()}" / NAME


def make_folder(path: Path) -> None:
    """Make the folder of a socket, for this user alone, if it is not there.

    Raises:
        NoSocket: It cannot be made, or another user made it.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise NoSocket(f"{folder}: {error.strerror}") from error
    if owner not in (os.getuid(), 0):
        raise NoSocket(f"{folder} belongs to another user ({owner})")


def listen(path: Path, group: int | None = None) -> socket.socket:
    """Make the socket. One that a service left that is no more is replaced.

    Args:
        path: Where.
        group: Its members may connect, too; None for nobody but this user.

    Raises:
        NoSocket: Somebody listens there, or it cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise NoSocket(f"{path} is longer than {MAX_PATH} bytes")
    _take_away_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_private(made, os.fspath(path))
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise NoSocket(f"{path}: {error.strerror}") from error
    return made


def _take_away_stale(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NoSocket(f"{path}: {error.strerror}") from error
    if not is_socket:
        raise NoSocket(f"{path} is there, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        answer = probe.connect_ex(os.fspath(path))
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise NoSocket(f"a service listens at {path} already")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def passed_socket() -> socket.socket | None:
    """The socket that systemd made for this process (sd_listen_fds(3)); None without one.

    Raises:
        NoSocket: More than one was passed, or no listening Unix socket.
    """
    count, pid = os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID")
    if count is None or pid != str(os.getpid()):
        return None
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count != "1":
        raise NoSocket(f"{count} sockets were passed, not one")
    try:
        passed = socket.socket(fileno=FIRST_FD)
    except OSError as error:
        raise NoSocket(f"descriptor {FIRST_FD} is no socket: {error.strerror}") from error
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM:
        passed.detach()
        raise NoSocket(f"descriptor {FIRST_FD} is no Unix stream socket")
    passed.set_inheritable(False)
    return passed
