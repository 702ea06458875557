"""The memory of a storage card, for tasks of asyncio: the face of :class:`ccid.StorageCard`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccid.aio.async_card import Card


class StorageCard:
    """The memory of a storage card behind a contactless reader. :attr:`Card.storage` has it."""

    def __init__(self, card: Card) -> None:
        """Make the object; :attr:`Card.storage` does.

        Args:
            card: The card.
        """
        self._card = card
        self._storage = card._card.storage

    def __repr__(self) -> str:
        return f"<ccid.aio.StorageCard of {self._card!r}>"

    async def load_key(self, key: bytes, number: int = 0, *, nonvolatile: bool = False) -> None:
        """Load a key into the reader (LOAD KEYS, PC/SC part 3, 3.2.2.1.4). No log, trace or error
        has the key.

        Args:
            key: The key; 6 bytes for MIFARE Classic.
            number: The place in the reader, 0 to 255. Most readers have 0 and 1.
            nonvolatile: True to keep the key in the reader without power. Some readers, such as
                OMNIKEY's, have no other places; their memory wears out when it is written often.

        Raises:
            CardRefused: The reader did not take the key; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: ``key`` or ``number`` is none.
        """
        load = partial(self._storage.load_key, key, number, nonvolatile=nonvolatile)
        await self._card._turn.do(self._card._cancel, load)

    async def authenticate(
        self,
        address: int,
        key: bytes | None = None,
        *,
        key_type: str = "A",
        number: int = 0,
        nonvolatile: bool = False,
    ) -> None:
        """Authenticate to the sector of a block (GENERAL AUTHENTICATE, PC/SC part 3, 3.2.2.1.6).
        The authentication lasts until the next one, or a command that fails.

        Args:
            address: The number of a block in the sector.
            key: The key, which is loaded first (:meth:`load_key`); None for the key that is
                already in place ``number``.
            key_type: ``"A"`` or ``"B"``.
            number: The place of the key in the reader.
            nonvolatile: As for :meth:`load_key`.

        Raises:
            CardRefused: The key is wrong, or cannot be used; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        authenticate = partial(
            self._storage.authenticate,
            address,
            key,
            key_type=key_type,
            number=number,
            nonvolatile=nonvolatile,
        )
        await self._card._turn.do(self._card._cancel, authenticate)

    async def read(self, address: int, length: int = 16) -> bytes:
        """Read data (READ BINARY, PC/SC part 3, 3.2.2.1.8).

        Args:
            address: The number of the first block (MIFARE Classic: 16 bytes) or page (Ultralight,
                NTAG: 4 bytes).
            length: Number of bytes, 1 to 256. MIFARE Classic takes 16 or a multiple within the
                sector; Ultralight and NTAG give 4 pages at most with many readers.

        Raises:
            CardRefused: The card did not give the data; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        read = self._storage.read
        return await self._card._turn.do(self._card._cancel, read, address, length)

    async def update(self, address: int, data: bytes) -> None:
        """Write data (UPDATE BINARY, PC/SC part 3, 3.2.2.1.9). No log, trace or error has the data,
        which are a key in the last block of a MIFARE Classic sector.

        Args:
            address: As for :meth:`read`.
            data: The bytes; 16 for a block of MIFARE Classic, 4 for a page of Ultralight or NTAG.

        Raises:
            CardRefused: The card did not take the data; the message says why.
            CardRemoved, CardReset, CardMute, CommandFailed, TransportTimeout: As
                :meth:`ccid.Card.transmit`.
            ValueError, TypeError: An argument is wrong.
        """
        await self._card._turn.do(self._card._cancel, self._storage.update, address, data)
