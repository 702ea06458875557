"""Bar charts: as lines for a terminal, and as shapes for an SVG or PNG file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ccid.probe.atr_stats import Stats, Table

EIGHTHS = " ▏▎▍▌▋▊▉"
"""Characters that fill zero to seven eighths of a column."""
FULL, ASCII = "█", "#"

WIDTH, MARGIN, LABELS, NUMBERS = 760, 24, 150, 130
"""Sizes in pixels: width of the picture, its margin, and the room left and right of the bars."""
ROW, BAR, GAP = 18, 12, 22
INK, PALE, BLUE = "#222222", "#666666", "#2f6f9f"


def can_print_blocks(encoding: str | None) -> bool:
    """Whether a terminal with this encoding can show block characters."""
    try:
        (FULL + EIGHTHS).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bar(part: float, columns: int, *, blocks: bool) -> str:
    """One bar. A part above zero is at least the thinnest possible bar.

    Args:
        part: Part of the whole length, 0 to 1.
        columns: The whole length, in columns.
        blocks: Use block characters, in steps of an eighth of a column; otherwise ``#``.
    """
    if part <= 0 or columns <= 0:
        return ""
    if not blocks:
        return ASCII * max(1, round(part * columns))
    eighths = max(1, round(part * columns * 8))
    return (FULL * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def lines(table: Table, columns: int, *, blocks: bool) -> Iterator[str]:
    """A table with bars. If possible, no line is longer than ``columns``.

    Args:
        table: The table.
        columns: Width of the terminal.
        blocks: The terminal can show block characters.
    """
    wide = max([len(table.name), *(len(row.label) for row in table.rows)])
    number = max(len("#"), *(len(str(row.count)) for row in table.rows))
    yield f"{table.name:>{wide}}  {'#':>{number}}       %"
    room = columns - wide - number - 12
    most = max(row.percent for row in table.rows)
    for row in table.rows:
        drawn = bar(row.percent / most, room, blocks=blocks)
        line = f"{row.label:>{wide}}  {row.count:>{number}}  {row.percent:6.2f}  {drawn}"
        yield line.rstrip()


# Pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text: its baseline, in pixels; ``anchor`` is ``start`` or ``end``."""

    x: float
    y: float
    text: str
    size: int
    colour: str
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes on a white background; sizes in pixels."""

    width: int
    height: int
    shapes: tuple[Box | Text, ...]


def picture(stats: Stats) -> Picture:
    """The tables with their bars, one below the other, as shapes."""
    shapes: list[Box | Text] = [
        Text(MARGIN, 40, stats.title, 20, INK),
        Text(MARGIN, 62, f"{stats.present} of {stats.atrs} ATRs have it", 12, PALE),
    ]
    y: float = 62 + GAP
    room = WIDTH - 2 * MARGIN - LABELS - NUMBERS
    left = MARGIN + LABELS
    for table in stats.tables:
        if not table.rows:
            continue
        y += GAP
        shapes.append(Text(left - 8, y, table.name, 14, INK, "end"))
        y += ROW / 2
        most = max(row.percent for row in table.rows)
        for row in table.rows:
            width = max(1.0, room * row.percent / most)
            told = f"{row.count}  ({row.percent:.2f} %)"
            shapes += [
                Text(left - 8, y + BAR - 1, row.label, 12, INK, "end"),
                Box(left, y, round(width, 1), BAR, BLUE),
                Text(left + round(width, 1) + 8, y + BAR - 1, told, 12, PALE),
            ]
            y += ROW
    return Picture(WIDTH, int(y + MARGIN), tuple(shapes))


def svg(drawn: Picture) -> str:
    """A picture as an SVG document."""
    width, height = drawn.width, drawn.height
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<g font-family="sans-serif">',
    ]
    for shape in drawn.shapes:
        if isinstance(shape, Box):
            found.append(
                f'<rect x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" '
                f'height="{shape.height:g}" fill="{shape.colour}"/>'
            )
        else:
            found.append(
                f'<text x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}" '
                f'fill="{shape.colour}" text-anchor="{shape.anchor}">{escape(shape.text)}</text>'
            )
    return "\n".join([*found, "</g>", "</svg>"]) + "\n"
