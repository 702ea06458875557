"""Text from devices, files and clients cannot control a terminal, nor end its quotes in a file."""

from __future__ import annotations

import ast
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import CcidError, ReaderTableError
from ccid.ground.safe_text import printable, printable_lines, short
from ccid.known.quirks import toml_values as toml


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Véga-Alpha™ 智能卡 [0]", "Véga-Alpha™ 智能卡 [0]"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\x7f\x9b31m", "a\\x7f\\x9b31m"),
        ("a\nb\r\tc\x00", "a\\nb\\r\\tc\\x00"),
        ("\u202ereversed\u2066", "\\u202ereversed\\u2066"),
        ("a\u2028b\x85", "a\\u2028b\\x85"),
        ("\ud800", "\\ud800"),
        ("a\xa0b\u3000c", "a b c"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_everything_becomes_printable(text: str) -> None:
    once = printable(text)
    assert once.isprintable()
    assert printable(once) == once
    assert printable_lines(text).count("\n") == text.count("\n")
    assert str(CcidError(text)).replace("\n", "").isprintable()
    assert str(ReaderTableError(text, file=text, key=text)).isprintable()


@pytest.mark.parametrize(
    "value",
    [2**100_000, "x" * 100_000, [[]], {"a": {}}, float("nan"), "\x1b", None],
    ids=lambda value: type(value).__name__,
)
def test_a_value_in_an_error_is_short(value: Any) -> None:
    assert len(short(value)) < 100
    assert short(value).isprintable()


NAMES = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    NAMES | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(NAMES, VALUES)
def test_what_is_written_as_toml_is_read_again(name: str, value: Any) -> None:
    line = f"{toml.key(name)} = {toml.value(value)}"
    assert line.isprintable()
    assert tomllib.loads(f"{line}\nnext = 1\n") == {name: value} | {"next": 1}


@pytest.mark.parametrize("text", ["0x10 Reader", "0x1", "true", 'a"b\\', "a\n\n[reader]"])
def test_a_string_stays_one(text: str) -> None:
    assert tomllib.loads(f"x = {toml.value(text)}") == {"x": text}


def test_a_lone_surrogate_is_none_of_toml() -> None:
    assert tomllib.loads(f"x = {toml.value(chr(0xD800))}") == {"x": "\ufffd"}


def test_a_number_in_hexadecimal_goes_bare() -> None:
    assert toml.value([toml.Hexadecimal(0x204, 4)]) == "[0x0204]"
    assert ast.literal_eval(toml.Hexadecimal(7, 2)) == 7


def test_other_kinds_are_not_written() -> None:
    with pytest.raises(TypeError, match="float"):
        toml.value(1.5)
