"""Shared by the commands: choose readers, open them, print results."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ccid.codes import Protocol
from ccid.device.find import list_readers, open_reader, select
from ccid.device.reader import Reader
from ccid.device.slot import Slot
from ccid.errors import ReaderNotFound
from ccid.ground.host_port import shown
from ccid.probe.output import flush, json_text, note, print_json, say, say_lines
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.transport.discovery import Broken
    from ccid.virtual.vpcd_listener import VpcdListener

__all__ = [
    "broken", "card_slot", "flush", "json_text", "listening", "looking", "note", "opened",
    "print_json", "protocol_of", "readers", "say", "say_lines", "slot_of", "virtual_infos",
]  # fmt: skip

CARD_WAIT_S = 60.0
"""How long a command that needs a card waits for a program to provide the card."""
NO_READER = (
    "no CCID reader on USB (`ccid-probe doctor` looks for the reason, "
    "`--virtual` takes the built-in virtual reader)"
)


def virtual_infos(options: argparse.Namespace | None) -> list[ReaderInfo]:
    """The virtual reader that the command line asks for; with None the built-in one.

    Raises:
        ReaderNotFound: There is no such model.
    """
    from ccid.virtual.models import make

    if options is None:
        return make().infos
    if options.virtual_reader is None:
        kind = options.card
        options.virtual_reader = (
            make(options.model) if kind is None else make(options.model, kind.make)
        )
    infos: list[ReaderInfo] = options.virtual_reader.infos
    return infos


@contextmanager
def listening(options: argparse.Namespace) -> Iterator[list[VpcdListener]]:
    """Meanwhile ``--card vpcd:PORT`` takes a card for each slot of the virtual reader.

    Raises:
        OSError: A port is in use.
        ReaderNotFound: There are more slots than ports from PORT on.
    """
    if options.virtual_reader is None or options.card is None:
        yield []
        return
    try:
        listeners = options.card.listeners([options.virtual_reader])
    except ValueError as error:
        raise ReaderNotFound(str(error)) from None
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
            note(f"slot {listener.slot} waits for a card at {shown(*listener.address)}")
        yield listeners


def broken(options: argparse.Namespace) -> list[Broken]:
    """The smart-card interfaces with wrong descriptors, among those that the command line asks
    for."""
    if options.virtual:
        return []
    from ccid.transport.discovery import discover

    word = options.reader
    return [one for one in discover().broken if word is None or word.lower() in (one.path, one.id)]


def note_lacking(options: argparse.Namespace, there: list[Broken]) -> None:
    """Print a remark on each device that has the ids of a reader and no smart-card interface.
    Devices of the interfaces ``there`` are left out."""
    if options.virtual:
        return
    from ccid.transport.missing_interface import lacking

    for one in lacking():
        asked = options.reader is None or options.reader.lower() in (one.path, one.id)
        if asked and one.cure and not any(one.holds(other.path) for other in there):
            note(f"{one}: {one.why} (`ccid-probe doctor` tells the cure)")


def readers(options: argparse.Namespace) -> list[ReaderInfo]:
    """The readers that the command line asks for.

    Raises:
        ReaderNotFound: There is no such reader.
    """
    there = virtual_infos(options) if options.virtual else list_readers()
    if not there:
        raise ReaderNotFound(NO_READER)
    return there if options.reader is None else [select(there, options.reader)]


@contextmanager
def opened(options: argparse.Namespace, info: ReaderInfo | None = None) -> Iterator[Reader]:
    """Open a reader; trace it if the command line asks for a trace."""
    info = info or readers(options)[0]
    with ExitStack() as stack:
        options.listeners = stack.enter_context(listening(options))
        reader = stack.enter_context(open_reader(info))
        if options.sink is not None:
            stack.enter_context(reader.trace(options.sink, secrets=options.trace_secrets))
        yield reader


@contextmanager
def looking(options: argparse.Namespace) -> Iterator[None]:
    """Trace and log as the command line asks, until the end of the block. All readers share one
    trace file. SIGTERM ends the block as Ctrl-C does."""
    from ccid.probe.termination import orderly_end

    options.sink = None
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        if options.log:
            from ccid.trace.log import log_to_stderr

            stack.enter_context(log_to_stderr(options.trace_secrets))
        if options.trace is not None:
            from ccid.trace import PcapngSink

            options.sink = PcapngSink(options.trace, keep_open=True)
            stack.callback(options.sink.close)
        yield


def slot_of(reader: Reader, index: int) -> Slot:
    """The slot that the command line asks for.

    Raises:
        ReaderNotFound: The reader has no such slot.
    """
    if not 0 <= index < len(reader.slots):
        wrong = f"no slot {index}" if abs(index) <= 0xFF else "and no such number"
        raise ReaderNotFound(f"{reader.name} has slots 0 to {len(reader.slots) - 1}, {wrong}")
    return reader.slots[index]


def card_slot(reader: Reader, options: argparse.Namespace) -> Slot:
    """The slot the command line asks for; waits for the card of ``--card vpcd:PORT``.

    Raises:
        ReaderNotFound: The reader has no such slot.
    """
    slot = slot_of(reader, options.slot)
    for listener in options.listeners:
        if listener.slot == slot.index:
            listener.wait_for_card(CARD_WAIT_S)
    return slot


def protocol_of(options: argparse.Namespace) -> Protocol | None:
    """The protocol that the command line asks for; None for any."""
    protocol: Protocol | None = options.protocol
    return protocol
