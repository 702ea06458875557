"""Line numbers of keys in a TOML text, for error messages; tomllib does not keep them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

Path = tuple[str, ...]
"""The parts of a dotted key."""


def line_of_error(text: str, error: str) -> int:
    """The line number in an error message of tomllib, from 1; the last line if the message has
    none.

    Args:
        text: The TOML text.
        error: The message.
    """
    found = re.search(r"\(at line (\d+)", error)
    return int(found[1]) if found else text.count("\n") + 1


_HEADER = re.compile(r"\s*(\[\[?)(.*?)\]\]?\s*(#.*)?$")
_ASSIGNED = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def line_of(text: str, key: Sequence[str | int]) -> int:
    """The number of the line, from 1, with a key of a TOML text.

    Args:
        text: The TOML text.
        key: The parts of the key; a number is the index in an array of tables.

    Returns:
        The line of the key, else of the innermost table around the key; 0 without such a table.
    """
    best, deepest, head = 0, 0, []
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header, assigned = _HEADER.match(line), _ASSIGNED.match(line)
        if header is not None:
            head = _parts(header[2], counts, header[1] == "[[")
            path = head
        elif assigned is not None:
            path = head + _parts(assigned[1], {}, False)
        else:
            continue
        depth = 0
        while depth < min(len(path), len(key)) and path[depth] == key[depth]:
            depth += 1
        if (depth > deepest and depth == len(path)) or depth == len(key) > deepest:
            best, deepest = number, depth
    return best


def _parts(text: str, counts: dict[Path, int], is_array: bool) -> list[str | int]:
    """The parts of a dotted key, with an index after each array of tables.

    Args:
        text: The dotted key.
        counts: The index of the current element of each array of tables; updated.
        is_array: The key is the header of an array of tables.
    """
    parts: list[str | int] = []
    words = [part.strip("\"'") for part in _PART.findall(text)]
    for index, word in enumerate(words):
        parts.append(word)
        path = tuple(str(part) for part in parts)
        if is_array and index == len(words) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            parts.append(counts[path])
    return parts
