"""``ccid-pcscd``: PC/SC for all programs of a user, without pcscd.

    ccid-pcscd &
    export PCSCLITE_CSOCK_NAME=$XDG_RUNTIME_DIR/ccid/pcscd.comm
    pcsc_scan

It serves until SIGTERM or SIGINT. Then it powers all cards off and tells its clients.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccid._version import __version__
from ccid.errors import CcidError
from ccid.ground.printable_log import TRAFFIC, PrintableFormatter
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS
from ccid.pcsc.plug.lazy_modules import load_lazily
from ccid.pcsc.service import virtual_options
from ccid.pcsc.service.socket_place import default_path, listen, make_folder, passed_socket

if TYPE_CHECKING:
    from ccid.pcsc.manager.engine import Settings
    from ccid.pcsc.service.socket_server import SocketServer

UNUSED = ("hashlib", "inspect", "pdb", "pickle")
"""What construct and, before Python 3.12, dataclasses import for others."""
MAX_READERS = 255
MAX_RECORDS, RECORDS_S = 50, 10.0
"""Records of the log in so many seconds, unless it is one to find a fault by."""
DESCRIPTORS = 4096
"""Open files that suffice for all clients that are let in."""
LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "traffic": TRAFFIC,
}


def _readers(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 4 else 0
    if not 1 <= number <= MAX_READERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_READERS}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccid-pcscd",
        description="A PC/SC service for this user's programs: libpcsclite finds it by "
        "PCSCLITE_CSOCK_NAME.",
    )
    add = parser.add_argument
    add(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where to listen (default: $XDG_RUNTIME_DIR/ccid/pcscd.comm, or what systemd passes)",
    )
    add(
        "--group",
        metavar="NAME",
        help="members of this group may connect, too (default: nobody but this user)",
    )
    virtual_options.add_arguments(parser)
    add(
        "--readers",
        type=_readers,
        default=DEFAULT_SLOTS,
        metavar="N",
        help=f"so many readers at most, each slot counted (default: {DEFAULT_SLOTS})",
    )
    add(
        "--entries",
        type=_readers,
        default=DEFAULT_SLOTS,
        metavar="N",
        help="so many of them clients before libpcsclite 2.5 see; they must have been built for "
        f"that number (default: {DEFAULT_SLOTS}; Fedora's: 48)",
    )
    add("--ready-fd", type=int, metavar="N", help="write a line there when it listens")
    add(
        "--until-fd",
        type=int,
        metavar="N",
        help="end when the other end of this pipe is closed, as by the end of who started this",
    )
    add("--no-escape", action="store_true", help="no Escape commands of programs")
    add(
        "--log-level",
        choices=LEVELS,
        default="warning",
        help="of what goes to stderr (default: warning); traffic has each USB message, secrets "
        "masked",
    )
    add("--trace", metavar="FILE", help="write each reader's USB traffic as pcapng, secrets masked")
    add(
        "--install-user-units",
        action="store_true",
        help="write ccid-pcscd.socket and .service for systemctl --user, and end",
    )
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _group(name: str | None, parser: argparse.ArgumentParser) -> int | None:
    if name is None:
        return None
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        parser.error(f"--group: there is no group {name!r}")


class FloodGate(logging.Filter):
    """Lets so many records through in a while, and says how many it has left out. What clients do
    wrong is told, and must neither fill a disk nor wait for whoever reads the log.

    Args:
        most: Records.
        while_s: In so many seconds.
    """

    def __init__(self, most: int, while_s: float) -> None:
        super().__init__()
        self._most = most
        self._while_s = while_s
        self._since = 0.0
        self._count = self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._since <= record.created < self._since + self._while_s:
            if self._left_out:
                record.msg = f"({self._left_out} more before this) {record.msg}"
            self._since, self._count, self._left_out = record.created, 0, 0
        self._count += 1
        self._left_out += self._count > self._most
        return self._count <= self._most


def _log(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(name)s %(message)s"))
    if options.log_level in ("error", "warning", "info"):
        handler.addFilter(FloodGate(MAX_RECORDS, RECORDS_S))
    logging.basicConfig(handlers=[handler], level=LEVELS[options.log_level])
    if options.log_level == "traffic":
        logging.getLogger("ccid.traffic").setLevel(TRAFFIC)
    if options.trace is not None:
        os.environ["CCID_TRACE"] = options.trace


def _settings(options: argparse.Namespace) -> Settings:
    from ccid.pcsc.manager.engine import Settings

    infos = []
    if options.virtual:
        for reader in virtual_options.make_readers(options.virtual):
            infos += reader.infos
    return Settings(
        virtual=tuple(infos),
        usb=bool(options.usb or options.reader or not options.virtual),
        names=() if options.usb else tuple(options.reader),
        max_slots=options.readers,
        escape=not options.no_escape,
    )


def _allow_descriptors() -> None:
    """Each client takes one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listener(options: argparse.Namespace, group: int | None) -> tuple[socket.socket, Path | None]:
    """The socket; and its path, if it is ours to take away at the end."""
    passed = None if options.socket is not None else passed_socket()
    if passed is not None:
        return passed, None
    path = options.socket
    if path is None:
        path = default_path()
        make_folder(path)
    return listen(path, group), path


def _tell_ready(descriptor: int | None) -> None:
    """Say to whoever started this that it listens."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\n")
            os.close(descriptor)


def _serve(server: SocketServer, ready: int | None) -> None:
    """Serve until a signal says stop."""
    signal.set_wakeup_fd(server.waker, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    _tell_ready(ready)
    server.serve()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.install_user_units:
        from ccid.pcsc.service.user_units import install

        return install(options.group)
    if not hasattr(socket, "AF_UNIX"):
        parser.error("this system has no Unix sockets")
    load_lazily(*UNUSED)
    group = _group(options.group, parser)
    _log(options)
    _allow_descriptors()
    try:
        settings = _settings(options)
        listener, path = _listener(options, group)
    except CcidError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    from ccid.pcsc.service.socket_server import SocketServer

    try:
        server = SocketServer(
            listener, settings, entries=options.entries, same_user=options.group is None
        )
        if options.until_fd is not None:
            server.end_with(options.until_fd)
        _serve(server, options.ready_fd)
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
