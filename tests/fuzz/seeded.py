"""A target on inputs made by chance, from its corpus and a seed: where atheris is not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from tests.fuzz.bounds import Bounds
from tests.fuzz.mutation import Mutator

HERE = Path(__file__).parent


class Found(Exception):
    """An input broke a target.

    Attributes:
        data: The input.
        number: How many inputs came before it, those of the corpus included.
    """

    def __init__(self, name: str, data: bytes, number: int, error: BaseException) -> None:
        shown = data.hex() if len(data) <= 512 else f"{data[:512].hex()}… ({len(data)} bytes)"
        super().__init__(
            f"{name}: input {number} raises {type(error).__name__}: {error}; the input: {shown}"
        )
        self.data = data
        self.number = number


def corpus(name: str) -> list[bytes]:
    """The inputs that a target begins with."""
    return [file.read_bytes() for file in sorted((HERE / "corpus" / name).iterdir())]


def dictionary(name: str) -> list[bytes]:
    """The words of a target; they are in the form that libFuzzer reads."""
    file = HERE / "dictionaries" / f"{name}.dict"
    if not file.is_file():
        return []
    lines = (line.strip() for line in file.read_text("ascii").splitlines())
    return [
        line[1:-1].encode("ascii").decode("unicode_escape").encode("latin-1")
        for line in lines
        if line.startswith('"')
    ]


def inputs(name: str, seed: int | str) -> Iterator[bytes]:
    """The corpus, then inputs without end."""
    begin = corpus(name)
    yield from begin
    mutator = Mutator(f"{name} {seed}", begin, dictionary(name))
    while True:
        yield mutator.next()


def run(
    name: str,
    target: Callable[[bytes], None],
    *,
    seed: int | str = 0,
    most: int | None = None,
    seconds: float | None = None,
) -> int:
    """Run a target on its corpus and then on so many more inputs, or for so long.

    Returns:
        How many inputs there were.

    Raises:
        Found: An input broke it.
    """
    until = None if seconds is None else time.monotonic() + seconds
    limit = None if most is None else len(corpus(name)) + most
    with Bounds() as bounds:
        for number, data in zip(count(), inputs(name, seed), strict=False):
            if number == limit or (until is not None and time.monotonic() >= until):
                return number
            try:
                bounds.run(target, data)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                raise Found(name, data, number, error) from error
    raise AssertionError("inputs do not end")
