"""Serves the readers of the scenarios over USB/IP and puts their cards in: runs in the guest.

    server.py PORT SOCKET

Lines on the socket, each answered by one:

    begin SCENARIO     put its card in and forget what was on the wire
    wire FILE          write what was on the wire since then, as JSON
    remove SCENARIO    take the card out
    insert SCENARIO    put it back
    end SCENARIO       take the card out for good
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from hashlib import blake2b
from pathlib import Path

from ccid.codec.messages import MESSAGE_HEADER
from ccid.masking.exchange_watch import Framing
from ccid.virtual.cards import Contact
from ccid.virtual.control_socket import ControlSocket
from ccid.virtual.journal import Journal
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.virtual_reader import VirtualReader, make_descriptor
from tests.vm.differential.scenario_parts import READERS
from tests.vm.differential.scenarios import SCENARIOS

SHOWN = 24
"""Bytes of a message's data that a record shows; longer data end in a digest."""


class Recorder(Journal):
    """Keeps all messages."""

    def __init__(self, kept: list[list[str]]) -> None:
        super().__init__("recorder")
        self.kept = kept

    def heard(self, message: bytes, framing: Framing = Framing.APDU) -> None:
        self._keep(">", message)

    def said(self, message: bytes) -> None:
        self._keep("<", message)

    def _keep(self, way: str, message: bytes) -> None:
        data = message[MESSAGE_HEADER:]
        shown = data[:SHOWN].hex()
        if len(data) > SHOWN:
            shown += f"...{len(data)}:{blake2b(data, digest_size=4).hexdigest()}"
        self.kept.append([way, message[:1].hex(), message[7:MESSAGE_HEADER].hex(), shown])


class Hand:
    """Executes the lines of text."""

    def __init__(self) -> None:
        self.kept: list[list[str]] = []
        self.readers: dict[str, VirtualReader] = {}
        for key, model in READERS.items():
            reader = VirtualReader(
                None,
                descriptor=make_descriptor(model.level, **model.fields),
                vendor_id=model.vendor_id,
                product_id=model.product_id,
                name=key,
            )
            reader.functions[0].journal = Recorder(self.kept)
            self.readers[key] = reader
        self.cards: dict[str, Contact] = {}

    def obey(self, line: str) -> str:
        word, _, rest = line.partition(" ")
        if word == "wire":
            Path(rest).write_text(json.dumps(self.kept))
            return "ok"
        scenario = SCENARIOS[rest]
        reader = self.readers[scenario.reader]
        if word == "begin":
            self.cards[rest] = scenario.card()
            self.kept.clear()
            reader.functions[0].slots[0].mute = scenario.mute
        if word in ("begin", "insert"):
            reader.insert(self.cards[rest])
        elif reader.functions[0].slots[0].card is not None:
            reader.remove()
        return "ok"


def main(port: int, path: str) -> None:
    """Serve until the folder of the socket is removed, or a signal comes."""
    hand = Hand()
    with selectors.DefaultSelector() as selector:
        control = ControlSocket(path, hand, selector)  # type: ignore[arg-type]
        with UsbIpServer(list(hand.readers.values()), "127.0.0.1", port):
            print(f"serving {len(hand.readers)} readers", flush=True)
            while True:
                for key, _ in selector.select():
                    key.data()
        control.close()


def ask(path: str, line: str) -> None:
    """Send one line to the server, and wait until the server has executed it."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(line.encode() + b"\n")
        answer = s.recv(1000)
    assert answer.startswith(b"ok"), answer


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
