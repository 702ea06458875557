"""``ccid-probe check``: will this reader work?"""

from __future__ import annotations

import argparse

from ccid.probe.session import print_json, readers, say
from ccid.verdict import Level, judge


def run(options: argparse.Namespace) -> int:
    """Judge the readers; 1 if one is unsupported."""
    there = readers(options)
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
            ],
        )
    else:
        for info, verdict in zip(there, verdicts, strict=True):
            say(f"{info.name} ({info.id} at {info.path}): {verdict.level.value}")
            for reason in verdict.reasons:
                say(f"  {reason.weight.value:5} {reason}")
    return int(any(verdict.level is Level.UNSUPPORTED for verdict in verdicts))
