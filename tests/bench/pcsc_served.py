"""A PC/SC service with a virtual reader, whose card is moved by lines on stdin: ``out``, ``in``.
Each is answered by the time at which it was done (monotonic clock)."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import ccid
from ccid.pcsc.manager.engine import Settings
from ccid.pcsc.service.socket_place import listen
from ccid.pcsc.service.socket_server import SocketServer
from ccid.virtual import FileSystemCard


def move(reader: ccid.VirtualReader, server: SocketServer) -> None:
    for line in sys.stdin:
        print(time.monotonic(), flush=True)
        if line == "out\n":
            reader.remove()
        else:
            reader.insert(FileSystemCard())
    server.stop()


def main() -> None:
    reader = ccid.VirtualReader()
    settings = Settings(virtual=tuple(reader.infos), usb=False)
    server = SocketServer(listen(Path(sys.argv[1])), settings, entries=16)
    threading.Thread(target=move, args=(reader, server), daemon=True).start()
    print("ready", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
