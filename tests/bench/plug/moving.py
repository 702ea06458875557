"""A helper whose virtual reader has a hand of its own: it takes the card out and puts it in, and
writes down when. Runs instead of ``python -I -m ccid.pcsc.plug.helper``."""

import os
import sys
import threading
import time
from collections.abc import Callable

from ccid.pcsc.plug import helper
from ccid.virtual import Application, FileSystemCard, VirtualReader, models

FIRST_S, EACH_S = 3.0, 0.15
make = models.make


def moving(
    model: str | None = None, card: Callable[[], Application] | None = FileSystemCard
) -> VirtualReader:
    """As it was, with a thread that moves the card."""
    reader = make(model, card)
    threading.Thread(target=move, args=(reader,), daemon=True).start()
    return reader


def move(reader: VirtualReader) -> None:
    time.sleep(FIRST_S)
    with open(os.environ["MOVED"], "w", buffering=1) as said:
        while True:
            time.sleep(EACH_S)
            card = reader.remove()
            said.write(f"{time.monotonic()}\n")
            time.sleep(EACH_S)
            if card is not None:
                reader.insert(card)
            said.write(f"{time.monotonic()}\n")


models.make = moving
sys.argv = sys.argv[-1:]
helper.main()
