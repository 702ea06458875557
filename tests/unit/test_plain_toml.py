"""What is read without tomllib is what tomllib reads, or is left to it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ccid.known.quirks import reader_table
from ccid.known.quirks.plain_toml import parsed
from ccid.known.quirks.table_entries import part_of
from tests.unit.each import each

NAMES = sorted(reader_table.vendors().values())


def judged(text: str) -> dict[str, Any] | None:
    """What tomllib reads; None if it is no TOML."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return None


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are not the same."""
    return repr(a) == repr(b)


@each(name=NAMES)
def test_every_entry_of_the_table(name: str) -> None:
    text = (reader_table.table() / name).read_text("utf-8")
    for product in {*tomllib.loads(text).get("reader", {}), "0000"}:
        part = part_of(text, product)
        plain = parsed(part)
        assert plain is None or same(plain, tomllib.loads(part))


def test_nearly_all_files_of_the_table_are_plain() -> None:
    """So the readers in them are found without tomllib."""
    others = [
        name for name in NAMES if parsed((reader_table.table() / name).read_text("utf-8")) is None
    ]
    assert len(others) <= 3, others


KEYS = st.sampled_from(["a", "b", "a.b", "a.b.c", "b.a", "reader.1", '"a"', "a b", "é", "", "a..b"])
VALUES = st.sampled_from(
    [
        *('"x"', '""', '"""x"""', "'x'", '"a\\n"', '"#"', '"é" # why', '"x" y', '"', '"\t"'),
        *("true", "false", "True", "1", "0", "01", "-1", "+1", "1_000", "1__0", "_1", "0x1F"),
        *("0x", "0xG", "0x_1", "0o7", "0b1", "1.5", "01.5", "1.", ".5", "1.5_0", "1e3", "inf"),
        *("[1, 2]", "[1,2,]", "[]", "[1, [2]]", '["x"]', "[0x1, 2.0]", "{a = 1}", "[", "]"),
        *("1979-05-27", "12:00:00", "٣", "1 # one", "1 #", "", "9" * 99, "9" * 5000, "[1] # x"),
    ]
)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds("{}={}".format, KEYS, VALUES),
    st.builds("[{}]".format, KEYS),
    st.builds("[[{}]]".format, KEYS),
    st.sampled_from(["", " ", "# why", "  a = 1", "[a] # why", "[[a]", "[a]]", "[ a ]", "a", "\r"]),
)


@given(st.lists(LINES, max_size=7).map("\n".join))
def test_any_lines_are_read_as_tomllib_reads_them_or_left_to_it(text: str) -> None:
    plain = parsed(text)
    assert plain is None or same(plain, judged(text))


@given(st.text(max_size=30))
def test_any_text_is_read_as_tomllib_reads_it_or_left_to_it(text: str) -> None:
    for whole in (text, f"a = {text}", f'a = "{text}"', f"[{text}]", f"{text} = 1"):
        plain = parsed(whole)
        assert plain is None or same(plain, judged(whole))


LOOKUP = """\
import sys
from ccid.known.quirks import lookup
print(lookup(0x08E6, 0x3437).name)
print("tomllib" in sys.modules)
"""


def test_a_reader_is_found_without_tomllib() -> None:
    run = subprocess.run([sys.executable, "-c", LOOKUP], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[1:] == ["False"]
