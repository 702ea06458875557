"""A progress bar on standard error, where that is a terminal: rich's, or one line of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ccid.ground.safe_text import printable

WIDTH = 30
STEPS = 100
"""How often a bar is drawn at most."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a long work is.

    Args:
        what: What is done, in words.
        total: How much there is to do.

    Yields:
        To be called with how much is done by now.
    """
    if sys.stderr is None or not sys.stderr.isatty() or total < 1:
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        with _plain(printable(what), total) as show:
            yield show
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(what).replace("[", r"\["), total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _plain(what: str, total: int) -> Iterator[Callable[[int], None]]:
    last = -1

    def show(done: int) -> None:
        nonlocal last
        step = done * STEPS // total
        if step != last:
            last = step
            bar = "#" * (done * WIDTH // total)
            print(f"\r{what} [{bar:{WIDTH}}] {step:3} %", end="", file=sys.stderr, flush=True)

    try:
        show(0)
        yield show
    finally:
        print(f"\r{' ' * (len(what) + WIDTH + 9)}\r", end="", file=sys.stderr, flush=True)
