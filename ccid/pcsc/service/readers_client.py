"""A client of the service that needs no libpcsclite: shows the readers and cards that programs see.

    ccid-run --virtual

``ccid-run`` runs it where no other program is named. It speaks libpcsclite's protocol at the socket
that PCSCLITE_CSOCK_NAME names, connects to each card, and selects its master file.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from struct import Struct

from ccid.errors import CcidError
from ccid.ground.safe_text import printable
from ccid.pcsc.manager.scard_codes import (
    DEFAULT_SLOTS,
    CardBits,
    Disposition,
    Proto,
    ScardCode,
    ScardError,
    Share,
)
from ccid.pcsc.service.client_messages import (
    CONNECT,
    ENTRY,
    HEADER,
    MAJOR,
    THREE,
    TRANSMIT,
    Command,
    reader_name,
)
from ccid.pcsc.service.socket_place import SOCKET_VARIABLE

MINOR = 4
"""The version in which the list of readers has a fixed number of entries."""
MAX_RESPONSE = 258
SELECT_MF = bytes.fromhex("00A4000C023F00")
TIMEOUT_S = 60.0


class NoAnswer(CcidError):
    """The service is not there, or ended."""


class ReadersClient:
    """A connection to the service, with a context.

    Args:
        path: The service's socket.

    Raises:
        NoAnswer: Nobody listens there.
        ScardError: It gives no context.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise NoAnswer(f"{path}: {error.strerror or error}") from None
        try:
            self._ask(Command.VERSION, THREE, MAJOR, MINOR, 0)
            self._context = self._ask(Command.ESTABLISH, THREE, 0, 0, 0)[1]
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the connection, and with it what it holds."""
        self._socket.close()

    def readers(self) -> Iterator[tuple[str, int, bytes]]:
        """Each reader: its name, its state (:class:`CardBits`), and its card's ATR."""
        self._send(HEADER.pack(0, Command.GETSTATE))
        array = self._receive(DEFAULT_SLOTS * ENTRY.size)
        for name, _, state, _, atr, length, _ in ENTRY.iter_unpack(array):
            if any(name):
                yield reader_name(name), state, atr[:length]

    def transmit(self, name: str, apdu: bytes) -> bytes:
        """Connect to the card in a reader, exchange one APDU, and disconnect.

        Raises:
            ScardError: The service says why not.
        """
        words = (
            self._context,
            name.encode("utf-8", "surrogateescape"),
            Share.SHARED,
            Proto.T0 | Proto.T1,
            0,
            0,
            0,
        )
        *_, card, protocol, _ = self._ask(Command.CONNECT, CONNECT, *words)
        try:
            sizes = (protocol, 8, len(apdu), protocol, 8, MAX_RESPONSE, 0)
            answer = self._ask(Command.TRANSMIT, TRANSMIT, card, *sizes, data=apdu)
            return self._receive(answer[6])
        finally:
            self._ask(Command.DISCONNECT, THREE, card, Disposition.LEAVE, 0)

    def _ask(
        self, command: Command, form: Struct, *words: int | bytes, data: bytes = b""
    ) -> tuple[int, ...]:
        """Say something; returns the answer. Its last number is the code."""
        self._send(HEADER.pack(form.size, command) + form.pack(*words) + data)
        answer = form.unpack(self._receive(form.size))
        if answer[-1]:
            raise _error(answer[-1])
        return answer

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NoAnswer(f"the service: {error.strerror or error}") from None

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                part = self._socket.recv(length - len(data))
            except OSError as error:
                raise NoAnswer(f"the service: {error.strerror or error}") from None
            if not part:
                raise NoAnswer("the service ended the connection")
            data += part
        return data


def _error(code: int) -> CcidError | ScardError:
    try:
        return ScardError(ScardCode(code))
    except ValueError:
        return NoAnswer(f"the service answers with the unknown code 0x{code:08X}")


def show(client: ReadersClient) -> int:
    """Print the readers and their cards; returns how many readers there are."""
    count = 0
    for name, state, atr in client.readers():
        count += 1
        print(printable(name))
        if not state & CardBits.PRESENT:
            print("  no card")
            continue
        print(f"  card: {atr.hex(' ').upper() or 'it does not answer'}")
        if atr:
            print(f"  > {SELECT_MF.hex(' ').upper()}")
            try:
                print(f"  < {client.transmit(name, SELECT_MF).hex(' ').upper()}")
            except ScardError as error:
                print(f"  {error}")
    return count


def main() -> int:
    """The command line; returns the exit status."""
    path = os.environ.get(SOCKET_VARIABLE)
    if path is None:
        print(f"{SOCKET_VARIABLE} does not say where the service is", file=sys.stderr)
        return 1
    try:
        client = ReadersClient(path)
        try:
            count = show(client)
        finally:
            client.close()
    except (NoAnswer, ScardError) as error:
        print(error, file=sys.stderr)
        return 1
    if not count:
        print("no reader", file=sys.stderr)
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
