"""What ``ccid-probe watch`` shows at a terminal: the readers that are there, with their cards, and
the latest events. Pure but for the drawing, which rich does when it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from ccid.device.watching import Event, EventKind
from ccid.ground.safe_text import printable

if TYPE_CHECKING:
    from rich.table import Table

LATEST = 10
"""How many events are shown."""


@dataclass
class Row:
    """A reader that is there.

    Attributes:
        name: Its name.
        id: ``vvvv:pppp``.
        since: When it came.
        cards: The slots with a card, and when it came.
    """

    name: str
    id: str
    since: datetime
    cards: dict[int, datetime] = field(default_factory=dict)


class Board:
    """Follows the events of a watch."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.latest: tuple[str, ...] = ()

    def happened(self, event: Event, now: datetime) -> None:
        """Take an event in."""
        info = event.reader
        slot = "" if event.slot is None else f", slot {event.slot}"
        line = f"{clock(now)} {event.kind.value}: {printable(str(info))}{slot}"
        self.latest = (*self.latest, line)[-LATEST:]  # a thread may be drawing the old one
        row = self.rows.get(info.path)
        if event.kind is EventKind.READER_LEFT:
            self.rows.pop(info.path, None)
            return
        if row is None:
            row = Row(printable(info.name), info.id, now)
            self.rows = {**self.rows, info.path: row}
        if event.slot is not None:
            cards = {**row.cards, event.slot: now}
            if event.kind is EventKind.CARD_LEFT:
                del cards[event.slot]
            row.cards = cards

    def cells(self) -> Iterator[tuple[str, str, str, str]]:
        """For each reader: path, name, since when it is there, and its cards in words."""
        for path, row in list(self.rows.items()):
            cards = ", ".join(
                f"card in slot {slot} since {clock(since)}"
                for slot, since in sorted(row.cards.items())
            )
            yield printable(path), f"{row.name} ({row.id})", clock(row.since), cards or "no card"


def clock(time: datetime) -> str:
    """A time of day with milliseconds."""
    return f"{time:%H:%M:%S}.{time.microsecond // 1000:03}"


@contextmanager
def live_board() -> Iterator[Callable[[Event, datetime], None]]:
    """A live view on standard output, by rich.

    Yields:
        To be called with each event.

    Raises:
        ImportError: There is no rich.
    """
    from rich.live import Live

    board = Board()
    with Live(get_renderable=lambda: _drawn(board), refresh_per_second=2) as live:

        def happened(event: Event, now: datetime) -> None:
            board.happened(event, now)
            live.refresh()

        yield happened


def _drawn(board: Board) -> Table:
    """The readers and the latest events. Text of devices is no markup."""
    from rich.table import Table
    from rich.text import Text

    readers = Table(expand=True)
    for title in ("path", "reader", "since", "cards"):
        readers.add_column(title, overflow="fold")
    for *cells, cards in board.cells():
        style = "" if cards == "no card" else "green"
        readers.add_row(*map(Text, cells), Text(cards, style=style))
    if not board.rows:
        readers.add_row("", Text("no reader"), "", "")
    whole = Table.grid(expand=True)
    whole.add_row(readers)
    for line in board.latest:
        whole.add_row(Text(line, style="dim"))
    whole.add_row(Text("Ctrl-C ends this"))
    return whole
