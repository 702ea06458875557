"""Print readers and cards as they come and go, until Ctrl-C; those present are printed first.

python examples/watch_readers.py            your readers
python examples/watch_readers.py --virtual  a virtual reader, which the program removes
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing

import ccid
from ccid.virtual import FileSystemCard


def main(words: list[str]) -> None:
    with ExitStack() as stack:
        moves: list[Callable[[], object]] = []
        if "--virtual" in words:  # watch() sees a virtual reader while the reader is open
            virtual = ccid.VirtualReader(FileSystemCard())
            stack.enter_context(ccid.open_reader(virtual))
            moves = [virtual.unplug, virtual.remove]
        timeout = 10 if moves else None  # the watch ends after this many seconds without an event
        for event in stack.enter_context(closing(ccid.watch(timeout))):
            slot = "" if event.slot is None else f", slot {event.slot}"
            print(f"{event.kind.value}: {event.reader.name}{slot}", flush=True)
            if moves and event.kind in (ccid.EventKind.CARD_ARRIVED, ccid.EventKind.CARD_LEFT):
                moves.pop()()
            elif timeout is not None and event.kind is ccid.EventKind.READER_LEFT:
                return


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except ccid.CcidError as error:
        sys.exit(str(error))
