"""``ccid-probe check``: will this reader work?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ccid.device.verdict import Level, Weight, judge
from ccid.errors import ReaderNotFound
from ccid.probe.output import Colour, Painted
from ccid.probe.reader_choice import broken, note_lacking, print_json, readers, say

if TYPE_CHECKING:
    from ccid.transport.discovery import Broken

COLOURS = {
    Level.WORKS: Colour.GOOD,
    Level.LIMITS: Colour.LIMIT,
    Level.UNSUPPORTED: Colour.BAD,
}


def painted_verdict(level: Level) -> Painted:
    """A verdict in words and in its colour."""
    return Painted(level.value, COLOURS[level])


def run(options: argparse.Namespace) -> int:
    """Judge the readers. Exit status 1 if a reader is unsupported."""
    wrong = broken(options)
    note_lacking(options, wrong)
    try:
        there = readers(options)
    except ReaderNotFound:
        if not wrong:
            raise
        there = []
    verdicts = [judge(info) for info in there]
    if options.json:
        print_json(
            "check",
            readers=[
                {
                    "name": info.name,
                    "path": info.path,
                    "idVendor": info.vendor_id,
                    "idProduct": info.product_id,
                    "verdict": verdict.level.value,
                    "reasons": [
                        {"field": r.field, "text": r.text, "weight": r.weight.value}
                        for r in verdict.reasons
                    ],
                }
                for info, verdict in zip(there, verdicts, strict=True)
            ]
            + [as_json(one) for one in wrong],
        )
    else:
        for info, verdict in zip(there, verdicts, strict=True):
            say(f"{info.name} ({info.id} at {info.path}): ", painted_verdict(verdict.level))
            for reason in verdict.reasons:
                say(f"  {reason.weight.value:5} {reason}")
        for one in wrong:
            say(f"{name(one)} ({one.id} at {one.path}): ", painted_verdict(Level.UNSUPPORTED))
            say(f"  {Weight.FATAL.value:5} {one.error.field or 'descriptors'}: {one.error}")
    return int(bool(wrong) or any(verdict.level is Level.UNSUPPORTED for verdict in verdicts))


def name(one: Broken) -> str:
    """The name of an interface whose descriptors cannot be parsed."""
    return f"smart-card interface of {one.id}"


def as_json(one: Broken) -> dict[str, Any]:
    """An interface with wrong descriptors, for ``check --json``."""
    vendor, product = one.id.split(":")
    return {
        "name": name(one),
        "path": one.path,
        "idVendor": int(vendor, 16),
        "idProduct": int(product, 16),
        "verdict": Level.UNSUPPORTED.value,
        "reasons": [
            {
                "field": one.error.field or "descriptors",
                "text": str(one.error),
                "weight": Weight.FATAL.value,
            }
        ],
    }
