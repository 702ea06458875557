"""README's table of speed, made of what was measured: ``tools/bench-native --readme``."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import apdus, connect
from .profiles import PROFILES
from .ways import WAYS

BEGIN, END = "<!-- made by tools/bench-native --readme -->", "<!-- end of what is made -->"
BESIDE = "hs"
"""The profile of the second table."""
NAMES = {
    "A2": "libusb from C",
    "A": "pyusb's own write and read",
    "A1": "libusb's four calls from Python, and nothing else",
    "B": "**`card.transmit`**",
    "C2": "PC/SC from C, pcscd, libccid",
    "C": "pyscard, pcscd, libccid",
    "D2": "PC/SC from C, pcscd, **this driver**",
    "D": "pyscard, pcscd, **this driver**",
}
TIMES = {
    "0": "none: the reader answers at once",
    "hs": "0.25 ms: high speed",
    "fs": "2 ms: full speed",
    "hs+5": "5.25 ms: high speed, the card takes 5",
    "fs+20": "22 ms: full speed, the card takes 20",
}
"""What an APDU takes on the bus and in the card."""
RATIOS = (
    ("B", "A", "`card.transmit` beside pyusb"),
    ("B", "A1", "`card.transmit` beside libusb's four calls from Python"),
    ("B", "C", "`card.transmit` beside pyscard, pcscd, libccid"),
    ("D2", "C2", "this driver beside libccid, from C"),
)

Results = Mapping[str, Mapping[str, list[Any]]]


class ReadmeError(Exception):
    """README cannot have its table: a part was not measured, or the marks are not there."""


def table(rows: list[list[str]]) -> list[str]:
    """In Markdown; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def microseconds(value: float) -> str:
    """To a tenth below 100, and with a comma for thousands."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def short_apdus(by_profile: Mapping[str, list[apdus.Row]]) -> list[str]:
    """Time and CPU time of each way, and what is how many times as fast as what."""
    names = [name for name in TIMES if name in by_profile]
    seen = {name: {row.way: row for row in by_profile[name]} for name in names}
    rows = [["µs an APDU (and of CPU time, all processes)", *(TIMES[name] for name in names)]]
    for way in WAYS:
        cells = [seen[name][way] for name in names]
        told = [f"{microseconds(x.p50)} ({microseconds(x.cpu)})" for x in cells]
        rows.append([NAMES[way], *told])
    for ours, others, title in RATIOS:
        factors = [seen[name][ours].times_as_fast_as(seen[name][others]) for name in names]
        rows.append([f"*{title}*", *(f"*{factor:.2f} times as fast*" for factor in factors)])
    return table(rows)


def ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def the_rest(results: Results) -> list[str]:
    """Everything but short APDUs, at one profile: libccid, this driver, and the library."""
    first = {x.title: x for x in results["connect"][BESIDE]}
    many = {(x.way, x.title.rpartition(": ")[2]): x for x in results["parallel"][BESIDE]}
    large_ = {(x.most, x.way, x.direction): x for x in results["large"][BESIDE]}
    quiet = {x.title.strip(): x for x in results["idle"][BESIDE]}
    rss = {x.way: x.rss for x in results["apdus"][BESIDE]}
    rows = [["", "pcscd, libccid", "pcscd, **this driver**", "**the library** in a program"]]

    def row(title: str, *cells: str) -> None:
        rows.append([title, *cells])

    row(
        "first response, with all that has to start for it",
        ms(first["C2 with pcscd's start"].ms),
        ms(first["D2 with pcscd's start"].ms),
        f"{ms(first[connect.WITH_PYTHON].ms)} (Python and imports; "
        f"{ms(first[connect.IN_PROCESS].ms)} in a program that has imported them)",
    )
    readers = many["C2", "processes"].many
    row(
        f"{readers} readers at once, APDUs a second, from C or `card.transmit`",
        *(f"{many[way, 'processes'].rate_many:,.0f}" for way in ("C2", "D2")),
        f"{many['B', 'threads'].rate_many:,.0f} (threads), "
        f"{many['B', 'processes'].rate_many:,.0f} (processes)",
    )
    sizes = {x.most for x in results["large"][BESIDE]}
    for most in (min(sizes), max(sizes)):
        row(
            f"64 KiB to the card, and from the card, in messages of {most:,} bytes",
            *(
                f"{ms(large_[most, way, 'to'].ms)}, {ms(large_[most, way, 'from'].ms)}"
                for way in ("C2", "D2", "B")
            ),
        )
    row(
        "memory, MB",
        f"{rss['C2'][1]}",
        f"{rss['D2'][1]} and {rss['D2'][2]} (the helper)",
        f"{rss['B'][0]}",
    )
    helper, pcscd = quiet["and its helper"], quiet["pcscd with ccid"]
    row(
        "when nothing happens, a minute: context switches, transfers",
        *(
            f"{sum(x.voluntary + x.involuntary for x in found)}, {found[-1].transfers}"
            for found in (
                [quiet["pcscd with libccid"]],
                [pcscd, helper],
                [quiet["ccid.watch()"]],
            )
        ),
    )
    return table(rows)


def block(results: Results, where: str) -> str:
    """What stands between the marks.

    Args:
        results: Rows by part and profile.
        where: Machine and version, in words.

    Raises:
        ReadmeError: A part was not measured, or not at all profiles.
    """
    lacking = [name for name in TIMES if name not in results.get("apdus", {})]
    lacking += [
        part
        for part in ("connect", "parallel", "large", "idle")
        if BESIDE not in results.get(part, {})
    ]
    if lacking:
        raise ReadmeError(f"README's table needs {', '.join(lacking)}, too")
    head = f"Time on the bus and in the card stands above each column. Measured {where}."
    title = f"Everything else ({PROFILES[BESIDE].title}):"
    tables = "\n".join(short_apdus(results["apdus"])), "\n".join(the_rest(results))
    return "\n\n".join([head, tables[0], title, tables[1]])


def version(root: Path) -> str:
    """The commit, as git has it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "of unknown version"


def write(path: Path, text: str) -> None:
    """Put the block between the marks of README.

    Raises:
        ReadmeError: The marks are not there.
    """
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReadmeError(f"{path} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")
