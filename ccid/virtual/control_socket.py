"""The control socket of ``python -m ccid.virtual``: inserts and removes cards and readers.

The socket takes lines and answers each line with one line, ``ok …`` or ``error …``::

    card out [BUSID] [SLOT]     reader out [BUSID]     status [BUSID]
    card in [BUSID] [SLOT]      reader in [BUSID]

Without BUSID and SLOT a line means the first reader and slot 0; ``status`` means all readers. The
answer is like ``ok 1-1=attached:active,absent 1-2=free:inactive``: the state of each reader
(attached to a host, free, or unplugged), and of the card in each slot.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from ccid.ground.private_socket import bind_private
from ccid.ground.safe_text import printable
from ccid.virtual.cards import FileSystemCard
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.virtual_slot import Card

MAX_LINE = 1024
"""Bytes of the longest line; a longer line closes the connection."""
MAX_CLIENTS = 16
"""The largest number of connections; the socket closes the oldest beyond."""
CLIENT_TIMEOUT_S = 1.0
"""A client that does not take an answer for this time is disconnected."""


class ControlCommands:
    """Carries out command lines on the readers of a server.

    Args:
        server: The server.
        card: Makes the card for ``card in`` if ``card out`` has not removed one before.
    """

    def __init__(self, server: UsbIpServer, card: Callable[[], Card] = FileSystemCard) -> None:
        self._server = server
        self._card = card
        self._held: dict[tuple[str, int], Card] = {}

    def obey(self, line: str) -> str:
        """Carry out one line; return the answer."""
        try:
            return f"ok {self._obey(line.split())}".rstrip()
        except ValueError as error:
            return f"error {printable(str(error))}"

    def _obey(self, words: Sequence[str]) -> str:
        match words:
            case ["status"]:
                return " ".join(self._status(busid) for busid in self._server.readers)
            case ["status", busid]:
                return self._status(self._which([busid])[0])
            case ["card", "in" | "out" as way, *place] if len(place) <= 2:
                busid, slot = self._which(place)
                self._put(busid, slot, way == "in")
                return self._status(busid)
            case ["reader", "in" | "out" as way, *place] if len(place) <= 1:
                busid, _ = self._which(place)
                self._plug(busid, way == "in")
                return self._status(busid)
        raise ValueError(
            "the commands are: card in|out [BUSID] [SLOT], reader in|out [BUSID], status [BUSID]"
        )

    def _which(self, place: Sequence[str]) -> tuple[str, int]:
        """The reader and the slot that ``place`` names."""
        busids = [word for word in place if "-" in word] or [next(iter(self._server.readers))]
        slots = [word for word in place if "-" not in word] or ["0"]
        if len(busids) > 1 or busids[0] not in self._server.readers:
            raise ValueError(f"no reader {' '.join(busids)}")
        there = len(self._server.readers[busids[0]].functions[0].slots)
        if len(slots) > 1 or not slots[0].isdecimal() or int(slots[0]) >= there:
            raise ValueError(f"no slot {' '.join(slots)}")
        return busids[0], int(slots[0])

    def _put(self, busid: str, slot: int, come: bool) -> None:
        reader = self._server.readers[busid]
        if come == (reader.functions[0].slots[slot].card is not None):
            raise ValueError(f"{busid} slot {slot} has {'a card' if come else 'no card'}")
        if come:
            held = self._held.pop((busid, slot)) if (busid, slot) in self._held else self._card()
            reader.insert(held, slot)
            return
        card = reader.remove(slot)
        if card is not None:
            self._held[busid, slot] = card

    def _plug(self, busid: str, come: bool) -> None:
        reader = self._server.readers[busid]
        if come != reader.device.is_unplugged:
            raise ValueError(f"{busid} is {'plugged in' if come else 'unplugged'}")
        if not come:
            reader.unplug()
            return
        if self._server.is_attached(busid):
            raise ValueError(f"{busid} is not let go of yet")
        with reader.port.changed:
            for function in reader.functions:
                function.is_unplugged = False

    def _status(self, busid: str) -> str:
        reader = self._server.readers[busid]
        state = "attached" if self._server.is_attached(busid) else "free"
        if reader.device.is_unplugged:
            state = "unplugged"
        cards = ",".join(slot.icc_status.name.lower() for slot in reader.functions[0].slots)
        return f"{busid}={state}:{cards}"


class ControlSocket:
    """The Unix socket of ``--control``.

    Args:
        path: Path of the Unix socket. A socket left at this path is removed first.
        commands: Carries out the lines.
        selector: The selector of the server's loop; its data are functions to call when a socket
            is readable.
    """

    def __init__(
        self, path: str, commands: ControlCommands, selector: selectors.BaseSelector
    ) -> None:
        self._path = path
        self._commands = commands
        self._selector = selector
        self._clients: dict[socket.socket, bytes] = {}
        if os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bind_private(self._listener, path)
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close all connections, and remove the socket."""
        for client in (*self._clients, self._listener):
            self._selector.unregister(client)
            client.close()
        with suppress(OSError):  # removed by another process
            os.unlink(self._path)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return  # the client closed the connection first
        except OSError as error:
            if not self._clients:
                raise  # the selector would report the same client at once
            print(f"a client of --control cannot be accepted: {error}", file=sys.stderr)
            self._close(next(iter(self._clients)))
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._close(next(iter(self._clients)))
        client.settimeout(CLIENT_TIMEOUT_S)
        self._clients[client] = b""
        self._selector.register(client, selectors.EVENT_READ, lambda: self._receive(client))

    def _receive(self, client: socket.socket) -> None:
        if client not in self._clients:
            return  # closed since the selector reported it
        try:
            data = client.recv(MAX_LINE)
            *lines, self._clients[client] = (self._clients[client] + data).split(b"\n")
            for line in lines:
                client.sendall(self._commands.obey(line.decode(errors="replace")).encode() + b"\n")
        except OSError:
            data = b""
        if not data or len(self._clients[client]) > MAX_LINE:
            self._close(client)

    def _close(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        client.close()
