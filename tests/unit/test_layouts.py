"""The short way of a declaration gives what construct gives, or leaves it to construct."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ccid.codec
from ccid.codec.declaration import Declared, build, declared, packer, parse, wire
from ccid.codec.layouts import (
    Byte,
    Bytes,
    Const,
    GreedyBytes,
    Int16ul,
    Int32ul,
    Layout,
    OneOf,
    ShortWay,
)
from ccid.codec.messages.bulk_message import Message
from ccid.errors import CcidError, MalformedMessage
from ccid.ground.records import vars_of

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(ccid.codec.__path__, "ccid.codec.")
]


def every(cls: type[Declared]) -> Iterator[type[Declared]]:
    for one in cls.__subclasses__():
        if one.__module__.startswith(("ccid.codec", "ccid.pin")) and "layout" in vars(one):
            yield one
        yield from every(one)


CLASSES = sorted(set(every(Declared)), key=lambda one: one.__name__)
STRUCTURES = [one for one in CLASSES if not issubclass(one, Message)]
MESSAGES: list[Any] = [one for one in CLASSES if issubclass(one, Message) and "header" in vars(one)]


def outcome(do: Any) -> Any:
    """What ``do`` returns; or the class, the text and the field of its error."""
    try:
        return do()
    except CcidError as error:
        return type(error), str(error), getattr(error, "field", None)


def without(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave construct alone for the rest of a ``monkeypatch.context()``."""
    for name in ("short", "short_body"):
        if getattr(cls, name, None) is not None:
            monkeypatch.setattr(cls, name, None)
    if hasattr(cls, "short_header"):
        monkeypatch.setattr(cls.short_header, "parse", lambda *_: None, raising=False)
        monkeypatch.setattr(cls.short_header, "build", lambda *_: None, raising=False)


def both(cls: Any, do: Any) -> None:
    short = outcome(do)
    with pytest.MonkeyPatch.context() as monkeypatch:
        without(cls, monkeypatch)
        long = outcome(do)
    assert short == long


def test_nearly_all_declarations_have_a_short_way() -> None:
    names = {one.__name__ for one in CLASSES if one.short is None}
    assert names == {"PinModification"}
    assert all(one.short_body is not None for one in MESSAGES)
    assert len(MESSAGES) == 19


@pytest.mark.parametrize("cls", STRUCTURES)
@settings(max_examples=25)
@given(data=st.data())
def test_structures_are_parsed_and_built_the_same_both_ways(cls: Any, data: Any) -> None:
    size = cls.size() if cls.short is not None else 20
    raw = data.draw(st.binary(min_size=max(0, size - 2), max_size=size + 3))
    if hasattr(cls, "bLength") and len(raw) > 1 and data.draw(st.booleans()):
        raw = bytes([cls._defaults["bLength"], cls._defaults["bDescriptorType"]]) + raw[2:]
    both(cls, lambda: cls.parse(raw))
    both(cls, lambda: cls.parse(raw).build())


@pytest.mark.parametrize("cls", MESSAGES)
@settings(max_examples=25)
@given(
    head=st.binary(min_size=5, max_size=5),
    data=st.binary(max_size=24),
    more=st.sampled_from([0, 0, 0, 0, 1, -1]),
    first=st.sampled_from([0, 0, 0, 1]),
)
def test_messages_are_parsed_and_built_the_same_both_ways(
    cls: Any, head: bytes, data: bytes, more: int, first: int
) -> None:
    kind = bytes([(cls.bMessageType + first) & 0xFF])
    raw = kind + max(0, len(data) + more).to_bytes(4, "little") + head + data
    both(cls, lambda: cls.parse(raw))
    both(cls, lambda: cls.parse(raw).build())
    both(cls, lambda: cls.parse(raw[:8]))


VALUES = st.one_of(
    st.integers(-1, 300), st.binary(max_size=4), st.none(), st.booleans(), st.just(1.5)
)


@declared
class Mixed(Declared):
    """One field of each kind."""

    error = MalformedMessage

    a: Any = wire(Const(3, Byte), default=3)
    b: Any = wire(OneOf(Int16ul, (1, 2)), default=1)
    c: Any = wire(Bytes(2), default=bytes(2))
    d: Any = wire(Int32ul, default=0)
    e: Any = wire(GreedyBytes, default=b"")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys("abcde", VALUES)))
def test_values_that_do_not_fit_are_told_by_construct(values: dict[str, Any]) -> None:
    both(Mixed, lambda: Mixed(**values).build())


@given(st.binary(max_size=14))
def test_bytes_that_do_not_fit_are_told_by_construct(raw: bytes) -> None:
    both(Mixed, lambda: Mixed.parse(raw))
    both(Mixed, lambda: Mixed.parse(b"\3\1\0" + raw))


def test_the_judge_is_construct() -> None:
    """So the tests above compare with something."""
    raw = b"\3\1\0abcdefgh"
    assert parse(Mixed.layout, raw, Mixed) == vars_of(Mixed.parse(raw))
    assert build(Mixed.layout, vars_of(Mixed.parse(raw)), Mixed) == raw
    with pytest.raises(MalformedMessage, match="at b") as caught:
        Mixed.parse(b"\3\3\0abcdefgh")
    assert caught.value.field == "b"


def test_a_field_of_no_fixed_size_has_no_place_in_the_middle() -> None:
    odd = Layout(lambda c: c.If(c.this.a, c.Byte))
    for fields in ([("a", GreedyBytes), ("b", Byte)], [("a", Byte), ("b", odd)]):
        assert ShortWay.of(fields) is None
        with pytest.raises(TypeError, match="not of fixed size"):
            packer(fields)


FIRST_APDU = """\
import sys
import ccid
from ccid.codes import ExchangeLevel
from ccid.virtual import EchoCard, VirtualReader
with ccid.open_reader(VirtualReader(EchoCard(), level=ExchangeLevel.{level})) as reader:
    with reader.slots[0].connect() as card:
        card.transmit(bytes(4))
print("construct" in sys.modules)
"""


@pytest.mark.parametrize("level", ["TPDU", "SHORT_APDU"])
def test_no_construct_is_imported_up_to_the_first_response(level: str) -> None:
    """Its import takes some 10 ms, and the first response would wait for it."""
    run = subprocess.run(
        [sys.executable, "-c", FIRST_APDU.format(level=level)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["False"]
