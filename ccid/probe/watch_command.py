"""``ccid-probe watch``: readers and cards as they come and go."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from datetime import datetime

from ccid.device.find import open_reader
from ccid.device.watching import Event, watch
from ccid.probe.reader_choice import flush, json_text, listening, say, virtual_infos


def run(options: argparse.Namespace) -> int:
    """Print each event, until Ctrl-C or until no event came for the given time."""
    with ExitStack() as stack:
        paths = None
        if options.virtual:
            infos = virtual_infos(options)
            stack.enter_context(listening(options))
            paths = {info.path for info in infos}
            for info in infos:
                stack.enter_context(open_reader(info))
        for event in stack.enter_context(closing(watch(options.timeout))):
            if (paths is None or event.reader.path in paths) and _is_wanted(event, options.reader):
                _show(event, options.json)
    return 0


def _is_wanted(event: Event, word: str | None) -> bool:
    info = event.reader
    return word is None or word.lower() in (info.path, info.id) or word.lower() in info.name.lower()


def _show(event: Event, as_json: bool) -> None:
    now, info = datetime.now().astimezone(), event.reader
    if as_json:
        document = {
            "schema": "ccid-probe/watch/1",
            "time": now.isoformat(timespec="milliseconds"),
            "event": event.kind.name,
            "name": info.name,
            "path": info.path,
            "slot": event.slot,
        }
        say(json_text(document))
    else:
        slot = "" if event.slot is None else f", slot {event.slot}"
        say(f"{now:%H:%M:%S}.{now.microsecond // 1000:03} {event.kind.value}: {info}{slot}")
    flush()
