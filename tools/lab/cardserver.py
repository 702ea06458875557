#!/usr/bin/env python3
"""A virtual card behind QEMU's ccid-card-passthru: ``cardserver.py SOCKET``.

QEMU connects to SOCKET, a Unix socket; one QEMU at a time, any number in turn. They speak VSCard
(QEMU's docs/ccid.txt, libcacard's vscard_common.h). What QEMU's reader, one of TPDU level, hands
over are T=0 TPDUs; :class:`ccid.virtual.EchoCard` answers them.

``SOCKET.ctl`` takes lines and answers each with one line that begins with ok or error:

=============  =================================================================
out, in        take the card out, put it in
toggle         whichever of the two it is not
status         "ok in" or "ok out", and "connected" if a QEMU is there
atr HEX        the ATR from the next time the card is put in
delay MS       every answer comes so much later
announce       tell QEMU of reader and card again, after its device was made anew
stats          TPDUs, bytes in, bytes out
reset-stats    from zero
quit           end
=============  =================================================================
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from ccid.virtual.cards import EchoCard
from ccid.virtual.cards.t0_tpdus import T0Face

HEADER = struct.Struct(">III")
"""The header of a VSCard message: type, reader, length of the data."""
VERSION = struct.pack(">4sII", b"VSCD", 2, 0)
"""Magic, version 0.0.2, no capabilities."""
T0_ATR = bytes.fromhex("3B680000") + b"ccid-lab"
"""T=0 only, eight historical bytes."""


class Message(IntEnum):
    """Types of VSCard messages."""

    INIT = 1
    ERROR = 2
    READER_ADD = 3
    READER_REMOVE = 4
    ATR = 5
    CARD_REMOVE = 6
    APDU = 7


class CardServer:
    """One card, its slot's contact to QEMU, and the control socket.

    Args:
        path: Where to listen for QEMU; ``path.ctl`` is the control socket.
        face: The card.
        atr: Its answer to reset.
        present: Whether it is in.
        delay_s: Every answer comes so much later.
    """

    def __init__(
        self,
        path: Path,
        face: T0Face,
        atr: bytes = T0_ATR,
        *,
        present: bool = True,
        delay_s: float = 0.0,
    ) -> None:
        self.face = face
        self.atr = atr
        self.present = present
        self.delay_s = delay_s
        self.tpdus = self.bytes_in = self.bytes_out = 0
        self._qemu: socket.socket | None = None
        self._buffer = bytearray()
        self._late: tuple[float, bytes] | None = None
        self._running = True
        self._selector = selectors.DefaultSelector()
        self._paths = [path, path.with_name(path.name + ".ctl")]
        accepts = (self._accept_qemu, self._accept_control)
        for place, accept in zip(self._paths, accepts, strict=True):
            place.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(place))
            listener.listen(4)
            self._selector.register(listener, selectors.EVENT_READ, accept)

    # QEMU ------------------------------------------------------------------------------------

    def _send(self, kind: Message, body: bytes = b"") -> None:
        if self._qemu is None:
            return
        try:
            self._qemu.sendall(HEADER.pack(kind, 0, len(body)) + body)
        except OSError:  # it is gone; the next one begins anew
            self._drop_qemu()

    def _accept_qemu(self, listener: socket.socket) -> None:
        self._drop_qemu()
        self._qemu, _ = listener.accept()
        self._selector.register(self._qemu, selectors.EVENT_READ, self._read_qemu)
        self._send(Message.INIT, VERSION)
        self._announce()

    def _announce(self) -> None:
        self._send(Message.READER_ADD, b"cardserver")
        if self.present:
            self._put_in()

    def _put_in(self) -> None:
        self.face.reset()
        self._send(Message.ATR, self.atr)

    def _drop_qemu(self) -> None:
        self._buffer.clear()
        self._late = None
        if self._qemu is not None:
            self._selector.unregister(self._qemu)
            self._qemu.close()
            self._qemu = None

    def _read_qemu(self, qemu: socket.socket) -> None:
        try:
            data = qemu.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._drop_qemu()
            return
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, _, length = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            if kind == Message.APDU and self.present:
                self._answer(body)

    def _answer(self, tpdu: bytes) -> None:
        answer = self.face.transmit(tpdu)
        reply = answer.apdu
        self.tpdus += 1
        self.bytes_in += len(tpdu)
        self.bytes_out += len(reply)
        wait = answer.after_s + self.delay_s
        if wait:
            self._late = time.monotonic() + wait, reply
        else:
            self._send(Message.APDU, reply)

    # The hand that holds the card ------------------------------------------------------------

    def set_present(self, present: bool) -> None:
        """Insert or remove the card. A pending answer is dropped with a removed card."""
        if present == self.present:
            return
        self.present = present
        self._late = None
        if present:
            self._put_in()
        else:
            self._send(Message.CARD_REMOVE)

    def _accept_control(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._read_control)

    def _read_control(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
            for line in data.decode(errors="replace").splitlines():
                connection.sendall((self._control(*line.split()) + "\n").encode())
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()

    def _control(self, verb: str = "", *arguments: str) -> str:
        """Carry out one line of the control socket."""
        try:
            match verb, *arguments:
                case ["out" | "in"]:
                    self.set_present(verb == "in")
                case ["toggle"]:
                    self.set_present(not self.present)
                case ["atr", code]:
                    self.atr = bytes.fromhex(code)
                case ["delay", milliseconds]:
                    self.delay_s = float(milliseconds) / 1000
                case ["announce"]:
                    self._announce()
                case ["stats"]:
                    return f"ok tpdus={self.tpdus} in={self.bytes_in} out={self.bytes_out}"
                case ["reset-stats"]:
                    self.tpdus = self.bytes_in = self.bytes_out = 0
                case ["quit"]:
                    self._running = False
                case ["status"]:
                    pass
                case _:
                    return "error unknown command"
        except ValueError as error:
            return f"error {error}"
        return f"ok {'in' if self.present else 'out'}{' connected' if self._qemu else ''}"

    # ------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Serve until "quit" or SIGTERM."""
        wakeup, alarm = socket.socketpair()
        alarm.setblocking(False)
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_running", False))
        signal.signal(signal.SIGUSR1, lambda *_: self.set_present(not self.present))
        self._selector.register(wakeup, selectors.EVENT_READ, lambda s: s.recv(64))
        try:
            while self._running:
                left = max(0.0, self._late[0] - time.monotonic()) if self._late else None
                for key, _ in self._selector.select(left):
                    handle: Callable[[socket.socket], object] = key.data
                    if key.fileobj in self._selector.get_map():  # not dropped in this round
                        handle(key.fileobj)  # type: ignore[arg-type]
                if self._late and self._late[0] <= time.monotonic():
                    (_, reply), self._late = self._late, None
                    self._send(Message.APDU, reply)
        finally:
            for place in self._paths:
                place.unlink(missing_ok=True)


def main() -> None:
    """Serve one card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("socket", type=Path)
    parser.add_argument("--atr", type=bytes.fromhex, default=T0_ATR, metavar="HEX")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--out", action="store_true", help="begin without the card")
    options = parser.parse_args()
    CardServer(
        options.socket,
        T0Face(EchoCard(options.atr)),
        options.atr,
        present=not options.out,
        delay_s=options.delay_ms / 1000,
    ).serve()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
