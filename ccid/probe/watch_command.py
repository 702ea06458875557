"""``ccid-probe watch``: readers and cards as they come and go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime

from ccid.device.find import open_reader
from ccid.device.watching import Event, watch
from ccid.probe.reader_choice import flush, json_text, listening, say, virtual_infos
from ccid.probe.watch_board import clock, live_board

Show = Callable[[Event, datetime], None]


def run(options: argparse.Namespace) -> int:
    """Show each event, until Ctrl-C or until no event came for the given time."""
    with ExitStack() as stack:
        paths = None
        if options.virtual:
            infos = virtual_infos(options)
            stack.enter_context(listening(options))
            paths = {info.path for info in infos}
            for info in infos:
                stack.enter_context(open_reader(info))
        show = _display(options, stack)
        for event in stack.enter_context(closing(watch(options.timeout))):
            if (paths is None or event.reader.path in paths) and _is_wanted(event, options.reader):
                show(event, datetime.now().astimezone())
    return 0


def _display(options: argparse.Namespace, stack: ExitStack) -> Show:
    """What shows an event: a live view at a terminal, if rich is there; else a line."""
    if options.json:
        return _print_document
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if is_terminal and not options.plain and os.environ.get("TERM") != "dumb":
        try:
            return stack.enter_context(live_board())
        except ImportError:
            pass
    return _print_line


def _print_document(event: Event, now: datetime) -> None:
    info = event.reader
    document = {
        "schema": "ccid-probe/watch/1",
        "time": now.isoformat(timespec="milliseconds"),
        "event": event.kind.name,
        "name": info.name,
        "path": info.path,
        "slot": event.slot,
    }
    say(json_text(document))
    flush()


def _print_line(event: Event, now: datetime) -> None:
    slot = "" if event.slot is None else f", slot {event.slot}"
    say(f"{clock(now)} {event.kind.value}: {event.reader}{slot}")
    flush()


def _is_wanted(event: Event, word: str | None) -> bool:
    info = event.reader
    return word is None or word.lower() in (info.path, info.id) or word.lower() in info.name.lower()
