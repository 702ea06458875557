"""``ccid-probe atr-stats``: count the values of one interface byte in the ATRs of a file."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from ccid.probe import chart
from ccid.probe.atr_list import NotHexadecimal, read
from ccid.probe.atr_stats import Stats, count
from ccid.probe.reader_choice import note, print_json, say


def run(options: argparse.Namespace) -> int:
    """Count, print and draw. Exit status 2 if a line is not hexadecimal or the byte is unknown."""
    try:
        stats = count(read(options.file), options.byte.upper())
    except NotHexadecimal as error:
        note(f"atr-stats: {error}")
        return 2
    except ValueError as error:
        note(f"atr-stats: --byte: {error}")
        return 2
    if options.json:
        print_json("atr-stats", **as_json(options.file, stats))
    else:
        describe(stats)
    drawn = chart.picture(stats)
    if options.svg is not None:
        Path(options.svg).write_text(chart.svg(drawn), "utf-8")
    if options.png is not None:
        from ccid.probe import chart_png

        chart_png.write(drawn, options.png)
    return 0


def describe(stats: Stats) -> None:
    """Print the tables with bars, as wide as the terminal."""
    columns = shutil.get_terminal_size().columns
    blocks = chart.can_print_blocks(getattr(sys.stdout, "encoding", None))
    say(stats.title)
    told = [f"{stats.present} have it", f"{stats.absent} do not"]
    if stats.unknown:
        told.append(f"{stats.unknown} are patterns that tell neither")
    if stats.malformed:
        told.append(f"{stats.malformed} are malformed")
    say(f"of {stats.atrs} ATRs {', '.join(told)}")
    for table in stats.tables:
        if table.rows:
            say()
            for line in chart.lines(table, columns, blocks=blocks):
                say(line)


def as_json(file: str, stats: Stats) -> dict[str, Any]:
    """The counts as ``atr-stats --json`` has them."""
    return {
        "file": file,
        "byte": stats.byte,
        "title": stats.title,
        "atrs": stats.atrs,
        "present": stats.present,
        "absent": stats.absent,
        "unknown": stats.unknown,
        "malformed": stats.malformed,
        "tables": [
            {
                "name": table.name,
                "total": table.total,
                "rows": [
                    {
                        "value": row.value,
                        "label": row.label,
                        "count": row.count,
                        "percent": round(row.percent, 4),
                    }
                    for row in table.rows
                ],
            }
            for table in stats.tables
        ],
    }
