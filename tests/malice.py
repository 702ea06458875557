"""What becomes of a driver whose reader is malicious: measured, for the tests and for
docs/security.md."""

from __future__ import annotations

import resource
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import ccid
from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import ExchangeLevel, Protocol
from ccid.errors import CcidError
from ccid.virtual import FileSystemCard, VirtualReader, make_descriptor
from ccid.virtual.hostile_faults import Malice, malicious
from tests.fuzz.bounds import largest

PAGE = resource.getpagesize()
SELECT_MF = bytes.fromhex("00A4000C023F00")
READ = bytes.fromhex("00B0000010")
OK = bytes.fromhex("9000")
EVENTS = frozenset(
    (
        Malice.NOTIFICATIONS,
        Malice.NOTIFICATIONS_OF_OTHER_SLOTS,
        Malice.HARDWARE_ERRORS,
        Malice.UNKNOWN_EVENTS,
    )
)
"""Kinds that are told beside the replies."""


def place(kind: Malice) -> tuple[ExchangeLevel, Protocol]:
    """Level of exchange and protocol with which a kind can be."""
    if kind in (Malice.CHAINING, Malice.EMPTY_CHAINING):
        return ExchangeLevel.EXTENDED_APDU, Protocol.T1
    if kind.name.startswith("T1_"):
        return ExchangeLevel.TPDU, Protocol.T1
    if kind is Malice.T0_NULL:
        return ExchangeLevel.CHARACTER, Protocol.T0
    if kind.name.startswith("T0_"):
        return ExchangeLevel.TPDU, Protocol.T0
    return ExchangeLevel.SHORT_APDU, Protocol.T1


@dataclass(frozen=True)
class Outcome:
    """What became of one command to a malicious reader.

    Attributes:
        error: Name of the class of ccid.errors; empty if the command succeeded.
        seconds: Until then.
        grown: Bytes by which the process grew at most, the reader's own part included.
        neighbour_s: The longest command of another reader meanwhile, in seconds; None if it failed.
        afterwards: How the reader can be used when the malice is over: ``at once``, ``opened
            anew``, or ``no``.
    """

    error: str
    seconds: float
    grown: int
    neighbour_s: float | None
    afterwards: str


def size() -> int:
    """Bytes of memory that this process has now; where Linux does not tell, has had at most."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return largest()


class Neighbour:
    """Another reader in this process, whose card is used all the time.

    Attributes:
        longest_s: The longest command so far, in seconds; None if one failed.
        count: How many commands there were.
        grown: Bytes by which the process was larger than in the beginning, at most.
    """

    def __init__(self) -> None:
        self._reader = ccid.open_reader(VirtualReader())
        self._card = self._reader.slots[0].connect()
        self._is_over = False
        self.longest_s: float | None = 0.0
        self.count = self.grown = 0
        self._size = size()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over or self.count < 3:
            began = time.perf_counter()
            try:
                right = self._card.transmit(SELECT_MF) == OK
            except CcidError:
                right = False
            if not right or self.longest_s is None:
                self.longest_s = None
                return
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
            self.count += 1
            self.grown = max(self.grown, size() - self._size)
            time.sleep(0.002)

    def end(self) -> float | None:
        """The longest command, in seconds; None if one failed."""
        self._is_over = True
        self._thread.join(20)
        self._reader.close()
        return self.longest_s


def suffer(kind: Malice, *, max_command_s: float, flood_s: float) -> Outcome:
    """One command to a malicious reader, beside another reader.

    Args:
        kind: What the reader does.
        max_command_s: The limit of a command, as for :func:`ccid.open_reader`.
        flood_s: How long commands go on if none fails: while notifications come.
    """
    level, protocol = place(kind)
    virtual = VirtualReader(FileSystemCard(), level=level)
    reader = ccid.open_reader(virtual, max_command_s=max_command_s)
    mapped = kind in (Malice.T0_GET_RESPONSE, Malice.T0_WRONG_LENGTH)
    card = reader.slots[0].connect(protocol, auto_get_response=mapped)
    assert card.transmit(SELECT_MF) == OK
    end_listening = reader.listen(lambda slots: None)
    neighbour = Neighbour()
    virtual.faults.append(malicious(kind))
    began, error = time.perf_counter(), ""
    try:
        card.transmit(READ)
        while kind in EVENTS and time.perf_counter() - began < flood_s:
            card.transmit(SELECT_MF)
    except CcidError as raised:
        error = type(raised).__name__
    seconds = time.perf_counter() - began
    longest_s, grown = neighbour.end(), neighbour.grown
    virtual.faults.clear()
    for function in virtual.functions:
        if function.interrupt_in is not None:
            function.interrupt_in.stop()
    end_listening()
    with suppress(CcidError):
        card.disconnect()
    afterwards = "at once" if _works(reader, protocol) else "no"
    reader.close()
    if afterwards == "no":
        with ccid.open_reader(virtual) as again:
            afterwards = "opened anew" if _works(again, protocol) else "no"
    return Outcome(error, seconds, grown, longest_s, afterwards)


def _works(reader: ccid.Reader, protocol: Protocol) -> bool:
    try:
        with reader.slots[0].connect(protocol) as card:
            return card.transmit(SELECT_MF) == OK
    except CcidError:
        return False


# Descriptors --------------------------------------------------------------------------------------


def suffer_descriptor(descriptor: SmartCardDescriptor, *, changes: bool) -> Outcome:
    """A reader with a descriptor that lies: opened, a card connected, a command sent.

    Args:
        descriptor: What the reader says of itself.
        changes: The reader says so only after it was opened by an honest descriptor.
    """
    neighbour, began, error = Neighbour(), time.perf_counter(), ""
    honest = make_descriptor(ExchangeLevel.SHORT_APDU)
    virtual = VirtualReader(FileSystemCard(), descriptor=honest if changes else descriptor)
    try:
        with ccid.open_reader(virtual, max_command_s=1.0) as reader:
            virtual.functions[0].descriptor = descriptor
            reader.slots[0].connect().transmit(SELECT_MF)
            reader.slots[-1].status()
    except CcidError as raised:
        error = type(raised).__name__
    seconds = time.perf_counter() - began
    afterwards = "opened anew"
    if changes:
        virtual.functions[0].descriptor = honest
        with ccid.open_reader(virtual) as again:
            afterwards = afterwards if _works(again, Protocol.T1) else "no"
    return Outcome(error, seconds, neighbour.grown, neighbour.end(), afterwards)
