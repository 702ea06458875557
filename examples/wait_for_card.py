"""Wait until a card is put into the first reader, and print its ATR in words.

python examples/wait_for_card.py            your reader and your card
python examples/wait_for_card.py --virtual  a virtual card, which the program inserts
"""

from __future__ import annotations

import sys
from contextlib import closing

import ccid
from ccid.virtual import FileSystemCard


def main(words: list[str]) -> None:
    virtual = ccid.VirtualReader(None) if "--virtual" in words else None
    # watch() shares the readers that this program has open. It ends after 60 s without an event.
    with ccid.open_reader(virtual) as reader, closing(ccid.watch(timeout=60)) as events:
        print(f"put a card into {reader.name}", flush=True)
        for event in events:
            if event.reader.path != reader.info.path:
                continue
            if event.kind is ccid.EventKind.CARD_ARRIVED and event.slot is not None:
                with reader.slots[event.slot].connect() as card:
                    print(card.atr.explain())
                return
            if virtual is not None:
                virtual.insert(FileSystemCard())
        sys.exit("no card came")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
