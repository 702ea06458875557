"""ccid.aio has the names, parameters and docstrings of the classes that block: neither drifts.

A docstring is the same word for word, but for the words of :data:`WORDS`: where threads use one,
tasks use the other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid import aio
from ccid.device.tracing import Trace

PAIRS: list[tuple[type, type]] = [
    (ccid.Reader, aio.Reader),
    (ccid.Slot, aio.Slot),
    (ccid.Card, aio.Card),
    (ccid.StorageCard, aio.StorageCard),
    (ccid.Composite, aio.Composite),
    (Trace, aio.Trace),
]
FUNCTIONS = ("list_readers", "open_reader", "open_fd", "open_composite", "watch")
WORDS = [
    ("another thread", "another task"),
    ("The other thread", "The other task"),
    ("this thread", "this task"),
    ("other threads", "other tasks"),
    ("use ``with``", "use ``async with``"),
    ("``with card", "``async with card"),
    (":func:`ccid.open_reader`", ":func:`ccid.aio.open_reader`"),
    (":meth:`ccid.Reader.close`", ":meth:`ccid.aio.Reader.close`"),
    (":meth:`~ccid.device.tracing.Trace.stop`", ":meth:`~ccid.aio.Trace.stop`"),
    ("``next()``", "``anext()``"),
]
NOT_FOR_TASKS = {
    "Reader": {"retrace"},  # for ccid.device.tracing
    "Slot": {"activation"},  # for the IFD handler, which does the steps of a power-up one by one
    "Card": {"arm", "ended", "judge", "removed"},  # for control codes and the IFD handler
}
"""Methods for other modules of this project, which no application calls."""
SAID_OTHERWISE = {"Reader.listen"}
"""``tell`` is called in the loop."""
AT_ONCE = {"Slot.cancel"}
"""What never waits is no coroutine."""
RETURNS = {
    "Generator[Event, None, None]": "Watch",
    "AbstractContextManager[Any]": "AbstractAsyncContextManager[Any]",
}
"""What is returned instead."""
OPENINGS = {"Reader", "Card", "Composite", "Trace"}
"""What ``async with`` takes without an ``await`` before."""


def public(cls: type) -> dict[str, Any]:
    """The public methods and properties that a class defines."""
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }


def methods() -> list[tuple[str, Any, Any]]:
    """All methods and properties of both faces: name, the one that blocks, the one for tasks."""
    found = []
    for blocking, face in PAIRS:
        there = public(face)
        found += [
            (f"{face.__name__}.{name}", value, there[name])
            for name, value in public(blocking).items()
            if name in there
        ]
    return found


METHODS = methods()
ALL = [*METHODS, *((name, getattr(ccid, name), getattr(aio, name)) for name in FUNCTIONS)]
IDS = [name for name, _, _ in ALL]


def function(value: Any) -> Callable[..., Any]:
    """The function of a method or property."""
    made: Any = value.fget if isinstance(value, property) else value
    return made  # type: ignore[no-any-return]


def words(text: str | None) -> str:
    """A docstring in one line."""
    return " ".join((text or "").split())


@pytest.mark.parametrize(("blocking", "face"), PAIRS, ids=[face.__name__ for _, face in PAIRS])
def test_each_has_the_names_of_the_other(blocking: type, face: type) -> None:
    skipped = NOT_FOR_TASKS.get(face.__name__, set())
    assert skipped <= set(public(blocking))
    own = {name for name in public(face) if not hasattr(blocking, name)}
    # attributes of a slot or card are properties here: the object behind may change them
    attributes = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(blocking) or "", re.M))
    assert own - attributes == set()
    assert set(public(blocking)) - set(public(face)) == skipped
    assert hasattr(face, "__aenter__") is hasattr(blocking, "__enter__")


def test_the_public_names_are_those_of_the_other() -> None:
    assert {name for name in aio.__all__ if not hasattr(ccid, name)} == {"Trace", "Watch"}
    for name in FUNCTIONS:
        assert name in ccid.__all__


@pytest.mark.parametrize(("name", "blocking", "face"), ALL, ids=IDS)
def test_parameters(name: str, blocking: Any, face: Any) -> None:
    there, here = inspect.signature(function(blocking)), inspect.signature(function(face))
    assert list(here.parameters.values()) == list(there.parameters.values())
    assert isinstance(blocking, property) is isinstance(face, property)


@pytest.mark.parametrize(("name", "blocking", "face"), ALL, ids=IDS)
def test_results(name: str, blocking: Any, face: Any) -> None:
    there = inspect.signature(function(blocking)).return_annotation
    here = inspect.signature(function(face)).return_annotation
    if there in OPENINGS:
        assert here == f"Opening[{there}]"
    else:
        assert here == RETURNS.get(there, there)


@pytest.mark.parametrize(("name", "blocking", "face"), ALL, ids=IDS)
def test_docstrings(name: str, blocking: Any, face: Any) -> None:
    expected = blocking.__doc__
    for ours, theirs in WORDS:
        expected = expected.replace(ours, theirs)
    if name in SAID_OTHERWISE:
        assert words(face.__doc__)
        assert words(face.__doc__) != words(expected)
    else:
        assert words(face.__doc__) == words(expected)


def test_each_word_is_of_use() -> None:
    texts = [blocking.__doc__ for _, blocking, _ in ALL]
    assert [word for word, _ in WORDS if not any(word in text for text in texts)] == []


@pytest.mark.parametrize(("name", "blocking", "face"), METHODS, ids=[m[0] for m in METHODS])
def test_what_may_wait_is_awaited(name: str, blocking: Any, face: Any) -> None:
    """A method that uses the reader is a coroutine, or returns something for ``async with``. A
    property that uses the reader is a coroutine too: its docstring says that it raises."""
    returned = inspect.signature(function(face)).return_annotation
    is_awaited = inspect.iscoroutinefunction(function(face)) or returned.startswith(
        ("Opening[", "AbstractAsyncContextManager[")
    )
    if isinstance(face, property):
        assert is_awaited is ("Raises:" in words(face.__doc__))
    else:
        assert is_awaited is (name not in AT_ONCE)
