"""Values for a target, taken from the input one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Taker:
    """Gives the bytes of an input as numbers, choices and pieces. At its end all are 0 or empty.

    Args:
        data: The input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """True if all is taken."""
        return self._at >= len(self._data)

    def number(self, size: int = 1) -> int:
        """A number of ``size`` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or those that are left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def piece(self) -> bytes:
        """A piece of 0 to 255 bytes: its length, then the bytes."""
        return self.take(self.number())

    def long_piece(self) -> bytes:
        """A piece of 0 to 65,535 bytes: its length in two bytes, then the bytes."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def one_of(self, choices: Sequence[T]) -> T:
        """One of ``choices``."""
        return choices[self.number() % len(choices)]
