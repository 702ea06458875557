"""QEMU's CCID readers in the guest, and their cards."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.errors import LabError
from lab.machine import CONTROLLERS
from lab.qemu import TOOLS, Monitor, Processes

CARD_SERVER_START_S = 20.0


@dataclass(frozen=True, slots=True)
class ReaderSpec:
    """The description of a reader to plug in: QEMU's usb-ccid, 08E6:4433.

    Attributes:
        controller: "uhci" or "xhci".
        card: "echo", a card server of the guest's own; the path of the socket of one that runs;
            "cac", libcacard's; None for none. Of several "cac" the first has it at the boot:
            QEMU has one such card, which :meth:`LabReader.card_in` moves.
        pcap: Where QEMU is to write the reader's USB traffic.
    """

    controller: str = "uhci"
    card: str | None = "echo"
    pcap: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``controller[:card]``, as in "xhci:cac", "uhci:none", "uhci:/tmp/card"."""
        controller, _, card = text.partition(":")
        if controller not in CONTROLLERS:
            raise ValueError(f"{controller!r} is none of {', '.join(CONTROLLERS)}")
        return cls(controller, {"": "echo", "none": None}.get(card, card))


def ask(path: Path, line: str) -> str:
    """Send a line to the control socket of a card server; returns the answer without "ok".

    Raises:
        LabError: It answered with an error, or there is none.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            connection.sendall(line.encode() + b"\n")
            answer = connection.recv(4096).decode().strip()
    except OSError as error:
        raise LabError(f"the card server at {path}: {error}") from error
    if not answer.startswith("ok"):
        raise LabError(f"the card server, {line!r}: {answer}")
    return answer.removeprefix("ok").strip()


class LabReader:
    """One reader of the guest.

    Attributes:
        spec: What was asked for.
        index: Its place among the guest's readers.
        serial: The serial number in its USB descriptor, by which the guest finds it.
        atr: Its card's, if the card is the guest's own; else empty.
        plugged: Whether it is attached.
        card_present: Whether its card is in.

    Args:
        bus, port: Where QEMU attaches it.
        folder: For the socket of its card server.
        others: The readers before it.
    """

    def __init__(
        self,
        spec: ReaderSpec,
        index: int,
        bus: str,
        port: int,
        folder: Path,
        others: Sequence[LabReader],
    ) -> None:
        self.spec = spec
        self.index = index
        self.serial = f"lab{index}"
        self.atr = b""
        self.plugged = True
        self._rivals = [other for other in others if other.spec.card == spec.card == "cac"]
        for other in self._rivals:
            other._rivals.append(self)
        self._home = spec.card is not None and not self._rivals
        self.card_present = self._home
        self._monitor: Monitor | None = None
        self._socket: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._usb = {
            "driver": "usb-ccid",
            "id": f"reader{index}",
            "bus": bus,
            "port": str(port),
            "serial": self.serial,
        }
        if spec.pcap is not None:
            self._usb["pcap"] = str(spec.pcap.resolve())
        self._card: dict[str, str] | None = None
        if spec.card == "echo":
            self.atr = bytes.fromhex("3B680000") + f"ccidlab{index:x}"[-8:].encode()
            self._socket = folder / f"card{index}"
        elif spec.card not in (None, "cac"):
            self._socket = Path(str(spec.card)).resolve()

    @property
    def control(self) -> Path | None:
        """The control socket of the reader's card server; None without a card server."""
        if self._socket is None:
            return None
        path = self._socket.with_name(self._socket.name + ".ctl")
        return path if path.exists() else None

    def start_card(self, processes: Processes, python: str) -> None:
        """Start the card server of this reader, if it needs one of its own."""
        if self.spec.card == "echo":
            program = TOOLS / "lab" / "cardserver.py"
            paths = [str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
            self._server = processes.start(
                "env",
                f"PYTHONPATH={os.pathsep.join(filter(None, paths))}",
                python,
                program,
                str(self._socket),
                "--atr",
                self.atr.hex(),
            )

    def options(self, cache: Path, log: Path, *, plugged: bool = True) -> list[str]:
        """The arguments of QEMU for reader and card. The card server runs, and logs to ``log``.
        Without ``plugged`` the reader is not there until :meth:`plug`."""
        self.plugged = plugged
        options = []
        if self.spec.card == "cac":
            self._card = {"driver": "ccid-card-emulated", "backend": "certificates"}
            self._card |= {"db": f"sql:{cache / 'nss'}"}
            self._card |= {f"cert{i}": f"cert{i}" for i in (1, 2, 3)}
        elif self._socket is not None:
            if self.spec.card == "echo":
                self._wait_for_card(log)
            chardev = f"chardev{self.index}"
            options = ["-chardev", f"socket,id={chardev},path={self._socket},reconnect=1"]
            self._card = {"driver": "ccid-card-passthru", "chardev": chardev}
        if self._card is not None:
            self._card |= {"id": f"card{self.index}", "bus": f"{self._usb['id']}.0"}
        for device in (self._usb, self._card if self._home else None):
            if device is not None and plugged:
                members = [f"{k}={v}" for k, v in device.items() if k != "driver"]
                options += ["-device", ",".join([device["driver"], *members])]
        return options

    def connect(self, monitor: Monitor) -> None:
        """Give the reader the monitor of QEMU, by which it can be unplugged."""
        self._monitor = monitor

    # What a hand can do ------------------------------------------------------------------------

    def ask(self, line: str) -> str:
        """Send a line to the card server (see cardserver.py); returns the answer without "ok"."""
        if self.control is None:
            raise LabError(f"the card of reader {self.index} has no control socket")
        return ask(self.control, line)

    def card_out(self) -> None:
        """Remove the card. A card without a card server is removed with its QEMU device."""
        if self.control is not None:
            self.ask("out")
        elif self.card_present and self.plugged:
            self._qemu().remove(f"card{self.index}")
        self.card_present = False

    def card_in(self) -> None:
        """Insert the card. The one card of libcacard is removed from another reader first."""
        if self._card is None:
            raise LabError(f"reader {self.index} has no card")
        for other in self._rivals:
            other.card_out()
        if self.control is not None:
            self.ask("in")
        elif not self.card_present and self.plugged:
            self._qemu().call("device_add", **self._card)
        self.card_present = True

    def unplug(self) -> None:
        """Detach the reader, with the card in it."""
        if self.plugged:
            self._qemu().remove(self._usb["id"])
            self.plugged = False

    def plug(self) -> None:
        """Attach the reader again, to the same port."""
        if self.plugged:
            return
        self._qemu().call("device_add", **self._usb)
        self.plugged = True
        if self._card is not None and (self.control is not None or self.card_present):
            self._qemu().call("device_add", **self._card)
            if self.control is not None:
                self.ask("announce")

    def restore(self) -> None:
        """Restore the state after the boot: reader attached, card inserted and without delay."""
        self.plug()
        if self._home:
            self.card_in()
        elif self._rivals:
            self.card_out()
        if self.atr:
            self.ask("delay 0")

    def _qemu(self) -> Monitor:
        if self._monitor is None:
            raise LabError("the guest does not run")
        return self._monitor

    def _wait_for_card(self, log: Path) -> None:
        deadline = time.monotonic() + CARD_SERVER_START_S
        while time.monotonic() < deadline and self._server and self._server.poll() is None:
            if self.control is not None:
                try:
                    self.ask("status")
                    return
                except LabError:  # it listens in a moment
                    pass
            time.sleep(0.01)
        raise LabError(f"the card server of reader {self.index} did not start\n{log.read_text()}")
