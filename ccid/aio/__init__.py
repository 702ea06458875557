"""Readers, slots and cards for tasks of asyncio: the names of :mod:`ccid`, to be awaited.

    from ccid import aio

    async with aio.open_reader() as reader:
        async with reader.slots[0].connect() as card:
            print((await card.transmit(bytes.fromhex("00A4000C023F00"))).hex())

Nothing here blocks the event loop. Each slot has a thread that sends its commands; slots of a
reader that cannot work at the same time share one.

To cancel a task, or ``asyncio.timeout``, ends the command that the task has under way, by the ABORT
pair if the reader knows it (USB CCID rev 1.1, 5.3.1 and 6.1.13). Otherwise the command is left to
the reader, and the next command waits for its end. ``CancelledError`` comes when no thread waits
for the command any more: after half a second, or after seconds if the reader does not answer. A
command that has not begun is never sent. A card or reader that is there by the time of the
cancellation is disconnected or closed again.

The objects belong to the event loop in which they were opened.
"""

from ccid.aio.async_card import Card
from ccid.aio.async_composite import Composite, open_composite
from ccid.aio.async_reader import Reader, list_readers, open_fd, open_reader
from ccid.aio.async_slot import Slot
from ccid.aio.async_storage_card import StorageCard
from ccid.aio.async_trace import Trace
from ccid.aio.async_watch import Watch, watch

__all__ = [
    "Card",
    "Composite",
    "Reader",
    "Slot",
    "StorageCard",
    "Trace",
    "Watch",
    "list_readers",
    "open_composite",
    "open_fd",
    "open_reader",
    "watch",
]
