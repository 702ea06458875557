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
from ccid.probe.output import flush, json_text, note, print_json, say, say_lines
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.transport.discovery import Broken

__all__ = [
    "broken", "flush", "json_text", "looking", "note", "opened", "print_json", "protocol_of",
    "readers", "say", "say_lines", "slot_of", "virtual_infos",
]  # fmt: skip

NO_READER = (
    "no CCID reader on USB (`ccid-probe doctor` looks for the reason, "
    "`--virtual` takes the built-in virtual reader)"
)


def virtual_infos(model: str | None) -> list[ReaderInfo]:
    """The built-in virtual reader, with a card in it.

    Raises:
        ReaderNotFound: There is no such model.
    """
    from ccid.virtual.models import make

    return make(model).infos


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
    there = virtual_infos(options.model) if options.virtual else list_readers()
    if not there:
        raise ReaderNotFound(NO_READER)
    return there if options.reader is None else [select(there, options.reader)]


@contextmanager
def opened(options: argparse.Namespace, info: ReaderInfo | None = None) -> Iterator[Reader]:
    """Open a reader; trace it if the command line asks for a trace."""
    info = info or readers(options)[0]
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(info))
        if options.sink is not None:
            stack.enter_context(reader.trace(options.sink, secrets=options.trace_secrets))
        yield reader


@contextmanager
def looking(options: argparse.Namespace) -> Iterator[None]:
    """Trace and log as the command line asks, until the end of the block. All readers share one
    trace file."""
    options.sink = None
    with ExitStack() as stack:
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


def protocol_of(options: argparse.Namespace) -> Protocol | None:
    """The protocol that the command line asks for; None for any."""
    protocol: Protocol | None = options.protocol
    return protocol
