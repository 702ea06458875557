"""A PC/SC service in a thread of this process, at a socket of its own: the hand that holds its
virtual readers and the service are in the same process."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccid.pcsc.manager.engine import Settings
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS
from ccid.pcsc.service.socket_place import NAME, SOCKET_VARIABLE, listen
from ccid.pcsc.service.socket_server import SocketServer

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader

END_S = 10.0


class ServiceThread:
    """The service, listening from the start. Only this user's programs may connect.

    Args:
        readers: Its virtual readers, all it has.

    Attributes:
        path: Of its socket, in a folder that only this user can enter.

    Raises:
        NoSocket: The socket cannot be made.
    """

    def __init__(self, readers: Sequence[VirtualReader]) -> None:
        # not in a folder of many levels: a path has 107 bytes at most
        self._folder = Path(tempfile.mkdtemp(prefix="ccid-", dir=os.environ.get("XDG_RUNTIME_DIR")))
        self.path = self._folder / NAME
        infos = tuple(info for reader in readers for info in reader.infos)
        try:
            listener = listen(self.path)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        settings = Settings(virtual=infos, usb=False)
        self._server = SocketServer(listener, settings, entries=DEFAULT_SLOTS)
        self._thread = threading.Thread(target=self._server.serve, name="pcsc service", daemon=True)
        self._thread.start()

    def environment(self) -> dict[str, str]:
        """The environment of this process, and where libpcsclite finds the service."""
        return {**os.environ, SOCKET_VARIABLE: str(self.path)}

    def end(self) -> None:
        """End it, and wait for that: clients are told."""
        self._server.stop()
        self._thread.join(END_S)
        shutil.rmtree(self._folder, ignore_errors=True)
