"""A small parser for the declarations in ``plug.c``: #defines, enums and structs. No compiler."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?!\()[ \t]*(.*?)[ \t]*$", re.MULTILINE)
ENUM = re.compile(r"\benum\s+(\w*)\s*\{(.*?)\}\s*;", re.DOTALL)
STRUCT = re.compile(r"(?<!typedef )\bstruct\s+(\w+)\s*\{(.*?)\}\s*;", re.DOTALL)
MEMBER = re.compile(r"(\w+)\s*(?:=\s*(.+?))?\s*")
STRING = re.compile(r'"[^"]*"')
NUMBER = re.compile(r"(?<![\w.])(?:0[xX][0-9A-Fa-f]+|\d+)(?![\w.])")
SHIFTED = re.compile(r"\((\d+) << (\d+)\)")
LETTERS = {"uint32_t": "I", "int32_t": "i"}
"""The letter that :mod:`struct` has for a type of a frame."""

Value = int | float | str


@dataclass
class Declarations:
    """What a C file declares.

    Attributes:
        defines: Name and value of each #define: a number, or text.
        enums: Name, and the members with their values.
        structs: Name, and the fields with their types.
        rest: The file without all of these and without comments and strings.
    """

    defines: dict[str, Value] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    structs: dict[str, dict[str, str]] = field(default_factory=dict)
    rest: str = ""


def parsed(text: str) -> Declarations:
    """Parse the text of a C file.

    Raises:
        ValueError: A declaration has a form that this parser does not know.
    """
    made = Declarations()
    text = COMMENT.sub(" ", text)
    for name, value in DEFINE.findall(text):
        made.defines[name] = _value(value)
    for name, body in ENUM.findall(text):
        made.enums[name] = _members(body)
    for name, body in STRUCT.findall(text):
        made.structs[name] = _fields(body)
    for pattern in (DEFINE, ENUM, STRUCT, STRING):
        text = pattern.sub(" ", text)
    made.rest = text
    return made


def numbers(text: str) -> set[int]:
    """All whole numbers in a piece of C."""
    return {int(found, 0) for found in NUMBER.findall(text)}


def _value(text: str) -> Value:
    """A number (also ``1 << 17``), the content of a string or character, or the text itself."""
    if text[:1] in ('"', "'") and text[-1:] == text[:1] and text.count(text[0]) == 2:
        return text[1:-1]
    if re.fullmatch(r"\d+\.\d+", text):
        return float(text)
    if shifted := SHIFTED.fullmatch(text):
        return int(shifted[1]) << int(shifted[2])
    if NUMBER.fullmatch(text):
        return int(text, 0)
    return text


def _members(body: str) -> dict[str, int]:
    members: dict[str, int] = {}
    following = 0
    for part in body.split(","):
        if not part.strip():
            continue
        match = MEMBER.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"no member of an enum: {part!r}")
        if match[2] is not None:
            value = _value(match[2])
            following = ord(value) if isinstance(value, str) and len(value) == 1 else int(value)
        members[match[1]] = following
        following += 1
    return members


def _fields(body: str) -> dict[str, str]:
    fields = {}
    for line in filter(str.strip, body.split(";")):
        kind, _, names = " ".join(line.split()).partition(" ")
        for name in names.split(","):
            fields[name.strip()] = LETTERS.get(kind, kind)
    return fields
