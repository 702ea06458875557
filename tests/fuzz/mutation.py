"""Inputs made of others by chance: pure, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

LONGEST = 4096
"""Most bytes of an input."""
TELLING = (
    b"\0", b"\1", b"\x7f", b"\x80", b"\xfe", b"\xff", b"\0\0", b"\xff\xff", b"\xff\xff\xff\x7f",
    b"\0\0\0\x80", b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\0\0\0\0", b"\1\0\0\0",
    b"\0\0\1\0", b"\x90\0",
)  # fmt: skip
"""Bytes that a check of a length or a number may forget."""


class Mutator:
    """Makes inputs.

    Args:
        seed: The same seed makes the same inputs.
        corpus: The inputs to begin with.
        words: Words of the format, to put in.
    """

    def __init__(self, seed: int | str, corpus: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._chance = Random(seed)
        self._corpus = list(corpus) or [b""]
        self._words = [*words, *TELLING]

    def next(self) -> bytes:
        """The next input."""
        chance = self._chance
        if chance.random() < 0.02:
            return chance.randbytes(chance.randrange(64))
        data = bytearray(chance.choice(self._corpus))
        for _ in range(1 << chance.randrange(5)):
            self._change(data)
        return bytes(data[:LONGEST])

    def _change(self, data: bytearray) -> None:
        chance = self._chance
        at = chance.randrange(len(data) + 1)
        match chance.randrange(9):
            case 0 if data:  # another bit
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:  # another byte
                data[at % len(data)] = chance.randrange(256)
            case 2 if data:  # a number near by
                data[at % len(data)] = data[at % len(data)] + chance.choice((-2, -1, 1, 2)) & 0xFF
            case 3:  # one byte more
                data.insert(at, chance.randrange(256))
            case 4:  # some bytes less
                del data[at : at + (1 << chance.randrange(6))]
            case 5:  # a word over what is there
                word = chance.choice(self._words)
                data[at : at + len(word)] = word
            case 6:  # a word between
                data[at:at] = chance.choice(self._words)
            case 7:  # a part of it again
                size = 1 << chance.randrange(8)
                begin = chance.randrange(len(data) + 1)
                data[at:at] = data[begin : begin + size] * chance.choice((1, 1, 1, 2, 16))
            case 8:  # the beginning of this one, the end of another
                other = chance.choice(self._corpus)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case _:
                data.append(chance.randrange(256))
        del data[LONGEST:]
