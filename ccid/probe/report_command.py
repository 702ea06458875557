"""``ccid-probe report``: everything about a reader in one file, for a bug report or a new reader.

A report has no PIN and no key (the command sends none, and the trace would mask it), and no serial
number.
"""

from __future__ import annotations

import argparse
import platform
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import ccid
from ccid.device.slot import Slot
from ccid.device.verdict import Level, judge
from ccid.errors import CcidError, TransportTimeout, UsbUnavailable
from ccid.iso7816.status_words import explain
from ccid.known.quirks import VOCABULARY, Quirks
from ccid.known.quirks.value_kinds import shown
from ccid.probe import dump_command
from ccid.probe.card_command import SELECT_MF
from ccid.probe.reader_choice import json_text, note, opened, readers, say_lines
from ccid.trace.log import describe
from ccid.trace.private_files import write_private
from ccid.trace.tap import Sink, Transfer
from ccid.transport import ReaderInfo

READ_EF_ATR = bytes.fromhex("00B0810000")
"""READ BINARY of EF.ATR/INFO by its short identifier (ISO/IEC 7816-4:2013 11.2.3 and 12.2.2)."""


class _Notes(Sink):
    """Keeps each transfer of a trace, with its times."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._start = 0.0

    def begin(self, info: ReaderInfo) -> None:
        pass

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        if isinstance(transfer.error, TransportTimeout):
            return  # one part of a longer wait
        self._start = self._start or transfer.began
        self.lines.append(
            {
                "began_ms": round((transfer.began - self._start) * 1000, 1),
                "took_ms": round((transfer.ended - transfer.began) * 1000, 1),
                "what": describe(transfer),
                "data": transfer.data.hex().upper(),
            }
        )

    def end(self) -> None:
        pass


def run(options: argparse.Namespace) -> int:
    """Write the report. Exit status 1 if a reader could not be opened."""
    reports = [examine(options, info) for info in readers(options)]
    document = {"schema": "ccid-probe/report/1", **surroundings(), "readers": reports}
    text = json_text(document, indent=2)
    if options.output is None:
        say_lines(text)
    else:
        write_private(options.output, text)
        note(f"{options.output} holds the report; read the file before you send it")
    return int(any(report["error"] for report in reports))


def surroundings() -> dict[str, Any]:
    """The versions of programs and libraries, and the system."""
    try:
        from ccid.transport.libusb import library_name

        libusb: str | None = library_name()
    except UsbUnavailable:
        libusb = None
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "ccid": ccid.__version__,
            "python": platform.python_version(),
            "libusb": libusb,
        },
        "system": {
            "platform": sys.platform,
            "release": platform.release(),
            "machine": platform.machine(),
        },
    }


def examine(options: argparse.Namespace, info: ReaderInfo) -> dict[str, Any]:
    """A reader: descriptors, table entry, verdict; and its cards if it can be opened."""
    notes = _Notes()
    dump = dump_command.Dump(info)
    slots: list[dict[str, Any]] = []
    error = None
    verdict = judge(info)
    if verdict.level is not Level.UNSUPPORTED:
        try:
            with ExitStack() as stack:
                reader = stack.enter_context(opened(options, info))
                stack.enter_context(reader.trace(notes))
                dump = dump_command.take_from(reader)
                slots = [converse(slot) for slot in reader.slots]
        except CcidError as problem:
            error = f"{type(problem).__name__}: {problem}"
    report = dump_command.as_json(dump)
    report["strings"]["iSerialNumber"] = None
    quirks = info.quirks()
    return {
        **report,
        "misplaced": info.reader.misplaced,
        "raw": {
            "device": info.device.build().hex().upper(),
            "configuration": info.raw_configuration.hex().upper(),
        },
        "table": {"name": quirks.name, "status": quirks.status, "reason": quirks.reason},
        "quirks": matched(quirks),
        "verdict": verdict.level.value,
        "reasons": [
            {"field": r.field, "text": r.text, "weight": r.weight.value} for r in verdict.reasons
        ],
        "slots": slots,
        "transfers": notes.lines,
        "error": error,
    }


def matched(quirks: Quirks) -> list[dict[str, str]]:
    """The quirks of this reader, with their values."""
    return [
        {"name": d.name, "value": shown(value, d.kind)}
        for d in VOCABULARY.values()
        if (value := getattr(quirks, d.field)) != d.default
    ]


def converse(slot: Slot) -> dict[str, Any]:
    """Power the card in a slot and send two commands that change nothing."""
    told: dict[str, Any] = {
        "index": slot.index, "status": None, "atr": None, "protocol": None,
        "exchanges": [], "error": None,
    }  # fmt: skip
    try:
        status = slot.status()
        told["status"] = status.name.lower()
        if status.name == "ABSENT":
            return told
        with slot.connect() as card:
            told["atr"] = card.atr.hex().upper()
            told["protocol"] = str(card.protocol)
            for apdu in (SELECT_MF, READ_EF_ATR):
                response = card.transmit(apdu)
                told["exchanges"].append(
                    {
                        "command": apdu.hex().upper(),
                        "response": response.hex().upper(),
                        "meaning": explain(int.from_bytes(response[-2:], "big")),
                    }
                )
    except CcidError as problem:
        told["error"] = f"{type(problem).__name__}: {problem}"
    return told
